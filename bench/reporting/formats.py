"""Tables as text: Markdown, CSV, LaTeX (booktabs), JSON. All of them print the same entries."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd

from bench.files import escape_formula, escape_markdown
from bench.reporting.table import Entry, Table

_WIDEST, _LONGEST = 60, 100  # columns and rows that still make sense on a page of text
_MARKS = {"tie": "†", "warning": "‡"}
_LEGEND = {"tie": "†: not significantly different from the best", "warning": "‡: see the note"}
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "†": r"$^\dagger$", "‡": r"$^\ddagger$", "—": "---",
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def results_md(tables: Sequence[Table], figures: Iterable[str] = ()) -> str:
    """Return results.md: the figures by their file names, then the tables; very large ones are named, not printed."""
    pictures = "".join(f"![{name.rpartition('.')[0]}]({name})\n" for name in figures)
    sections = [markdown(table) if _fits(table) else _named(table) for table in tables]
    return "\n".join(part for part in ("# Results\n", pictures, *sections) if part)


def _fits(table: Table) -> bool:
    return len(table.columns) <= _WIDEST and len(table.rows) <= _LONGEST


def _named(table: Table) -> str:
    size = f"{len(table.rows):,} rows by {len(table.columns):,} columns"
    command = f"`bench report --table {table.name} --format csv` prints them."
    return f"## {table.title}\n\n{table.about}\n\n{size}: {command}\n"


def markdown(table: Table) -> str:
    """Return a section: headline, what is shown, the table, notes and every warning in words."""
    frame = _frame(table, lambda entry: _marked(entry, "**{}**", escape_markdown))
    sides = ["left" if column in table.words else "right" for column in table.columns]
    safe = frame.rename(columns=escape_markdown)
    grid = (
        safe.to_markdown(index=False, disable_numparse=True, colalign=sides) if table.rows else ""
    )
    notes = "".join(f"- {escape_markdown(note)}\n" for note in (*table.notes, *_warnings(table)))
    about = f"{escape_markdown(table.about)}\n" if table.about else ""
    parts = (f"## {escape_markdown(table.title)}\n", about, f"{grid}\n" if grid else "", notes)
    return "\n".join(part for part in parts if part)


def csv(table: Table) -> str:
    """Return the rows with a heading: exact, unscaled numbers, and columns for intervals and marks where there are any."""
    columns: dict[str, list[Any]] = {}
    for i, heading in enumerate(table.columns):
        entries = [row[i] for row in table.rows]
        columns[heading] = [_plain(entry) for entry in entries]
        if any(entry.interval for entry in entries):
            intervals = [entry.interval or (None, None) for entry in entries]
            columns[f"{heading} low"] = [low for low, _ in intervals]
            columns[f"{heading} high"] = [high for _, high in intervals]
        if any(entry.mark not in {"", "missing"} for entry in entries):
            columns[f"{heading} mark"] = [entry.mark for entry in entries]
    return csv_of(pd.DataFrame(columns, dtype=object))


def csv_of(frame: pd.DataFrame) -> str:
    """Return a frame as CSV in which no text is a formula."""
    numeric = pd.api.types.is_numeric_dtype
    safe = frame.apply(lambda column: column if numeric(column) else column.map(escape_formula))
    safe = safe.rename(columns=escape_formula)
    return str(safe.to_csv(index=False, lineterminator="\n"))


def latex(table: Table) -> str:
    """Return a table for booktabs, with everything a reader must know in its caption."""
    frame = _frame(table, lambda entry: _marked(entry, r"\textbf{{{}}}", _tex))
    parts = (table.title, table.about, *table.notes, *_warnings(table))
    caption = ". ".join(part.rstrip(".") for part in parts if part) + "."
    text = frame.rename(columns=_tex).to_latex(
        index=False,
        escape=False,
        caption=(_tex(caption), _tex(table.title)),
        label=f"tab:{table.name}",
        column_format="".join("l" if column in table.words else "r" for column in table.columns),
        position="t",
    )
    return str(text).replace(r"\begin{tabular}", "\\centering\n\\begin{tabular}", 1)


def plain(table: Table) -> str:
    """Return the table as JSON, one line per row; what an entry does not have is left out of it."""
    head = {**vars(table), "words": sorted(table.words)}
    del head["rows"]
    rows = [json.dumps([_filled(entry) for entry in row], ensure_ascii=False) for row in table.rows]
    opening = json.dumps(head, indent=1, ensure_ascii=False)[:-2]
    return opening + ',\n "rows": [\n' + ",\n".join(rows) + "\n]\n}"


def text(tables: Sequence[Table], form: str) -> str:
    """Return tables one after the other as "md", "csv" or "tex", or as one list in "json"."""
    if form == "json":
        return "[\n" + ",\n".join(plain(table) for table in tables) + "\n]\n"
    render = {"md": markdown, "csv": csv, "tex": latex}[form]
    return "\n".join(render(table) for table in tables)


def _frame(table: Table, show: Callable[[Entry], str]) -> pd.DataFrame:
    rows = [[show(entry) for entry in row] for row in table.rows]
    return pd.DataFrame(rows, columns=list(table.columns), dtype=object)


def _marked(entry: Entry, bold: str, safe: Callable[[str], str] = str) -> str:
    shown = safe(entry.text + _MARKS.get(entry.mark, ""))
    return bold.format(shown) if entry.mark == "best" else shown


def _warnings(table: Table) -> list[str]:
    """Return the legend of the marks in a table, and the note to each warned entry, once."""
    entries = [entry for row in table.rows for entry in row if entry.mark in _MARKS]
    marks = {entry.mark for entry in entries}
    legend = [words for mark, words in _LEGEND.items() if mark in marks]
    warned = {f"‡ {e.text}: {e.note}" for e in entries if e.mark == "warning" and e.note}
    return legend + sorted(warned)


def _plain(entry: Entry) -> float | str | None:
    if entry.mark == "missing":
        return None
    if entry.value is None:
        return entry.text
    is_count = entry.value.is_integer() and "." not in entry.text
    return int(entry.value) if is_count else entry.value


def _filled(entry: Entry) -> dict[str, Any]:
    return {name: value for name, value in vars(entry).items() if value not in ("", None)}


def _tex(text: str) -> str:
    return re.sub("|".join(map(re.escape, _TEX)), lambda found: _TEX[found[0]], text)
