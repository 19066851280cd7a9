"""The first cell of every notebook, run as in Colab: the sessions server, GitHub and pip are stood in for."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.skipif(
    os.name == "nt" or not shutil.which("git"), reason="git and a shell, which Colab has, are not here"
)
ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def first_cell(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return next(cell for cell in cells if cell["cell_type"] == "code")


CELL = "".join(first_cell(NOTEBOOKS[0])["source"])

# A Python that has nothing but its standard library runs the cell. It notes every process that is started and every
# connection that is asked for, here and in no child of it.
RUNNER = """
import sys, types
from pathlib import Path

colab, log, cell, executable, *path = sys.argv[1:]
if colab == "True":
    sys.modules["google"] = types.ModuleType("google")
    sys.modules["google.colab"] = types.ModuleType("google.colab")

def audit(event, arguments):
    if event.split(".")[0] == "socket" or event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        with open(log, "a") as file:
            print(event, arguments, file=file)

sys.addaudithook(audit)
sys.path[:0] = ["", *path]
sys.executable = executable
before, modules = list(sys.path), set(sys.modules)
names = {"__name__": "__main__"}
exec(compile(Path(cell).read_text(), "first cell", "exec"), names)
assert not {"torch", "numpy"} & (set(sys.modules) - modules)
added = [entry for entry in sys.path if entry not in before]
import vit_walkthrough
print("added", added)
print("package", vit_walkthrough.__file__, vit_walkthrough.WHICH)
exec(compile(Path(cell).read_text(), "first cell", "exec"), names)
assert sorted(sys.path) == sorted(before + added), "a second run in the same kernel adds nothing"
"""


def session(repository="reader/fork", branch="main", name="04_one_head", quoted=True):
    address = f"https://github.com/{repository}/blob/{branch}/notebooks/{name}.ipynb"
    encoded = address.replace(":", "%3A").replace("/", "%2F") if quoted else address
    return {"id": "1", "name": f"{name}.ipynb", "path": f"fileId={encoded}", "type": "notebook", "kernel": {"id": "k"}}


DRIVE = {"id": "2", "name": "Copy of 04_one_head.ipynb", "path": "fileId=1AbC_d-EfG", "type": "notebook"}


@pytest.fixture
def colab(tmp_path):
    """Everything outside the cell: a folder as the kernel's, stand-ins for curl, hostname and pip, git's own GitHub."""
    content, tools, github, log = (tmp_path / name for name in ("content", "tools", "github", "log"))
    for folder in (content, tools, github):
        folder.mkdir()
    answer, pip = tmp_path / "answer", tmp_path / "pip"
    answer.write_text("[]")

    def tool(name, script):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
        return str(tools / name)

    tool("hostname", "echo 172.28.0.12")
    tool("curl", f'echo "curl $*" >> "{log}"\ntest -e "{answer}" || exit 7\ncat "{answer}"')
    python = tool("python", f'echo "$*" >> "{pip}"\ntest ! -e "{tmp_path}/no-index"')

    environment = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"url.{github.as_uri()}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        "GIT_CONFIG_KEY_1": "protocol.file.allow",
        "GIT_CONFIG_VALUE_1": "always",
    }

    def git(*arguments, cwd):
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *who, *arguments], cwd=cwd, env=environment, check=True, capture_output=True)

    def repository(name, branch="main", package="vit_walkthrough"):
        """One more branch of a repository, with a package that says which it is."""
        here = github / name
        if not here.exists():
            here.mkdir(parents=True)
            git("init", "-q", cwd=here)
        git("checkout", "-q", "--orphan", branch, cwd=here)
        (here / package).mkdir(exist_ok=True)
        (here / package / "__init__.py").write_text(f"WHICH = '{name} {branch}'\n")
        git("add", "-A", cwd=here)
        git("commit", "-q", "-m", branch, cwd=here)

    def run(*, sessions=None, text=None, inside=True, jaxtyping=False, cwd=content):
        if sessions is not None or text is not None:
            answer.write_text(json.dumps(sessions) if text is None else text)
        for file in (log, pip):
            file.unlink(missing_ok=True)
        (tmp_path / "cell.py").write_text(CELL)
        path = [tmp_path / "library"] if jaxtyping else []
        for folder in path:
            folder.mkdir(exist_ok=True)
            (folder / "jaxtyping.py").touch()
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", RUNNER, str(inside), log, tmp_path / "cell.py", python, *path],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        noted = log.read_text() if log.exists() else ""
        return SimpleNamespace(
            done=done,
            fetched=[line for line in done.stdout.splitlines() if line.startswith("Fetching")],
            package=next((line for line in done.stdout.splitlines() if line.startswith("package")), None),
            noted=noted,
            clones=[line for line in noted.splitlines() if "'clone'" in line],
            asked=[line for line in noted.splitlines() if line.startswith("curl")],
            pip=pip.read_text().splitlines() if pip.exists() else [],
        )

    return SimpleNamespace(run=run, repository=repository, content=content, answer=answer, root=tmp_path)


def refused(result):
    """The cell ended in its one line, which says what to do, and in no exception behind it."""
    last = result.done.stderr.strip().splitlines()[-1]
    assert result.done.returncode == 1
    assert last.startswith("ModuleNotFoundError: ")
    assert "pip install -r requirements.txt" in last
    assert "!git clone --depth 1 https://github.com/OWNER/NAME vit-walkthrough" in last
    assert result.done.stderr.count("Traceback") == 1
    assert result.package is None
    return True


# ------------------------------------------------------------------------------------------- the cell, as a document


def test_the_first_code_cell_is_the_same_in_every_notebook():
    cells = [first_cell(path) for path in NOTEBOOKS]
    assert [cell["source"] for cell in cells] == [cells[0]["source"]] * len(cells)
    assert [cell["metadata"] for cell in cells] == [cells[0]["metadata"]] * len(cells)
    assert all(cell["outputs"] == [] for cell in cells)


def test_it_is_short_and_says_what_it_is():
    lines = CELL.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 96
    assert lines[0].startswith("# ")


# --------------------------------------------------------------------------------------------------- outside Colab


@pytest.mark.parametrize("where", ["installed", "above"])
def test_outside_colab_it_finds_the_package_without_a_word_or_a_request(colab, where):
    clone = colab.root / "clone"
    (clone / "notebooks").mkdir(parents=True)
    package = (colab.root / "library" if where == "installed" else clone) / "vit_walkthrough"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("WHICH = 'here'\n")
    result = colab.run(inside=False, jaxtyping=True, cwd=clone / "notebooks")
    assert result.done.stderr == ""
    added = [] if where == "installed" else [str(clone)]
    assert result.done.stdout.splitlines() == [f"added {added}", f"package {package / '__init__.py'} here"]
    assert result.noted == ""
    assert result.pip == []


def test_what_a_renamed_clone_left_behind_is_not_taken_for_the_package(colab):
    (colab.root / "library" / "vit_walkthrough" / "photos").mkdir(parents=True)
    (colab.root / "renamed" / "vit_walkthrough").mkdir(parents=True)
    (colab.root / "renamed" / "vit_walkthrough" / "__init__.py").write_text("WHICH = 'above'\n")
    (colab.root / "renamed" / "notebooks").mkdir()
    result = colab.run(inside=False, jaxtyping=True, cwd=colab.root / "renamed" / "notebooks")
    assert result.package.endswith("above"), result.done.stderr


def test_a_left_folder_alone_is_no_package_either(colab):
    (colab.root / "library" / "vit_walkthrough" / "photos").mkdir(parents=True)
    assert refused(colab.run(inside=False, jaxtyping=True))


def test_outside_colab_a_missing_package_is_one_line_and_no_request(colab):
    colab.repository("reader/fork")
    result = colab.run(sessions=[session()], inside=False)
    assert refused(result)
    assert result.done.stdout == ""
    assert result.noted == ""


# ---------------------------------------------------------------------------------------------------------- in Colab


def test_a_fork_is_fetched_from_where_the_notebook_was_opened(colab):
    colab.repository("author/vit")
    colab.repository("reader/fork")
    result = colab.run(sessions=[session("reader/fork")])
    assert result.done.returncode == 0, result.done.stderr
    assert result.done.stderr == ""
    assert result.package.endswith("reader/fork main")
    assert result.fetched == ["Fetching https://github.com/reader/fork, branch main."]
    clone = colab.content / "vit-walkthrough"
    assert (clone / ".git" / "shallow").exists()
    assert f"added {[str(clone)]}" in result.done.stdout
    assert len(result.clones) == 1
    assert len(result.asked) == 1
    assert "http://172.28.0.12:9000/api/sessions" in result.asked[0]


@pytest.mark.parametrize(
    ("branch", "quoted"),
    [("feature/heads", True), ("a/b/notebooks/c", False), ("blob/main", True), ("v1.0", False)],
)
def test_a_branch_may_have_slashes(colab, branch, quoted):
    colab.repository("reader/fork")
    colab.repository("reader/fork", branch)
    result = colab.run(sessions=[session("reader/fork", branch, quoted=quoted)])
    assert result.package.endswith(f"reader/fork {branch}"), result.done.stderr


@pytest.mark.parametrize("name", ["vit-walkthrough", "vit.walk-through_2", "notebooks"])
def test_the_repository_may_have_any_name(colab, name):
    colab.repository(f"some-body/{name}")
    result = colab.run(sessions=[session(f"some-body/{name}")])
    assert result.package.endswith(f"some-body/{name} main"), result.done.stderr
    again = colab.run()
    assert again.package == result.package


def test_of_several_sessions_the_one_from_github_counts(colab):
    colab.repository("reader/fork")
    other = session("someone/else", name="other") | {
        "path": "fileId=https%3A%2F%2Fgithub.com%2Fsomeone%2Felse%2Fblob%2Fmain%2Fintro.ipynb"
    }
    result = colab.run(sessions=[DRIVE, other, session("reader/fork")])
    assert result.package.endswith("reader/fork main")


def test_a_new_kernel_does_not_clone_or_ask_again(colab):
    colab.repository("reader/fork")
    first = colab.run(sessions=[session()], jaxtyping=True)
    (colab.content / "vit-walkthrough" / "mine.txt").write_text("kept")
    colab.answer.unlink()
    second = colab.run(jaxtyping=True)
    assert second.package == first.package
    assert second.noted == ""
    assert second.fetched == []
    assert (colab.content / "vit-walkthrough" / "mine.txt").read_text() == "kept"


def test_jaxtyping_and_nothing_else_is_installed_where_it_is_missing(colab):
    colab.repository("reader/fork")
    (colab.content / "requirements.txt").write_text("torch==0.1\n")
    result = colab.run(sessions=[session()])
    # Twice, because the cell ran twice and what stands in for pip installs nothing.
    assert result.pip == ["-m pip install -q jaxtyping"] * 2
    assert colab.run(sessions=[session()], jaxtyping=True).pip == []


# ------------------------------------------------------------------------------------------------------ cannot tell


@pytest.mark.parametrize("text", ["", "[]", "null", "<html>404</html>", '[{"name": 3}]', "\x00\xff %ZZ", "[" * 5000])
def test_an_answer_that_tells_nothing(colab, text):
    result = colab.run(text=text)
    assert refused(result)
    assert result.clones == []
    assert result.pip == []


def test_a_copy_in_drive(colab):
    assert refused(colab.run(sessions=[DRIVE]))


def test_the_line_s_own_advice_works_for_a_copy_in_drive(colab):
    colab.repository("reader/fork")
    (colab.root / "advice.git").symlink_to(colab.root / "github" / "reader" / "fork")
    assert refused(colab.run(sessions=[DRIVE]))
    subprocess.run(
        ["git", "clone", "-q", "--depth", "1", (colab.root / "advice.git").as_uri(), "vit-walkthrough"],
        cwd=colab.content,
        check=True,
    )
    result = colab.run(sessions=[DRIVE])
    assert result.package.endswith("reader/fork main")
    assert result.pip


@pytest.mark.parametrize(
    ("repository", "branch"),
    [
        ("reader/fork", "--upload-pack=touch${IFS}broken"),
        ("reader/fork", "../main"),
        ("reader/fork", "$(touch broken)"),
        ("--upload-pack=x/fork", "main"),
        ("../fork", "main"),
        ("reader/--config", "main"),
        ("reader@elsewhere.example/fork", "main"),
        ("reader/fork/deeper", "main"),
    ],
)
def test_names_that_are_no_names_never_reach_git(colab, repository, branch):
    colab.repository("reader/fork")
    result = colab.run(sessions=[session(repository, branch, quoted=False)])
    assert refused(result)
    assert result.clones == []
    assert not list(colab.content.iterdir())


def test_only_github_counts(colab):
    colab.repository("reader/fork")
    for host in ("https://gitlab.com", "https://github.com.elsewhere.example", "http://github.com", "file://"):
        path = f"fileId={host}/reader/fork/blob/main/notebooks/04_one_head.ipynb"
        result = colab.run(sessions=[{"name": "04_one_head.ipynb", "path": path}])
        assert refused(result)
        assert result.clones == []


@pytest.mark.parametrize(
    ("repository", "branch"), [("reader/gone", "main"), ("reader/fork", "gone"), ("reader/fork", "a..b")]
)
def test_a_clone_that_fails_is_the_one_line(colab, repository, branch):
    colab.repository("reader/fork")
    result = colab.run(sessions=[session(repository, branch)])
    assert refused(result)
    assert len(result.clones) == 1
    assert result.pip == []


def test_a_repository_without_the_package_is_the_one_line(colab):
    colab.repository("reader/other", package="something")
    assert refused(colab.run(sessions=[session("reader/other")]))


def test_where_pip_fails_its_own_error_is_seen(colab):
    colab.repository("reader/fork")
    (colab.root / "no-index").touch()
    result = colab.run(sessions=[session()])
    assert result.done.returncode == 1
    assert "jaxtyping" in result.done.stderr.strip().splitlines()[-1]


def test_the_runner_notices_a_request(colab, monkeypatch):
    """The hook that the tests above rely on sees a connection and a process."""
    reckless = textwrap.dedent("""
        import socket, subprocess
        subprocess.run(["true"])
        try:
            socket.create_connection(("127.0.0.1", 9), timeout=0.1)
        except OSError:
            pass
    """)
    monkeypatch.setitem(globals(), "CELL", reckless)
    result = colab.run(inside=False)
    assert "subprocess.Popen" in result.noted
    assert "socket.connect" in result.noted
