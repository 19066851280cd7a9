"""The web site of the notebooks, as they are committed: nothing is executed, and no page asks another server.

pip install -r site/requirements.txt && sphinx-build -W -b html site build/site
"""

import base64
import hashlib
import json
import os
import re
import shutil
from copy import deepcopy
from html import escape
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

HERE = Path(__file__).parent
NOTEBOOKS, STAGED = HERE.parent / "notebooks", HERE / "notebooks"  # STAGED is made anew by every build

project = "The Vision Transformer, walked through"
author = "the authors of the walkthrough"
copyright = "the authors, MIT licence"
extensions = ["myst_nb", "sphinx_design"]
exclude_patterns = ["build", "README.md"]
templates_path = ["_templates"]
nitpicky = True
suppress_warnings = ["myst.header"]  # a question may stand below a smaller heading

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4

html_theme = "sphinx_book_theme"
html_title = "ViT walkthrough"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_show_search_summary = False  # it would fetch pages, which does not work from a disk
html_copy_source = False
# On GitHub, the workflow that publishes the site says whose it is.
OWNER, _, NAME = os.environ.get("GITHUB_REPOSITORY", "").partition("/")
html_context = {
    "address": f"https://{OWNER}.github.io/{NAME}/" if NAME else "",
    "home": f"/{NAME}/" if NAME else "index.html",
    "default_mode": "auto",
}
html_additional_pages = {"404": "404.html"}
html_theme_options = {
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
}


def stage() -> None:
    """Copy the notebooks to where Sphinx reads, their pictures as files of their own.

    Raises: ValueError for a notebook that was not executed, and for a picture without alternative text.
    """
    shutil.rmtree(STAGED, ignore_errors=True)
    for path in sorted(NOTEBOOKS.rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        notebook = json.loads(path.read_text(encoding="utf-8"))
        target = STAGED / path.relative_to(NOTEBOOKS)
        target.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * len(target.relative_to(HERE).parent.parts)
        for number, cell in enumerate(notebook["cells"]):
            if cell["cell_type"] != "code":
                continue
            if cell["execution_count"] is None:
                raise ValueError(
                    f"{path.name}, cell {number} was not executed; run the notebook and commit its outputs"
                )
            folded = cell["metadata"].get("jupyter", {})
            if folded.get("source_hidden"):
                tag = "hide-cell" if folded.get("outputs_hidden") else "hide-input"
                cell["metadata"].setdefault("tags", []).append(tag)
                title = re.match(r"# (?:@title )?(.*)", "".join(cell["source"]))[1]
                cell["metadata"]["mystnb"] = {"code_prompt_show": title, "code_prompt_hide": title}
            for output in cell["outputs"]:
                output["data"] = shown(output, f"{path.name}, cell {number}", up) if "data" in output else None
                if output["data"] is None:
                    del output["data"]
        target.write_text(json.dumps(notebook), encoding="utf-8")
    (picture,) = [html for html in living(NOTEBOOKS / "00_start_here.ipynb") if "function steps(" in html]
    # The first page shows the still at once, and fetches what makes it live when it stands.
    still, data, code = re.split(r'<script type="application/json">|</script><script>', picture.removesuffix(END))
    (STAGED / "_draw.html").write_text(
        f'<div id="write-a-digit">{still}</div></div><script defer src="_static/draw.js"></script>', encoding="utf-8"
    )
    opened = json.dumps(json.loads(data) | {"own": True})  # on the pad
    (STAGED / "_pictures/draw.js").write_text(OPEN % (json.dumps(opened), code), encoding="utf-8")
    shutil.copy(HERE.parent / "images/vit.png", STAGED / "_pictures/card.png")
    (STAGED / "questions").mkdir(exist_ok=True)
    shutil.copy(NOTEBOOKS / "questions/README.md", STAGED / "questions/index.md")


END = "</script></div>"
OPEN = """{
  const root = document.querySelector(".vit-living"), data = document.createElement("script");
  data.type = "application/json";
  data.textContent = %s;
  root.append(data);
}
%s
"""


def living(path: Path) -> list[str]:
    """The living pictures of a notebook, as HTML."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    shown = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    return [html for data in shown if "vit-living" in (html := "".join(data.get("text/html", "")))]


def shown(output: dict, where: str, up: str) -> dict:
    """What a page shows of an output: HTML where there is some, else the picture as a file, else the text."""
    data = output["data"]
    if "text/html" in data or "image/png" not in data:
        return data
    facts = output["metadata"].get("image/png", {})
    if not facts.get("alt"):
        raise ValueError(f"{where}: a picture without alternative text")
    png = base64.b64decode("".join(data["image/png"]))
    file = STAGED / "_pictures" / f"{hashlib.sha256(png).hexdigest()[:16]}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png)
    wide, high = (int.from_bytes(png[at : at + 4]) for at in (16, 20))  # its pixels
    width = facts.get("width", wide)
    room = f' width="{width}" height="{round(width * high / wide)}"'  # kept free before the file has come
    note = "<p><em>A control panel. It needs a kernel: run this notebook in Colab or in a clone.</em></p>"
    panel = note if "application/vnd.jupyter.widget-view+json" in data else ""
    picture = f'<img src="{up}_static/{file.name}" alt="{escape(facts["alt"])}"{room} loading="lazy">'
    return {"text/html": picture + panel}


def mathml(self, node: nodes.math | nodes.math_block) -> None:
    """Formulas as MathML, which browsers set themselves."""
    block = isinstance(node, nodes.math_block)
    formula = convert(node.astext(), display="block" if block else "inline")
    self.body.append(f'<div class="formula" tabindex="0">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def defer(app, page, template, context, doctree) -> None:
    """Let the text appear before the scripts run. The search page's own scripts want theirs first."""
    if page == "search":
        return
    context["script_files"] = deepcopy(context["script_files"])
    for script in context["script_files"]:
        if script.filename and "documentation_options" not in script.filename:
            script.attributes["defer"] = "defer"


def setup(app) -> None:
    app.connect("html-page-context", defer, priority=900)
    app.add_node(nodes.math, html=(mathml, None), override=True)
    app.add_node(nodes.math_block, html=(mathml, None), override=True)


stage()
html_static_path.append("notebooks/_pictures")
