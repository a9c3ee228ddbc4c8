"""The training loop: batch after batch through an objective, in steps that a kill cannot undo."""

import io
import logging
import math
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from accelerate.utils import reduce
from torch import Tensor
from transformers import get_scheduler

from adapters._network import Network
from adapters._trainable import autocast, fork_seed
from adapters._training.budget import TokenCounts, micro_batches
from adapters._training.processes import launched, main_process, wait_for_all
from adapters._training.stage import check_key
from bench.encoder import digest
from bench.errors import EncodingError, UsageError
from bench.files import write_atomic
from bench.recipe import Progress, track

Part = TypeVar("Part")

log = logging.getLogger(__name__)

_SAVE_SECONDS = 60.0


class Objective(Protocol[Part]):
    """What is minimised: the loss of a batch is the sum of its micro-batches' losses."""

    def parts(self, batch: Sequence[int]) -> Sequence[Part]:
        """Split a batch of example numbers into micro-batches that fit into memory."""
        ...

    def loss(self, part: Part) -> tuple[Tensor, TokenCounts]:
        """Return a micro-batch's share of the loss, and the tokens it took."""
        ...


@dataclass(frozen=True)
class Selection:
    """Keeps the weights with the best score; ties go to the later step.

    Attributes:
        score: Scores the current weights, higher is better, and counts the tokens that it took.
        noise: Scores that differ by less are ties.
        every: Steps between two scores; the last weights are scored too.
    """

    score: Callable[[], tuple[float, TokenCounts]]
    noise: float = 0.0
    every: int = 100


@dataclass(frozen=True)
class Training:
    """What decides the outcome of a training, apart from its data.

    Attributes:
        method: Name of the method, or of one of its stages.
        recipe: Settings of the recipe, plain JSON values.
        budget: Tokens that are allowed.
        seed: Random seed.
    """

    method: str
    recipe: Mapping[str, Any]
    budget: int
    seed: int


@dataclass(frozen=True)
class Optimisation:
    """AdamW with warm-up and decay.

    Attributes:
        lr: Highest learning rate.
        warmup: Fraction of steps of linear warm-up.
        decay: "cosine" or "linear", to 0 at the end.
        weight_decay: Of AdamW, on matrices alone: not on biases and norms.
        eps: Of AdamW.
        clip: Largest norm of the gradient.
    """

    lr: float
    warmup: float = 0.03
    decay: str = "cosine"
    weight_decay: float = 0.0
    eps: float = 1e-8
    clip: float = 1.0


@dataclass(frozen=True)
class Fitted:
    """How a training went.

    Attributes:
        spent: Tokens it took.
        seconds: Time in the loop, without the time a killed process was away.
        curve: (tokens trained, loss) after each step.
        scores: (step, score) wherever the weights were scored.
        kept: The step whose weights were kept, where some were scored; else 0, for the last.
    """

    spent: TokenCounts
    seconds: float
    curve: Sequence[tuple[int, float]]
    scores: Sequence[tuple[int, float]] = ()
    kept: int = 0

    def thinned(self, points: int = 100) -> list[list[float]]:
        """Return the curve as at most so many means of neighbouring steps."""
        width = max(math.ceil(len(self.curve) / points), 1)
        means = []
        for i in range(0, len(self.curve), width):
            group = self.curve[i : i + width]
            mean = math.fsum(loss for _, loss in group) / len(group)
            means.append([group[-1][0], round(mean, 5)])
        return means


def fit(  # noqa: PLR0913 - all but the first four by name
    weights: Mapping[str, Tensor],
    batches: Sequence[Sequence[int]],
    objective: Objective[Part],
    optimisation: Optimisation,
    *,
    network: Network,
    state: Path,
    training: Training,
    progress: Progress,
    selection: Selection | None = None,
) -> Fitted:
    """Train the weights on the batches, one step each.

    With several processes, started by ``accelerate launch`` or ``torchrun``, each takes some
    micro-batches of a batch, and gradients are summed.

    Args:
        weights: What is trained, by name; float32, changed in place.
        batches: Example numbers of each step, in order.
        objective: What is minimised.
        optimisation: How.
        network: Says where and in which dtype to compute.
        state: File of what is needed to resume; written after the first step, about once a
            minute, and at the end. A damaged one is reported in the log, and training begins anew.
        training: What decides the outcome; the state of another one is refused. Each step is
            seeded, so a resumed run matches an uninterrupted one.
        progress: Called with the number of steps; may track the numbers of each.
        selection: Which weights are kept; the last without it.

    Raises:
        UsageError: The state belongs to another training, or the dtype is float16: small gradients
            would be 0 without scaling.
        EncodingError: The loss is not finite.
    """
    if network.dtype == "float16":
        raise UsageError(
            "expected a dtype whose gradients need no scaling, got float16: "
            "use dtype bfloat16 or float32"
        )
    run = _Run.start(weights, batches, optimisation, training, state)
    wait_for_all()  # before the main process writes the file again, or removes it
    start = saved = time.perf_counter() - run.seconds
    while run.steps < len(batches):
        progress(f"{training.method}: training", run.steps, len(batches))
        seed = int(digest([training.seed, run.steps])[:15], 16)
        loss, spent = _step(weights, batches[run.steps], objective, launched(), network, seed=seed)
        if not math.isfinite(loss):
            raise EncodingError(
                f"the loss of step {run.steps} is {loss}: "
                "lower the learning rate, or compute in float32"
            )
        lr = float(run.scheduler.get_last_lr()[0])
        run.update(loss, spent, optimisation.clip)
        values = {"loss": loss, "lr": lr, "tokens": run.spent.trained}
        if selection and (run.steps % selection.every == 0 or run.steps == len(batches)):
            run.add_score(*selection.score(), selection.noise)
            values["score"] = run.scores[-1][1]
        track(progress, training.method, run.steps, **values)
        run.seconds = time.perf_counter() - start
        # the first too, so that a full disk is noticed at once and not after hours
        due = run.steps in {1, len(batches)} or time.perf_counter() - saved > _SAVE_SECONDS
        if due and main_process():
            run.write(state)
            saved = time.perf_counter()
            log.info(
                "%s: step %d of %d, %d tokens, loss %.3f",
                training.method,
                run.steps,
                len(batches),
                run.spent.trained,
                loss,
            )
    run.restore_best()
    progress(f"{training.method}: trained", len(batches), len(batches))
    return Fitted(run.spent, run.seconds, tuple(run.curve), tuple(run.scores), run.kept)


def split_batch(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Split a batch into micro-batches, enough of them for all processes of a launcher."""
    return micro_batches(lengths, tokens, processes=launched().num_processes)


def _step(
    weights: Mapping[str, Tensor],
    batch: Sequence[int],
    objective: Objective[Part],
    processes: Any,  # noqa: ANN401 - accelerate's PartialState
    network: Network,
    *,
    seed: int,
) -> tuple[float, TokenCounts]:
    """Add up a batch's gradients over micro-batches and processes; return loss and tokens."""
    loss, spent = 0.0, TokenCounts()
    with fork_seed(seed + processes.process_index, network.device):
        for part in objective.parts(batch)[processes.process_index :: processes.num_processes]:
            with autocast(network):
                value, took = objective.loss(part)
            value.backward()  # type: ignore[no-untyped-call]
            loss += float(value.detach().double().cpu())
            spent += took
    if processes.num_processes == 1:
        return loss, spent
    _sum_gradients(list(weights.values()))
    figures = torch.tensor([loss, *astuple(spent)], device=processes.device)
    loss, *counts = reduce(figures, "sum").tolist()
    return loss, TokenCounts(*map(round, counts))


def _sum_gradients(weights: Sequence[Tensor]) -> None:
    """Sum gradients over processes, at once: a call for each takes far longer."""
    zeros = torch.zeros_like
    gradients = [zeros(weight) if weight.grad is None else weight.grad for weight in weights]
    flat = reduce(torch.cat([gradient.flatten() for gradient in gradients]), "sum")
    parts = flat.split([gradient.numel() for gradient in gradients])
    for weight, part in zip(weights, parts, strict=True):
        weight.grad = part.view_as(weight)


def _make_optimizer(weights: Mapping[str, Tensor], optimisation: Optimisation) -> torch.optim.AdamW:
    """Return AdamW of the weights."""
    matrices = [weight for weight in weights.values() if weight.ndim > 1]
    others = [weight for weight in weights.values() if weight.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=optimisation.lr,
        eps=optimisation.eps,
        weight_decay=optimisation.weight_decay,
    )


@dataclass
class _Run:
    """A training on its way: what is trained, and how far it is."""

    weights: Mapping[str, Tensor]
    optimizer: Any
    scheduler: Any
    mark: str
    steps: int = 0
    spent: TokenCounts = field(default_factory=TokenCounts)
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    scores: list[tuple[int, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    kept: int = 0

    @classmethod
    def start(
        cls,
        weights: Mapping[str, Tensor],
        batches: Sequence[Sequence[int]],
        optimisation: Optimisation,
        training: Training,
        state: Path,
    ) -> Self:
        """Return a new training, or the one of an earlier call, as far as it came."""
        optimizer = _make_optimizer(weights, optimisation)
        # the rate of the first step of warm-up is 0, so a single step would train nothing
        warmup = min(math.ceil(optimisation.warmup * len(batches)), len(batches) - 1)
        scheduler = get_scheduler(optimisation.decay, optimizer, warmup, len(batches))
        key = [asdict(training), [list(batch) for batch in batches]]
        if optimisation.weight_decay:
            key.append(asdict(optimisation))
        run = cls(weights, optimizer, scheduler, digest(key))
        if state.exists():
            run._read(state)
        return run

    def update(self, loss: float, spent: TokenCounts, clip: float) -> None:
        """Take a step along the gradients."""
        torch.nn.utils.clip_grad_norm_(list(self.weights.values()), clip)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.steps += 1
        self.spent += spent
        self.curve.append((self.spent.trained, loss))

    def add_score(self, score: float, spent: TokenCounts, noise: float) -> None:
        """Add the score of the weights, and keep them if none was better by more than noise."""
        if all(score >= earlier - noise for _, earlier in self.scores):
            self.kept = self.steps
            for name, weight in self.weights.items():
                self.best[name] = weight.detach().cpu().clone()
        self.scores.append((self.steps, score))
        self.spent += spent

    def restore_best(self) -> None:
        """Set the weights to those with the best score, where there was a score."""
        self._set(self.best)

    def write(self, path: Path) -> None:
        """Write what ``start`` resumes from."""
        schedule = {k: v for k, v in self.scheduler.state_dict().items() if k != "lr_lambdas"}
        state = {
            "mark": self.mark,
            "weights": {name: weight.detach().cpu() for name, weight in self.weights.items()},
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {**schedule, "lr_lambdas": [None]},
            "steps": self.steps,
            "spent": list(astuple(self.spent)),
            "seconds": self.seconds,
            "curve": self.curve,
            "scores": self.scores,
            "best": self.best,
            "kept": self.kept,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(path, buffer.getvalue())

    def _read(self, path: Path) -> None:
        state = _read_state(path)
        if state is None:
            log.warning("%s is damaged: the training starts again", path)
            return
        check_key(path, state.get("mark"), self.mark)
        self._set(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.steps, self.seconds = state["steps"], state["seconds"]
        self.spent = TokenCounts(*state["spent"])
        self.curve = [(int(tokens), float(loss)) for tokens, loss in state["curve"]]
        self.scores = [(int(step), float(score)) for step, score in state["scores"]]
        self.best, self.kept = state["best"], state["kept"]

    def _set(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                self.weights[name].copy_(value)


def _read_state(path: Path) -> dict[str, Any] | None:
    """Return the content of a state file; None where it is damaged or something else."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not check the checksums
            if archive.testzip():
                return None
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 - damage shows as an exception of almost any kind
        return None
    return state if isinstance(state, dict) else None
