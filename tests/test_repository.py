"""What holds of the repository: arrows run one way, and the import graph of model/ is the syllabus, both read from the
source; what others read of it fits their schemas; one version everywhere; everything is formatted."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import jaxtyping
import pytest
import torch

import vit_walkthrough
from vit_walkthrough import attention_weights

PACKAGE = Path(vit_walkthrough.__file__).parent

# What a room, or a module of it that is named, may import of the package: rooms, or single modules.
ARROWS = {
    **{name: set() for name in ("model", "model.config", "model.patches", "model.tokens", "model.attention", "data")},
    "model.encoder": {"model.attention"},
    "model.vit": {"model.config", "model.patches", "model.tokens", "model.encoder"},
    "look": {"model"},
    "weights": {"model"},
    "train.loop": {"model", "data"},
    "train": {"model", "data", "weights.checkpoint"},
    "draw.plots": set(),
    "draw": {"model", "data", "look"},
    "living": {"model", "look", "draw", "weights.checkpoint"},
    "widgets": {"model", "data", "look", "weights", "train", "draw", "living"},
    "exercises": {"model.config"},  # and no stage: what a check compares with is written a second time
    "__init__": {"model", "look.trace"},
}

# Who alone may import a library.
LIBRARIES = {
    "ipywidgets": {"widgets"},
    "matplotlib": {"draw", "living", "widgets"},
    "timm": {"weights.published"},
    **{name: set() for name in ("transformers", "torchvision", "huggingface_hub")},
    **{name: {"weights.export"} for name in ("onnx", "onnxscript", "onnxruntime")},
}


# By module: model/vit.py is model.vit, model/__init__.py is model.
NAMES = {path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name.removesuffix(".__init__"): ast.parse(path.read_text(encoding="utf-8")) for path, name in NAMES.items()}


def imported(tree: ast.Module) -> set[str]:
    """Every module that is imported anywhere in the file, in full; `from a import b` counts as a and as a.b."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "the package's imports are absolute, so that a reader can copy them"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def arrows(tree: ast.Module) -> set[str]:
    """Of the imports the package's own modules; whatever else its root is asked for is __init__."""
    asked = [name.split(".")[1:] for name in imported(tree) if name.startswith("vit_walkthrough.")]
    known = [[".".join(parts[:length]) for length in (2, 1)] for parts in asked]
    return {next((name for name in names if name in TREES), "__init__") for names in known}


def within(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("module", TREES)
def test_arrows_run_one_way_and_libraries_stay_in_their_rooms(module):
    room = module.split(".")[0]
    row = ARROWS[module if module in ARROWS else room]
    # A folder's own files may import one another, but for the stages, whose rows say which; no circle: see below.
    inside = set() if module.startswith("model.") else {room} - {"__init__"}
    inside = {"exercises.check"} if module.startswith("exercises.") else inside  # each is built on the engine alone
    outside = {arrow for arrow in arrows(TREES[module]) if not within(arrow, row | inside)}
    assert not outside, f"{module} may import {sorted(row)} and no {sorted(outside)}"
    for library in {name.split(".")[0] for name in imported(TREES[module])} & LIBRARIES.keys():
        assert within(module, LIBRARIES[library]), library


def test_importing_brings_in_nothing_that_is_not_needed_yet():
    late = {"": {"matplotlib", "IPython", "sklearn", "PIL"}, ".train": {"matplotlib", "sklearn"}, ".draw": {"sklearn"}}
    code = "import sys\n" + "".join(f"import vit_walkthrough{room}\nprint(*sys.modules)\n" for room in late)
    run = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    for loaded, unwanted in zip(run.stdout.splitlines(), late.values(), strict=True):
        found = {name.split(".")[0] for name in loaded.split()}
        assert not found & (unwanted | LIBRARIES.keys() - {"matplotlib"})


def test_there_is_no_circle():
    # An __init__ that re-exports its own room is below no file of it.
    graph = {module: arrows(tree) - {module, module.partition(".")[0]} for module, tree in TREES.items()}
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("module", TREES)
def test_every_public_name_has_a_docstring_and_those_of_the_stages_and_of_trace_are_offered(module):
    assert ast.get_docstring(TREES[module])
    for node in TREES[module].body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_":
            assert ast.get_docstring(node), node.name
            if module.startswith("model.") or module == "look.trace":
                assert node.name in (*vars(vit_walkthrough), "divisors")


def test_modules_are_short():
    lines = {path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert sum(lines.values()) <= 6000
    assert max(lines.values()) <= 400


def test_the_signatures_are_checked_in_these_tests_but_where_one_asks_for_it(request):
    with pytest.raises(jaxtyping.TypeCheckError, match=r"parameters of .*attention_weights"):
        attention_weights(torch.rand(2, 3, 4), torch.rand(2, 5, 3))
    request.getfixturevalue("unchecked")
    with pytest.raises(RuntimeError, match="must match the size"):
        attention_weights(torch.rand(2, 3, 4), torch.rand(5, 5, 4))


ROOT = Path(__file__).parents[1]
SCHEMAS = {
    "github-workflows": ".github/workflows/*.yml",
    "dependabot": ".github/dependabot.yml",
    "github-issue-forms": ".github/ISSUE_TEMPLATE/[!c]*.yml",
    "github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
    "citation-file-format": "CITATION.cff",
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_file_that_others_read_fits_its_schema(schema):
    pytest.importorskip("check_jsonschema", reason="no check-jsonschema; pip install -r tests/requirements.txt")
    files = sorted(ROOT.glob(SCHEMAS[schema]))
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.returncode, done.stdout


def test_every_file_that_names_the_version_names_the_same():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), flags=re.M)[1] == version
    assert re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)[1] == version


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command):
    command = [sys.executable, "-m", "ruff", *command, "--no-cache", ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
