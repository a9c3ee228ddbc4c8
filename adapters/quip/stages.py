"""What the stages of the recipe share: rows of several sequences, a training with heads, and the notes that say a stage is done."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adapters._backbone import Network
from adapters._files import read_json
from adapters._sharing import shared_states
from adapters._training.budget import batches
from adapters._training.loop import (
    Fitted,
    Objective,
    Optimisation,
    Training,
    fit,
    main_process,
    seeded,
    waited,
)
from adapters._training.weights import attached, save_trained, trained
from adapters.quip.encoder import HEAD_FILES, head
from bench.errors import UsageError
from bench.files import write_atomic
from bench.recipe import Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

NOTE = "stage.json"
"""File of a stage: what it belongs to, and, when it is done, what it took."""


class Packed(NamedTuple):
    """Sequences that go through the network as one row, without padding between them.

    Attributes:
        ids: Token ids of all of them.
        parts: Part of each position, as for ``adapters._sharing.shared_states``; all 1 where it is a single sequence.
    """

    ids: list[int]
    parts: list[int]


def collated(rows: Sequence[Packed], network: Network) -> "tuple[Tensor, Tensor]":
    """Return ids and parts, int64 (b, t) each on the network's device, padded on the right; the part of padding is 0."""
    import torch

    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [network.pad_id] * (width - len(row.ids)) for row in rows])
    parts = torch.tensor([row.parts + [0] * (width - len(row.parts)) for row in rows])
    return ids.to(network.device), parts.to(network.device)


def states_of(network: Network, rows: Sequence[Packed]) -> "Tensor":
    """Return the token states (n, dim) of all rows, one row after the other, padding left out."""
    ids, parts = collated(rows, network)
    packed = any(max(row.parts) > 1 for row in rows)
    return (shared_states(network, ids, parts) if packed else network.hidden_states(ids, parts))[
        parts > 0
    ]


@dataclass(frozen=True)
class Tuning:
    """How the stages that train do it.

    Attributes:
        backbone: Source of what is trained.
        lora: Whether low-rank weights are trained; otherwise all weights are.
        lr: Highest learning rate.
        batch_size: Examples a step.
        seed: The only source of randomness.
    """

    backbone: str
    lora: bool
    lr: float
    batch_size: int
    seed: int

    def attached(self, base: Network) -> Network:
        """Return the network whose weights are trained; the given one stays as it is."""
        return attached(base, lora=self.lora, seed=self.seed)

    def heads(self, network: Network, out: int) -> "tuple[nn.Module, nn.Module]":
        """Return a new start and a new end head, from the network's width to ``out`` numbers."""
        with seeded(self.seed, "cpu"):
            start, end = head(network.dim, out), head(network.dim, out)
        return start.to(network.device), end.to(network.device)

    def fitted(
        self, training: Training, network: Network, heads: "Sequence[nn.Module]", objective: Objective[Any], plan: Sequence[Sequence[int]],
        state: Path, progress: Progress,
    ) -> Fitted:  # fmt: skip
        """Train network and heads through the plan; arguments as for ``fit``."""
        weights = dict(trained(network))
        for name, module in zip(HEAD_FILES, heads, strict=False):
            weights |= {f"{name}.{key}": weight for key, weight in module.named_parameters()}
        return fit(
            weights, plan, objective, Optimisation(self.lr), network=network, state=state, training=training, progress=progress,
        )  # fmt: skip

    def save(self, network: Network, heads: "Sequence[nn.Module]", folder: Path) -> None:
        """Write what was trained, the heads in bfloat16 under the names of the published files."""
        import torch
        from safetensors.torch import save

        save_trained(network, folder, self.backbone, lora=self.lora)
        for name, module in zip(HEAD_FILES, heads, strict=False):
            state = {
                key: tensor.detach().to("cpu", torch.bfloat16).contiguous()
                for key, tensor in module.state_dict().items()
            }
            write_atomic(folder / f"{name}.safetensors", save(state, metadata={"format": "pt"}))


def stage_trained(
    tuning: Tuning,
    training: Training,
    base: Network,
    make: "Callable[[Network, Sequence[nn.Module]], Objective[Any]]",
    lengths: Sequence[int],
    folder: Path,
    progress: Progress,
    *,
    heads: bool,
) -> dict[str, Any]:
    """Train a model that only serves the stages after it, unless that was done before, and return the note on it.

    Args:
        tuning: How.
        training: What decides the outcome.
        base: What is trained, left as it is.
        make: Gives the objective of the network and heads that are trained.
        lengths: Token positions of each example.
        folder: Where the model goes.
        progress: Told about steps.
        heads: Whether it has a start and an end head that give a number for each token.
    """
    note = Note(folder / NOTE, training)
    if (done := note.read()) is not None:
        return done
    plan = batches(
        lengths,
        budget=training.budget,
        size=tuning.batch_size,
        seed=tuning.seed,
        stage=training.method,
    )
    network = tuning.attached(base)
    made = tuning.heads(network, 1) if heads else ()
    fitted = tuning.fitted(
        training, network, made, make(network, made), plan, folder / "state.pt", progress
    )
    if main_process():
        tuning.save(network, made, folder)
        note.write(**took(fitted))
        (folder / "state.pt").unlink(missing_ok=True)
    waited()
    return note.read() or {}


def took(fitted: Fitted) -> dict[str, Any]:
    """Return what a training of a stage took, plain JSON values."""
    return {
        "positions": fitted.spent.trained, "seconds": round(fitted.seconds, 1), "steps": len(fitted.curve), "loss": fitted.thinned(),
    }  # fmt: skip


@dataclass(frozen=True)
class Note:
    """What says which training a stage belongs to, and that it is done.

    Attributes:
        path: The file.
        training: What the stage belongs to.
    """

    path: Path
    training: Training

    @property
    def mark(self) -> dict[str, Any]:
        """What another note must not differ in."""
        return {
            "method": self.training.method,
            "recipe": dict(self.training.recipe),
            "budget": self.training.budget,
            "seed": self.training.seed,
        }

    def read(self) -> dict[str, Any] | None:
        """Return what the stage took; None where it is not done.

        Raises:
            UsageError: It was done with other settings or data.
        """
        if not self.path.is_file():
            return None
        kept = read_json(self.path)
        if kept.pop("of") != self.mark:
            raise UsageError(
                f"{self.path.parent} belongs to a training with other settings or data: delete it, or choose another --out"
            )
        return dict(kept) or None

    def begun(self) -> dict[str, Any] | None:
        """Return what ``read`` does, and leave a sign of what the stage belongs to where it was not begun before."""
        done = self.read()
        if not self.path.is_file():
            self.write()
        return done

    def write(self, **took: Any) -> None:  # noqa: ANN401 - plain JSON values
        """Write the note."""
        write_atomic(self.path, json.dumps({"of": self.mark, **took}, indent=1) + "\n")
