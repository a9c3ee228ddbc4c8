"""index.html: one file that opens from disk and asks the network for nothing, with tables, figures and where each number comes from."""

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from bench.report.cells import Cells
from bench.report.figures.drawing import COLORS, INK, MUTED, RULE, SURFACE, TRAINED, Drawing
from bench.report.html.drawer import drawers
from bench.report.html.grid import Names, grid
from bench.report.html.summary import summary
from bench.report.table import Table

if TYPE_CHECKING:
    from jinja2 import Template

MOST = 30_000
"""Entries of a table beyond which the page names it instead of showing it."""

_THEMED = {
    TRAINED: "trained",
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    SURFACE: "ground",
    COLORS[-1]: "muted",
}
_NATURAL = re.compile(r'<svg [^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>')


def page(cells: Cells, tables: Sequence[Table], figures: Sequence[Drawing] = ()) -> str:
    """Return the page.

    Args:
        cells: The results, for the summary and for where numbers come from.
        tables: The report's tables, in the order of the page.
        figures: The report's figures; one without its data is named with the reason.
    """
    names = Names.of(cells)
    grids = [
        grid(table, names) if len(table.rows) * len(table.columns) <= MOST else None
        for table in tables
    ]
    keys = {
        entry.key
        for table, made in zip(tables, grids, strict=True)
        if made
        for row in table.rows
        for entry in row
        if entry.key
    }
    script = _file("page.js")
    return _template().render(
        summary=summary(cells, tables),
        tables=list(zip(tables, grids, strict=True)),
        figures=[(figure, _inlined(figure)) for figure in figures if figure.figure is not None],
        absent=[figure for figure in figures if figure.figure is None],
        encoders=names.encoders,
        families=names.families,
        data={"drawers": drawers(cells, keys)},
        style=_file("page.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _inlined(drawing: Drawing) -> str:
    """Return a figure as the smaller of SVG, in the page's own colours and with ids of its own, and PNG."""
    svg, png = _themed(drawing), base64.b64encode(drawing.png).decode()
    if len(svg) <= 1.5 * len(
        png
    ):  # an SVG stays sharp, follows the theme and tells its numbers, which is worth some bytes
        return svg
    width = int.from_bytes(drawing.png[16:20], "big") * 72 // 160
    return f'<img src="data:image/png;base64,{png}" alt="" style="--width:{width}pt">'


def _themed(drawing: Drawing) -> str:
    svg = drawing.svg.decode()
    svg = re.sub(
        r"<!--.*?-->|<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL
    )
    svg = re.sub(r"\n\s*", " ", svg).replace("> <", "><")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{drawing.name}-", svg)
    svg = re.sub("|".join(_THEMED), lambda found: f"var(--{_THEMED[found[0]]})", svg)
    return _NATURAL.sub(
        r'<svg viewBox="0 0 \1 \2" style="--width:\1pt" role="group">', svg, count=1
    )


def _file(name: str) -> str:
    return (files(__name__) / name).read_text(encoding="utf-8")


@cache
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return environment.from_string(_file("index.html"))
