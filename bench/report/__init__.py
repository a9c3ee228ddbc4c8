"""Tables and figures: a pure function of the results, so the same results give the same bytes."""

from pathlib import Path

from bench.errors import ResultError, UsageError
from bench.files import write_whole
from bench.result import Result
from bench.store import Store

FORMATS = ("md", "csv", "json")


def build(store: Store, out: Path) -> list[Path]:
    """Write the tables and figures of a store of results, and return their paths.

    Args:
        store: The results.
        out: Folder for ``results.md``, ``results.csv``, ``heatmap`` and ``families`` (png and svg).

    Raises:
        UsageError: There is no result.
        ResultError: A results file cannot be read, or the folder cannot be written.
    """
    from bench.report import figures, page, tables
    from bench.report.cells import Cells

    cells = Cells.of(_results(store))
    figure_files = {
        f"{name}.{kind}": figures.rendered(figure, kind)
        for name, figure in (("heatmap", figures.heatmap(cells)), ("families", figures.families(cells)))
        for kind in ("png", "svg")
    }
    files = {"results.md": page.page(cells).encode(), "results.csv": tables.text(cells, "csv").encode(), **figure_files}
    try:
        for name, data in files.items():
            write_whole(out / name, data)
    except OSError as error:
        raise ResultError(f"cannot write into {out}: {error.strerror}; free space or choose another --out") from error
    return [out / name for name in files]


def table(store: Store, form: str) -> str:
    """Return the table of every task as text.

    Args:
        store: The results.
        form: "md", "csv" or "json".

    Raises:
        UsageError: Another format, or no result.
        ResultError: A results file cannot be read.
    """
    if form not in FORMATS:
        raise UsageError(f"--format takes {', '.join(FORMATS)}, got {form!r}")
    from bench.report import tables
    from bench.report.cells import Cells

    return tables.text(Cells.of(_results(store)), form)


def _results(store: Store) -> list[Result]:
    results = list(store.results())
    if not results:
        raise UsageError(f"no results in {store.root}; make some with `bench run`, or name another folder with --results")
    return results
