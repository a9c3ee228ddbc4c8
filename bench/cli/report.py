"""``bench report``: print tables, or write them with figures and a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import reporting
from bench.cli.options import Results, complete, encoder_names, split_names, task_names
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.reporting.comparison import Comparison
    from bench.reporting.table import Table

Encoders = Annotated[
    list[str],
    typer.Option(
        "--model",
        "-m",
        help="Encoders to report on, comma-separated or repeated. [default: all]",
        autocompletion=complete(encoder_names),
        show_default=False,
    ),
]
OnTasks = Annotated[
    list[str],
    typer.Option(
        "--task",
        "-t",
        help="Tasks to report on, comma-separated or repeated. [default: all]",
        autocompletion=complete(task_names),
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder to write into. [default: reports]", file_okay=False, show_default=False
    ),
]
Form = Annotated[
    str,
    typer.Option(
        "--format",
        help=f"Print tables as {', '.join(reporting.FORMATS)}; with --out, one file a table.",
        autocompletion=complete(lambda: reporting.FORMATS),
    ),
]
Tables = Annotated[
    list[str],
    typer.Option(
        "--table",
        help="Tables to print, comma-separated or repeated: "
        f"all, {', '.join(reporting.TABLES)}. [default: by-task]",
        autocompletion=complete(lambda: ["all", *reporting.TABLES]),
        show_default=False,
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(
        help="Folder of earlier results: print what changed.", exists=True, file_okay=False
    ),
]
Published = Annotated[
    bool, typer.Option("--published", help="Print the published numbers of the tasks.")
]


def report(
    model: Encoders = [],  # noqa: B006 - typer copies lists
    task: OnTasks = [],  # noqa: B006
    results: Results = Path("results"),
    out: Out = None,
    form: Form = "",
    table: Tables = [],  # noqa: B006
    compare: Compare = None,
    published: Published = False,
) -> None:
    """Write tables, figures and a page from the results; nothing is computed again."""
    from bench.store import Store

    if form not in {"", *reporting.FORMATS}:
        raise UsageError(f"--format takes {', '.join(reporting.FORMATS)}, got {form!r}")
    models, tasks, tables = split_names(model), split_names(task), split_names(table)
    store = Store(results)
    if published:
        from bench.reporting.published import listing

        _output([listing(tasks)], form, out)
    elif compare is not None:
        from bench.reporting.differences import changes

        before = reporting.read(Store(compare), models=models, tasks=tasks)
        now = reporting.read(store, models=models, tasks=tasks)
        _output([changes(before, now)], form, out)
    elif form == "html":
        _output_page(reporting.read(store, models=models, tasks=tasks), out)
    elif form or tables:
        from bench.reporting.tables import tables as make_tables

        comparison = reporting.read(store, models=models, tasks=tasks)
        one = out is None and comparison.tasks.compared.any()
        wanted = tables or (["by-task"] if one else ["all"])
        _output(reporting.chosen(make_tables(comparison), wanted), form, out)
    else:
        _print_paths(reporting.build(store, out or Path("reports"), models=models, tasks=tasks))


def _output_page(comparison: "Comparison", out: Path | None) -> None:
    from bench.reporting import html

    page = html.page(comparison, *reporting.contents(comparison))
    if out is None:
        print(page, end="")
    else:
        _print_paths(reporting.write(out, {"index.html": page}))


def _output(tables: "Sequence[Table]", form: str, out: Path | None) -> None:
    """Print tables, or write one file each."""
    form = form or "md"
    if out is None:
        print(reporting.text(tables, form), end="")
    else:
        files = {f"{table.name}.{form}": reporting.text([table], form) for table in tables}
        _print_paths(reporting.write(out, files))


def _print_paths(paths: Sequence[Path]) -> None:
    for path in paths:
        print(path)
