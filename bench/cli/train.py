"""``bench train``: a method's recipe, from data to a checkpoint that its encoder loads."""

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import console
from bench.cli.options import (
    Data,
    Device,
    Dtype,
    Json,
    Sets,
    Verbose,
    completed,
    computing,
    errors,
    start,
)
from bench.errors import UsageError

BUDGETS = {"S": 1_000_000, "L": 50_000_000}
"""Budgets by name: S for an afternoon of a CPU, L for a GPU."""


def _recipes(incomplete: str) -> list[str]:
    from bench.registry import recipe_names

    return completed(incomplete, recipe_names())


_SEED = 42
_CARD = "card.json"

Method = Annotated[str, typer.Argument(help="Method whose recipe is run.", autocompletion=_recipes)]
Budget = Annotated[
    str,
    typer.Option(
        "--budget", help="Token positions to train on: S (1 million), L (50 million), or a number."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder of the checkpoint. [default: checkpoints/METHOD-BUDGET, and behind it what --set and --seed change]",
        file_okay=False,
        show_default=False,
    ),
]
Vary = Annotated[
    list[str],
    typer.Option(
        "--vary",
        help="Train once more for each value of a setting, `field=value,value`, the others as they are. Repeatable.",
    ),
]


def train(  # noqa: PLR0913, PLR0917 - one parameter an option
    method: Method,
    budget: Budget = "S",
    out: Out = None,
    data: Data = None,
    seed: Annotated[int, typer.Option(help="The only source of randomness.", min=0)] = _SEED,
    device: Device = "auto",
    dtype: Dtype = "auto",
    set_: Sets = [],  # noqa: B006 - typer copies it
    vary: Vary = [],  # noqa: B006 - typer copies it
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the settings, train nothing.")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train a method's encoder by its recipe; the same command goes on where an earlier one was stopped."""
    with errors():
        first = (
            os.environ.get("RANK", "0") == "0"
        )  # of the processes that a launcher started: it speaks for all
        start(data, verbose=verbose, shown=first)
        from bench.data import load

        tokens = _positions(budget)
        folder = out or _folder(
            method, budget, [*set_, *([f"seed={seed}"] if seed != _SEED else [])]
        )
        plans = [
            {
                "method": method,
                "budget": tokens,
                "seed": seed,
                "out": str(folder / name),
                "recipe": recipe,
            }
            for name, recipe in _variants(
                method,
                {**computing(device, dtype), **dict(map(_pair, set_))},
                list(map(_pair, vary)),
            )
        ]
        for plan in plans:
            plan["recipe"].check()
        if dry_run:
            for plan in plans if first else ():
                print(
                    json.dumps(
                        _plain(plan | {"there": _there(Path(plan["out"]))}),
                        indent=None if as_json else 1,
                    )
                )
            return
        if first:
            for plan in plans:
                _prepare(Path(plan["out"]))
        made = []
        for plan in plans:
            with console.progress(shown=first) as bars:
                made.append(
                    plan["recipe"].train(
                        Path(plan["out"]), budget=tokens, seed=seed, load=load, progress=bars
                    )
                )
            if first:
                print(json.dumps(_plain(plan | {"out": str(made[-1])})) if as_json else made[-1])
        if first and not as_json:
            names = ",".join(f"{method}:{checkpoint}" for checkpoint in made)
            console.note(
                f"try it: bench run --model {shlex.quote(f'{names},{method}')} --suite quick"
            )


def _folder(method: str, budget: str, changes: Sequence[str]) -> Path:
    """Return the folder of a checkpoint for which none is named: one for each method, budget and change."""
    from bench.encoder import digest

    name = re.sub(r"[^\w.+=,-]+", "_", "-".join([method, budget, *changes]))
    long = len(name.encode()) > 200  # of the 255 bytes that a name may have
    return Path("checkpoints", f"{name[:60]}-{digest(changes)[:8]}" if long else name)


def _prepare(folder: Path) -> None:
    """Sweep the folder of a checkpoint, and try whether it can be written, unless it is finished: better known before hours of training.

    Raises:
        OSError: It cannot be written.
    """
    from bench.files import check_writable, remove_leftovers

    remove_leftovers(folder)
    if not (folder / _CARD).is_file():
        check_writable(folder / _CARD)


def _there(folder: Path) -> str:
    """Return what the folder of a checkpoint holds, in words; the card is what a training writes last."""
    if (folder / _CARD).is_file():
        return "a finished checkpoint"
    return "a training to go on with" if folder.is_dir() and any(folder.iterdir()) else "nothing"


def _variants(
    method: str, settings: Mapping[str, str], vary: Sequence[tuple[str, str]]
) -> list[tuple[str, Any]]:
    """Return the recipe and those that differ from it in one setting, by the names of their folders."""
    from bench.registry import load_recipe

    recipes = {"base" if vary else "": load_recipe(method, settings)}
    for field, values in vary:
        for value in values.split(","):
            recipe = load_recipe(method, {**settings, field: value})
            if recipe not in recipes.values():  # a list may hold the base's own value
                recipes[f"{field}={value}"] = recipe
    return list(recipes.items())


def _plain(plan: dict[str, Any]) -> dict[str, Any]:
    return plan | {"recipe": asdict(plan["recipe"])}


def _positions(budget: str) -> int:
    """Return the number of token positions a budget means."""
    text = budget.replace("_", "").replace(",", "")
    if budget.upper() not in BUDGETS and not (text.isdecimal() and int(text)):
        raise UsageError(f"--budget takes S, L or a number of token positions, got {budget!r}")
    return BUDGETS.get(budget.upper()) or int(text)


def _pair(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set and --vary take field=value, got {text!r}")
    return field, value
