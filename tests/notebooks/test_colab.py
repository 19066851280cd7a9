"""The first cell of every notebook, run as in Colab: the sessions server, GitHub and pip are replaced by stand-ins."""

import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.notebooks.test_notebooks import NOTEBOOKS, load

pytestmark = pytest.mark.skipif(os.name == "nt" or not shutil.which("git"), reason="Colab has git and a shell")


def first_cell(path):
    return next(cell for cell in load(path)["cells"] if cell["cell_type"] == "code")


CELL = "".join(first_cell(NOTEBOOKS[0])["source"])

# A Python that has nothing but its standard library runs the cell. It notes every process that is started and every
# connection that is asked for, here and in no child of it.
RUNNER = """
import subprocess, sys, types
from pathlib import Path

colab, log, cell, advice, library = sys.argv[1:]
if colab == "True":
    sys.modules["google"] = types.ModuleType("google")
    sys.modules["google.colab"] = types.ModuleType("google.colab")

def audit(event, arguments):
    if event.split(".")[0] == "socket" or event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        with open(log, "a") as file:
            print(event, arguments, file=file)

sys.addaudithook(audit)
sys.path[:0] = ["", library]
before, names = list(sys.path), {"__name__": "__main__"}

def run():
    exec(compile(Path(cell).read_text(), cell, "exec"), names)

try:
    run()
except ModuleNotFoundError:
    if not advice:
        raise
    subprocess.run(advice, shell=True, check=True)
    run()
added = [entry for entry in sys.path if entry not in before]
print("added", added)
print("package", Path(names["vit_walkthrough"].__file__).resolve(), names["vit_walkthrough"].WHICH)
run()
assert sorted(sys.path) == sorted(before + added), "a second run in the same kernel adds nothing"
"""

GITCONFIG = """
[url "{github}/"] insteadOf = https://github.com/
[protocol "file"] allow = always
[user] name = a
[user] email = a@b
"""


def session(repository="reader/fork", branch="main", quoted=True, host="https://github.com"):
    """One of the sessions that Colab's server lists: of a notebook that was opened from GitHub."""
    address = f"{host}/{repository}/blob/{branch}/notebooks/04_one_head.ipynb"
    encoded = address.replace(":", "%3A").replace("/", "%2F") if quoted else address
    return {"id": "1", "name": "04_one_head.ipynb", "path": f"fileId={encoded}", "type": "notebook"}


DRIVE = {"id": "2", "name": "Copy of 04_one_head.ipynb", "path": "fileId=1AbC_d-EfG", "type": "notebook"}
BRANCHES = {"reader/fork": "main", "reader/vit-walkthrough": "blob/main", "some-body/vit.walk-thru_2": "a/notebooks/c"}


@pytest.fixture(scope="module")
def github(tmp_path_factory):
    """A folder in the place of GitHub, and a home whose git looks there. Each package says where it comes from."""
    home = tmp_path_factory.mktemp("github")
    (home / ".gitconfig").write_text(GITCONFIG.format(github=home.as_uri()))
    for name, branch in (BRANCHES | {"reader/other": "main"}).items():
        package = home / name / ("something" if name == "reader/other" else "vit_walkthrough")
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"import jaxtyping\nWHICH = '{name} {branch}'\n")
        (package / "data.py").touch()
        for command in ("init -q", f"checkout -q --orphan {branch}", "add -A", "commit -q -m first"):
            environment = {"HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]}
            subprocess.run(["git", *command.split()], cwd=home / name, env=environment, check=True, capture_output=True)
    return home


@pytest.fixture
def colab(tmp_path, github):
    """Everything outside the cell: a folder as the kernel's, stand-ins for curl, hostname and pip."""
    content, tools, library = (tmp_path / name for name in ("content", "tools", "library"))
    for folder in (content, tools, library):
        folder.mkdir()
    answer, pip, log = (tmp_path / name for name in ("answer", "pip", "log"))

    def tool(name, script):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)

    tool("hostname", "echo 172.28.0.12")
    tool("curl", f'echo "curl $*" >> "{log}"\ntest -e "{answer}" || exit 7\ncat "{answer}"')
    install = f'test ! -e "{tmp_path}/no-index" && touch "{library}/jaxtyping.py"'
    tool("pip", f'echo "$*" >> "{pip}"\n{install} || echo "No matching distribution" >&2')
    environment = dict(HOME=str(github), GIT_CONFIG_NOSYSTEM="1", GIT_TERMINAL_PROMPT="0")
    environment["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"

    def run(told="[]", inside=True, advice="", cwd=content):
        answer.write_text(told if isinstance(told, str) else json.dumps(told))
        for file in (log, pip):
            file.unlink(missing_ok=True)
        (tmp_path / "cell.py").write_text(CELL)
        command = [sys.executable, "-I", "-S", "-c", RUNNER, str(inside), log, tmp_path / "cell.py", advice, library]
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)
        noted = log.read_text() if log.exists() else ""
        return SimpleNamespace(
            done=done,
            package=next((line for line in done.stdout.splitlines() if line.startswith("package")), None),
            noted=noted,
            clones=[line for line in noted.splitlines() if "git clone" in line],
            asked=[line for line in noted.splitlines() if line.startswith("curl")],
            pip=pip.read_text().splitlines() if pip.exists() else [],
        )

    return SimpleNamespace(run=run, content=content, root=tmp_path)


def refused(result):
    """The cell ended in one error. The line that the traceback shows, the last of the cell, says what to do."""
    trace = result.done.stderr[result.done.stderr.index("Traceback") :].splitlines()
    [line] = [line for line in trace if line.strip().startswith("import vit_walkthrough")]
    assert result.done.returncode == 1
    assert trace[-1].startswith("ModuleNotFoundError: No module named 'vit_walkthrough")
    assert "pip install -r requirements.txt" in line
    assert "!git clone --depth 1 https://github.com/OWNER/NAME vit-walkthrough && pip install -q jaxtyping" in line
    assert result.done.stderr.count("Traceback") == 1
    return result.package is None


def test_the_first_code_cell_is_the_same_in_every_notebook():
    cells = [[first_cell(path)[part] for part in ("source", "metadata", "outputs")] for path in NOTEBOOKS]
    assert cells == [[*cells[0][:2], []]] * len(cells)


def test_a_fork_is_fetched_once_from_where_the_notebook_was_opened(colab):
    (colab.content / "requirements.txt").write_text("torch==0.1\n")
    intro = {"name": "other.ipynb", "path": "fileId=https%3A%2F%2Fgithub.com%2Fsomeone%2Felse%2Fblob%2Fmain%2Fin.ipynb"}
    result = colab.run([DRIVE, intro, session("reader/fork")])
    assert (result.done.returncode, result.done.stderr) == (0, "Cloning into 'vit-walkthrough'...\n")
    assert result.package.endswith("reader/fork main")
    clone = colab.content / "vit-walkthrough"
    assert (clone / ".git" / "shallow").exists()
    assert "added ['vit-walkthrough']" in result.done.stdout
    assert (len(result.clones), len(result.asked), result.pip) == (1, 1, ["install -q jaxtyping"])
    assert "http://172.28.0.12:9000/api/sessions" in result.asked[0]

    (clone / "mine.txt").write_text("kept")
    again = colab.run()  # a new kernel
    assert (again.package, again.noted, again.pip) == (result.package, "", [])
    assert (clone / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize(("repository", "quoted"), [("reader/vit-walkthrough", True), ("some-body/vit.walk-thru_2", 0)])
def test_a_branch_may_have_slashes_and_the_repository_any_name(colab, repository, quoted):
    result = colab.run([session(repository, BRANCHES[repository], quoted)])
    assert result.package.endswith(f"{repository} {BRANCHES[repository]}"), result.done.stderr


def test_the_line_s_own_advice_works_for_a_copy_in_drive(colab):
    assert refused(colab.run([DRIVE]))
    advice = re.search(r"In Colab: !(.+), then this cell again", CELL)[1].replace("OWNER/NAME", "reader/fork")
    result = colab.run([DRIVE], advice=advice)  # in the same kernel
    assert result.package.endswith("reader/fork main"), result.done.stderr


NAMES = ["--upload-pack=x/fork", "reader@elsewhere.example/fork", "reader/--config", "reader/fork/deeper"]
BAD = [(name, "main") for name in NAMES]
BAD += [("reader/fork", branch) for branch in ("--upload-pack=touch${IFS}broken", "$(touch broken)")]


@pytest.mark.parametrize(("repository", "branch"), BAD)
def test_names_that_are_no_names_never_reach_git(colab, repository, branch):
    result = colab.run([session(repository, branch, quoted=False)])
    assert refused(result)
    assert (result.clones, list(colab.content.iterdir())) == ([], [])
