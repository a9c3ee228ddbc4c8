"""results.md: the tables with their notes, and the figures."""

from collections.abc import Iterable, Sequence

from bench.report.formats import markdown
from bench.report.table import Table

_WIDEST, _LONGEST = 60, 100  # columns and rows that still make sense on a page of text


def page(tables: Sequence[Table], figures: Iterable[str] = ()) -> str:
    """Return results.md.

    Args:
        tables: The report's tables; very large ones are named, not printed.
        figures: File names of the figures beside the page.
    """
    parts = ["# Results\n", "".join(f"![{name.rpartition('.')[0]}]({name})\n" for name in figures)]
    return "\n".join(
        part
        for part in [
            *parts,
            *(markdown(table) if _fits(table) else _named(table) for table in tables),
        ]
        if part
    )


def _fits(table: Table) -> bool:
    return len(table.columns) <= _WIDEST and len(table.rows) <= _LONGEST


def _named(table: Table) -> str:
    size = f"{len(table.rows):,} rows by {len(table.columns):,} columns"
    return f"## {table.title}\n\n{table.about}\n\n{size}: `bench report --table {table.name} --format csv` prints them.\n"
