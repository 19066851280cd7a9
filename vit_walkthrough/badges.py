"""Links that open the notebooks in Colab, for a clone that has an address on GitHub.

python -m vit_walkthrough.badges OWNER/NAME puts a badge into every row of the README's table of notebooks, and a link
without a picture (opening a notebook requests nothing) under the title of every notebook that the table names. With
another address it replaces them, with --remove it takes them out. Nothing else in the files changes, not by one byte.
"""

import argparse
import json
import re
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

from vit_walkthrough.files import replacing

COLAB = "https://colab.research.google.com"
ROW = re.compile(
    r"^(\| \[(\d\d)\]\((notebooks/[^()\s]+\.ipynb)\))( \[!\[[^]\n]*\]\([^)\s]*\)\]\([^)\s]*\))?(?= \|)", re.M
)
LINK = re.compile(rf"\n\n\[Open in Colab\]\({re.escape(COLAB)}/[^)\s]*\)(?=\n|\Z)")
# What the notebooks' first cell takes for an owner, a name and a branch.
ADDRESS = re.compile(r"(?:(?:https?://)?(?:www\.)?github\.com/)?(\w[\w-]*)/(\w[\w.-]*?)(?:\.git)?/?", re.A)
BRANCH = re.compile(r"\w(?:[\w/-]|\.(?!\.))*", re.A)


def repository(text: str) -> str:
    """OWNER/NAME, from just that or from a whole address at GitHub.

    Raises: ValueError for anything else.
    """
    match = ADDRESS.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no repository at GitHub; give OWNER/NAME or https://github.com/OWNER/NAME")
    return "/".join(match.groups())


def address(repository: str, branch: str, path: str) -> str:
    """Where Colab opens a notebook of a repository at GitHub.

    Raises: ValueError for a branch that the notebooks' first cell would not fetch.
    """
    if not BRANCH.fullmatch(branch):
        raise ValueError(
            f"the branch {branch!r} must start with a letter or a digit and have only those and . _ / - in it"
        )
    return f"{COLAB}/github/{repository}/blob/{quote(branch)}/{quote(path)}"


def with_badges(readme: str, repository: str | None, branch: str = "main") -> str:
    """The README with a badge in every row of its table of notebooks, or, for no repository, with none."""

    def row(match: re.Match) -> str:
        start, number, path, _ = match.groups()
        if repository is None:
            return start
        badge = f"[![Open {number} in Colab]({COLAB}/assets/colab-badge.svg)]"
        return f"{start} {badge}({address(repository, branch, path)})"

    return ROW.sub(row, readme)


def with_link(notebook: str, path: str, repository: str | None, branch: str = "main") -> str:
    """A notebook's file with a link at the end of its first markdown cell, or, for no repository, with none.

    Raises: ValueError for what is no notebook, has no markdown cell, or is not formatted as Jupyter does it.
    """
    try:
        content = json.loads(notebook)
        cell = next(cell for cell in content["cells"] if cell["cell_type"] == "markdown")
        lines = cell["source"]
    except (ValueError, LookupError, TypeError, StopIteration):
        raise ValueError(f"{path} is no notebook with a markdown cell") from None
    newline = "\r\n" if "\r\n" in notebook else "\n"
    end = notebook[len(notebook.rstrip()) :]

    def file() -> str:
        return json.dumps(content, indent=1, ensure_ascii=False).replace("\n", newline) + end

    if file() != notebook:
        raise ValueError(f"{path} is not formatted as Jupyter does it; open it in JupyterLab and save it")
    source = LINK.sub("", "".join(lines))
    if repository is not None:
        source += f"\n\n[Open in Colab]({address(repository, branch, path)})"
    cell["source"] = source if isinstance(lines, str) else source.splitlines(keepends=True)
    return file()


def write(root: Path, repository: str | None, branch: str = "main") -> list[str]:
    """Write the links into the README and the notebooks under `root`, all or none; for no repository, take them out.

    Returns the names of the files that changed.
    Raises: ValueError where there is no table of notebooks, or a notebook that it names is not there or cannot be read;
    OSError where the files cannot be written.
    """
    if not any((root / "notebooks").glob("*.ipynb")):
        raise ValueError(f"there are no notebooks in {root / 'notebooks'}")
    if not (root / "README.md").is_file():
        raise ValueError(f"there is no README.md in {root}")
    before = {"README.md": _read(root / "README.md")}
    paths = [match[3] for match in ROW.finditer(before["README.md"])]
    if not paths:
        raise ValueError(
            "README.md has no table of notebooks: no row begins like | [00](notebooks/00_start_here.ipynb) |"
        )
    for path in paths:
        if not (root / path).is_file():
            raise ValueError(f"README.md has a row for {path}, which is not there")
        before[path] = _read(root / path)
    after = {
        path: with_badges(text, repository, branch)
        if path == "README.md"
        else with_link(text, path, repository, branch)
        for path, text in before.items()
    }
    names = [path for path in before if after[path] != before[path]]
    with ExitStack() as written:  # all are written before the first takes its place
        for path in names:
            written.enter_context(replacing(root / path)).write_bytes(after[path].encode())
    return names


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8") from None


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m vit_walkthrough.badges", description="Write links that open the notebooks in Colab."
    )
    parser.add_argument("repository", nargs="?", metavar="OWNER/NAME", help="where this clone is at GitHub")
    parser.add_argument("--branch", default="main", help="the branch to open (default: main)")
    parser.add_argument("--remove", action="store_true", help="take the links out")
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).resolve().parents[1], help="another clone than this"
    )
    options = parser.parse_args(arguments)
    if (options.repository is None) != options.remove:
        parser.error("give OWNER/NAME, or --remove")
    try:
        where = None if options.remove else repository(options.repository)
        names = write(options.root, where, options.branch)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"the links cannot be written; no file was damaged ({error})")
    what = "took the links out of" if options.remove else f"wrote links to {where}, branch {options.branch}, into"
    print(f"{what} {', '.join(names)}" if names else "nothing to change")


if __name__ == "__main__":
    main()
