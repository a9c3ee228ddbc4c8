"""Tables as text: Markdown, CSV, LaTeX (booktabs), JSON. All of them print the same entries."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import pandas as pd

from bench.files import escape_formula, escape_markdown, quoting_for
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
_TEX_LEFT_OUT = {"family", "metric", "repeats", "backbone"}  # columns that a paper has no room for
_TEX_DEVIATIONS = 4  # columns of numbers up to which deviations are printed
_TEX_SHORT = 8  # letters of a heading beyond which headings of numbers are turned
_TEX_HEAD = r"""%% \usepackage{booktabs,graphicx}
\begin{table}[t]
\centering
\caption[%s]{%s}
\label{%s}
\smallskip
\footnotesize
\setlength{\tabcolsep}{3pt}
\sbox0{%%
"""
_TEX_TAIL = r"""}
\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi
\end{table}
"""


def results_md(
    tables: Sequence[Table],
    figures: Mapping[str, Iterable[str]] = {},
    *,
    title: str = "Results",
    opening: Iterable[str] = (),
) -> str:
    """Return a page of every table, each before its figures; very large tables are named only.

    Args:
        tables: The tables.
        figures: By a table's name, the file names of the figures it is shown with.
        title: Headline of the page.
        opening: Sentences below the headline, a list.
    """
    parts = [f"# {title}\n"]
    if lines := [f"- {escape_markdown(sentence)}\n" for sentence in opening]:
        parts.append("".join(lines))
    for table in tables:
        text = markdown(table) if _fits(table) else _named(table)
        names = figures.get(table.name, ())
        pictures = "".join(f"![{name.rpartition('.')[0]}]({name})\n" for name in names)
        parts += [text, pictures] if pictures else [text]
    return "\n".join(parts)


def _fits(table: Table) -> bool:
    return len(table.columns) <= _WIDEST and len(table.rows) <= _LONGEST


def _named(table: Table) -> str:
    size = f"{len(table.rows):,} rows by {len(table.columns):,} columns"
    command = f"`bench report --table {table.name} --format csv` prints them."
    return f"## {table.title}\n\n{table.about}\n\n{size}: {command}\n"


def markdown(table: Table) -> str:
    """Return a section: headline, what is shown, the table, notes and every warning."""
    frame = _frame(table, _markdown_entry).rename(columns=escape_markdown)
    sides = ["left" if column in table.words else "right" for column in table.columns]
    grid = frame.to_markdown(index=False, disable_numparse=True, colalign=sides)
    notes = "".join(f"- {escape_markdown(note)}\n" for note in (*table.notes, *_warnings(table)))
    about = f"{escape_markdown(table.about)}\n" if table.about else ""
    parts = (
        f"## {escape_markdown(table.title)}\n",
        about,
        f"{grid}\n" if table.rows else "",
        notes,
    )
    return "\n".join(part for part in parts if part)


def _markdown_entry(entry: Entry) -> str:
    shown = _marked(entry, "**{}**", escape_markdown)
    return f"[{shown}]({entry.link})" if entry.link else shown


def csv(table: Table) -> str:
    """Return exact, unscaled numbers, with columns for intervals and marks where there are any."""
    columns = list(chain(*(_csv_columns(table, i) for i in range(len(table.columns)))))
    frame = pd.DataFrame({i: values for i, (_, values) in enumerate(columns)}, dtype=object)
    return csv_of(frame.set_axis([heading for heading, _ in columns], axis=1))


def _csv_columns(table: Table, place: int) -> Iterator[tuple[str, list[Any]]]:
    """Yield a column with its heading, and those of its intervals and marks.

    These are named after it; where another column has such a name, one can still tell them apart.
    """
    heading, entries = table.columns[place], [row[place] for row in table.rows]
    yield heading, [_plain(entry) for entry in entries]
    taken = {f"{heading} {part}" for part in ("low", "high", "mark")} & set(table.columns)
    own = f"{heading} (interval)" if taken else heading
    if any(entry.interval for entry in entries):
        intervals = [entry.interval or (None, None) for entry in entries]
        yield f"{own} low", [low for low, _ in intervals]
        yield f"{own} high", [high for _, high in intervals]
    if {entry.mark for entry in entries} - {"", "missing"}:
        yield f"{own} mark", [entry.mark for entry in entries]


def csv_of(frame: pd.DataFrame) -> str:
    """Return a frame as CSV in which no text is a formula."""
    numeric = pd.api.types.is_numeric_dtype
    safe = frame.apply(lambda column: column if numeric(column) else column.map(escape_formula))
    safe = safe.rename(columns=escape_formula)
    quoting = quoting_for(chain(safe.columns, *(column for _, column in safe.items())))
    return str(safe.to_csv(index=False, quoting=quoting, lineterminator="\n"))


def latex(table: Table, caption: str = "", label: str = "") -> str:
    r"""Return a table for booktabs, at most as wide as a line.

    Args:
        table: The table.
        caption: Its caption; what it shows, its notes and the legend of its marks by default.
        label: Its label; its name after "tab:" by default.
    """
    parts = (table.title, table.about, *table.notes, *_warnings(table))
    usual = ". ".join(part.rstrip(".") for part in parts if part) + "."
    frame = _frame(table, lambda entry: _marked(entry, r"\textbf{{{}}}", _tex))
    numbers = [column for column in table.columns if column not in table.words]
    turned = numbers if any(len(column) > _TEX_SHORT for column in numbers) else ()
    heads = {
        column: rf"\rotatebox{{90}}{{{_tex(column)}}}" if column in turned else _tex(column)
        for column in table.columns
    }
    sides = "".join("l" if column in table.words else "r" for column in table.columns)
    body = frame.rename(columns=heads).to_latex(index=False, escape=False, column_format=sides)
    head = _TEX_HEAD % (_tex(table.title), _tex(caption or usual), label or f"tab:{table.name}")
    return f"{head}{str(body).rstrip()}{_TEX_TAIL}"


def for_paper(table: Table) -> Table:
    """Return a table as a page has room for: fewer columns, and no deviations in a wide one."""
    names = table.columns
    out = _TEX_LEFT_OUT & (table.words | {"repeats"})
    # An encoder may be called like such a column, which comes before it.
    own = [i for i, name in enumerate(names) if name not in out or name in names[:i]]
    kept = table.take(own)
    if sum(name not in kept.words for name in kept.columns) <= _TEX_DEVIATIONS:
        return kept
    rows = [tuple(map(_without_deviation, row)) for row in kept.rows]
    about = re.sub("; ± is[^.]*", "", kept.about)
    return replace(kept, rows=tuple(rows), about=about)


def _without_deviation(entry: Entry) -> Entry:
    return replace(entry, text=entry.text.partition(" ± ")[0])


def plain(table: Table) -> str:
    """Return the table as JSON, one line per row; empty fields of an entry are left out."""
    head = {**vars(table), "words": sorted(table.words)}
    del head["rows"]
    rows = [json.dumps(list(map(_filled, row)), ensure_ascii=False) for row in table.rows]
    opening = json.dumps(head, indent=1, ensure_ascii=False)[:-2]
    return opening + ',\n "rows": [\n' + ",\n".join(rows) + "\n]\n}"


def text(tables: Sequence[Table], form: str) -> str:
    """Return tables one after the other as "md", "csv" or "tex", or as one list in "json"."""
    if form == "json":
        return "[\n" + ",\n".join(plain(table) for table in tables) + "\n]\n"
    render: Callable[[Table], str] = {"md": markdown, "csv": csv, "tex": latex}[form]
    return "\n".join(render(table) for table in tables)


def _frame(table: Table, show: Callable[[Entry], str]) -> pd.DataFrame:
    entries = pd.DataFrame(table.rows, columns=list(table.columns), dtype=object)
    return entries.map(show)


def _marked(entry: Entry, bold: str, safe: Callable[[str], str]) -> str:
    shown = safe(entry.text + _MARKS.get(entry.mark, ""))
    return bold.format(shown) if entry.mark == "best" else shown


def _warnings(table: Table) -> list[str]:
    """Return the legend of the marks in a table, and the note to each warned entry, once."""
    entries = [entry for entry in chain(*table.rows) if entry.mark in _MARKS]
    marks = {entry.mark for entry in entries}
    legend = [_LEGEND[mark] for mark in _LEGEND if mark in marks]
    legend = [words for words in legend if words not in table.about]
    notes = {f"‡ {e.text}: {e.note}" for e in entries if e.mark == "warning" and e.note}
    return legend + sorted(notes)


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
