"""The contract of recipes: a training of few tokens on a tiny backbone, interrupted and whole."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Required, TypedDict

from bench.checkpoints import CARD
from bench.encoder import Encoder, card
from bench.errors import UsageError, one_line
from bench.files import hide_home
from bench.recipe import Load, Recipe, TrainingRows
from bench.shape import find_mismatch
from bench.testing.agreement import ContractError, embeddings
from bench.testing.encoders import TEXTS
from bench.testing.randomness import random_states_touched
from bench.testing.rules import CheckOutcome, SkippedRule, check_frozen, try_in_turn

_INVALID: Mapping[type, object] = {int: -1, float: -1.0, str: "no such value"}


class _Stopped(KeyboardInterrupt):
    """Ends a training as Ctrl-C does."""


class _DataRead(Exception):  # noqa: N818 - a signal
    """Data was asked for."""


class _Card(TypedDict, total=False):
    """What the report and the model card need of ``card.json``."""

    method: Required[str]
    recipe: Required[Mapping[str, Any]]
    budget: Required[int]
    seed: Required[int]
    trained_tokens: Required[int]
    data: Required[Sequence[Mapping[str, Any]]]
    loss: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class RecipeTrial:
    """A recipe and what it is tried with.

    Attributes:
        recipe: Best on a tiny backbone; see ``write_tiny_backbone``.
        folder: An empty folder for its checkpoints.
        load: Loads data sets.
        make_encoder: Returns the encoder of a checkpoint's folder; None where there is none.
        budget: Training tokens.
        seed: Random seed.
    """

    recipe: Recipe
    folder: Path
    load: Load
    make_encoder: Callable[[Path], Encoder] | None = None
    budget: int = 20_000
    seed: int = 42
    calls: list[tuple[str, int, int]] = field(default_factory=list, init=False)

    @cached_property
    def checkpoint(self) -> Path:
        """The folder of an uninterrupted training."""
        self.train(self.folder / "whole", lambda *call: self.calls.append(call))
        return self.folder / "whole"

    @property
    def card(self) -> dict[str, Any]:
        """The content of the checkpoint's card."""
        return dict(json.loads((self.checkpoint / CARD).read_bytes()))

    def train(
        self,
        out: Path,
        progress: Callable[..., None],
        *,
        load: Load | None = None,
        seed: int | None = None,
    ) -> Path:
        """Train to the end of the budget."""
        return self.recipe.train(
            out,
            budget=self.budget,
            seed=self.seed if seed is None else seed,
            load=load or self.load,
            progress=progress,
        )


def check_recipe(trial: RecipeTrial) -> None:
    """Check a recipe against every rule.

    Raises:
        ContractError: One is broken.
    """
    for check in RECIPE_CHECKS:
        try:
            check(trial)
        except SkippedRule:
            continue


def run_recipe_checks(trial: RecipeTrial) -> Iterator[CheckOutcome]:
    """Yield the outcome of every rule up to the first broken one."""
    return try_in_turn(RECIPE_CHECKS, trial)


def check_settings(trial: RecipeTrial) -> None:
    """The settings are frozen, plain JSON, make an equal recipe again, and are valid."""
    recipe: Any = trial.recipe
    try:
        plain = json.loads(json.dumps(dataclasses.asdict(recipe), allow_nan=False))
        again = type(recipe)(**plain)
    except (TypeError, ValueError) as error:
        raise ContractError(f"settings do not survive a round trip: {error}") from error
    if again != recipe:
        raise ContractError(
            f"a recipe made from the settings {plain} is another one; "
            "a setting is not kept as it was given"
        )
    check_frozen(recipe, "recipe")
    recipe.check()


def check_rejection(trial: RecipeTrial) -> None:
    """What ``check`` rejects, ``train`` rejects too, before anything is read or written."""
    rejected = 0
    for setting in dataclasses.fields(trial.recipe):  # type: ignore[arg-type]
        invalid = _INVALID.get(type(getattr(trial.recipe, setting.name)))
        if invalid is not None and setting.init:
            rejected += _check_invalid(trial, setting.name, invalid)
    if not rejected:
        raise SkippedRule("check accepts -1 for every number and any word for every name")


def _check_invalid(trial: RecipeTrial, setting: str, value: object) -> bool:
    """Say whether a recipe rejects the value of a setting, as it should."""
    what = f"{setting}={value!r}"
    try:
        changed: Any = dataclasses.replace(trial.recipe, **{setting: value})  # type: ignore[type-var]
        changed.check()
    except UsageError:
        pass
    except Exception as error:
        raise ContractError(
            f"check answers {what} with {one_line(error)}; expected a UsageError"
        ) from error
    else:
        return False
    out = trial.folder / "rejected"
    invalid = dataclasses.replace(trial, recipe=changed)
    try:
        invalid.train(out, _ignore, load=_refuse_to_load)
    except UsageError:
        if not out.exists():
            return True
        raise ContractError(
            f"train writes {out.name} before it rejects {what}; call check first"
        ) from None
    except _DataRead:
        raise ContractError(
            f"train reads data before it rejects {what}; call check first"
        ) from None
    raise ContractError(f"check rejects {what}, train does not; call check first")


def check_training(trial: RecipeTrial) -> None:
    """A training ends with a checkpoint, tells its progress, and leaves random states alone."""
    if touched := random_states_touched(lambda: trial.checkpoint):
        raise ContractError(
            f"training touches the global random state of {', '.join(touched)}; "
            "pass a generator, or seed inside a fork of the state"
        )
    if not _contents(trial.checkpoint):
        raise ContractError(f"a training leaves nothing beside {CARD} in {trial.checkpoint}")
    for label, done, total in trial.calls:
        if not isinstance(label, str) or not 0 <= done <= total:
            raise ContractError(
                f"progress is called with {(label, done, total)}; "
                "expected a label, the steps done and their total"
            )
    if not trial.calls:
        raise ContractError("progress is never called; call it in every stage")


def check_card(trial: RecipeTrial) -> None:
    """The card says what the report and the model card need, and no path of the home folder."""
    if not (trial.checkpoint / CARD).is_file():
        raise ContractError(f"a training leaves no {CARD}; write it last")
    found = trial.card
    if wrong := find_mismatch(found, _Card):
        raise ContractError(f"{wrong!r} of {CARD} is missing or of another kind")
    for name, wanted in (("budget", trial.budget), ("seed", trial.seed)):
        if found[name] != wanted:
            raise ContractError(f"{CARD} has the {name} {found[name]}; expected {wanted}")
    if not 0 < found["trained_tokens"] <= trial.budget:
        raise ContractError(
            f"{CARD} has {found['trained_tokens']} trained tokens; "
            f"expected at least one, and no more than the budget of {trial.budget}"
        )
    if found != hide_home(found):
        raise ContractError(f"{CARD} names the home folder; write it with bench.files.hide_home")


def check_resumption(trial: RecipeTrial) -> None:
    """A training that was interrupted twice gives the files of one that was not."""
    out, whole = trial.folder / "resumed", _contents(trial.checkpoint)
    for _ in range(2):
        calls = 0

        def stop(*_: object) -> None:
            nonlocal calls
            calls += 1
            if calls > len(trial.calls) // 3:
                raise _Stopped

        try:
            trial.train(out, stop)
        except _Stopped:
            continue
        raise ContractError(
            "a KeyboardInterrupt from progress does not end the training; let it pass"
        )
    trial.train(out, _ignore)
    resumed = _contents(out)
    if other := sorted(
        name for name in whole.keys() | resumed.keys() if whole.get(name) != resumed.get(name)
    ):
        raise ContractError(
            f"a resumed training gives another {', '.join(other[:3])} than a whole one; "
            "draw the randomness of a step from the seed and its number"
        )


def check_finished(trial: RecipeTrial) -> None:
    """The same call again returns the finished checkpoint, which stays as it is."""
    before = _contents(trial.checkpoint, notes_too=True)
    try:
        trial.train(trial.checkpoint, _ignore, load=_refuse_to_load)
    except _DataRead:
        raise ContractError(
            f"a finished training reads data again; return when {CARD} is that of this training"
        ) from None
    if _contents(trial.checkpoint, notes_too=True) != before:
        raise ContractError("a finished training changes its checkpoint when it is called again")


def check_other_training(trial: RecipeTrial) -> None:
    """A folder with another training's checkpoint is refused, and stays as it is."""
    before = _contents(trial.checkpoint, notes_too=True)
    try:
        trial.train(trial.checkpoint, _ignore, seed=trial.seed + 1)
    except UsageError:
        if _contents(trial.checkpoint, notes_too=True) == before:
            return
        raise ContractError("a refused training changes the checkpoint of another one") from None
    raise ContractError(
        "a training with another seed accepts a folder that holds a checkpoint; "
        "raise UsageError where settings, budget or seed differ"
    )


def check_encoder_loads(trial: RecipeTrial) -> None:
    """Its encoder reads the checkpoint, counts as trained, and has the checkpoint's card."""
    if trial.make_encoder is None:
        raise SkippedRule("no encoder is known: name it in the class attribute encoder")
    encoder = trial.make_encoder(trial.checkpoint)
    embeddings(encoder.encode(TEXTS), TEXTS, "weights that diverged")
    shown = card(encoder)
    if not shown.trained or dict(shown.training) != trial.card:
        raise ContractError(
            f"the encoder's card says trained={shown.trained} and is not that of {CARD}; "
            "return its content as Card.training"
        )
    if shown.training_tokens != trial.card["trained_tokens"]:
        raise ContractError(
            f"the encoder's card has {shown.training_tokens} training tokens; "
            f"expected the {trial.card['trained_tokens']} of {CARD}"
        )


RECIPE_CHECKS: tuple[Callable[[RecipeTrial], None], ...] = (
    check_settings,
    check_rejection,
    check_training,
    check_card,
    check_resumption,
    check_finished,
    check_other_training,
    check_encoder_loads,
)
"""The rules, in the order in which they are tried."""


def _ignore(*_: object, **__: object) -> None:
    """Do nothing with progress."""


def _refuse_to_load(*_: object, **__: object) -> TrainingRows:
    raise _DataRead


def _contents(folder: Path, *, notes_too: bool = False) -> dict[str, bytes]:
    """Return the files of a checkpoint by path.

    The card, and JSON files of stages in folders of their own, have times, and are returned only if
    asked for.
    """
    found = {}
    for path in folder.rglob("*"):
        is_note = path.name == CARD or (path.suffix == ".json" and path.parent != folder)
        if path.is_file() and (notes_too or not is_note):
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found
