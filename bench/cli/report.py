"""``bench report`` and ``bench study``: tables, figures and a page from results."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import bench
from bench import reporting
from bench.cli.options import ResultFolders, complete, model_option, split_names, task_option
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.reporting.comparison import Comparison
    from bench.reporting.table import Table

Encoders = Annotated[
    list[str],
    model_option("Encoders to report on, comma-separated or repeated. [default: all]"),
]
OnTasks = Annotated[
    list[str],
    task_option("Tasks to report on, comma-separated or repeated. [default: all]"),
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
    typer.Option(help="Folder or archive of earlier results: print what changed.", exists=True),
]
Published = Annotated[
    bool, typer.Option("--published", help="Print the published numbers of the tasks.")
]
Mteb = Annotated[
    Path | None,
    typer.Option(
        "--mteb",
        help="Clone of mteb's results repository: adds its models' scores on the same tasks.",
        file_okay=False,
    ),
]
MtebModels = Annotated[
    list[str],
    typer.Option(
        "--mteb-model",
        help="Models of --mteb, comma-separated or repeated: `org/model`, `model`, or with "
        "`@revision`. [default: all, if there are at most 10]",
        show_default=False,
    ),
]
Columns = Annotated[
    list[str],
    typer.Option(
        help="Columns to print, comma-separated or repeated. [default: all; in tex those that fit]",
        show_default=False,
    ),
]
Digits = Annotated[int, typer.Option(help="Decimals of scores.", min=0, max=6)]
Caption = Annotated[str, typer.Option(help="Caption of a table in tex.")]
Label = Annotated[str, typer.Option(help="Label of a table in tex.")]


def report(  # noqa: PLR0913, PLR0917 - one parameter per option
    model: Encoders = [],  # noqa: B006 - typer copies lists
    task: OnTasks = [],  # noqa: B006
    results: ResultFolders = [Path("results")],  # noqa: B006
    out: Out = None,
    form: Form = "",
    table: Tables = [],  # noqa: B006
    compare: Compare = None,
    mteb: Mteb = None,
    mteb_model: MtebModels = [],  # noqa: B006
    published: Published = False,
    columns: Columns = [],  # noqa: B006
    digits: Digits = 1,
    caption: Caption = "",
    label: Label = "",
) -> None:
    """Write tables, figures and a page from results; nothing is encoded again."""
    from bench.store import Store

    if form not in {"", *reporting.FORMATS}:
        raise UsageError(f"--format takes {', '.join(reporting.FORMATS)}, got {form!r}")
    if form == "html" and (published or compare is not None):
        raise UsageError(
            "--format html shows tables of the report: print what --compare and --published give "
            "as md, csv, tex or json"
        )
    models, tasks, tables = split_names(model), split_names(task), split_names(table)
    read = partial(
        reporting.read,
        models=models,
        tasks=tasks,
        mteb=mteb,
        mteb_models=split_names(mteb_model),
        digits=digits,
    )
    output = partial(
        _output, form=form or "md", out=out, columns=split_names(columns), tex=(caption, label)
    )
    stores = [Store(folder) for folder in dict.fromkeys(results)]
    if published:
        from bench.reporting.published import listing

        output([listing(tasks)])
    elif compare is not None:
        from bench.reporting.differences import changes

        output([changes(read(Store(compare)), read(stores))])
    elif form == "html":
        _output_page(read(stores), out, tables, split_names(columns))
    elif form or tables or columns:
        from bench.reporting.tables import tables as make_tables

        comparison = read(stores)
        one = out is None and comparison.tasks.compared.any()
        usual = ["by-task", "notes"] if form == "md" and not columns else ["by-task"]
        wanted = tables or (usual if one else ["all"])
        output(reporting.chosen(make_tables(comparison), wanted))
    else:
        _print_paths(reporting.build(read(stores), out or Path("reports")))


def study(
    model: Encoders = [],  # noqa: B006
    task: OnTasks = [],  # noqa: B006
    results: ResultFolders = [Path("results")],  # noqa: B006 - typer copies lists
    tried: Annotated[
        list[Path],
        typer.Option(
            help="Folder or archive of results of other settings, on development tasks; repeat it "
            "to join several."
        ),
    ] = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="Folder to write into.", file_okay=False)] = Path(
        "reports/study"
    ),
) -> None:
    """Write a study of training budgets: learning curves, differences, ranks and costs."""
    _print_paths(
        bench.study(results, out, models=split_names(model), tasks=split_names(task), tried=tried)
    )


def _output_page(
    comparison: "Comparison", out: Path | None, names: Sequence[str], columns: Sequence[str]
) -> None:
    """Print or write the whole page, or one of some tables or columns, without figures."""
    from bench.reporting import html
    from bench.reporting.tables import tables as make_tables

    if names or columns:
        tables = reporting.chosen(make_tables(comparison), names or ["by-task"])
        tables = [table.select(columns) if columns else table for table in tables]
        page = html.page(comparison, tables)
    else:
        page = html.page(comparison, *reporting.contents(comparison))
    if out is None:
        print(page, end="")
    else:
        _print_paths(reporting.write(out, {"index.html": page}))


def _output(
    tables: "Sequence[Table]",
    *,
    form: str,
    out: Path | None,
    columns: Sequence[str],
    tex: tuple[str, str],
) -> None:
    """Print tables, or write one file each.

    Args:
        tables: The tables.
        form: Their format.
        out: Folder to write into; None to print.
        columns: Columns to print; none for all, or in tex for those that fit.
        tex: Caption and label in tex; "" for those of the table.
    """
    from bench.reporting import formats

    if columns:
        tables = [table.select(columns) for table in tables]
    elif form == "tex":
        tables = [formats.for_paper(table) for table in tables]
    texts = {
        table.name: formats.latex(table, *tex) if form == "tex" else reporting.text([table], form)
        for table in tables
    }
    if out is not None:
        files = {f"{name}.{form}": text for name, text in texts.items()}
        _print_paths(reporting.write(out, files))
    elif form == "json":
        print(reporting.text(tables, form), end="")
    else:
        print("\n".join(texts.values()), end="")


def _print_paths(paths: Sequence[Path]) -> None:
    for path in paths:
        print(path)
