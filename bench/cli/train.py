"""``bench train``: a method's recipe, from data to a checkpoint that its encoder loads."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import console
from bench.cli.options import Data, Device, Dtype, Json, Sets, Verbose, completed, errors, start
from bench.errors import UsageError

BUDGETS = {"S": 1_000_000, "L": 50_000_000}
"""Budgets by name: S for an afternoon of a CPU, L for minutes of a large GPU."""


def _recipes(incomplete: str) -> list[str]:
    from bench.registry import recipe_names

    return completed(incomplete, recipe_names())


Method = Annotated[str, typer.Argument(help="Method whose recipe is run.", autocompletion=_recipes)]
Budget = Annotated[str, typer.Option("--budget", help="Token positions to train on: S (1 million), L (50 million), or a number.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the checkpoint. [default: checkpoints/METHOD-BUDGET]", file_okay=False)]


def train(  # noqa: PLR0913, PLR0917 - one parameter an option
    method: Method,
    budget: Budget = "S",
    out: Out = None,
    data: Data = None,
    seed: Annotated[int, typer.Option(help="The only source of randomness.")] = 42,
    device: Device = "auto",
    dtype: Dtype = "auto",
    set_: Sets = [],  # noqa: B006 - typer copies it
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the settings, train nothing.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train a method's encoder by its recipe; the same command goes on where an earlier one was stopped."""
    with errors():
        start(data, verbose=verbose)
        from bench.data import load
        from bench.registry import load_recipe

        tokens = _positions(budget)
        changes = {"device": device, "dtype": dtype, **dict(_pair(text) for text in set_)}
        recipe = load_recipe(method, changes)
        folder = out or Path("checkpoints", f"{method}-{budget}")
        plan = {"method": method, "budget": tokens, "seed": seed, "out": str(folder), "recipe": asdict(recipe)}  # type: ignore[call-overload]  # load_recipe has seen that it is a dataclass
        if dry_run:
            print(json.dumps(plan, indent=None if as_json else 1))
            return
        with console.progress() as bars:
            made = recipe.train(folder, budget=tokens, seed=seed, load=load, progress=bars)
        if as_json:
            print(json.dumps({**plan, "out": str(made)}))
            return
        print(made)
        console.note(f"try it: bench run --model {method}:{made},{method} --suite quick")


def _positions(budget: str) -> int:
    """Return the number of token positions a budget means."""
    text = budget.replace("_", "").replace(",", "")
    if budget.upper() not in BUDGETS and not (text.isdecimal() and int(text)):
        raise UsageError(f"--budget takes S, L or a number of token positions, got {budget!r}")
    return BUDGETS.get(budget.upper()) or int(text)


def _pair(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set takes field=value, got {text!r}")
    return field, value
