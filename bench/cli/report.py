"""What `bench report` prints and writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import reporting as report
from bench.cli.options import completed, task_completion
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.reporting.table import Table
    from bench.store import Store


def _encoders(incomplete: str) -> list[str]:
    from bench.registry import encoder_names

    return completed(incomplete, encoder_names())


def _tables(incomplete: str) -> list[str]:
    return completed(incomplete, ["all", *report.TABLES])


def _formats(incomplete: str) -> list[str]:
    return [form for form in report.FORMATS if form.startswith(incomplete)]


Encoders = Annotated[
    list[str],
    typer.Option(
        "--model",
        "-m",
        help="Encoders to report on, comma-separated or repeated; else all.",
        autocompletion=_encoders,
    ),
]
OnTasks = Annotated[
    list[str],
    typer.Option(
        "--task",
        "-t",
        help="Tasks to report on, comma-separated or repeated; else all.",
        autocompletion=task_completion,
    ),
]
Form = Annotated[
    str,
    typer.Option(
        "--format",
        help=f"Print tables as {', '.join(report.FORMATS)}; with --out, write a file each.",
        autocompletion=_formats,
    ),
]
Tables = Annotated[
    list[str],
    typer.Option(
        "--table",
        help=f"Tables to print, comma-separated or repeated: all, {', '.join(report.TABLES)}. [default: by-task]",
        autocompletion=_tables,
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Wanted:
    """The options of the command.

    Attributes:
        results: Folder of results.
        models: Encoders to report on; none for all.
        tasks: Tasks to report on; none for all.
        tables: Names of the tables to print; none for the usual one.
        form: Format of what is printed; "" for the whole report, or Markdown where only tables are asked for.
        out: Folder to write into; None for stdout, or for the usual folder of the whole report.
        compare: Folder of the results before; None for no comparison.
        published: Whether published numbers are asked for.
    """

    results: Path
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    form: str = ""
    out: Path | None = None
    compare: Path | None = None
    published: bool = False


def show(wanted: Wanted) -> None:
    """Print tables, or write files and print their paths.

    Raises:
        UsageError: There is no such format, table or result.
        ResultError: The folder cannot be written.
    """
    from bench.store import Store

    store = Store(wanted.results)
    form = wanted.form or "md"
    if form not in report.FORMATS:
        raise UsageError(f"--format takes {', '.join(report.FORMATS)}, got {form!r}")
    if wanted.published:
        from bench.reporting.published import listing

        _give([listing(wanted.tasks)], form, wanted.out)
    elif wanted.compare is not None:
        from bench.reporting.differences import changes

        before, now = (
            report.read(s, models=wanted.models, tasks=wanted.tasks)
            for s in (Store(wanted.compare), store)
        )
        _give([changes(before, now)], form, wanted.out)
    elif wanted.form or wanted.tables:
        _print_tables(wanted, store, form)
    else:
        _tell(
            report.build(
                store, wanted.out or Path("reports"), models=wanted.models, tasks=wanted.tasks
            )
        )


def _print_tables(wanted: Wanted, store: "Store", form: str) -> None:
    comparison = report.read(store, models=wanted.models, tasks=wanted.tasks)
    if form == "html":
        from bench.reporting import html

        page = html.page(comparison, *report.contents(comparison))
        if wanted.out is None:
            print(page, end="")
        else:
            _tell(report.write(wanted.out, {"index.html": page}))
        return
    from bench.reporting.tables import tables

    usual = ("by-task",) if wanted.out is None and comparison.tasks.compared.any() else ("all",)
    _give(report.chosen(tables(comparison), wanted.tables or usual), form, wanted.out)


def _give(tables: "Sequence[Table]", form: str, out: Path | None) -> None:
    """Print tables, or write a file each."""
    if out is None:
        print(report.text(tables, form), end="")
    else:
        _tell(
            report.write(
                out,
                {f"{table.name}.{form}": report.text([table], form) for table in tables},
            )
        )


def _tell(paths: Sequence[Path]) -> None:
    for path in paths:
        print(path)
