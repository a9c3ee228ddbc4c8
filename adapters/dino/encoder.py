"""DINO: a bi-encoder trained on sentence pairs that a language model wrote from instructions.

Schick, Schuetze. Generating Datasets with Pretrained Language Models. EMNLP 2021.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapters import _batching, _pooling
from adapters._backbone import PACKAGED, Backbone, Network
from adapters._checkpoint import CARD, card_of, located, runs_of
from adapters._encoder import NetworkEncoder
from adapters._files import read_json
from adapters._text import Framed, prompts
from adapters.dino.prompting import log_probabilities
from bench.encoder import Batch, Card, Item, digest, location
from bench.errors import CheckpointError, Unavailable
from bench.overlap import Ngrams

if TYPE_CHECKING:
    from torch import Tensor


class Layout(NamedTuple):
    """What a checkpoint folder holds: where the transformer lies, its own length limit, and whether vectors are normalised."""

    transformer: str
    max_length: int | None = None
    normalise: bool = False


@dataclass(frozen=True)
class DINO(NetworkEncoder):
    """DINO (Schick & Schuetze 2021): mean of last-layer token states, trained on generated sentence pairs; read by cosine.

    Attributes:
        checkpoint: "default" for the weights that come with this package, or a folder (taken as trained): one that the recipe
            wrote, a Hugging Face encoder with its tokenizer, or a sentence-transformers folder with mean pooling. A hub id or the
            packaged backbone is taken as untrained.
        attention: "auto" for that of the training, where the folder has a card, else "native"; or "bidirectional", for decoders.
        max_length: Longest text in tokens, special tokens counted; RoBERTa's own limit. A lower limit in a
            sentence-transformers folder goes first.

    Source:
        Mean over real tokens of the last layer, cosine: the released code, roberta-base.
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
        from torch.nn.functional import normalize

        network, layout = self._network(), self.layout()

        def forward(ids: "Tensor", mask: "Tensor") -> "Tensor":
            vectors = _pooling.mean(network.hidden_states(ids, mask), mask)
            return normalize(vectors, dim=-1) if layout.normalise else vectors

        return _batching.stream(items, self._prepare(network), forward, network, budget=self.budget)

    def score_words(
        self, texts: Sequence[str], *, prompt: str, words: Sequence[str]
    ) -> NDArray[np.float32]:
        """Return the log-probability of each word behind each text and the prompt, by the backbone as it was before training.

        Raises:
            Unavailable: The backbone is no decoder, or the checkpoint has changed all of its weights.
        """
        own = self.backbone()
        if own.adapted is None and (Path(own.source) / CARD).is_file():
            raise Unavailable(
                f"{self.checkpoint!r} was trained whole, so its language model is not there any more: ask its backbone"
            )
        base = replace(own.base(), attention="native")
        if not base.load().decoder:
            raise Unavailable(
                f"{self.checkpoint!r} has no causal language model to ask: give a decoder's checkpoint"
            )
        return log_probabilities(
            replace(base, head="lm").load(),
            texts,
            prompt,
            words,
            limit=self.max_length,
            budget=self.budget,
        )

    def card(self) -> Card:
        """Return the card of the transformer, trained where the checkpoint is a folder."""
        card, (_, *finish) = (
            self.backbone().card(trained=Path(self._source()).is_dir()),
            self.layout(),
        )
        return replace(card, weights=digest([card.weights, finish])) if any(finish) else card

    def runs(self) -> Ngrams | None:
        """Return the runs of words that default weights, or those of a recipe's folder, were trained on; None for others."""
        return runs_of(self.backbone().source)

    def _source(self) -> str:
        return located(self.checkpoint, __file__, PACKAGED)

    def layout(self) -> Layout:
        """Return where the transformer lies and how its vectors are finished; raises as ``layout_of``."""
        return layout_of(self._source())

    def backbone(self) -> Backbone:
        """Return the transformer, as it is used."""
        source, attention = self.layout().transformer, self.attention
        if attention == "auto":
            attention = card_of(Path(source)).get("recipe", {}).get("attention", "native")
        return Backbone(source, attention=attention, dtype=self.dtype, device=self.device)  # type: ignore[arg-type]

    def _network(self) -> Network:
        return self.backbone().load()

    def _prepare(self, network: Network, *, spans: bool = False) -> _batching.Prepare:
        limit = min(
            self.max_length, self.layout().max_length or self.max_length, network.max_length
        )
        return lambda items: prompts(
            network.tokenizer, [Framed(item.text) for item in items], limit=limit, spans=spans
        )


def layout_of(checkpoint: str) -> Layout:
    """Return where a checkpoint's transformer lies and how its vectors are finished.

    Args:
        checkpoint: A folder, with or without the ``modules.json`` of sentence-transformers, or any name that is no folder.

    Raises:
        CheckpointError: A module other than transformer, mean pooling and normalisation.
    """
    folder = Path(checkpoint)
    if not (folder / "modules.json").is_file():
        return Layout(checkpoint)
    modules = {
        str(module["type"]).rpartition(".")[2]: folder / module["path"]
        for module in read_json(folder / "modules.json")
    }
    if extra := modules.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise CheckpointError(
            f"expected transformer, mean pooling and normalisation in {folder}, got {', '.join(sorted(extra))}: use st:PATH for it"
        )
    if not {"Transformer", "Pooling"} <= modules.keys():
        raise CheckpointError(
            f"expected a Transformer and a Pooling module in {folder}/modules.json, got {sorted(modules)}: save the model again"
        )
    pooling = pooling_modes(read_json(modules["Pooling"] / "config.json"))
    if pooling != {"mean"}:
        raise CheckpointError(
            f"expected mean pooling in {modules['Pooling']}, got {sorted(pooling)}: dino averages token states, use st:PATH for it"
        )
    limits = modules["Transformer"] / "sentence_bert_config.json"
    return Layout(
        str(modules["Transformer"]),
        read_json(limits).get("max_seq_length") if limits.is_file() else None,
        "Normalize" in modules,
    )


def pooling_modes(config: Mapping[str, Any]) -> set[str]:
    """Return the pooling modes that a sentence-transformers pooling config switches on, in its old or its new form."""
    if "pooling_mode" in config:
        mode = config["pooling_mode"]
        return {mode} if isinstance(mode, str) else set(mode)
    return {
        key.removeprefix("pooling_mode_").removesuffix("_tokens")
        for key, value in config.items()
        if key.startswith("pooling_mode_") and value
    }
