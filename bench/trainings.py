"""Trainings as a grid: each of some methods at each budget with each seed, and its variants.

``plan_trainings`` lists them, ``run`` of each runs one; whoever computes them needs nothing else.
Each is determined by its method, settings, budget and seed, and has a folder of its own, in which
it is finished, interrupted, or not begun.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain, product
from pathlib import Path
from typing import Any, Literal

from bench.checkpoints import CARD, training_seconds
from bench.encoder import digest
from bench.errors import UsageError
from bench.files import hide_home
from bench.recipe import Load, Progress, Recipe
from bench.registry import load_recipe, split_setting
from bench.store import Store
from bench.store.result import Absence, RunSpec

BUDGETS = {"S": 1_000_000, "L": 50_000_000}
"""Budgets by name: S for an afternoon of a CPU, L for a GPU."""

SEED = 42
"""The seed that needs no mention in the name of a folder."""

_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")
_LONGEST = 200  # bytes of a folder's name, of the 255 that it may have

State = Literal["finished", "started", "new"]


@dataclass(frozen=True)
class PlannedTraining:
    """One training.

    Attributes:
        method: Name of the method, or ``package.module:Class`` of its recipe.
        recipe: Its recipe with all settings.
        budget: Training tokens.
        seed: Random seed.
        out: Folder of the checkpoint.
    """

    method: str
    recipe: Recipe
    budget: int
    seed: int
    out: Path

    def run(self, load: Load, progress: Progress) -> Path:
        """Train, or resume, and return the folder; a finished training is left as it is.

        Raises:
            BenchError: As ``Recipe.train``.
        """
        return self.recipe.train(
            self.out, budget=self.budget, seed=self.seed, load=load, progress=progress
        )

    def state(self) -> State:
        """Say how far it is, by what its folder contains."""
        if (self.out / CARD).is_file():
            return "finished"
        started = self.out.is_dir() and any(self.out.iterdir())
        return "started" if started else "new"

    def describe(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "method": self.method,
            "budget": self.budget,
            "seed": self.seed,
            "out": str(self.out),
            "recipe": asdict(self.recipe),  # type: ignore[call-overload]  # a dataclass
        }

    def made(self, card: Mapping[str, Any]) -> bool:
        """Say whether a card is that of this training: of its method, settings, budget and seed.

        A dtype of "auto" may be any, since which one it is depends on the machine.
        """
        own = hide_home(asdict(self.recipe))  # type: ignore[call-overload]  # as cards are
        deciding = {each.name for each in fields(self.recipe) if each.compare}  # type: ignore[arg-type]
        recipe = dict(card.get("recipe") or {})
        if own.get("dtype") == "auto":
            deciding, recipe = deciding - {"dtype"}, recipe | {"dtype": "auto"}
        same = all(name in recipe and recipe[name] == own[name] for name in deciding)
        place = (card.get("budget"), card.get("seed"))
        return same and self._is_of(card) and place == (self.budget, self.seed)

    def _is_of(self, card: Mapping[str, Any]) -> bool:
        names = self.method.split(":", maxsplit=1)[0].split(".")
        method = str(card.get("method"))
        return method in names or method.replace("-", "_") in names  # a module has no hyphen

    def seconds(self, cards: Iterable[Mapping[str, Any]]) -> float | None:
        """Return the time it takes at the speed of earlier trainings; None where none is like it.

        Args:
            cards: Cards of earlier trainings; of those of the same method, the ones with most equal
                settings count, and of these the one with the nearest budget.
        """
        own = asdict(self.recipe)  # type: ignore[call-overload]
        likely: list[tuple[int, float, float]] = []
        for card in cards:
            seconds, tokens = training_seconds(card), card.get("trained_tokens")
            if not self._is_of(card) or not seconds or not tokens:
                continue
            recipe = card.get("recipe") or {}
            other = sum(recipe.get(name, value) != value for name, value in own.items())
            likely.append((other, abs(tokens - self.budget), seconds / tokens * self.budget))
        return min(likely)[2] if likely else None


def scored_cards(store: Store) -> list[Mapping[str, Any]]:
    """Return the cards of the trainings that need no checkpoint any more: all their cells are done.

    These are the cells of every task that the results have. A task that an encoder cannot do is
    done too.

    Args:
        store: The results.

    Raises:
        ResultError: The archive is damaged.
    """
    done: dict[str, set[tuple[str, str, int | None]]] = {}
    cards: dict[str, Mapping[str, Any]] = {}
    for result in store.results(examples=False):
        done.setdefault(result.spec.encoder, set()).add(_task(result.spec))
        cards[result.spec.encoder] = result.card.get("training") or {}
    every = set().union(*done.values())
    for absence in store.absences():
        every.add(_task(absence))
        if absence.status == "skipped":
            done.setdefault(absence.encoder, set()).add(_task(absence))
    return [card for encoder, card in cards.items() if card and done[encoder] >= every]


def _task(cell: RunSpec | Absence) -> tuple[str, str, int | None]:
    return cell.task, cell.readout, cell.limit


def plan_trainings(
    methods: Sequence[str],
    budgets: Sequence[str],
    seeds: Sequence[int],
    *,
    settings: Mapping[str, str] | None = None,
    changes: Sequence[str] = (),
    vary: Sequence[str] = (),
    out: Path | None = None,
) -> list[PlannedTraining]:
    """Return the trainings of a grid, checked, in order: methods, budgets, seeds, variants.

    Args:
        methods: Names of recipes.
        budgets: "S", "L" or numbers of tokens.
        seeds: Random seeds.
        settings: Values by field, for the recipes that have the field.
        changes: ``field=value`` for the recipes that have it, ``method.field=value`` for one.
        vary: ``field=value,value``, addressed like changes: one more training per value.
        out: Folder of the only training, or of the folders of several; None for ``checkpoints``.

    Raises:
        UsageError: No such recipe, setting or budget, or an invalid setting.
    """
    cells = list(product(methods, budgets, seeds))
    if not cells:
        raise UsageError("expected at least one method, budget and seed, got an empty list")
    _check_owners(methods, [*changes, *vary])
    planned: dict[Path, PlannedTraining] = {}
    for method, budget, seed in cells:
        own = [text for _, text in _addressed(method, changes)]
        folder = out
        if folder is None or len(cells) > 1:
            name = folder_name(method, budget, [*own, *([f"seed={seed}"] if seed != SEED else [])])
            folder = (out or Path("checkpoints")) / name
        overrides = {**(settings or {}), **dict(map(split_setting, own))}
        varied = [split_setting(text) for _, text in _addressed(method, vary)]
        for variant, recipe in _variants(method, overrides, varied).items():
            path = folder / variant
            tokens = count_tokens(budget)
            training = PlannedTraining(method, _settled(recipe), tokens, seed, path)
            planned.setdefault(path, training)
    return list(planned.values())


def _settled(recipe: Recipe) -> Recipe:
    """Return a recipe as its cards have it; see ``Recipe``."""
    settle: Callable[[], Recipe] = getattr(recipe, "settled", lambda: recipe)
    return settle()


def count_tokens(budget: str) -> int:
    """Return the number of training tokens of a budget.

    Raises:
        UsageError: It is none.
    """
    if budget.upper() in BUDGETS:
        return BUDGETS[budget.upper()]
    text = budget.replace("_", "")
    if not text.isdecimal() or not int(text):
        raise UsageError(f"--budget takes S, L or a number of tokens, got {budget!r}")
    return int(text)


def split_budgets(text: str) -> list[str]:
    """Return the budgets of a comma-separated list.

    Raises:
        UsageError: It may be one number with commas.
    """
    if _THOUSANDS.fullmatch(text):
        raise UsageError(
            f"expected budgets separated by commas, got {text!r}, which may be one number: "
            f"write {text.replace(',', '_')}, or repeat --budget"
        )
    return [part for part in map(str.strip, text.split(",")) if part]


def folder_name(method: str, budget: str, changes: Sequence[str]) -> str:
    """Return the name of a checkpoint's folder: one for each method, budget and set of changes."""
    name = re.sub(r"[^\w.+=,-]+", "_", "-".join([method, budget, *changes]))
    if len(name.encode()) > _LONGEST:
        name = f"{name[:60]}-{digest(list(changes))[:8]}"
    return name


def _addressed(method: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return the changes that concern a method, each with and without its address."""
    known = {field.name for field in fields(load_recipe(method))}  # type: ignore[arg-type]
    found = []
    for text in texts:
        target, value = split_setting(text)
        owner, _, name = target.rpartition(".")
        if owner == method or (not owner and name in known):
            found.append((text, f"{name}={value}"))
    return found


def _check_owners(methods: Sequence[str], texts: Sequence[str]) -> None:
    """Check that each change concerns a method; the first method says what it knows otherwise.

    Raises:
        UsageError: One concerns none.
    """
    addressed = chain(*(_addressed(method, texts) for method in methods))
    concerned = {text for text, _ in addressed}
    for text in texts:
        if text not in concerned:
            name, value = split_setting(text)
            load_recipe(methods[0], {name: value})  # raises: it has no such setting
            raise UsageError(f"expected a setting of {', '.join(methods)}, got {text!r}")


def _variants(
    method: str, settings: Mapping[str, str], vary: Sequence[tuple[str, str]]
) -> dict[str, Recipe]:
    """Return the recipe and those that differ in one setting, checked, by the names of folders."""
    known = {field.name for field in fields(load_recipe(method))}  # type: ignore[arg-type]
    settings = {name: value for name, value in settings.items() if name in known}
    recipes = {"base" if vary else "": load_recipe(method, settings)}
    for field, values in vary:
        for value in values.split(","):
            recipe = load_recipe(method, {**settings, field: value})
            if recipe not in recipes.values():  # a value may be the base's own
                recipes[f"{field}={value}"] = recipe
    for recipe in recipes.values():
        recipe.check()
    return recipes
