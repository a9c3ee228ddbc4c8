"""``bench check``: encoders, tasks and recipes against their contracts."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import console
from bench.cli.options import (
    Device,
    Dtype,
    Json,
    Limit,
    Seed,
    Sets,
    complete,
    model_option,
    recipe_names,
    split_names,
    task_option,
)
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.encoder import Encoder
    from bench.recipe import Recipe
    from bench.task import Task
    from bench.testing import CheckOutcome

Models = Annotated[
    list[str],
    model_option(
        "Encoders to check, as for `bench run`; with --task the encoder that runs the task, "
        "with --recipe the one that reads its checkpoints."
    ),
]
Tasks = Annotated[list[str], task_option("Tasks to check, as for `bench run`.")]
Recipe_ = Annotated[
    str,
    typer.Option(
        "--recipe",
        "-r",
        help="A recipe to check, as for `bench train`; on a tiny random backbone unless --set "
        "names another.",
        autocompletion=complete(recipe_names),
        show_default=False,
    ),
]
Budget = Annotated[int, typer.Option(help="Training tokens when a recipe is checked.", min=1)]


def check(  # noqa: PLR0913, PLR0917 - one parameter an option
    model: Models = [],  # noqa: B006 - typer copies lists
    task: Tasks = [],  # noqa: B006
    recipe: Recipe_ = "",
    budget: Budget = 4_000,
    limit: Limit = None,
    seed: Seed = 42,
    device: Device = "auto",
    dtype: Dtype = "float32",
    set_: Sets = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Check encoders, tasks or a recipe against the contract, rule by rule."""
    import rich.style  # noqa: F401 - draws from ``random`` when imported, which checks watch

    from bench.registry import compute_settings, load_encoders
    from bench.tasks import load_tasks

    models, settings = split_names(model), compute_settings(device, dtype)
    failed = False
    if recipe:
        if task:
            raise UsageError("expected --task or --recipe, got both: check one after the other")
        kind, outcomes = "recipe", _check_recipe(recipe, models, settings, set_, budget, seed)
    elif task:
        tasks = load_tasks(split_names(task), limit=limit)
        kind, outcomes = "task", _check_tasks(tasks, models, settings, set_, seed)
    elif models:
        encoders = load_encoders(models, settings, set_)
        kind = "encoder"
        outcomes = _check_encoders(encoders)
    else:
        raise UsageError("expected what to check: --model, --task or --recipe (see --help)")
    for name, outcome in outcomes:
        failed |= outcome.status == "failed"
        console.print_check(kind, name, outcome, as_json=as_json)
    if failed:
        raise typer.Exit(1)


def _check_encoders(encoders: "Mapping[str, Encoder]") -> "Iterator[tuple[str, CheckOutcome]]":
    """Yield the outcomes of encoders."""
    from bench.testing import run_checks

    for name, encoder in encoders.items():
        for outcome in run_checks(encoder):
            yield name, outcome


def _check_tasks(
    tasks: "Sequence[Task]",
    models: Sequence[str],
    settings: Mapping[str, str],
    changes: Sequence[str],
    seed: int,
) -> "Iterator[tuple[str, CheckOutcome]]":
    """Yield the outcomes of tasks; each is done by the first of the encoders that is able to.

    Raises:
        UsageError: None is.
    """
    from bench.registry import load_encoders
    from bench.testing import run_task_checks

    encoders = load_encoders(models or ["hashing", "backbone-mean", "all"], settings, changes)
    for task in tasks:
        able = [each for each in encoders.values() if isinstance(each, task.needs)]
        if not able:
            raise UsageError(
                f"{task.name} needs an encoder with {task.needs.__name__}, "
                f"got {', '.join(encoders)}: name one with --model"
            )
        for outcome in run_task_checks(task, able[0], seed=seed):
            yield task.name, outcome


def _check_recipe(
    name: str,
    models: Sequence[str],
    settings: Mapping[str, str],
    changes: Sequence[str],
    budget: int,
    seed: int,
) -> "Iterator[tuple[str, CheckOutcome]]":
    """Yield the outcomes of a recipe, whose checkpoints are removed afterwards.

    Raises:
        UsageError: Several encoders are to read them.
    """
    from bench.data import load
    from bench.registry import encoder_of, load_one, load_recipe, split_setting
    from bench.testing import RecipeTrial, run_recipe_checks, write_tiny_backbone

    given = dict(map(split_setting, changes))
    default = load_recipe(name, given)
    known = {each.name for each in dataclasses.fields(default)}  # type: ignore[arg-type]
    own = {field: value for field, value in settings.items() if field in known}
    if len(models) > 1:
        raise UsageError(
            f"expected one encoder that reads the checkpoints, got {', '.join(models)}"
        )
    (reader,) = models or [encoder_of(name, default)]

    def read(folder: Path) -> "Encoder":
        return load_one(f"{reader}:{folder}", settings)[1]

    with TemporaryDirectory(prefix="bench-check-") as place:
        recipe = load_recipe(name, {**own, **given})
        if "backbone" in known - given.keys():
            recipe = _replace_backbone(recipe, write_tiny_backbone(Path(place, "backbone")))
        trial = RecipeTrial(recipe, Path(place), load, read if reader else None, budget, seed)
        for outcome in run_recipe_checks(trial):
            yield name, outcome


def _replace_backbone(recipe: "Recipe", folder: Path) -> "Recipe":
    """Return the recipe with another backbone, also where a setting names the same one."""
    settings = {each.name: getattr(recipe, each.name) for each in dataclasses.fields(recipe)}  # type: ignore[arg-type]
    same = [name for name, value in settings.items() if value == settings["backbone"]]
    changed: Recipe = dataclasses.replace(recipe, **dict.fromkeys(same, str(folder)))  # type: ignore[type-var]
    return changed
