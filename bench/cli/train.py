"""``bench train``: run recipes, from data to checkpoints that their encoders load."""

import json
import logging
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import console
from bench.cli.options import (
    Device,
    Dtype,
    Json,
    Ray,
    Sets,
    Workers,
    complete,
    recipe_names,
    split_names,
)
from bench.cli.tracking import TrackedProgress, check_tracker
from bench.errors import BenchError, UsageError, one_line

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from bench.engine import Engine, Failure, Job
    from bench.recipe import Load, Progress
    from bench.trainings import PlannedTraining

log = logging.getLogger(__name__)

_STATES = {
    "finished": "a finished checkpoint",
    "started": "a training to resume",
    "new": "nothing",
}


Methods = Annotated[
    list[str],
    typer.Argument(
        help="Methods to train, separated by commas or spaces.",
        autocompletion=complete(recipe_names),
    ),
]
Budgets = Annotated[
    list[str],
    typer.Option(
        "--budget",
        help="Training tokens: S (1 million), L (50 million), or numbers; separated by commas, or "
        "repeated.",
    ),
]
Seeds = Annotated[
    list[str],
    typer.Option("--seed", help="Random seeds, separated by commas, or repeated."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the checkpoint, or of all their folders if there are several. [default: "
        "checkpoints/METHOD-BUDGET, followed by what --set and --seed change]",
        file_okay=False,
        show_default=False,
    ),
]
Vary = Annotated[
    list[str],
    typer.Option(
        help="Train one more checkpoint for each value of a setting: `field=value,value` or "
        "`method.field=value,value`. Repeatable.",
    ),
]
Scored = Annotated[
    Path | None,
    typer.Option(
        help="Skip trainings that this folder or archive of results has on all of its tasks.",
        exists=True,
        show_default=False,
    ),
]
Track = Annotated[
    str,
    typer.Option(
        help="Log loss, learning rate and tokens of each step to trackio, wandb or tensorboard.",
        show_default=False,
    ),
]


def train(  # noqa: PLR0913, PLR0917 - one parameter an option
    methods: Methods,
    budget: Budgets = ["S"],  # noqa: B006 - typer copies it
    out: Out = None,
    seed: Seeds = ["42"],  # noqa: B006
    device: Device = "auto",
    dtype: Dtype = "auto",
    set_: Sets = [],  # noqa: B006
    vary: Vary = [],  # noqa: B006
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Continue with the others after a failed training.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the trainings and the time they take; train nothing."),
    ] = False,
    scored: Scored = None,
    workers: Workers = None,
    ray: Ray = None,
    track: Track = "",
    as_json: Json = False,
) -> None:
    """Train encoders by their recipes; the same command resumes, and skips what is finished.

    With several workers, each trains one checkpoint at a time.
    """
    from bench.engine import start_engine
    from bench.registry import compute_settings, encoder_of
    from bench.store import Store
    from bench.trainings import plan_trainings, scored_cards, split_budgets

    trainings = plan_trainings(
        split_names(methods),
        list(chain(*map(split_budgets, budget))),
        _split_seeds(seed),
        settings=compute_settings(device, dtype),
        changes=set_,
        vary=vary,
        out=out,
    )
    if scored is not None:
        planned, cards = len(trainings), scored_cards(Store(scored))
        trainings = [each for each in trainings if not any(map(each.made, cards))]
        known = planned - len(trainings)
        log.info("%d of %d trainings already have results in %s", known, planned, scored)
        if not trainings:
            return
    if dry_run:
        _show(trainings, as_json=as_json)
        return
    if track:
        check_tracker(track)
    if (ray or workers not in {None, "1"}) and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("expected several processes for each training or --workers, got both")
    _prepare(training.out for training in trainings)
    with start_engine(workers, ray, device) as engine:
        failed = _train_all(trainings, engine, track=track, keep_going=keep_going, as_json=as_json)
    if failed:
        raise typer.Exit(1)
    if not as_json:
        readers = [encoder_of(each.method, each.recipe) or "ENCODER" for each in trainings]
        encoders = [f"{name}:{each.out}" for name, each in zip(readers, trainings, strict=True)]
        encoders.append(readers[0])
        if out is not None and len(trainings) > 1:
            encoders = [f"trained:{out}"]
        log.info("try it: bench run --model %s --suite quick", shlex.quote(",".join(encoders)))


def _split_seeds(texts: Sequence[str]) -> list[int]:
    """Return the seeds of comma-separated lists.

    Raises:
        UsageError: One is no whole number from 0.
    """
    seeds = [part.strip() for part in ",".join(texts).split(",")]
    for seed in seeds:
        if not seed.isdecimal():
            raise UsageError(f"--seed takes whole numbers from 0, got {seed!r}")
    return list(dict.fromkeys(map(int, seeds)))


def _train_all(
    trainings: Sequence["PlannedTraining"],
    engine: "Engine",
    *,
    track: str,
    keep_going: bool,
    as_json: bool,
) -> int:
    """Run the trainings on an engine, and return how many failed.

    Raises:
        BenchError: The first one that failed, unless the others go on.
    """
    from bench.engine import Failure, Train

    failed, names = 0, [""]  # a single one needs none
    if len(trainings) > 1:
        names = [f"training {i} of {len(trainings)}" for i in range(1, len(trainings) + 1)]
    with console.open_bars() as bars:
        planned: dict[Job, tuple[PlannedTraining, _LateBar]] = {}
        for name, training in zip(names, trainings, strict=True):
            bar = _LateBar(bars, name, training.out)
            job = Train(_Tracked(training, track), bar)
            planned[job] = training, bar
            engine.submit(job)
        while outcome := engine.wait():
            training, bar = planned[outcome.job]
            bar.close()
            if isinstance(outcome.value, Failure):
                _report(training, outcome.value, named=len(trainings) > 1, raises=not keep_going)
                failed += 1
                continue
            _describe(training)
            print(json.dumps(training.describe()) if as_json else training.out, flush=True)
    return failed


class _LateBar:
    """A progress bar that is shown from the first step on."""

    def __init__(self, bars: "Bars", name: str, out: Path) -> None:
        self._bars, self._name, self._out = bars, name, out
        self._bar: console.Bar | None = None

    def __call__(self, label: str, done: int, total: int) -> None:
        """Show how far the training is."""
        if self._bar is None:
            self._bar = console.Bar(self._bars, self._name)
            if self._name:
                log.info("%s: %s", self._name, self._out)
        if total:
            self._bar(label, done, total)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar:
            self._bar.close()


def _report(training: "PlannedTraining", failure: "Failure", *, named: bool, raises: bool) -> None:
    """Log why a training has failed, or end the command with it.

    Raises:
        BenchError: The command ends.
    """
    message = f"{training.out}: {failure.reason}" if named else failure.reason
    if raises:
        raise (UsageError if failure.invalid else BenchError)(message)
    log.error("%s", message)


@dataclass(frozen=True)
class _Tracked:
    """A training whose numbers go to a tracker, in the process that trains; "" for none."""

    training: "PlannedTraining"
    tracker: str

    @property
    def out(self) -> Path:
        """Folder of the checkpoint."""
        return self.training.out

    def run(self, load: "Load", progress: "Progress") -> Path:
        """Train, or resume, and return the folder."""
        with _track(progress, self.tracker, self.training) as tracked:
            return self.training.run(load, tracked)


@contextmanager
def _track(progress: "Progress", tracker: str, training: "PlannedTraining") -> "Iterator[Progress]":
    """Yield a progress callback whose numbers go to a tracker, if one is named."""
    if not tracker or not console.is_first_process():
        yield progress
        return
    described = training.describe()
    settings = {**described["recipe"], "budget": training.budget, "seed": training.seed}
    tracked = TrackedProgress(progress, tracker, training.out, settings)
    try:
        yield tracked
    finally:
        tracked.finish()


def _describe(training: "PlannedTraining") -> None:
    """Write a model card beside the weights, unless somebody wrote another or it cannot be known.

    A training that is finished must not fail for its description.
    """
    from bench.checkpoints import CARD
    from bench.registry import encoder_of, load_encoder
    from bench.reporting.modelcard import README, describe_folder

    folder, reader = training.out, encoder_of(training.method, training.recipe)
    new = (folder / CARD).is_file() and not (folder / README).exists()
    if not reader or not new or not console.is_first_process():
        return
    try:
        describe_folder(reader, load_encoder(f"{reader}:{folder}"), folder)
    except (BenchError, ImportError, OSError) as error:
        log.warning("no %s in %s: %s", README, folder, one_line(error))


def _prepare(folders: Iterable[Path]) -> None:
    """Check before hours of training that the folders of checkpoints can be written.

    Raises:
        OSError: One cannot be written.
    """
    from bench.checkpoints import CARD
    from bench.files import check_writable, remove_leftovers

    for folder in folders if console.is_first_process() else ():
        remove_leftovers(folder)
        if not (folder / CARD).is_file():
            check_writable(folder / CARD)


def _show(trainings: Sequence["PlannedTraining"], *, as_json: bool) -> None:
    """Print what would be trained, and about how long what is not finished takes in all."""
    cards = _known_cards(trainings)
    left = [training for training in trainings if training.state() != "finished"]
    times = [training.seconds(cards) for training in left]
    known = [seconds for seconds in times if seconds is not None]
    for training in trainings:
        seconds = training.seconds(cards)
        plan: dict[str, Any] = {**training.describe(), "there": _STATES[training.state()]}
        plan["seconds"] = None if seconds is None else round(seconds)
        print(json.dumps(plan, indent=None if as_json else 1))
    text = f"{len(left)} of {console.count(len(trainings), 'training')} to do"
    if known:
        text += f", about {timedelta(seconds=round(sum(known)))} at the speed of earlier ones"
    if len(known) < len(times):
        text += f", {len(times) - len(known)} of unknown speed"
    log.info(text)


def _known_cards(trainings: Sequence["PlannedTraining"]) -> list[dict[str, Any]]:
    """Return the cards of finished trainings beside the planned ones, and of default weights."""
    from bench.checkpoints import CARD
    from bench.encoder import card
    from bench.files import read_object
    from bench.registry import encoder_names, load_encoder

    folders = {training.out.parent for training in trainings}
    paths = sorted(chain(*(folder.glob(f"*/{CARD}") for folder in folders)))
    found = list(map(read_object, paths))
    for method in sorted({training.method for training in trainings} & {*encoder_names()}):
        try:
            found.append(dict(card(load_encoder(method)).training))
        except BenchError as error:
            log.debug("no card of %s: %s", method, error)
    return found
