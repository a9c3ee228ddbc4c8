"""Stages of a training, each a checkpoint of its own: written whole, skipped where it is there, so that a kill costs a minute."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from adapters import _checkpoint
from adapters._backbone import Network
from adapters._checkpoint import CARD, RUNS
from adapters._files import read_json, tensors
from adapters._lora import merged
from adapters._training.budget import Spent
from adapters._training.card import Material, write_card
from adapters._training.loop import (
    Fitted,
    Objective,
    Optimisation,
    Training,
    fit,
    main_process,
    waited,
)
from adapters._training.weights import anywhere, set_dropout, trained
from adapters.llm2comp.encoder import CONFIG, MEMORY, embedding_table
from adapters.llm2comp.trainee import Trainee, lora, prepared
from bench.encoder import digest
from bench.errors import UsageError
from bench.files import write_atomic
from bench.overlap import Ngrams
from bench.recipe import Progress

_OBSOLETE = (
    ".obsolete"  # in the folder of a stage that goes as soon as the whole checkpoint is there
)


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage.

    Attributes:
        name: Of its folder.
        plan: Example numbers of each step.
        texts: What it trains on, for the runs of words.
        objective: From what is trained to what is minimised.
        optimisation: How.
        dropout: Share of attention weights that is dropped; nothing else is.
    """

    name: str
    plan: Sequence[Sequence[int]]
    texts: Sequence[str]
    objective: Callable[[Trainee], Objective[Any]]
    optimisation: Optimisation
    dropout: float = 0.0


@dataclass(frozen=True, eq=False)
class Stages:
    """Stages that follow each other.

    Attributes:
        out: Folder of the checkpoint; each stage has a folder in it.
        training: What decides the outcome, the stages' names left out.
        material: What is trained on.
        base: The backbone under its own attention.
        k: Number of memory tokens.
        attention: The attention of the training, "native" or "bidirectional".
        words: What the memory tokens are at first; "" for random rows.
        rank: Of the low-rank weights.
        new_lora: Whether each stage merges the low-rank weights before it and begins new ones; otherwise it goes on with them.
        keep: Whether the checkpoints of all stages stay.
        progress: Told about steps.
    """

    out: Path
    training: Training
    material: Sequence[Material]
    base: Network
    k: int
    attention: str
    words: str
    rank: int
    new_lora: bool
    keep: bool
    progress: Progress

    def run(self, stages: Sequence[Stage]) -> Path:
        """Run the stages that are not done and return the folder, a checkpoint.

        Raises:
            UsageError: The folder holds a training with other settings or data.
        """
        if self._is_done(self.out):
            self._clear(stages)
            return self.out
        done: list[Path] = []
        for stage in stages:
            folder, state = self.out / stage.name, self.out / f"{stage.name}.pt"
            trainee = self._started(done, self.training.seed)
            if not self._is_done(folder):
                set_dropout(trainee.network.model, hidden=0.0, attention=stage.dropout)
                trainee.network.model.train()
                fitted = fit(
                    trainee.weights(),
                    stage.plan,
                    stage.objective(trainee),
                    stage.optimisation,
                    network=trainee.network,
                    state=state,
                    training=replace(self.training, method=f"{self.training.method} {stage.name}"),
                    progress=self.progress,
                )
                self._write(folder, stage, trainee, fitted, done)
            if main_process():
                state.unlink(missing_ok=True)
            done.append(folder)
            waited()
        if main_process():
            self._finish(done, [text for stage in stages for text in stage.texts])
            self._clear(stages)
        waited()
        return self.out

    def _started(self, done: Sequence[Path], seed: int) -> Trainee:
        """Return what the next stage begins with: what the one before it wrote, whether or not it ran just now."""
        base = merged(self.base, done) if self.new_lora and done else self.base
        trainee = prepared(
            base,
            self.k,
            self.attention,
            rank=self.rank,
            seed=seed + len(done) * self.new_lora,
            words=self.words,
        )
        if done:
            restore(trainee, done[-1], low_rank=not self.new_lora)
        return trainee

    def _is_done(self, folder: Path) -> bool:
        if not (folder / CARD).is_file():
            return False
        if read_json(folder / CARD).get("mark") != self._mark:
            raise UsageError(
                f"{folder} holds a training with other settings or data: delete it, or choose another --out"
            )
        return True

    @property
    def _mark(self) -> str:
        return digest([asdict(self.training), [asdict(material) for material in self.material]])

    def _write(
        self, folder: Path, stage: Stage, trainee: Trainee, fitted: Fitted, done: Sequence[Path]
    ) -> None:
        """Write a stage's checkpoint, its card last."""
        if not main_process():
            return
        lora(self.rank).save(trainee.network, folder, str(self.training.recipe["backbone"]))
        self._describe(folder, trainee, [*done, folder] if self.new_lora else [folder])
        before = read_json(done[-1] / CARD)["stages"] if done else []
        stages = [*before, _record(stage.name, fitted)]
        whole = Fitted(
            sum(
                (Spent(each["trained_tokens"], each["inference_tokens"]) for each in stages),
                Spent(),
            ),
            sum(each["seconds"] for each in stages),
            fitted.curve,
        )
        more = {
            "mark": self._mark,
            "stages": stages,
            "steps": sum(each["steps"] for each in stages),
        }
        write_card(folder, self.training, whole, trainee.network, self.material, more)

    def _describe(self, folder: Path, trainee: Trainee, weights: Sequence[Path]) -> None:
        import torch
        from safetensors.torch import save

        rows, k = len(embedding_table(trainee.network)), len(trainee.memory)
        memory = trainee.memory.detach().to("cpu", torch.bfloat16).contiguous()
        write_atomic(folder / MEMORY, save({"memory": memory}, metadata={"format": "pt"}))
        said = {
            "base": anywhere(self.training.recipe["backbone"]), "k": k, "attention": self.attention,
            "stages": [Path(os.path.relpath(each, folder)).as_posix() for each in weights], "memory_ids": list(range(rows, rows + k)),
        }  # fmt: skip
        write_atomic(folder / CONFIG, json.dumps(said, indent=1) + "\n")

    def _finish(self, done: Sequence[Path], texts: Sequence[str]) -> None:
        """Make the folder itself a checkpoint, the last stage's; the card, which says that all is done, comes last."""
        last, needed = done[-1], done if self.new_lora else []
        said = read_json(last / CONFIG) | {"stages": [folder.name for folder in needed] or ["."]}
        write_atomic(self.out / CONFIG, json.dumps(said, indent=1) + "\n")
        for name in (MEMORY, *(() if needed else (_checkpoint.CONFIG, _checkpoint.WEIGHTS))):
            write_atomic(self.out / name, (last / name).read_bytes())
        Ngrams.of(texts).write(self.out / RUNS)
        for folder in () if self.keep or needed else done:
            write_atomic(folder / _OBSOLETE, b"")
        write_atomic(self.out / CARD, (last / CARD).read_bytes())

    def _clear(self, stages: Sequence[Stage]) -> None:
        """Remove what nobody needs beside a finished checkpoint: states, and the folders of stages that it holds itself."""
        for folder in (self.out / stage.name for stage in stages):
            with contextlib.suppress(OSError):  # the folder may be read only by now
                folder.with_suffix(".pt").unlink()
            if (folder / _OBSOLETE).exists():
                shutil.rmtree(folder, ignore_errors=True)


def restore(trainee: Trainee, folder: Path, *, low_rank: bool) -> None:
    """Set a trainee to what a stage wrote.

    Args:
        trainee: Changed in place.
        folder: The stage's.
        low_rank: Whether the low-rank weights are set too, or the memory rows only.
    """
    import torch

    state = tensors(folder / _checkpoint.WEIGHTS)
    with torch.no_grad():
        trainee.memory.copy_(tensors(folder / MEMORY)["memory"])
        for name, weight in trained(trainee.network).items() if low_rank else ():
            weight.copy_(state[f"base_model.model.{name.replace('.default.', '.')}"])


def _record(name: str, fitted: Fitted) -> Mapping[str, Any]:
    """Return what a stage took, for the card."""
    return {
        "stage": name, "trained_tokens": fitted.spent.trained, "inference_tokens": fitted.spent.inference,
        "steps": len(fitted.curve), "seconds": round(fitted.seconds, 1), "loss": fitted.thinned(),
    }  # fmt: skip
