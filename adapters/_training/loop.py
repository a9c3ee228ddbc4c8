"""The loop: batch after batch through an objective until the plan is done, in steps that a kill cannot undo."""

import io
import logging
import math
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from adapters._backbone import Network
from adapters._training.budget import Spent, portions
from adapters._training.processes import launched, main_first, main_process, waited
from bench.encoder import digest
from bench.errors import CheckpointError, EncodingError, UsageError
from bench.files import write_atomic
from bench.recipe import Progress

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["launched", "main_first", "main_process", "waited"]

Part = TypeVar("Part")

log = logging.getLogger(__name__)

_SAVE_SECONDS = 60.0


class Objective(Protocol[Part]):
    """What is minimised. The losses of a batch's parts add up to the loss of the batch."""

    def parts(self, batch: Sequence[int]) -> Sequence[Part]:
        """Cut a batch of example numbers into what fits into memory at once."""
        ...

    def loss(self, part: Part) -> "tuple[Tensor, Spent]":
        """Return a part's share of the loss, and the token positions it took."""
        ...


@dataclass(frozen=True)
class Selection:
    """Which of the weights that a training goes through are kept: those with the best score, of equally good ones the last.

    Attributes:
        score: Scores the weights as they are now, higher is better, and says what that took.
        noise: Scores that differ by less count as equal.
        every: Steps between two scores; the last weights are scored too.
    """

    score: "Callable[[], tuple[float, Spent]]"
    noise: float = 0.0
    every: int = 100


@dataclass(frozen=True)
class Training:
    """What a training is, apart from its data: what decides its outcome.

    Attributes:
        method: Name of the method, or of one of its stages.
        recipe: Settings of the recipe, plain JSON values.
        budget: Token positions that are allowed.
        seed: The only source of randomness.
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
        warmup: Share of the steps in which it rises from 0, linearly.
        decay: "cosine" or "linear", to 0 at the end.
        weight_decay: Of AdamW, on matrices alone: biases and the weights of norms are not decayed.
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
        spent: Token positions it took.
        seconds: Time in the loop, without the time a killed process was away.
        curve: (token positions trained, loss) after each step.
        scores: (step, score) wherever the weights were scored.
        kept: The step whose weights were kept, where some were scored; else 0, for the last.
    """

    spent: Spent
    seconds: float
    curve: Sequence[tuple[int, float]]
    scores: Sequence[tuple[int, float]] = ()
    kept: int = 0

    def thinned(self, points: int = 100) -> list[list[float]]:
        """Return the curve as at most so many means of neighbouring steps."""
        width = max(math.ceil(len(self.curve) / points), 1)
        groups = [self.curve[i : i + width] for i in range(0, len(self.curve), width)]
        return [
            [group[-1][0], round(math.fsum(loss for _, loss in group) / len(group), 5)]
            for group in groups
        ]


def fit(  # noqa: PLR0913 - all but the first four by name
    weights: "Mapping[str, Tensor]",
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

    With several processes, started by ``accelerate launch`` or ``torchrun``, each takes some parts of a batch, and gradients are summed.

    Args:
        weights: What is trained, by name; float32, changed in place.
        batches: Example numbers of each step, in order.
        objective: What is minimised.
        optimisation: How.
        network: Says where and in which number type to compute.
        state: File that keeps what is needed to go on; written after the first step, about once a minute, and at the end.
        training: What decides the outcome; the state of another one is refused. Every step has a seed of its own, so that a
            training that goes on repeats nothing and skips nothing.
        progress: Told about steps.
        selection: Which weights are kept; the last without it.

    Raises:
        CheckpointError: The state is damaged.
        UsageError: The state belongs to another training, or the number type is float16: small gradients would be 0 without scaling.
        EncodingError: The loss is not finite.
    """
    import torch
    from transformers import get_scheduler

    if network.dtype == "float16":
        raise UsageError(
            "expected a number type whose gradients need no scaling, got float16: use dtype bfloat16 or float32"
        )
    processes = launched()
    optimizer = _optimizer(weights, optimisation)
    warmup = math.ceil(optimisation.warmup * len(batches))
    scheduler = get_scheduler(optimisation.decay, optimizer, warmup, len(batches))
    decisive = [asdict(training), [list(batch) for batch in batches]]
    mark = digest([*decisive, asdict(optimisation)] if optimisation.weight_decay else decisive)
    done = _Done.read(state, mark, weights, optimizer, scheduler)
    waited()  # before the main process writes the file anew, or removes it
    start = saved = time.perf_counter() - done.seconds
    while done.steps < len(batches):
        progress(f"{training.method}: training", done.steps, len(batches))
        loss, spent = _step(
            weights,
            batches[done.steps],
            objective,
            processes,
            network,
            seed=_mixed(training.seed, done.steps),
        )
        if not math.isfinite(loss):
            raise EncodingError(
                f"the loss of step {done.steps} is {loss}: lower the learning rate, or compute in float32"
            )
        torch.nn.utils.clip_grad_norm_(list(weights.values()), optimisation.clip)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        done.add(loss, spent)
        if selection and (done.steps % selection.every == 0 or done.steps == len(batches)):
            done.scored(*selection.score(), selection.noise, weights)
        done.seconds = time.perf_counter() - start
        due = (
            done.steps in {1, len(batches)} or time.perf_counter() - saved > _SAVE_SECONDS
        )  # a full disk is met at once, not after hours
        if processes.is_main_process and due:
            done.write(state, mark, weights, optimizer, scheduler)
            saved = time.perf_counter()
            log.info(
                "%s: step %d of %d, %d tokens, loss %.3f",
                training.method,
                done.steps,
                len(batches),
                done.spent.trained,
                loss,
            )
    done.restore_best(weights)
    progress(f"{training.method}: trained", len(batches), len(batches))
    return Fitted(done.spent, done.seconds, tuple(done.curve), tuple(done.scores), done.kept)


def shared(lengths: Sequence[int], positions: int) -> list[list[int]]:
    """Cut a batch into portions, enough of them for all processes that a launcher started."""
    return portions(lengths, positions, processes=launched().num_processes)


def _step(
    weights: "Mapping[str, Tensor]",
    batch: Sequence[int],
    objective: Objective[Part],
    processes: Any,  # noqa: ANN401 - accelerate's PartialState
    network: Network,
    *,
    seed: int,
) -> tuple[float, Spent]:
    """Add up the gradients of a batch over its parts and over processes; return its loss and what it took."""
    import torch
    from accelerate.utils import reduce

    total, spent = torch.zeros(3, dtype=torch.float64), Spent()
    with seeded(seed + processes.process_index, network.device):
        for part in objective.parts(batch)[processes.process_index :: processes.num_processes]:
            with autocast(network):
                loss, took = objective.loss(part)
            loss.backward()  # type: ignore[no-untyped-call]
            total[0] += loss.detach().double().cpu()
            spent += took
    if processes.num_processes > 1:
        total[1], total[2] = spent.trained, spent.inference
        total = reduce(total.to(processes.device, torch.float32), "sum").double().cpu()
        spent = Spent(round(float(total[1])), round(float(total[2])))
        gradients = [
            torch.zeros_like(weight) if weight.grad is None else weight.grad
            for weight in weights.values()
        ]
        flat = reduce(
            torch.cat([gradient.flatten() for gradient in gradients]), "sum"
        )  # at once: a call for each takes far longer
        for weight, part in zip(
            weights.values(), flat.split([gradient.numel() for gradient in gradients]), strict=True
        ):
            weight.grad = part.view_as(weight)
    return float(total[0]), spent


@contextmanager
def seeded(seed: int, device: str) -> "Iterator[None]":
    """Seed torch inside, and leave its random state outside as it was."""
    import torch

    with torch.random.fork_rng([torch.device(device)] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        yield


def autocast(network: Network) -> Any:  # noqa: ANN401 - a context
    """Return the context in which low-rank weights in float32 work with a network of another number type."""
    import torch

    if network.dtype == "float32":
        return nullcontext()
    return torch.autocast(network.device.partition(":")[0], dtype=getattr(torch, network.dtype))


def _mixed(seed: int, step: int) -> int:
    return int(digest([seed, step])[:15], 16)


def _kept(path: Path) -> dict[str, Any]:
    """Return what a state file holds.

    Raises:
        CheckpointError: It is damaged, or something else.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the check sums
            damaged = archive.testzip()
        kept = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _damaged(path) from error
    if not isinstance(kept, dict):
        raise _damaged(path)
    return kept


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"expected the state of a training in {path}, got a damaged file: delete it, and the training begins anew"
    )


def _optimizer(weights: "Mapping[str, Tensor]", optimisation: Optimisation) -> Any:  # noqa: ANN401
    """Return AdamW of the weights."""
    import torch

    matrices = [weight for weight in weights.values() if weight.ndim > 1]
    others = [weight for weight in weights.values() if weight.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=optimisation.lr,
        eps=optimisation.eps,
        weight_decay=optimisation.weight_decay,
    )


class _Done:
    """What a training has behind it."""

    def __init__(self) -> None:
        self.steps, self.spent, self.seconds = 0, Spent(), 0.0
        self.curve: list[tuple[int, float]] = []
        self.scores: list[tuple[int, float]] = []
        self.best: dict[str, Tensor] = {}
        self.kept = 0

    def add(self, loss: float, spent: Spent) -> None:
        self.steps += 1
        self.spent += spent
        self.curve.append((self.spent.trained, loss))

    def scored(
        self, score: float, spent: Spent, noise: float, weights: "Mapping[str, Tensor]"
    ) -> None:
        """Note the score of the weights, and keep them where none was better by more than noise."""
        if all(score >= earlier - noise for _, earlier in self.scores):
            self.best = {name: weight.detach().cpu().clone() for name, weight in weights.items()}
            self.kept = self.steps
        self.scores.append((self.steps, score))
        self.spent += spent

    def restore_best(self, weights: "Mapping[str, Tensor]") -> None:
        """Set the weights to those with the best score, where there was a score."""
        import torch

        with torch.no_grad():
            for name, weight in self.best.items():
                weights[name].copy_(weight)

    @classmethod
    def read(
        cls,
        path: Path,
        mark: str,
        weights: "Mapping[str, Tensor]",
        optimizer: Any,  # noqa: ANN401
        scheduler: Any,  # noqa: ANN401
    ) -> "_Done":
        """Return how far an earlier call came, with weights and optimiser set to it; nothing where there was none."""
        import torch

        done = cls()
        if not path.exists():
            return done
        kept = _kept(path)
        if kept.get("mark") != mark:
            raise UsageError(
                f"{path} belongs to a training with other settings, data or versions: delete it, or choose another --out"
            )
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(kept["weights"][name])
        optimizer.load_state_dict(kept["optimizer"])
        scheduler.load_state_dict(kept["scheduler"])
        done.steps, done.spent, done.seconds = kept["steps"], Spent(*kept["spent"]), kept["seconds"]
        done.curve = [(int(tokens), float(loss)) for tokens, loss in kept["curve"]]
        done.scores = [(int(step), float(score)) for step, score in kept["scores"]]
        done.best, done.kept = kept["best"], kept["kept"]
        return done

    def write(
        self,
        path: Path,
        mark: str,
        weights: "Mapping[str, Tensor]",
        optimizer: Any,  # noqa: ANN401
        scheduler: Any,  # noqa: ANN401
    ) -> None:
        import torch

        schedule = {k: v for k, v in scheduler.state_dict().items() if k != "lr_lambdas"}
        kept = {
            "mark": mark, "weights": {name: weight.detach().cpu() for name, weight in weights.items()},
            "optimizer": optimizer.state_dict(), "scheduler": {**schedule, "lr_lambdas": [None]},
            "steps": self.steps, "spent": [self.spent.trained, self.spent.inference], "seconds": self.seconds, "curve": self.curve,
            "scores": self.scores, "best": self.best, "kept": self.kept,
        }  # fmt: skip
        buffer = io.BytesIO()
        torch.save(kept, buffer)
        write_atomic(path, buffer.getvalue())
