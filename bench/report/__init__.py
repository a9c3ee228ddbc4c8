"""Tables, figures and a page: a pure function of the results, so the same results give the same bytes."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import ResultError, UsageError, unknown
from bench.files import write_whole

if TYPE_CHECKING:
    from bench.report.cells import Cells
    from bench.report.figures import Drawing
    from bench.report.table import Table
    from bench.result import Absence, RunSpec
    from bench.store import Store

FORMATS = ("md", "csv", "tex", "json", "html")
"""What tables can be printed in."""

TABLES = (
    "families", "by-task", "equal-budget", "other-checkpoints", "variants", "ranks", "win-tie-loss", "differences", "cost", "published",
    "instruction", "robustness", "diagnostics", "samples", "training", "overlap", "data", "missing", "made",
)  # fmt: skip
"""Names of the tables that a report can have; several of equal budgets or of variants are numbered, as in "variants-2"."""


def build(
    store: "Store", out: Path, *, models: Collection[str] = (), tasks: Collection[str] = ()
) -> list[Path]:
    """Write the whole report, and return the paths.

    Args:
        store: The results.
        out: Folder for ``index.html``, ``results.md``, ``results.csv``, ``results.json`` and the figures (png and svg).
        models: Names of the encoders to report on; all by default.
        tasks: Names of the tasks; all by default.

    Raises:
        UsageError: There is no such result.
        ResultError: A results file cannot be read, or the folder cannot be written.
    """
    from bench.report import figures, formats, html, page, records

    cells = read(store, models=models, tasks=tasks)
    made, drawings = shown(cells)
    drawn = {
        f"{d.name}.{kind}": d.rendered(kind)
        for d in drawings
        if d.figure is not None
        for kind in figures.KINDS
    }
    files = {
        "index.html": html.page(cells, made, drawings),
        "results.md": page.page(made, [name for name in drawn if name.endswith(".png")]),
        "results.csv": records.csv(cells),
        "results.json": formats.text(made, "json"),
        **drawn,
    }
    return write(out, files)


def shown(cells: "Cells") -> "tuple[tuple[Table, ...], tuple[Drawing, ...]]":
    """Return every table and every figure of the results."""
    from bench.report import figures
    from bench.report.pairs import Pairs
    from bench.report.tables import tables

    pairs = Pairs(cells)
    return tables(cells, pairs), figures.drawn(pairs)


def write(out: Path, files: Mapping[str, bytes | str]) -> list[Path]:
    """Write files into a folder and return their paths.

    Raises:
        ResultError: The folder cannot be written.
    """
    try:
        for name, data in files.items():
            write_whole(out / name, data)
    except OSError as error:
        raise ResultError(
            f"cannot write into {out}: {error.strerror}; free space or choose another --out"
        ) from error
    return [out / name for name in files]


def read(store: "Store", *, models: Collection[str] = (), tasks: Collection[str] = ()) -> "Cells":
    """Return the results of some encoders and tasks, with their per-example values, and why others have none.

    Raises:
        UsageError: There is neither, or not under one of the names.
        ResultError: A results file cannot be read.
    """
    from bench.report.cells import Cells, placeless

    found, absences = list(store.results()), store.absences()
    tried: list[RunSpec | Absence] = [*(r.spec for r in found), *absences]
    if not tried:
        raise UsageError(
            f"no results in {store.root}; make some with `bench run`, or name another folder with --results"
        )
    for kind, wanted, known in (
        ("encoder in these results", models, {placeless(cell.encoder) for cell in tried}),
        ("task in these results", tasks, {cell.task for cell in tried}),
    ):
        for name in wanted:
            if name not in known:
                raise unknown(kind, name, known)

    def asked(cell: "RunSpec | Absence") -> bool:
        return (not models or placeless(cell.encoder) in models) and (
            not tasks or cell.task in tasks
        )

    kept, reasons = (
        [store.examples(r) for r in found if asked(r.spec)],
        [a for a in absences if asked(a)],
    )
    if not kept and not reasons:
        raise UsageError(
            f"none of these encoders has a result on these tasks in {store.root}; run them with `bench run`"
        )
    return Cells.of(kept, reasons)


def chosen(tables: "tuple[Table, ...]", names: Collection[str]) -> "list[Table]":
    """Return the tables of these names, in this order; "all" is every one.

    Raises:
        UsageError: There is no such table.
    """
    by_name = {table.name: table for table in tables}
    for name in names:
        if name not in {*by_name, "all"}:
            raise unknown("table in this report", name, [*by_name, "all"])
    return [
        by_name[name]
        for name in dict.fromkeys(
            name for asked in names for name in (by_name if asked == "all" else [asked])
        )
    ]


def text(tables: "Collection[Table]", form: str) -> str:
    """Return tables as text in a format other than html.

    Raises:
        UsageError: There is no such format.
    """
    from bench.report import formats

    if form not in FORMATS or form == "html":
        raise UsageError(f"--format takes {', '.join(FORMATS)}, got {form!r}")
    return formats.text(list(tables), form)
