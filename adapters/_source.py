"""Where checkpoints come from, and what they are made of, without loading them."""

import math
import re
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from adapters._files import files_digest, stamp
from bench.assets import cache_dir
from bench.errors import CheckpointError, Unavailable

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(@[\w./-]+)?")
_READ = (
    "config.json", "adapter_config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json",
    "tokenizer*.json", "tokenizer*.model", "vocab.*", "merges.txt", "spiece.model", "sentencepiece*.model", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
_MODULES = "[0-9]*_*/"  # folders of a sentence-transformers model's further modules


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of this name in the cache, made on first use: there whole or not at all, also for two processes at once.

    Args:
        name: Of the folder; it names its content, since an existing folder is taken as it is.
        make: Makes the folder at the path it is given; may put other files next to it.

    Raises:
        Unavailable: The cache cannot be written.
    """
    target = cache_dir() / "backbones" / name
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as work:
            make(made := Path(work, "made"))
            made.replace(target)
    except OSError as error:
        if not target.is_dir():  # else another process was faster, with the same content
            raise Unavailable(
                f"{name} cannot be unpacked to {target.parent} ({error}): set BENCH_CACHE to another folder"
            ) from error
    return target


def downloaded(source: str) -> Path:
    """Return the folder of a hub id's files: safetensors, JSON and tokenizer files only.

    Args:
        source: A hub id with an optional ``@revision``.

    Raises:
        Unavailable: No such folder, or the hub is out of reach or refuses.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = source.partition("@")
    if not _HUB_ID.fullmatch(source):
        raise Unavailable(
            f"no folder {source!r} on this machine: give an existing folder or a hub id such as org/name@revision"
        )
    patterns = ["*.safetensors", "*.json", "*.txt", "*.model"]
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=patterns,
                ignore_patterns=["o*/*", "checkpoint*/*"],
            )
        )
    except LocalEntryNotFoundError as error:
        raise Unavailable(
            f"{source!r} is no folder, and the hub cannot be reached to download it: give the path of a folder"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        reason = type(error).__name__
        raise Unavailable(
            f"{source!r} is no folder, and the hub does not give it ({reason}): check the id, or give a folder"
        ) from error


def content_files(folder: Path) -> list[Path]:
    """Return the files of a checkpoint that shape a vector, in a fixed order: weights, configs, tokenizer.

    Raises:
        CheckpointError: There are none.
    """
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    files = [*weights, *sorted(path for pattern in _READ for path in folder.glob(pattern))]
    files += [
        path
        for inner in sorted(folder.glob(_MODULES))
        for path in sorted(inner.glob("*"))
        if path.suffix in {".json", ".safetensors", ".txt"}
    ]
    if not weights and not any(path.suffix == ".safetensors" for path in files):
        raise CheckpointError(
            f"expected safetensors weights in {folder}, got none: give the folder of a saved model"
        )
    return files


def content_digest(folder: Path) -> str:
    """Return the sha256, in hex, of everything in the folder that shapes a vector; its place and its README do not count."""
    files = content_files(folder)
    return _digest(tuple(files), stamp(files))


@lru_cache(maxsize=64)
def _digest(files: tuple[Path, ...], _stamp: object) -> str:
    return files_digest(files)


_TABLES = re.compile(
    r"(embed_tokens|(word|position|token_type)_embeddings|wte|wpe|lm_head|cls|pooler)\b"
)


def looked_up_parameters_of(folder: Path) -> int | None:
    """Return how many of the folder's weights an embedding does not multiply with: tables that are looked up, heads that are unused.

    Raises:
        CheckpointError: A file is broken.
    """
    return parameters_of(folder, only=_TABLES)


def parameters_of(folder: Path, *, only: re.Pattern[str] = re.compile("")) -> int | None:
    """Return the number of weights in the folder's safetensors files, from their headers; None where there are none.

    Args:
        folder: The checkpoint.
        only: What the names of the weights that count hold.

    Raises:
        CheckpointError: A file is broken.
    """
    from safetensors import SafetensorError, safe_open

    total = 0
    for path in (path for path in content_files(folder) if path.suffix == ".safetensors"):
        try:
            with safe_open(path, "np") as file:
                names = [name for name in file.keys() if only.search(name)]  # noqa: SIM118 - no mapping
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"expected a safetensors file at {path}, cannot read it: copy or download it again"
            ) from error
    return total or None


def title(source: str, folder: Path) -> str:
    """Return the name for tables: the hub id with its commit, or the folder's own name."""
    if Path(source).expanduser().is_dir():
        return Path(source).expanduser().resolve().name
    return f"{source.partition('@')[0]}@{folder.name[:12]}"
