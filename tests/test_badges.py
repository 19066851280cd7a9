"""The links to Colab: where they go, that they come off again, and that nothing else moves."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vit_walkthrough import badges

ROOT = Path(__file__).parents[1]
NAMES = sorted(f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb"))
HERE = "https://colab.research.google.com/github/reader/fork/blob/main/"


@pytest.fixture
def root(tmp_path):
    """The README and three of the notebooks, without links."""
    (tmp_path / "notebooks").mkdir()
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines(keepends=True)
    for name in NAMES[3:]:
        lines = [line for line in lines if f"]({name})" not in line or not line.startswith("| [")]
    (tmp_path / "README.md").write_text("".join(lines), encoding="utf-8")
    for name in NAMES[:3]:
        shutil.copyfile(ROOT / name, tmp_path / name)
    badges.write(tmp_path, None)
    return tmp_path


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def title(root, name):
    cells = json.loads((root / name).read_bytes())["cells"]
    return "".join(next(cell for cell in cells if cell["cell_type"] == "markdown")["source"])


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        badges.main(list(arguments))
    assert ended.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1].removeprefix("python -m vit_walkthrough.badges: error: ")


def test_every_notebook_has_its_row():
    assert [match[3] for match in badges.ROW.finditer((ROOT / "README.md").read_text(encoding="utf-8"))] == NAMES


def test_links_are_written(root, capsys):
    before, titles = files(root), {name: title(root, name) for name in NAMES[:3]}
    badges.main(["reader/fork", "--root", str(root)])
    assert capsys.readouterr().out == (
        f"wrote links to reader/fork, branch main, into README.md, {', '.join(NAMES[:3])}\n"
    )
    after = files(root)
    readme = after["README.md"].decode()
    for name in NAMES[:3]:
        number = name.split("/")[1][:2]
        badge = f"[![Open {number} in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({HERE}{name})"
        assert f"\n| [{number}]({name}) {badge} | " in readme
        readme = readme.replace(f" {badge}", "")
        assert title(root, name) == f"{titles[name]}\n\n[Open in Colab]({HERE}{name})"
        # What was added to the file is that one line, as Jupyter writes it.
        added = [line for line in after[name].splitlines() if line not in before[name].splitlines()]
        assert len(added) <= 2
        assert sum("[Open in Colab]" in line.decode() for line in added) == 1
        assert len(after[name].splitlines()) - len(before[name].splitlines()) == 2
    assert readme.encode() == before["README.md"]


def test_a_notebook_shows_no_picture_that_would_be_requested(root):
    badges.write(root, "reader/fork")
    for name in NAMES[:3]:
        assert "![" not in title(root, name)
        assert "<img" not in title(root, name)


def test_a_second_time_changes_nothing(root, capsys):
    badges.write(root, "reader/fork")
    before = files(root)
    badges.main(["reader/fork", "--root", str(root)])
    assert capsys.readouterr().out == "nothing to change\n"
    assert files(root) == before


def test_another_address_replaces_the_first(root):
    badges.write(root, "author/vit", "old/branch")
    badges.write(root, "reader/fork")
    after = files(root)
    assert not [name for name, content in after.items() if b"author/vit" in content]
    badges.write(root, None)
    badges.write(root, "reader/fork")
    assert files(root) == after


def test_remove_gives_back_every_byte(root, capsys):
    before = files(root)
    badges.write(root, "reader/fork", "feature/heads")
    badges.main(["--remove", "--root", str(root)])
    assert files(root) == before
    assert capsys.readouterr().out == f"took the links out of README.md, {', '.join(NAMES[:3])}\n"
    badges.main(["--remove", "--root", str(root)])
    assert capsys.readouterr().out == "nothing to change\n"


def test_the_branch_is_in_every_link(root):
    badges.main(["reader/fork", "--branch", "feature/heads", "--root", str(root)])
    links = re.findall(rf"\(({badges.COLAB}/github/[^)]*)\)", (root / "README.md").read_text(encoding="utf-8"))
    assert links == [f"{badges.COLAB}/github/reader/fork/blob/feature/heads/{name}" for name in NAMES[:3]]


@pytest.mark.parametrize(
    "text",
    [
        "reader/fork",
        "https://github.com/reader/fork",
        "https://github.com/reader/fork/",
        "https://github.com/reader/fork.git",
        "http://www.github.com/reader/fork",
        "github.com/reader/fork",
    ],
)
def test_spellings_of_an_address(text):
    assert badges.repository(text) == "reader/fork"


@pytest.mark.parametrize("text", ["a-b_c/Vi.T-2_x", "a/b.git.c"])
def test_letters_of_an_address(text):
    assert badges.repository(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "reader",
        "",
        "reader/",
        "/fork",
        "reader/fork/more",
        "reader/..",
        "../fork",
        "-x/fork",
        "read er/fork",
        "reader/fork)",
        "https://gitlab.com/reader/fork",
        "https://github.com/reader",
        "https://github.com/reader/fork/tree/main",
        "reader/fork\n",
    ],
)
def test_what_is_no_address(root, capsys, text):
    before = files(root)
    assert refused(capsys, "--root", str(root), "--", text) == (
        f"{text!r} is no repository at GitHub; give OWNER/NAME or https://github.com/OWNER/NAME"
    )
    assert files(root) == before


@pytest.mark.parametrize("branch", ["", "-x", "..", "a..b", "two words", "a)b", "/a", "a\n"])
def test_what_is_no_branch(root, capsys, branch):
    before = files(root)
    message = refused(capsys, "reader/fork", f"--branch={branch}", "--root", str(root))
    assert message.startswith(f"the branch {branch!r} must start with a letter or a digit")
    assert files(root) == before


@pytest.mark.parametrize("arguments", [[], ["reader/fork", "--remove"]])
def test_either_an_address_or_remove(root, capsys, arguments):
    assert refused(capsys, *arguments, "--root", str(root)) == "give OWNER/NAME, or --remove"


def test_no_notebooks(root, capsys):
    shutil.rmtree(root / "notebooks")
    assert refused(capsys, "reader/fork", "--root", str(root)) == f"there are no notebooks in {root / 'notebooks'}"


def test_no_readme(root, capsys):
    (root / "README.md").unlink()
    assert refused(capsys, "reader/fork", "--root", str(root)) == f"there is no README.md in {root}"


def test_a_readme_without_the_table(root, capsys):
    (root / "README.md").write_text(
        "# Mine\n\n| question | answer |\n|---|---|\n| a | [00](notebooks/00_b.ipynb) c |\n"
    )
    assert refused(capsys, "reader/fork", "--root", str(root)).startswith("README.md has no table of notebooks")


def test_a_row_without_its_notebook(root, capsys):
    (root / NAMES[2]).unlink()
    before = files(root)
    assert (
        refused(capsys, "reader/fork", "--root", str(root)) == f"README.md has a row for {NAMES[2]}, which is not there"
    )
    assert files(root) == before


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"cells": []}', '{"cells": [{"cell_type": "code"}]}', "null"]
)
def test_what_is_no_notebook_leaves_all_as_it_was(root, capsys, content):
    (root / NAMES[2]).write_text(content)
    before = files(root)
    assert refused(capsys, "reader/fork", "--root", str(root)) == f"{NAMES[2]} is no notebook with a markdown cell"
    assert files(root) == before


def test_bytes_that_are_no_text(root, capsys):
    (root / NAMES[2]).write_bytes(b"\xff\xfe")
    assert refused(capsys, "reader/fork", "--root", str(root)).endswith("is not text in UTF-8")


def test_another_formatting_is_not_overwritten(root, capsys):
    (root / NAMES[2]).write_text(json.dumps(json.loads((root / NAMES[2]).read_bytes()), indent=2))
    before = files(root)
    assert refused(capsys, "reader/fork", "--root", str(root)).startswith(
        f"{NAMES[2]} is not formatted as Jupyter does it"
    )
    assert files(root) == before


def test_a_full_disk_leaves_all_as_it_was(root, capsys):
    resource = pytest.importorskip("resource", reason="limits files on Unix only")
    before, limit = files(root), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(map(len, before.values())), limit[1]))
    try:
        message = refused(capsys, "reader/fork", "--root", str(root))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert message.startswith("the links cannot be written; no file was damaged (")
    assert files(root) == before


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_line_ends_are_kept(root, end):
    for name, content in files(root).items():
        (root / name).write_bytes(content.rstrip(b"\n").replace(b"\n", b"\r\n") + end.replace(b"\n", b"\r\n"))
    before = files(root)
    assert len(badges.write(root, "reader/fork")) == 4
    assert all(content.count(b"\n") == content.count(b"\r\n") for content in files(root).values())
    badges.write(root, None)
    assert files(root) == before


def test_a_source_that_is_one_string_stays_one(root):
    content = json.loads((root / NAMES[0]).read_bytes())
    content["cells"][0]["source"] = "# Title"
    (root / NAMES[0]).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    badges.write(root, "reader/fork")
    source = json.loads((root / NAMES[0]).read_bytes())["cells"][0]["source"]
    assert source == f"# Title\n\n[Open in Colab]({HERE}{NAMES[0]})"


def test_only_the_links_of_this_command_are_taken_for_such(root):
    readme = root / "README.md"
    mine = "\nSee [Open in Colab](https://colab.research.google.com/github/a/b) and ![x](images/vit.png).\n"
    readme.write_text(readme.read_text(encoding="utf-8") + mine, encoding="utf-8")
    badges.write(root, "reader/fork")
    badges.write(root, None)
    assert readme.read_text(encoding="utf-8").endswith(mine)


def test_the_command_works_on_its_own_clone(root):
    package = root / "vit_walkthrough"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("badges.py", "files.py"):
        shutil.copyfile(Path(badges.__file__).with_name(name), package / name)
    command = [sys.executable, "-m", "vit_walkthrough.badges", "reader/fork"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert HERE in (root / "README.md").read_text(encoding="utf-8")
