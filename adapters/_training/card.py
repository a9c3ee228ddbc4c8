"""The card of a checkpoint: how it was made, so that it can be made again."""

import contextlib
import json
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from adapters._checkpoint import CONFIG, read_card, recorded_digest
from adapters._network import Network
from adapters._training.cost import count_flops
from adapters._training.loop import Fitted, Training
from adapters._training.processes import main_process
from adapters._training.settings import key_settings
from bench.checkpoints import CARD
from bench.errors import UsageError
from bench.files import hide_home, sha256_of, write_atomic
from bench.recipe import Progress, Recipe


@dataclass(frozen=True)
class DataSource:
    """A data set that was trained on.

    Attributes:
        id: Its id, with configuration and split.
        licence: Its licence, as far as it is known.
        rows: Rows that were used.
        pin: Kind of place it came from, and the hash or commit of its content.
    """

    id: str
    licence: str
    rows: int
    pin: Mapping[str, str]


def begin_training(
    recipe: Recipe, method: str, out: Path, budget: int, seed: int, progress: Progress
) -> Training | None:
    """Check a recipe and return what determines its training; None where ``out`` has it already.

    Raises:
        UsageError: A setting is invalid, or the folder holds another training's checkpoint.
        CheckpointError: The checkpoint was damaged since.
    """
    recipe.check()
    main_process()  # each process chooses its device before anything is put on one
    training = Training(method, key_settings(recipe), budget, seed)
    if is_finished(out, training):
        return None
    progress("reading data", 0, 1)
    return training


def is_finished(folder: Path, training: Training) -> bool:
    """Say whether the folder holds this training's checkpoint; remove states that a kill left.

    Raises:
        UsageError: It holds that of another training.
        CheckpointError: It was damaged since.
    """
    if not (folder / CARD).is_file():
        return False
    wanted = hide_home(json.loads(json.dumps(asdict(training))))
    card = hide_home(read_card(folder))
    other = [name for name, value in wanted.items() if card.get(name) != value]
    if other:
        raise UsageError(
            f"{folder} holds a checkpoint of another {' and '.join(other)}: "
            "delete it, or choose another --out"
        )
    if changed := [str(entry.get("id")) for entry in card.get("data", ()) if _is_changed(entry)]:
        raise UsageError(
            f"{folder} holds a checkpoint of another content of {', '.join(changed)}: "
            "delete it, or choose another --out"
        )
    for state in (folder / "state.pt", *folder.glob("stages/*/state.pt")):
        with contextlib.suppress(OSError):  # the folder may be read only by now
            state.unlink()
    return True


def _is_changed(entry: Mapping[str, Any]) -> bool:
    """Say whether a card's source is a file that is there with another content."""
    path, pin = Path(str(entry.get("id"))).expanduser(), entry.get("pin") or {}
    hashed = pin.get("source") in {"file", "local"} and path.is_file()
    return hashed and sha256_of(path) != pin.get("sha256")


def add_data(training: Training, setting: str, data: Sequence[DataSource]) -> Training:
    """Return what determines a training on a user's own data: their content, too.

    Args:
        training: What the settings determine.
        setting: The setting that names the data; with an empty one the training stays as it is.
        data: What was read.
    """
    if not setting:
        return training
    pins = [dict(source.pin) for source in data]
    return replace(training, recipe={**training.recipe, "data": pins})


def write_card(
    folder: Path,
    training: Training,
    fitted: Fitted,
    network: Network,
    data: Sequence[DataSource],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write ``card.json``.

    Args:
        folder: The checkpoint.
        training: What the training was.
        fitted: How it went.
        network: What was trained.
        data: What it was trained on.
        more: Further entries of the method, such as what each stage took; ``flops`` among them if
            more than this training ran.
    """
    card = {
        **asdict(training),
        "backbone": training.recipe["backbone"],
        "trained_tokens": fitted.spent.trained,
        "inference_tokens": fitted.spent.inference,
        "flops": count_flops(network, fitted.spent),
        "steps": len(fitted.curve),
        "seconds": round(fitted.seconds, 1),
        "device": network.device,
        "processor": _processor(),
        "dtype": network.dtype,
        "command": command_of(sys.argv[1:]),
        "created": datetime.now(UTC).date().isoformat(),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
        "data": [asdict(material) for material in data],
        **(more or {}),
        "files": record_files(folder),
        "loss": fitted.thinned(),
    }
    write_atomic(folder / CARD, json.dumps(hide_home(card), indent=1, ensure_ascii=False) + "\n")


def record_files(folder: Path) -> dict[str, str]:
    """Return the digests of files of a checkpoint in which a flipped bit would go unnoticed."""
    files = [*folder.glob("*.safetensors"), *folder.glob("*.u64"), *folder.glob(CONFIG)]
    return {path.name: recorded_digest(path) for path in sorted(files)}


def sum_flops(stages: Iterable[Mapping[str, Any]]) -> int | None:
    """Return the FLOPs of all stages; None if those of one, of an earlier version, are unknown."""
    found = [stage.get("flops") for stage in stages]
    return None if None in found else sum(found)  # type: ignore[arg-type]  # no None is left


def list_stages(took: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what each stage of a training took, by name, as the card lists it."""
    return [{"stage": name, **numbers} for name, numbers in took.items()]


def command_of(words: Sequence[str]) -> str:
    """Return the command line without the folders that it names."""
    line = iter(words)
    kept = [word for word in line if not (word in {"--out", "--data"} and next(line, ""))]
    return shlex.join(
        ["bench", *(word for word in kept if not word.startswith(("--out=", "--data=")))]
    )


def _processor() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
