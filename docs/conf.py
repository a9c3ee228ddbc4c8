"""The documentation: Markdown, a reference from docstrings, commands from the app, no network.

``make docs`` builds it into ``build/docs``. Equations become MathML, which browsers draw alone.
"""

import re
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

HERE = Path(__file__).parent
log = logging.getLogger(__name__)

project = "encoder-recipes-bench"
author = "the authors of encoder-recipes-bench"
html_title = project
html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["math.css"]
templates_path: list[str] = []

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
exclude_patterns = ["build"]


def write_commands() -> None:
    """Write commands.md from the app itself."""
    target = HERE / "commands.md"
    command = [sys.executable, "-m", "typer", "bench.cli", "utils", "docs", "--name", "bench"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    _, _, body = text.partition("\n")
    intro = "# Commands\n\nGenerated from the program; `bench COMMAND --help` prints the same.\n"
    made = intro + body
    if not target.exists() or target.read_text(encoding="utf-8") != made:
        target.write_text(made, encoding="utf-8")


def visit_math(self: HTML5Translator, node: nodes.Element) -> None:
    """Write an equation as MathML, in the text or on a line of its own."""
    block = isinstance(node, nodes.math_block)
    tex = re.sub(r"\\dots\b", r"\\ldots", node.astext())  # the one common name that it lacks
    try:
        self.body.append(tex2mathml(tex, as_block=block))
    except MathError as error:
        log.warning("%s in %s", error, tex, location=node)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register the equations, and write what is generated."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    write_commands()
