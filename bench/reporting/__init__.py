"""Tables, figures and a page: a function of the results; the same results give the same bytes."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import ResultError, UsageError, unknown
from bench.files import remove_leftovers, write_atomic

if TYPE_CHECKING:
    from bench.reporting.comparison import Comparison
    from bench.reporting.figures import Drawing
    from bench.reporting.table import Table
    from bench.store import Store

log = logging.getLogger(__name__)

FORMATS = ("md", "csv", "tex", "json", "html")
"""Formats in which tables can be printed."""

TABLES = (
    "summary", "families", "by-task", "equal-budget", "other-checkpoints", "by-method", "variants",
    "ranks", "win-tie-loss", "differences", "cost", "published", "instruction", "robustness",
    "diagnostics", "samples", "training", "overlap", "data", "missing", "notes", "made",
)  # fmt: skip
"""Names of the tables; several of equal budgets or of variants are numbered: "variants-2"."""


def build(comparison: "Comparison", out: Path) -> list[Path]:
    """Write the whole report, and return the paths.

    Args:
        comparison: What ``read`` returns.
        out: Folder for ``index.html``, ``results.md``, ``results.csv``, ``results.json`` and the
            figures (png, svg and pdf).

    Raises:
        ResultError: The folder cannot be written.
    """
    from bench.reporting import figures, formats, html
    from bench.reporting.frame import flat

    write(out, {})  # fails before the work, not after it
    made, drawings = contents(comparison)
    files = {
        "index.html": html.page(comparison, made, drawings),
        "results.md": formats.results_md(made, figures.pictures(made, drawings)),
        "results.csv": formats.csv_of(flat(comparison)),
        "results.json": formats.text(made, "json"),
    }
    return write(out, {**files, **figures.files(drawings)})


def contents(comparison: "Comparison") -> "tuple[tuple[Table, ...], tuple[Drawing, ...]]":
    """Return every table and every figure of the results."""
    from bench.reporting.figures import draw
    from bench.reporting.tables import tables

    return tables(comparison), draw(comparison)


def write(out: Path, files: Mapping[str, bytes | str]) -> list[Path]:
    """Write files into a folder and return their paths.

    Raises:
        ResultError: The folder cannot be written.
    """
    try:
        remove_leftovers(out)
        for name, data in files.items():
            write_atomic(out / name, data)
    except OSError as error:
        raise ResultError(
            f"cannot write into {out}: {error.strerror}; free space or choose another --out"
        ) from error
    return [out / name for name in files]


def read(
    stores: "Store | Sequence[Store]",
    *,
    models: Collection[str] = (),
    tasks: Collection[str] = (),
    mteb: Path | None = None,
    mteb_models: Sequence[str] = (),
    digits: int = 1,
) -> "Comparison":
    """Return the results of some encoders and tasks, and why others have none.

    Args:
        stores: The results, of one folder or of several (``bench.reporting.joined``).
        models: Names of the encoders, any under which they were run; all by default.
        tasks: Names of the tasks; all by default.
        mteb: A clone of mteb's results repository, whose scores on the same tasks are added.
        mteb_models: Names of its models (``bench.reporting.mteb``).
        digits: Decimals of printed scores.

    Raises:
        UsageError: A folder has no results, or there are none under one of the names.
    """
    from bench.reporting.comparison import Comparison
    from bench.reporting.joined import find
    from bench.store import Store

    found, absences = find([stores] if isinstance(stores, Store) else stores, models, tasks)
    if mteb is not None:
        from bench.reporting.mteb import read_rows

        rows, reasons = read_rows(mteb, mteb_models, found)
        found, absences = [*found, *rows], [*absences, *reasons]
    elif mteb_models:
        raise UsageError("models of mteb's results need the folder of these results: --mteb DIR")
    return Comparison.of(found, absences, digits=digits)


def chosen(tables: "tuple[Table, ...]", names: Collection[str]) -> "list[Table]":
    """Return the tables of these names, in this order; "all" is every one.

    A name without a number stands for all numbered ones. A table without rows is left out, with a
    warning: whether cells are missing, for example, depends on the results.

    Raises:
        UsageError: There is no such table.
    """
    by_name = {table.name: table for table in tables}
    found: dict[str, Table] = {}
    for name in names:
        wanted = {own: t for own, t in by_name.items() if name in {own, _unnumbered(own), "all"}}
        if not wanted and name not in TABLES:
            raise unknown("table in this report", name, [*by_name, "all"])
        if not wanted:
            log.warning("the table %s has no rows in this report", name)
        found |= wanted
    return list(found.values())


def _unnumbered(name: str) -> str:
    return name.rstrip("-0123456789")


def text(tables: "Collection[Table]", form: str) -> str:
    """Return tables as text in a format other than html.

    Raises:
        UsageError: There is no such format.
    """
    from bench.reporting import formats

    if form not in FORMATS or form == "html":
        texts = [name for name in FORMATS if name != "html"]
        raise UsageError(f"expected a format of text, {', '.join(texts)}, got {form!r}")
    return formats.text(list(tables), form)
