"""mutmut, fitted to this package by what it has no option for. The arguments are mutmut's own.

By itself mutmut leaves decorated functions alone, as record, occlusion and the curves are, and tries the tests in no
order.
"""

import sys

import libcst as cst
from mutmut.__main__ import cli
from mutmut.mutation import file_mutation
from mutmut.runners.harness import PytestRunner
from mutmut.state import state

skips = file_mutation.MutationVisitor._skip_node_and_children
arrange = file_mutation.function_trampoline_arrangement
execute, run_tests = PytestRunner.execute_pytest, PytestRunner.run_tests


def skips_no_decorated_function(visitor, node: cst.CSTNode) -> bool:
    if isinstance(node, cst.Decorator):
        return True
    return skips(visitor, node.with_changes(decorators=[]) if isinstance(node, cst.FunctionDef) else node)


def arrange_bare_copies(function: cst.FunctionDef, mutants, class_name: str | None):
    """What chooses between a function and its mutants stands under the decorators, so that the copies need none."""
    declared, (chooser, *copies), assigned, names = arrange(function, mutants, class_name)
    return declared, [chooser, *(copy.with_changes(decorators=[]) for copy in copies)], assigned, names


def execute_with_one_hook(runner, params: list[str], **options) -> int:
    """Where a mutant is tried, the package is imported already, with the import hook of jaxtyping, and the plugin would
    refuse to install it once more."""
    hooked = ["--jaxtyping-packages="] if "vit_walkthrough" in sys.modules else []
    return execute(runner, [*params, *hooked], **options)


def run_own_tests_first(runner, *, mutant_name: str | None, tests) -> int:
    """The tests of the mutant's own room (the folder of its module's name in tests), the fastest first. Only if they
    notice nothing, the others: they are in more files, whose collection takes longer than the tests themselves."""
    if not mutant_name:
        return run_tests(runner, mutant_name=mutant_name, tests=tests)
    own = f"tests/{mutant_name.split('.')[1]}/"
    order = sorted(tests, key=lambda test: state().duration_by_test[test])
    rooms = [test for test in order if test.startswith(own)], [test for test in order if not test.startswith(own)]
    for some in rooms:
        if some and (code := run_tests(runner, mutant_name=mutant_name, tests=some)):
            return code
    return 0


if __name__ == "__main__":
    file_mutation.MutationVisitor._skip_node_and_children = skips_no_decorated_function
    file_mutation.function_trampoline_arrangement = arrange_bare_copies
    PytestRunner.execute_pytest, PytestRunner.run_tests = execute_with_one_hook, run_own_tests_first
    cli()
