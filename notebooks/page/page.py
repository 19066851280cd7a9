"""A notebook as one page that needs no network: pip install -r site/requirements.txt, and then, at the top of a clone,

jupyter nbconvert --to html --config notebooks/page/page.py notebooks/*.ipynb
"""

import re
from html import unescape
from pathlib import Path

from latex2mathml.converter import convert
from nbconvert.filters import markdown2html


def page(source: str) -> str:
    """Markdown as HTML: formulas as MathML, which browsers set themselves, and neighbours as the pages they become."""
    html = re.sub(r'href="(?!https?:)([^"#]+)\.ipynb', r'href="\1.html', markdown2html(source))
    for pattern, display in (
        (r"\$\$(.+?)\$\$", "block"),
        (r"(?<![\w\\])\$([^$\n]+?)\$", "inline"),
    ):
        html = re.sub(
            pattern,
            lambda found, how=display: convert(unescape(found[1]), display=how),
            html,
            flags=re.S,
        )
    return html


c = get_config()  # noqa: F821  nbconvert provides it
c.TemplateExporter.extra_template_basedirs = [str(Path(__file__).parents[1])]
c.HTMLExporter.template_name = "page"
c.HTMLExporter.filters = {"markdown2html": page}
