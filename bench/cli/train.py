"""``bench train``: run a method's recipe, from data to a checkpoint that its encoder loads."""

import json
import logging
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import console
from bench.cli.options import Device, Dtype, Json, Seed, Sets, complete
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.recipe import Recipe

log = logging.getLogger(__name__)

BUDGETS = {"S": 1_000_000, "L": 50_000_000}
"""Budgets by name: S for an afternoon of a CPU, L for a GPU."""

_SEED = 42
_CARD = "card.json"  # what a training writes last


def _recipe_names() -> tuple[str, ...]:
    from bench.registry import recipe_names

    return recipe_names()


Method = Annotated[
    str, typer.Argument(help="Method to train.", autocompletion=complete(_recipe_names))
]
Budget = Annotated[
    str, typer.Option(help="Training tokens: S (1 million), L (50 million), or a number.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the checkpoint. "
        "[default: checkpoints/METHOD-BUDGET, and what --set and --seed change]",
        file_okay=False,
        show_default=False,
    ),
]
Vary = Annotated[
    list[str],
    typer.Option(
        help="Train one more checkpoint for each value of a setting: `field=value,value`. "
        "Repeatable.",
    ),
]


def train(  # noqa: PLR0913, PLR0917 - one parameter an option
    method: Method,
    budget: Budget = "S",
    out: Out = None,
    seed: Seed = _SEED,
    device: Device = "auto",
    dtype: Dtype = "auto",
    set_: Sets = [],  # noqa: B006 - typer copies it
    vary: Vary = [],  # noqa: B006
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the settings, train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a method's encoder by its recipe; the same command resumes a training."""
    from bench.registry import compute_settings, split_setting

    tokens = _count_tokens(budget)
    changes = [*set_, *([f"seed={seed}"] if seed != _SEED else [])]
    folder = out or _default_folder(method, budget, changes)
    settings = compute_settings(device, dtype) | dict(map(split_setting, set_))
    recipes = _vary(method, settings, list(map(split_setting, vary)))
    paths = {name: folder / name for name in recipes}
    if not dry_run:
        _prepare(paths.values())
    for name, recipe in recipes.items():
        path = paths[name]
        plan: dict[str, Any] = {"method": method, "budget": tokens, "seed": seed, "out": str(path)}
        plan["recipe"] = asdict(recipe)  # type: ignore[call-overload]
        if dry_run:
            plan["there"] = _describe_folder(path)
            print(json.dumps(plan, indent=None if as_json else 1))
        else:
            _train(recipe, path, tokens, seed)
            print(json.dumps(plan) if as_json else path)
    if not dry_run and not as_json:
        encoders = ",".join([*(f"{method}:{path}" for path in paths.values()), method])
        log.info("try it: bench run --model %s --suite quick", shlex.quote(encoders))


def _train(recipe: "Recipe", out: Path, tokens: int, seed: int) -> None:
    from bench.data import load

    with console.progress() as progress:
        recipe.train(out, budget=tokens, seed=seed, load=load, progress=progress)


def _default_folder(method: str, budget: str, changes: Sequence[str]) -> Path:
    """Return the folder of a checkpoint: one for each method, budget and set of changes."""
    from bench.encoder import digest

    name = re.sub(r"[^\w.+=,-]+", "_", "-".join([method, budget, *changes]))
    if len(name.encode()) > 200:  # of the 255 bytes that a name may have
        name = f"{name[:60]}-{digest(changes)[:8]}"
    return Path("checkpoints", name)


def _prepare(folders: Iterable[Path]) -> None:
    """Check before hours of training that the folders of checkpoints can be written.

    Raises:
        OSError: One cannot be written.
    """
    from bench.files import check_writable, remove_leftovers

    for folder in folders if console.is_first_process() else ():
        remove_leftovers(folder)
        if not (folder / _CARD).is_file():
            check_writable(folder / _CARD)


def _describe_folder(folder: Path) -> str:
    """Return in words what the folder of a checkpoint contains."""
    if (folder / _CARD).is_file():
        return "a finished checkpoint"
    started = folder.is_dir() and any(folder.iterdir())
    return "a training to resume" if started else "nothing"


def _vary(
    method: str, settings: Mapping[str, str], vary: Sequence[tuple[str, str]]
) -> "dict[str, Recipe]":
    """Return the recipe and those that differ in one setting, checked, by the names of folders."""
    from bench.registry import load_recipe

    recipes = {"base" if vary else "": load_recipe(method, settings)}
    for field, values in vary:
        for value in values.split(","):
            recipe = load_recipe(method, {**settings, field: value})
            if recipe not in recipes.values():  # a value may be the base's own
                recipes[f"{field}={value}"] = recipe
    for recipe in recipes.values():
        recipe.check()
    return recipes


def _count_tokens(budget: str) -> int:
    """Return the number of training tokens of a budget."""
    if budget.upper() in BUDGETS:
        return BUDGETS[budget.upper()]
    text = budget.replace("_", "").replace(",", "")
    if not text.isdecimal() or not int(text):
        raise UsageError(f"--budget takes S, L or a number of tokens, got {budget!r}")
    return int(text)
