"""The import graph is the syllabus: which module may know which, read from the source."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch

import vit_walkthrough
from vit_walkthrough import MultiHeadSelfAttention, ViTConfig, attention_weights, patchify

PACKAGE = Path(vit_walkthrough.__file__).parent


def name_of(path: Path) -> str:
    """A file's module, as the package sees it: plots.py is plots, widgets/panel.py widgets.panel."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in PACKAGE.rglob("*.py")}
MODULES = sorted(FILES)

STAGES = {"config", "patches", "tokens", "attention", "encoder", "model"}
# The table of DESIGN.md. A stage may import what its row says; who builds on the whole model, any stage.
ALLOWED = {
    "config": set(),
    "patches": set(),
    "tokens": set(),
    "attention": set(),
    "encoder": {"attention"},
    "model": {"config", "patches", "tokens", "encoder"},
    "trace": STAGES,
    "explain": STAGES | {"trace"},
    "data": set(),
    "files": set(),
    "training": STAGES | {"data", "pretrained"},
    "finetuning": STAGES,
    "experiments": STAGES | {"data", "files", "training"},
    "convert": STAGES,
    "published": STAGES | {"convert", "data"},
    "pretrained": STAGES | {"convert", "files", "published"},
    "plots": set(),
    "specimen": STAGES | {"data"},
    "drawing": {"plots"},
    "animation": {"config", "drawing", "plots", "specimen"},
    "gallery": STAGES | {"trace", "explain", "data", "training", "pretrained", "plots", "specimen", "drawing"},
    "diagrams": {"config", "drawing", "plots", "specimen", "animation", "gallery"},
    "explorer": {"plots", "trace"},
    "checks": {"config", "plots"},  # and no stage: what a check compares with is written a second time
    "badges": {"files"},
    "__init__": STAGES | {"trace"},
}
ALLOWED["widgets"] = set(ALLOWED) - {"checks", "badges", "gallery", "__init__"}
# widgets is a folder: each of its files may import what the row says, and of the folder only what comes before it.
WIDGETS = {
    "widgets.panel": set(),
    "widgets.pictures": {"widgets.panel"},
    "widgets.stages": {"widgets.panel", "widgets.pictures"},
    "widgets.models": {"widgets.panel", "widgets.pictures"},
}
ALLOWED |= {module: ALLOWED["widgets"] | row for module, row in WIDGETS.items()}
ALLOWED["widgets"] = ALLOWED["widgets"] | set(WIDGETS)
# So is checks: a file a subject, each built on checks.trial, none on another.
CHECKS = {module for module in MODULES if module.startswith("checks.")}
ALLOWED |= {module: ALLOWED["checks"] | ({"checks.trial"} - {module}) for module in CHECKS}
ALLOWED["checks"] = ALLOWED["checks"] | CHECKS


def tree_of(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imports_of(tree: ast.Module, folder: str = "vit_walkthrough") -> set[str]:
    """Every module that is imported anywhere in the file, in full; `from a import b` counts as a and as a.b.

    folder: in which the file lies, from where dots lead up.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            here = folder.split(".")[: len(folder.split(".")) + 1 - node.level] if node.level else []
            origin = ".".join(filter(None, [*here, node.module]))
            found |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
    return found


def imported_by(module: str) -> set[str]:
    return imports_of(tree_of(module), ".".join(["vit_walkthrough", *FILES[module].relative_to(PACKAGE).parts[:-1]]))


def internal(names: set[str]) -> set[str]:
    """Of the imported names the package's own modules; whatever else the package's root is asked for is __init__."""
    modules, known = set(), {*MODULES, *ALLOWED}
    for name in names:
        root, *rest = name.split(".")
        if root == "vit_walkthrough" and rest:
            folder, inside = rest[0], ".".join(rest[:2])
            modules.add(inside if inside in known else folder if folder in known else "__init__")
    return modules


def external(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def public(tree: ast.Module) -> list:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import vit_walkthrough.draw.plots", {"plots"}),
        ("import vit_walkthrough.draw.plots as p, torch", {"plots"}),
        ("from vit_walkthrough.draw import plots", {"plots"}),
        ("from vit_walkthrough.draw.plots import show", {"plots"}),
        ("from . import plots", {"plots"}),
        ("from .plots import show", {"plots"}),
        ("from vit_walkthrough import record", {"__init__"}),
        ("def late():\n    from vit_walkthrough.exercises import check_patchify", {"checks"}),
        ("import torch", set()),
        ("import vit_walkthrough.widgets", {"widgets"}),
        ("from vit_walkthrough import widgets", {"widgets"}),
        ("from vit_walkthrough.widgets import panel", {"widgets", "widgets.panel"}),
        ("from vit_walkthrough.widgets import Panel", {"widgets"}),
        ("from vit_walkthrough.widgets.panel import Panel", {"widgets.panel"}),
        ("import vit_walkthrough.widgets.panel", {"widgets.panel"}),
    ],
)
def test_no_spelling_of_an_import_goes_unseen(line, expected):
    assert internal(imports_of(ast.parse(line))) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from . import panel", {"widgets", "widgets.panel"}),
        ("from .panel import Panel", {"widgets.panel"}),
        ("from .. import plots", {"plots"}),
        ("from ..plots import show", {"plots"}),
    ],
)
def test_no_spelling_of_an_import_inside_a_folder_goes_unseen(line, expected):
    assert internal(imports_of(ast.parse(line), "vit_walkthrough.widgets")) == expected


def test_every_file_is_looked_at():
    assert len(FILES) == len(list(PACKAGE.rglob("*.py")))
    assert {"__init__", "plots", "widgets", *WIDGETS} <= set(MODULES)
    assert {module for module in MODULES if "." in module} == set(WIDGETS) | CHECKS
    assert "checks.trial" in CHECKS


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_the_design_allows(module):
    assert module in ALLOWED, f"{module}.py has no row in the table of DESIGN.md"
    assert internal(imported_by(module)) <= ALLOWED[module]


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_widgets_checks_or_badges(module):
    known = {name.split(".")[0] for name in internal(imported_by(module))}
    assert not known & {"widgets", "checks", "badges"} - {module.split(".")[0]}


@pytest.mark.parametrize("module", sorted({"badges"} | ALLOWED["badges"]))
def test_badges_needs_nothing_but_the_standard_library(module):
    assert external(imported_by(module)) - {"vit_walkthrough"} <= sys.stdlib_module_names


def test_the_gallery_is_imported_only_when_the_readme_s_pictures_are_written():
    assert [module for module in MODULES if "gallery" in internal(imported_by(module))] == ["diagrams"]
    at_once = [node for node in tree_of("diagrams").body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert "gallery" not in internal(imports_of(ast.Module(at_once, [])))


@pytest.mark.parametrize("module", [module for module in MODULES if module.split(".")[0] != "widgets"])
def test_only_widgets_imports_ipywidgets(module):
    assert "ipywidgets" not in external(imported_by(module))


@pytest.mark.parametrize("module", sorted({*STAGES, "trace", "explain", "data", "specimen"}))
def test_what_draws_nothing_imports_no_matplotlib(module):
    assert "matplotlib" not in external(imported_by(module))


@pytest.mark.parametrize("module", sorted({"plots", "drawing", "animation", "diagrams", "gallery"}))
def test_what_draws_knows_no_torch(module):
    assert "torch" not in external(imported_by(module))


def test_the_table_has_no_circle():
    done, left = set(), dict(ALLOWED)
    while left:
        ready = {module for module, row in left.items() if row <= done}
        assert ready, f"these import each other: {sorted(left)}"
        done |= ready
        left = {module: row for module, row in left.items() if module not in ready}


def test_importing_the_package_brings_in_nothing_to_draw_with():
    heavy = {"matplotlib", "ipywidgets", "IPython", "sklearn", "PIL", "torchvision", "timm", "transformers"}
    code = "import sys, vit_walkthrough; print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert {"vit_walkthrough", "torch"} <= loaded
    assert not loaded & heavy


def test_all_lists_every_public_name_of_the_stages_and_of_trace():
    defined = {node.name for module in (*STAGES, "trace") for node in public(tree_of(module))}
    assert set(vit_walkthrough.__all__) == defined - {"divisors"}
    assert len(vit_walkthrough.__all__) == len(set(vit_walkthrough.__all__))
    imported = {
        name for name, value in vars(vit_walkthrough).items() if inspect.isroutine(value) or inspect.isclass(value)
    }
    assert set(vit_walkthrough.__all__) == imported


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_a_docstring(module):
    tree = tree_of(module)
    assert ast.get_docstring(tree), module
    for node in public(tree):
        assert ast.get_docstring(node), f"{module}.{node.name}"


@pytest.mark.parametrize("module", sorted(STAGES))
def test_the_signature_of_every_stage_is_a_table_of_shapes(module):
    for node in ast.walk(tree_of(module)):
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        without = [argument.arg for argument in arguments if argument.annotation is None]
        assert set(without) <= {"self", "cls"}, f"{module}.{node.name}"
        assert node.returns is not None, f"{module}.{node.name}"


def test_the_signatures_are_checked_in_these_tests(tokens):
    with pytest.raises(jaxtyping.TypeCheckError, match=r"parameters of .*attention_weights"):
        attention_weights(torch.rand(2, 3, 4), torch.rand(2, 5, 3))
    with pytest.raises(jaxtyping.TypeCheckError, match=r"parameters of .*patchify"):
        patchify(torch.rand(3, 12, 20), 4)
    with pytest.raises(jaxtyping.TypeCheckError, match=r"parameters of .*ViTConfig.__init__"):
        ViTConfig(pooling="max")
    attention = MultiHeadSelfAttention(32, 4)
    attention.dropout = torch.nn.Flatten()
    with pytest.raises(jaxtyping.TypeCheckError, match=r"return value of .*MultiHeadSelfAttention.forward"):
        attention(tokens)


@pytest.mark.usefixtures("unchecked")
def test_the_signatures_are_not_checked_where_a_test_asks_for_it():
    with pytest.raises(RuntimeError, match="must match the size"):
        attention_weights(torch.rand(2, 3, 4), torch.rand(5, 5, 4))


@pytest.mark.parametrize("module", [module for module in MODULES if module in {*STAGES, "trace"}])
def test_annotations_are_read_at_run_time(module):
    assert "__future__.annotations" not in imported_by(module)
    assert importlib.import_module(f"vit_walkthrough.{module}").__doc__
