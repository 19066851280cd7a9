"""The notebooks as documents: executed, described, welded to the package. That they run is nbval's part."""

import ast
import base64
import importlib
import inspect
import json
import re
import sys
from pathlib import Path

import pytest

import vit_walkthrough

ROOT = Path(__file__).parents[2]
STORY = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUESTIONS = sorted((ROOT / "notebooks/questions").glob("*.ipynb"))
NOTEBOOKS = STORY + QUESTIONS
README = (ROOT / "README.md").read_text()

# What a notebook defines and the package owns, line for line: the module, of model/ if no room is named, and the names.
WELDED = {
    "01_image_to_patches": {"patches": ["patchify", "unpatchify"]},
    "02_patches_to_tokens": {"patches": ["PatchEmbedding"], "tokens": ["ClassToken"]},
    "03_positions": {"tokens": ["sincos_positions", "PositionEmbedding", "resample_positions"]},
    "04_one_head": {"attention": ["attention_weights", "attend", "SelfAttention"]},
    "06_encoder_block": {"encoder": ["MLP", "EncoderBlock", "Encoder"]},
    "07_whole_vit": {"vit": ["ClassificationHead", "VisionTransformer"]},
    "11_built_otherwise": {
        "train.successors": [
            *("Registers", "registers", "Rotary", "rotary", "RelativeBias"),
            *("AttentionPooled", "attention_pooling", "Windows", "windows", "reach", "convolutions", "in_attention"),
        ],
    },
    "12_trained_otherwise": {"train.successors": ["TwoHeads", "Student"], "train.masked": ["MaskedAutoencoder"]},
}
# The package adds the fused kernel and the named points: equal by behaviour, which the notebook asserts itself.
WELDED_BY_BEHAVIOUR = {"05_many_heads": {"attention": ["MultiHeadSelfAttention"]}}
# The notebook that builds a stage; those before it do without.
BUILT_IN = {"patches": 1, "tokens": 2, "attention": 4, "encoder": 6, "vit": 7}


def load(path):
    return json.loads(path.read_text())


def sources(notebook, kind):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def code(notebook):
    return ast.parse("\n\n".join(sources(notebook, "code")))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: f"questions {path.stem}" if path in QUESTIONS else path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return load(path)


@pytest.fixture
def story(path, notebook):
    if path in QUESTIONS:
        pytest.skip("the reference has neither exercises nor an order")
    return notebook


def test_executed_from_top_to_bottom_without_an_error_a_warning_or_a_path_of_a_machine(path, notebook):
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [one for one in outputs if one["output_type"] == "error" or one.get("name") == "stderr"]
    text = json.dumps([[output.get("text"), output.get("data", {}).get("text/plain")] for output in outputs])
    assert not re.search(r"(?<![\w:/.<])/(?:[\w.-]+/){2,}[\w.-]+", text)
    assert path.stat().st_size < 1_000_000  # GitHub shows no larger one


def test_every_picture_says_what_it_shows_and_every_widget_has_one_beside_it(notebook):
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", []) if "data" in output]
    pictures = [output for output in outputs if "image/png" in output["data"]]
    assert pictures
    for picture in pictures:
        alt = picture["metadata"]["image/png"]["alt"]
        assert len(alt.split()) >= 8
        assert "".join(picture["data"]["text/plain"]) == alt
        assert base64.b64decode("".join(picture["data"]["image/png"]))[:4] == b"\x89PNG"
    assert "widgets" not in notebook["metadata"]
    widgets = [output for output in outputs if "application/vnd.jupyter.widget-view+json" in output["data"]]
    assert all(widget in pictures for widget in widgets)


def test_what_it_claims_it_asserts(notebook):
    tests = [node.test for node in ast.walk(code(notebook)) if isinstance(node, ast.Assert)]
    assert len(tests) >= 5
    assert not [ast.unparse(test) for test in tests if isinstance(test, (ast.Constant, ast.Tuple))]


def test_it_starts_with_its_question_and_its_links_lead_somewhere(path, notebook):
    begin = r"# Questions about .+\n" if path in QUESTIONS else r"# \d\d · .+\?\n"
    assert re.match(begin, sources(notebook, "markdown")[0])
    for source in sources(notebook, "markdown"):
        for target in re.findall(r"\]\(((?!http)[^)#]+)", source):
            assert (path.parent / target).exists(), target


def test_the_story_asks_no_library_but_torch_and_einops_so_that_others_are_tried_through_the_package(path, story):
    asked = [node for node in ast.walk(code(story)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", node.names[0].name).split(".")[0] for node in asked}
    files = {"numpy", "safetensors"} if path.stem == "10_real_weights" else set()
    assert names <= {"torch", "einops", "vit_walkthrough", "notebooks"} | sys.stdlib_module_names | files


def cells_of_exercises(notebook):
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown" and re.match(rf"### {len(found) + 1} · ", "".join(cell["source"])):
            found.append([])
        if found:
            found[-1].append(cell)
    return found


def printed(cell):
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def checked(cell):
    nodes = ast.walk(ast.parse("".join(cell["source"])))
    calls = [(ast.unparse(node.func), node.args) for node in nodes if isinstance(node, ast.Call)]
    return [(name, ast.unparse(given[0])) for name, given in calls if name.startswith("check_")]


def test_an_exercise_has_a_hole_a_hint_and_a_hidden_solution_which_goes_through_the_same_check(story):
    assert any('live(\n    "predict"' in source for source in sources(story, "code"))  # a question before an answer
    assert 2 <= len(cells_of_exercises(story)) <= 4
    for cells in cells_of_exercises(story):
        heading = "".join(cells[0]["source"]).splitlines()[0]
        code_cells = [cell for cell in cells if cell["cell_type"] == "code"]
        hole = next(cell for cell in code_cells if checked(cell))
        solved = next(cell for cell in code_cells if "".join(cell["source"]).startswith("# @title Solution"))
        ((check, name),) = checked(hole)
        assert checked(solved) == [(check, "solution")], heading
        assert "..." in "".join(hole["source"]), heading
        assert printed(hole).startswith(f"○ {name} "), heading
        assert printed(solved).startswith("✓ "), heading
        folded = {"outputs_hidden": True, "source_hidden": True}  # what the check says gives the answer away, too
        assert solved["metadata"] == {"cellView": "form", "jupyter": folded}, heading
        (hint,) = [cell for cell in cells if "<summary>Hint</summary>" in "".join(cell["source"])]
        assert cells.index(hole) < cells.index(hint) < cells.index(solved), heading


class Bare(ast.NodeTransformer):
    """Docstrings, annotations and guards (an if that only raises, a call of a _check) taken off a definition."""

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_FunctionDef(self, node):
        node.returns = None
        return self.visit_ClassDef(node)

    def visit_ClassDef(self, node):
        self.generic_visit(node)
        node.body = [statement for statement in node.body if not self.is_beside_the_point(statement)]
        return node

    @staticmethod
    def is_beside_the_point(statement):
        match statement:
            case ast.If(body=[*_, ast.Raise()], orelse=[]):
                return True
            case ast.Assign(targets=[ast.Name("expected")]):  # what a guard compares with
                return True
            case ast.Expr(ast.Call(func)):
                return ast.unparse(func).startswith("_check")
        return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def bare(definition):
    return ast.unparse(Bare().visit(ast.parse(ast.unparse(definition))))


def definitions(tree):
    return {node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def owned(module):
    module = module if "." in module else f"model.{module}"
    source = inspect.getsource(importlib.import_module(f"vit_walkthrough.{module}"))
    return definitions(ast.parse(source))


@pytest.mark.parametrize(
    ("name", "module", "definition"),
    [(name, module, d) for name, modules in WELDED.items() for module, ds in modules.items() for d in ds],
)
def test_the_reader_writes_what_the_package_has(name, module, definition):
    written = definitions(code(load(ROOT / "notebooks" / f"{name}.ipynb")))[definition]
    assert bare(written) == bare(owned(module)[definition])


def test_a_notebook_imports_no_later_stage_and_what_it_defines_under_a_stage_s_name_is_welded(path, story):
    number = int(path.stem[:2]) or 99  # 00 shows the whole
    for node in code(story).body:
        if isinstance(node, ast.ImportFrom) and node.module == "vit_walkthrough":
            for name in (alias.name for alias in node.names):
                stage = getattr(vit_walkthrough, name).__module__.split(".")[-1]
                assert BUILT_IN.get(stage, 0) <= number, name
    stages = {name: module for module in BUILT_IN for name in owned(module) if not name.startswith("_")}
    welded = {**WELDED, **WELDED_BY_BEHAVIOUR}.get(path.stem, {})
    for name in definitions(code(story)).keys() & stages.keys():
        assert name in welded.get(stages[name], []), f"{name} is defined here and in model/{stages[name]}.py"


def test_the_readme_names_every_notebook_from_00_and_the_list_of_questions_every_question_under_its_notebook():
    assert [path.stem[:2] for path in STORY] == [f"{number:02}" for number in range(len(STORY))]
    assert all(f"notebooks/{path.name}" in README for path in STORY)
    listed = (ROOT / "notebooks/questions/README.md").read_text(encoding="utf-8")
    parts = iter(re.split(r"^## \[.+\]\((.+\.ipynb)\)$", listed, flags=re.M)[1:])
    named = {name: re.findall(r"^- (.+)$", part, flags=re.M) for name, part in zip(parts, parts, strict=True)}
    asked = {path.name: "\n".join(sources(load(path), "markdown")) for path in QUESTIONS}
    assert named == {name: re.findall(r"^## (.+)$", text, flags=re.M) for name, text in asked.items()}
    assert "notebooks/questions/README.md" in README
