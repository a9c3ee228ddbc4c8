"""index.html: one file that opens from disk and loads nothing, with tables, figures and origins."""

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import chain

from jinja2 import Environment, StrictUndefined, Template

from bench.reporting.comparison import Comparison
from bench.reporting.context import days
from bench.reporting.figures import beside
from bench.reporting.figures.drawing import COLORS, INK, MUTED, RULE, SURFACE, Drawing
from bench.reporting.html.grid import grid
from bench.reporting.html.origin import origins
from bench.reporting.notes import machine
from bench.reporting.table import Table

MOST = 10_000
"""Entries of a table beyond which the page names it instead of showing it."""

_CLOSED = frozenset({
    "equal-budget", "other-checkpoints", "win-tie-loss", "differences", "samples", "training",
    "overlap", "data", "missing", "made", "trainings",
})  # fmt: skip
_THEMED = {
    COLORS[0]: "blue",
    COLORS[1]: "orange",
    COLORS[2]: "green",
    COLORS[-1]: "muted",
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    SURFACE: "ground",
}
_SIZE = re.compile(r'<svg [^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>')


def page(
    c: Comparison,
    tables: Sequence[Table],
    figures: Sequence[Drawing] = (),
    *,
    title: str = "Encoders compared",
    answer: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> str:
    """Return the page.

    Args:
        c: The results, for the first lines and for the origins of numbers.
        tables: The report's tables, in the order of the page.
        figures: The report's figures; one that could not be drawn is named with the reason.
        title: Its headline.
        answer: Sentences that stand first.
        methods: What the rows are about, where they are not about encoders.
    """
    shown = [table for table in tables if len(table.rows) * len(table.columns) <= MOST]
    rows = chain(*(table.rows for table in shown))
    keys = {entry.key for entry in chain(*rows)}
    script = _read("page.js")
    sections = []
    for table in tables:
        section = {
            "table": table,
            "grid": grid(table, c, methods) if table in shown else None,
            "figures": [(each, _inline(each)) for each in beside(table.name, tables, figures)],
            "open": table.name.rstrip("-0123456789") not in _CLOSED,
        }
        sections.append(section)
    return _template().render(
        title=title,
        answer=answer,
        c=c,
        days=days(c),
        machines=sorted({machine(r.provenance.get("machine") or {}) for r in c.runs.result} - {""}),
        sections=sections,
        names=[table.name for table in tables],
        absent=[figure for figure in figures if figure.figure is None],
        subject="methods" if methods else "encoders",
        subjects=list(methods or c.encoders.title),
        families=sorted(set(c.tasks.family)),
        data={"drawers": origins(c, keys - {""})},
        style=_read("page.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _inline(drawing: Drawing) -> str:
    """Return a figure as SVG in the page's own colours, or as PNG where that is much smaller."""
    svg, png = _themed(drawing), base64.b64encode(drawing.png).decode()
    if len(svg) <= 1.5 * len(png):  # SVG stays sharp, follows the theme and shows its numbers
        return svg
    width = int.from_bytes(drawing.png[16:20], "big") * 72 // 160
    return f'<img src="data:image/png;base64,{png}" alt="" style="--width:{width}pt">'


def _themed(drawing: Drawing) -> str:
    svg = drawing.svg.decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\n\s*", " ", svg).replace("> <", "><")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{drawing.name}-", svg)
    svg = re.sub("|".join(_THEMED), lambda found: f"var(--{_THEMED[found[0]]})", svg)
    return _SIZE.sub(r'<svg viewBox="0 0 \1 \2" style="--width:\1pt" role="group">', svg, count=1)


def _read(name: str) -> str:
    return (files(__name__) / name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return environment.from_string(_read("index.html"))
