"""DINO: a bi-encoder trained on sentence pairs that a language model generated from instructions.

Schick, Schuetze. Generating Datasets with Pretrained Language Models. EMNLP 2021. As in section 3
of the paper, a text's vector is the mean of its last-layer token states, special tokens included,
and vectors are compared by cosine. The paper's checkpoint is not published; ``train.py`` trains
one on any backbone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from adapters import _batching, _pooling
from adapters._backbone import PACKAGED, Backbone
from adapters._checkpoint import locate, runs_of
from adapters._encoder import NetworkEncoder
from adapters._export import SentenceLayout
from adapters._files import read_json
from adapters._head import head_of
from adapters._network import Network
from adapters._source import folder_of
from adapters._text import Framed, make_prompts, prepare_bare
from bench.checkpoints import CARD
from bench.encoder import Batch, Card, Item, digest, gather, location
from bench.errors import CheckpointError, Unavailable, UsageError
from bench.overlap import Ngrams


class Layout(NamedTuple):
    """A checkpoint folder.

    Attributes:
        transformer: Folder of the transformer, or another source of one.
        max_length: The folder's own limit in tokens; None for none.
        normalize: Whether vectors are scaled to length 1.
    """

    transformer: str
    max_length: int | None = None
    normalize: bool = False


@dataclass(frozen=True)
class DINO(NetworkEncoder):
    """DINO (Schick & Schuetze 2021): mean of last-layer states, trained on generated pairs.

    Attributes:
        checkpoint: "default" for the packaged weights, or a folder, which counts as trained: one
            that the recipe wrote, a Hugging Face encoder with its tokenizer, or a
            sentence-transformers folder with mean pooling. A hub id or the packaged backbone
            counts as untrained.
        attention: "auto" for that of the training where the folder has a card, else "native"; or
            "bidirectional", for decoders.
        max_length: Longest text in tokens, special tokens included; RoBERTa's own limit. A lower
            limit in a sentence-transformers folder takes precedence.

    Source:
        Mean over real tokens of the last layer, cosine: timoschick/dino at 0e4a052, roberta-base.
    """

    checkpoint: str = location("default")
    attention: str = "auto"
    max_length: int = 512

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield the vectors of items, longest first.

        Raises:
            CheckpointError: The folder is of another layout.
        """
        network, layout = self._network(), self.layout()

        def forward(ids: Tensor, mask: Tensor) -> Tensor:
            vectors = _pooling.mean(network.hidden_states(ids, mask), mask)  # (b, d)
            return normalize(vectors, dim=-1) if layout.normalize else vectors

        return _batching.stream(items, self._prepare(network), forward, network, budget=self.budget)

    def score_words(
        self, texts: Sequence[str], *, prompt: str, words: Sequence[str]
    ) -> NDArray[np.float32]:
        """Return the log-probability of each word's first token after each text and the prompt.

        The backbone is asked as it was before training. Of long texts the beginning is cut off.

        Args:
            texts: Any strings.
            prompt: Appended to each text.
            words: With the white space before them.

        Returns:
            float32 (n, m).

        Raises:
            Unavailable: The backbone is no decoder, or all of its weights have been trained.
            UsageError: Two words begin with the same token, or the head is not supported.

        Source:
            The released code's classifier of reviews compares " good" with " bad".
        """
        network = self._language_model()
        ids = [network.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
        if len(set(ids)) < len(ids):
            raise UsageError(
                "expected words that differ in their first token, "
                f"got {', '.join(map(repr, words))}: choose others"
            )
        head, limit = head_of(network), min(self.max_length, network.max_length)
        chosen = torch.tensor(ids, device=network.device)  # (m,)

        def prepare(items: Sequence[Item]) -> list[_batching.Prompt]:
            framed = [Framed(item.text, after=prompt) for item in items]
            return make_prompts(network.tokenizer, framed, limit=limit, cut="left", ends=False)

        def forward(ids: Tensor, mask: Tensor) -> Tensor:
            last = _pooling.last(network.hidden_states(ids, mask), mask)  # (b, d)
            return head(last, chosen) - head(last).logsumexp(-1, keepdim=True)

        items = [Item(text) for text in texts]
        scores = _batching.stream(items, prepare, forward, network, budget=self.budget)
        return gather(scores, len(texts))

    def card(self) -> Card:
        """Return the card of the transformer; a checkpoint that is a folder counts as trained."""
        card = self._backbone().card(trained=Path(self._source()).is_dir())
        _, *finish = self.layout()
        return replace(card, weights=digest([card.weights, finish])) if any(finish) else card

    def runs(self) -> Ngrams | None:
        """Return the 8-grams of the training texts; None for weights of another origin."""
        return runs_of(self._backbone().source)

    def layout(self) -> Layout:
        """Return the layout of the checkpoint; raises as ``read_layout``."""
        return read_layout(self._source())

    def limit(self, network: Network) -> int:
        """Return the longest text in tokens that is not cut."""
        own = self.layout().max_length or self.max_length
        return min(self.max_length, own, network.max_length)

    def _source(self) -> str:
        return locate(self.checkpoint, __file__, PACKAGED)

    def _backbone(self) -> Backbone:
        return Backbone.of_checkpoint(
            self.layout().transformer, self.attention, dtype=self.dtype, device=self.device
        )

    def _language_model(self) -> Network:
        trained = self._backbone()
        if trained.adapted is None and (Path(trained.source) / CARD).is_file():
            raise Unavailable(
                f"all weights of {self.checkpoint!r} were trained, so it has no language model: "
                "use its backbone"
            )
        base = replace(trained.base(), attention="native")
        if not base.load().decoder:
            raise Unavailable(
                f"{self.checkpoint!r} has no causal language model: use a decoder's checkpoint"
            )
        return replace(base, head="lm").load()

    def _sentence_layout(self, network: Network) -> SentenceLayout:
        return SentenceLayout(self.limit(network), normalise=self.layout().normalize)

    def _prepare(self, network: Network, *, spans: bool = False) -> _batching.Prepare:
        return prepare_bare(network.tokenizer, limit=self.limit(network), spans=spans)


def read_layout(checkpoint: str) -> Layout:
    """Return the layout of a checkpoint.

    Args:
        checkpoint: A folder or a hub id, with or without the ``modules.json`` of
            sentence-transformers, or the packaged backbone.

    Raises:
        Unavailable: The hub does not have it.
        CheckpointError: It has modules other than transformer, mean pooling and normalisation.
    """
    if checkpoint == PACKAGED:
        return Layout(checkpoint)
    folder = folder_of(checkpoint)
    if not (folder / "modules.json").is_file():
        return Layout(checkpoint)
    modules = {
        str(module["type"]).rpartition(".")[2]: folder / module["path"]
        for module in read_json(folder / "modules.json")
    }
    required = {"Transformer", "Pooling"}
    if not required <= modules.keys() <= required | {"Normalize"}:
        raise CheckpointError(
            f"expected the modules Transformer, Pooling and maybe Normalize in {folder}, "
            f"got {', '.join(modules)}: use st:PATH for it"
        )
    pooling = pooling_modes(read_json(modules["Pooling"] / "config.json"))
    if pooling != {"mean"}:
        raise CheckpointError(
            f"expected mean pooling in {modules['Pooling']}, got {sorted(pooling)}: "
            "dino averages token states, use st:PATH for it"
        )
    limits = modules["Transformer"] / "sentence_bert_config.json"
    limit = read_json(limits).get("max_seq_length") if limits.is_file() else None
    inner = modules["Transformer"]
    transformer = checkpoint if inner == folder else str(inner)
    return Layout(transformer, limit, "Normalize" in modules)


def pooling_modes(config: Mapping[str, Any]) -> set[str]:
    """Return the modes in a pooling config of sentence-transformers, of its old or new form."""
    if "pooling_mode" in config:
        mode = config["pooling_mode"]
        return {mode} if isinstance(mode, str) else set(mode)
    return {
        key.removeprefix("pooling_mode_").removesuffix("_tokens")
        for key, value in config.items()
        if key.startswith("pooling_mode_") and value
    }
