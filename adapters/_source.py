"""Where checkpoints come from, and what they are made of, without loading them."""

import json
import logging
import math
import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError, safe_open

from adapters._files import read_json
from bench.data.assets import (
    cache_dir,
    download_lock,
    downloads_dir,
    find_mirrored_model,
    note_model,
)
from bench.data.hub import offline, retry_while_busy
from bench.encoder import digest
from bench.errors import CheckpointError, Unavailable
from bench.files import digests_in, read_object, sha256_of, stamp, temporary_folder

log = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(@[\w./-]+)?")
UNREAD = (
    ".*", "README*", "LICENSE*", "NOTICE*", "*.md", "*.jsonl", "*.png", "*.log", "runs.u64",
    "*.onnx", "*.onnx_data", "*.h5", "*.msgpack", "*.ot", "openvino_model*", "*.gguf", "*.pth",
    "training_args.bin", "trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state*.pth",
)  # fmt: skip
"""Files of a checkpoint that no loader opens; all others shape a vector, or may."""

_MADE = ".sha256.json"
"""File in a folder made by ``make_once``: the sha256 of each of its files."""


def make_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of this name in the downloads, made on first use, whole or not at all.

    Its files are checked by content, each once for its size and times; a damaged folder is made
    again. Of two processes that call this at once, one makes it.

    Args:
        name: Of the folder; it names its content.
        make: Makes the folder at the path it is given; may put other files next to it.

    Raises:
        Unavailable: The downloads cannot be written.
    """
    target = downloads_dir() / "backbones" / name
    for place in (target, cache_dir() / "backbones" / name):  # where earlier versions put it
        if _is_whole(place):
            return place
    try:
        with download_lock(name):
            if not _is_whole(target):  # else another process has made it
                _make(target, make)
    except OSError as error:
        if not _is_whole(target):  # else another process was faster, where there are no locks
            raise Unavailable(
                f"{name} cannot be unpacked to {target.parent} ({error}): "
                "set BENCH_DOWNLOADS to another folder"
            ) from error
    return target


def _make(target: Path, make: Callable[[Path], None]) -> None:
    if (target / _MADE).is_file():
        log.warning("%s is damaged and is made again", target)
    with temporary_folder(target.parent) as work:
        make(made := Path(work, "made"))
        (made / _MADE).write_text(json.dumps(_contents(made)), encoding="utf-8")
        if target.is_dir():
            target.replace(Path(work, "damaged"))
        made.replace(target)


def _contents(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of a folder that ``make_once`` made, by its path inside."""
    return digests_in(folder, lambda path: path.name != _MADE)


def _is_whole(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / _MADE).read_bytes()) == _contents(folder))
    except (OSError, ValueError):
        return False


def folder_of(source: str) -> Path:
    """Return the folder of a source: one of this machine, ``~`` expanded, or a hub id's files.

    Raises:
        Unavailable: As ``download``.
    """
    path = Path(source).expanduser()
    return path if path.is_dir() else download(source)


def download(source: str) -> Path:
    """Return the folder of a hub id's files: weights, JSON and tokenizer files only.

    A mirror under ``$BENCH_DATA`` comes first. Weights are safetensors, or pytorch's ``.bin`` where
    a repository has no others.

    Args:
        source: A hub id with an optional ``@revision``.

    Raises:
        Unavailable: No such folder, or the hub is out of reach or refuses.
    """
    folder = find_mirrored_model(source) or _download(source)
    note_model(source, folder)
    return folder


@lru_cache(maxsize=16)
def _download(source: str) -> Path:
    name, _, revision = source.partition("@")
    if not _HUB_ID.fullmatch(source):
        raise Unavailable(
            f"no folder {source!r} on this machine: "
            "give an existing folder or a hub id such as org/name@revision"
        )
    load = partial(
        snapshot_download,
        name,
        revision=revision or None,
        ignore_patterns=["o*/*", "checkpoint*/*"],
    )
    others = ["*.json", "*.txt", "*.model", "*.jinja", "*/pytorch_model.bin", "adapter_model.bin"]
    others += ["run_config.yml", "*_mlp"]  # of LLM2Vec-Gen
    try:
        folder = Path(retry_while_busy(lambda: load(allow_patterns=["*.safetensors", *others])))
        if not any(folder.glob("*.safetensors")):
            retry_while_busy(lambda: load(allow_patterns=["pytorch_model*.bin"]))
    except LocalEntryNotFoundError as error:
        raise Unavailable(
            f"{source!r} is no folder, and the hub cannot be reached to download it: "
            f"give a folder, or run `bench data mirror DIR --model backbone-mean:{source}` on a "
            "machine with a network and give DIR as --data"
        ) from error
    except RepositoryNotFoundError as error:
        raise Unavailable(
            f"{source!r} is no folder, and the hub has no such model: check the id, "
            "or set HF_TOKEN to a token that may read it if it is private"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        reason = type(error).__name__
        raise Unavailable(
            f"{source!r} is no folder, and the hub does not give it ({reason}): "
            "check the id, or give a folder"
        ) from error
    return folder


def content_files(folder: Path) -> list[Path]:
    """Return the files of a checkpoint that may shape a vector, in order: all but ``UNREAD``.

    These are the files of the folder itself; of a sentence-transformers model also those in all
    folders below.

    Raises:
        CheckpointError: There are none.
    """
    found = folder.rglob("*") if (folder / "modules.json").is_file() else folder.glob("*")
    files = sorted(path for path in found if path.is_file() and not _is_unread(path, folder))
    if not files:
        raise CheckpointError(
            f"expected a saved model in {folder}, got no file of one: copy it again"
        )
    return files


def _is_unread(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return hidden or _is_second(path) or any(fnmatch(path.name, pattern) for pattern in UNREAD)


def _is_second(path: Path) -> bool:
    """Say whether a file holds weights that lie beside it as safetensors, which loaders prefer."""
    if not fnmatch(path.name, "pytorch_model*.bin") and path.name != "adapter_model.bin":
        return False
    first = ["adapter_model.safetensors"]
    if not path.name.startswith("adapter"):
        first = ["model.safetensors", "model.safetensors.index.json"]
    return any((path.parent / name).is_file() for name in first)


def modules_of(folder: Path) -> list[tuple[str, str]]:
    """Return class and folder ("" for the model's own) of each module in ``modules.json``, if any.

    Raises:
        CheckpointError: ``modules.json`` is broken, or leads out of the folder.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return []
    try:
        modules = [(str(each["type"]), str(each["path"])) for each in read_json(path)]
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            f"expected a list of modules with type and path in {path}, got another layout: "
            "save the model again"
        ) from error
    if out := [inner for _, inner in modules if Path(inner).is_absolute() or ".." in inner]:
        raise CheckpointError(f"expected folders inside {folder} in {path}, got {out[0]!r}")
    return modules


def content_digest(folder: Path) -> str:
    """Return the sha256, in hex, of all that shapes a vector in a folder; its place does not count.

    Raises:
        CheckpointError: As ``content_files``.
    """
    files = {path.relative_to(folder).as_posix(): sha256_of(path) for path in content_files(folder)}
    return digest(files)


_TABLES = re.compile(
    r"\b(embed_(tokens|tokens_per_layer|positions|in)|(tokens|positions)_embed|wte|wpe"
    r"|tok_embeddings|(word|position|token_type)_embeddings?)\b"
    r"|(^|\.)(embeddings|shared)\.weight$"  # of Mamba, T5
)
_HEADS = re.compile(
    r"(lm_head|embed_out|cls|pooler|predictions|vocab_(transform|layer_norm|projector))\b"
    r"|^head\.|^decoder\.(weight|bias)$"  # of ModernBERT
)
_EXPERTS, _SHARED_LAYERS = re.compile(r"\bexperts\b"), re.compile(r"\balbert_layer_groups\b")
_LORA = re.compile(r"\blora_[AB]\b")
_ENCODER, _DECODER = re.compile(r"(model\.)?encoder\."), re.compile(r"(model\.)?decoder\.")


def looked_up_parameters_of(folder: Path) -> int | None:
    """Return the number of weights that take part in no product: looked-up tables, unused heads.

    None where no table is known by its name.

    Raises:
        CheckpointError: A file is broken.
    """
    weights = _weights_of(folder)
    tables = _count(weights, _TABLES)
    return tables + _count(weights, _HEADS) if tables else None


def parameters_of(folder: Path) -> int | None:
    """Return the number of weights in safetensors files, from their headers; None without any.

    Raises:
        CheckpointError: A file is broken.
    """
    return _count(_weights_of(folder)) or None


def multiplications_of(folder: Path, inner: str = "") -> int | None:
    """Return how many weights a token is multiplied with; None where no table is known by its name.

    Of the experts of a layer those count that a token is sent to, and a weight that layers share
    counts in each.

    Args:
        folder: The checkpoint.
        inner: Folder of the transformer inside.

    Raises:
        CheckpointError: A file is broken.
    """
    weights, tables = _weights_of(folder), looked_up_parameters_of(folder)
    if tables is None:
        return None
    config = read_object(folder / inner / "config.json")
    experts = _count(weights, _EXPERTS) * (1 - share_of_experts(config.get))
    shared = _count(weights, _SHARED_LAYERS) * (uses_of_layers(config.get) - 1)
    return round(_count(weights) - tables - _count(weights, _LORA) - experts + shared)


def share_of_experts(setting: Callable[[str], Any]) -> float:
    """Return the share of a layer's experts that a token is sent to; 1 without experts.

    Args:
        setting: Gives the value of a setting of the model, None where it has none.
    """
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    counts = [count for name in names if (count := setting(name))]
    chosen = setting("num_experts_per_tok")
    return float(chosen / counts[0]) if counts and chosen else 1.0


def uses_of_layers(setting: Callable[[str], Any]) -> float:
    """Return how many layers of ALBERT have the weights of one; 1 of other models.

    Args:
        setting: As for ``share_of_experts``.
    """
    groups = setting("num_hidden_groups")
    return float(setting("num_hidden_layers") / groups) if groups else 1.0


def _count(weights: Iterable[tuple[str, int]], names: re.Pattern[str] = re.compile("")) -> int:
    return sum(size for name, size in weights if names.search(name))


def _weights_of(folder: Path) -> list[tuple[str, int]]:
    """Return name and size of each weight in safetensors files that an encoder reads.

    Without the decoder of a model with both, and the masks of attention that GPT-2's kin saved.
    """
    files = _weight_files(folder)
    shapes = [shape for path in files for shape in _shapes_in(path, stamp([path]))]
    two = any(_ENCODER.match(name) for name, _ in shapes)
    return [
        (name, math.prod(shape))
        for name, shape in shapes
        if not (two and _DECODER.match(name)) and not (len(shape) == 4 and shape[:2] == (1, 1))
    ]


def _weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that are loaded: no second copy of a model beside them."""
    places: dict[Path, list[Path]] = {}
    for path in content_files(folder):
        if path.suffix == ".safetensors":
            places.setdefault(path.parent, []).append(path)
    found = []
    for place, files in places.items():
        index = read_object(place / "model.safetensors.index.json").get("weight_map")
        shards = set(index.values()) if isinstance(index, dict) else set()
        whole = [path for path in files if path.name == "model.safetensors"]
        found += whole or [path for path in files if path.name in shards] or files
    return found


@lru_cache(maxsize=256)
def _shapes_in(path: Path, _stamp: object) -> list[tuple[str, tuple[int, ...]]]:
    try:
        with safe_open(path, "np") as file:
            names = file.keys()
            return [(name, tuple(file.get_slice(name).get_shape())) for name in names]
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"expected a safetensors file at {path}, cannot read it: copy or download it again"
        ) from error


def title(source: str, folder: Path) -> str:
    """Return the name for tables: the hub id with its commit, or the folder's own name."""
    if Path(source).expanduser().is_dir():
        return Path(source).expanduser().resolve().name
    return f"{source.partition('@')[0]}@{folder.name[:12]}"


def known_title(source: str) -> str:
    """Return the title of a source that need not be on this machine; nothing is downloaded."""
    path = Path(source).expanduser()
    if path.is_absolute() or path.is_dir():
        return path.resolve().name
    try:
        with offline():
            return title(source, find_mirrored_model(source) or _download(source))
    except Unavailable:
        return source.partition("@")[0]
