"""A table as text: Markdown, CSV, LaTeX with booktabs, JSON. All of them print the same entries."""

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.report.table import Entry, Table

if TYPE_CHECKING:
    import pandas as pd

_MARKS = {"tie": "†", "warning": "‡"}
_LEGEND = {"tie": "†: tied with the best", "warning": "‡: see the note to the number"}
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "†": r"$^\dagger$", "‡": r"$^\ddagger$", "—": "---",
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def markdown(table: Table) -> str:
    """Return a section: headline, what is shown, the table, notes and every warning in words."""
    frame = _frame(table, lambda entry: _marked(entry, "**{}**"))
    sides = ["left" if column in table.words else "right" for column in table.columns]
    safe = frame.rename(columns=_barless).map(_barless)
    grid = (
        str(safe.to_markdown(index=False, disable_numparse=True, colalign=sides)) + "\n"
        if table.rows
        else ""
    )
    notes = "".join(f"- {note}\n" for note in (*table.notes, *_warnings(table)))
    return "\n".join(
        part
        for part in (f"## {table.title}\n", f"{table.about}\n" if table.about else "", grid, notes)
        if part
    )


def csv(table: Table) -> str:
    """Return the rows with a heading; numbers stand exact and unscaled, with columns for interval and mark where there are any."""
    import pandas as pd

    columns: dict[str, list[Any]] = {}
    for i, heading in enumerate(table.columns):
        entries = [row[i] for row in table.rows]
        columns[heading] = [_plain(entry) for entry in entries]
        if any(entry.interval for entry in entries):
            for end, name in enumerate(("low", "high")):
                columns[f"{heading} {name}"] = [
                    entry.interval[end] if entry.interval else None for entry in entries
                ]
        if any(entry.mark not in {"", "missing"} for entry in entries):
            columns[f"{heading} mark"] = [entry.mark for entry in entries]
    return str(pd.DataFrame(columns, dtype=object).to_csv(index=False, lineterminator="\n"))


def latex(table: Table) -> str:
    """Return a table for booktabs, with everything a reader must know in its caption."""
    frame = _frame(table, lambda entry: _marked(entry, r"\textbf{{{}}}", _texed)).rename(
        columns=_texed
    )
    words = [
        part.rstrip(".")
        for part in (table.title, table.about, *table.notes, *_warnings(table))
        if part
    ]
    text = frame.to_latex(
        index=False,
        escape=False,
        caption=(_texed(". ".join(words) + "."), _texed(table.title)),
        label=f"tab:{table.name}",
        column_format="".join("l" if column in table.words else "r" for column in table.columns),
        position="t",
    )
    return str(text).replace(r"\begin{tabular}", "\\centering\n\\begin{tabular}", 1)


def plain(table: Table) -> str:
    """Return the table as JSON, a line a row; what an entry does not have is left out of it."""
    head = {name: value for name, value in vars(table).items() if name != "rows"} | {
        "words": sorted(table.words)
    }
    rows = ",\n".join(
        json.dumps([_filled(entry) for entry in row], ensure_ascii=False) for row in table.rows
    )
    return json.dumps(head, indent=1, ensure_ascii=False)[:-2] + f',\n "rows": [\n{rows}\n]\n}}'


def text(tables: Sequence[Table], form: str) -> str:
    """Return tables one after the other as "md", "csv" or "tex", or as one list in "json"."""
    if form == "json":
        return "[\n" + ",\n".join(map(plain, tables)) + "\n]\n"
    return "\n".join({"md": markdown, "csv": csv, "tex": latex}[form](table) for table in tables)


def _frame(table: Table, show: Any) -> "pd.DataFrame":  # noqa: ANN401 - a function from an entry to text
    import pandas as pd

    return pd.DataFrame(
        [[show(entry) for entry in row] for row in table.rows],
        columns=list(table.columns),
        dtype=object,
    )


def _marked(entry: Entry, bold: str, safe: Any = str) -> str:  # noqa: ANN401 - a function from text to text
    shown = safe(entry.text + _MARKS.get(entry.mark, ""))
    return bold.format(shown) if entry.mark == "best" else shown


def _warnings(table: Table) -> list[str]:
    """Return the legend of the marks in a table, and the note to each warned entry, once."""
    entries = [entry for row in table.rows for entry in row if entry.mark in _MARKS]
    legend = [
        text for mark, text in _LEGEND.items() if any(entry.mark == mark for entry in entries)
    ]
    return legend + sorted(
        {
            f"‡ {entry.text}: {entry.note}"
            for entry in entries
            if entry.mark == "warning" and entry.note
        }
    )


def _plain(entry: Entry) -> Any:  # noqa: ANN401 - a number or text
    if entry.mark == "missing":
        return None
    return (
        entry.text
        if entry.value is None
        else int(entry.value)
        if entry.value.is_integer() and "." not in entry.text
        else entry.value
    )


def _filled(entry: Entry) -> dict[str, Any]:
    return {name: value for name, value in vars(entry).items() if value not in ("", None)}


def _barless(text: str) -> str:
    return text.replace("|", "\\|")  # a bar would begin another cell


def _texed(text: str) -> str:
    return re.sub("|".join(map(re.escape, _TEX)), lambda found: _TEX[found[0]], text)
