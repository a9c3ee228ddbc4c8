"""QuIP: token states that hold the answers to many questions, and questions as vectors in their space.

Jia, Lewis, Zettlemoyer. Question Answering Infused Pre-training of General-Purpose Contextualized Representations.
Findings of ACL 2022.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from adapters import _batching, _pooling
from adapters._backbone import PACKAGED, Backbone, Network
from adapters._checkpoint import card_of, located, runs_of
from adapters._encoder import NetworkEncoder
from adapters._files import files_digest, stamp, tensors
from adapters._text import Framed, prompts
from adapters.quip.windows import long_states
from bench.encoder import Batch, Card, Item, QuestionVectors, TokenStates, digest, gather, location
from bench.errors import CheckpointError, UsageError
from bench.overlap import Ngrams

if TYPE_CHECKING:
    from torch import Tensor, nn

HEAD_FILES = ("model_qa_head_start", "model_qa_head_end")
"""File names of the two question heads, ending in ``.safetensors`` or ``.pt``."""


@dataclass(frozen=True)
class QuIP(NetworkEncoder):
    """QuIP (Jia et al. 2022): token states trained to answer questions; a text is the mean of its token states.

    The paper reads token states and question vectors; both read-outs of a single vector per text are ours.

    Attributes:
        checkpoint: "default" for the weights that come with this package, a folder that the recipe wrote, or an encoder folder
            or hub id. The authors' archives (facebookresearch/quip at 934c724, CC BY-NC 4.0) are never fetched here: unpack
            ``<name>-hf``, which holds the encoder and wants the tokenizer files of roberta-large beside it, and ``<name>``, which holds the
            heads; <name> is quip, quip-noTeacher or quip-concat.
        heads: Folder of the question heads; "" looks in the checkpoint folder. Without heads a
            question's vector is its bare state, and the encoder counts as untrained.
        readout: "mean" of the token states of one layer, or "question": start and end vector of the text side by side.
        layer: Layer of the mean; None is, of an encoder, 20 of 24, scaled to the depth (the paper's layer for paraphrase), and the last
            one of a decoder, in whose inner layers a few huge numbers are all that a mean shows.
        question_token: Which state stands for a question: "first" (the paper's), "last", or "auto": the first one of an
            encoder; the last one of a decoder, whose first state has seen nothing of the question.
        attention: "native" or, for decoders, "bidirectional"; "auto" is what the checkpoint was trained with.
        max_length: Longest text in tokens, special tokens not counted (section 3 of the paper).
        max_question: Longest question, counted likewise; as many as of a text in the released evaluation, 50 in training.

    Source:
        Sections 2 and 3 of the paper; heads, token choice and longest question as in the released code.
    """

    checkpoint: str = location("default")
    heads: str = location("")
    readout: str = "mean"
    layer: int | None = None
    question_token: str = "auto"  # noqa: S105 - a token of text
    attention: str = "auto"
    max_length: int = 456
    max_question: int = 456

    version: ClassVar[int] = 3
    follows_instructions: ClassVar[bool] = False

    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield the vectors of items, longest first."""
        network = self._network()
        if self.readout == "question":
            return self._questions(items, network, self.max_length)
        if self.readout != "mean":
            raise UsageError(f"readout of quip is 'mean' or 'question', got {self.readout!r}")
        layer = (
            mean_layer(network.layers, decoder=network.decoder)
            if self.layer is None
            else self.layer
        )

        def forward(ids: "Tensor", mask: "Tensor") -> "Tensor":
            return _pooling.mean(network.hidden_states(ids, mask, layer), mask)

        return _batching.stream(items, self._prepare(network), forward, network, budget=self.budget)

    def encode_questions(self, questions: Sequence[str]) -> QuestionVectors:
        """Return start and end vectors, float32 (m, dim) each, to be multiplied with last-layer token states.

        Raises:
            CheckpointError: The heads are incomplete or of another width.
        """
        batches = self._questions(
            [Item(question) for question in questions], self._network(), self.max_question
        )
        both = gather(batches, len(questions))
        half = both.shape[1] // 2
        return QuestionVectors(both[:, :half].copy(), both[:, half:].copy())

    def encode_long(
        self, texts: Sequence[str], *, window: int = 456, stride: int = 328
    ) -> list[TokenStates]:
        """Return the last-layer token states of texts of any length, each token's from the window in which it stands deeper.

        Args:
            texts: What is read.
            window: Most tokens read at once, special ones counted.
            stride: Tokens from one window's begin to the next; overlaps are parted in their middle.

        Raises:
            UsageError: The stride is not between 1 and the window.

        Source:
            Windows and stride as in the released code.
        """
        if not 1 <= stride <= window:
            raise UsageError(
                f"expected a stride from 1 to the window of {window} tokens, got {stride}"
            )
        return long_states(self._network(), texts, size=window, stride=stride, budget=self.budget)

    def card(self) -> Card:
        """Return the backbone's card with the heads' digest mixed in; trained where there are heads."""
        files = self._head_files()
        card = replace(self._backbone().card(), trained=bool(files))
        return replace(card, weights=digest([card.weights, files_digest(files)])) if files else card

    def runs(self) -> Ngrams | None:
        """Return the runs of words that default weights, or those of a recipe's folder, were trained on; None for others."""
        return runs_of(self._backbone().source)

    def _source(self) -> str:
        return located(self.checkpoint, __file__, PACKAGED)

    def _backbone(self) -> Backbone:
        source = self._source()
        trained = card_of(Path(source)).get("recipe", {}).get("attention", "native")
        attention = trained if self.attention == "auto" else self.attention
        return Backbone(source, attention=attention, dtype=self.dtype, device=self.device)  # type: ignore[arg-type]

    def _head_files(self) -> tuple[Path, ...]:
        return head_files(
            Path(self.heads or self._source()).expanduser(), required=bool(self.heads)
        )

    def _network(self) -> Network:
        return self._backbone().load()

    def _prepare(
        self, network: Network, *, spans: bool = False, length: int | None = None
    ) -> _batching.Prepare:
        limit = min(
            (length or self.max_length) + network.tokenizer.num_special_tokens_to_add(),
            network.max_length,
        )
        return lambda items: prompts(
            network.tokenizer, [Framed(item.text) for item in items], limit=limit, spans=spans
        )

    def _questions(self, items: Sequence[Item], network: Network, length: int) -> Iterator[Batch]:
        import torch

        read = question_reader(self.question_token, decoder=network.decoder)
        files = self._head_files()
        heads = (
            load_heads(files, network.dim, str(network.device), stamp(files))
            if files
            else (torch.nn.Identity(),) * 2
        )

        def forward(ids: "Tensor", mask: "Tensor") -> "Tensor":
            state = read(network.hidden_states(ids, mask), mask)
            return torch.cat([head(state) for head in heads], dim=-1)

        return _batching.stream(
            items, self._prepare(network, length=length), forward, network, budget=self.budget
        )


def mean_layer(layers: int, *, decoder: bool) -> int:
    """Return the layer whose mean stands for a text: as deep as layer 20 in RoBERTa-large's 24, or the last one of a decoder."""
    return layers if decoder else round(layers * 20 / 24)


def question_reader(token: str, *, decoder: bool) -> "Callable[[Tensor, Tensor], Tensor]":
    """Return the pooling (states, mask) -> (b, dim) that picks the state standing for a question.

    Args:
        token: "first", "last" or "auto".
        decoder: Whether the backbone is a decoder, which settles "auto".

    Raises:
        UsageError: Another word.
    """
    if token not in {"auto", "first", "last"}:
        raise UsageError(f"question_token of quip is 'auto', 'first' or 'last', got {token!r}")
    return _pooling.last if token == "last" or (token == "auto" and decoder) else _pooling.first  # noqa: S105 - a token of text


def head(dim: int, out: int | None = None) -> "nn.Sequential":
    """Return a new head, Linear -> tanh -> Linear, whose tensors are named as in the published files.

    Args:
        dim: Width of the encoder.
        out: Numbers that come out; None for as many as go in, as question heads have.
    """
    from torch import nn

    made = nn.Sequential()
    made.add_module("dense", nn.Linear(dim, dim))
    made.add_module("tanh", nn.Tanh())
    made.add_module("out_proj", nn.Linear(dim, out or dim))
    return made


def head_files(folder: Path, *, required: bool = True) -> tuple[Path, ...]:
    """Return the files of the start and the end head in a folder, or nothing where there are none and none are required.

    Raises:
        CheckpointError: One of them is missing.
    """
    found = tuple(
        path
        for name in HEAD_FILES
        for path in (folder / f"{name}.safetensors", folder / f"{name}.pt")
        if path.is_file()
    )
    names = {path.stem for path in found}
    if len(names) < 2 and (required or found):
        missing = ", ".join(f"{name}.pt" for name in HEAD_FILES if name not in names)
        raise CheckpointError(
            f"expected two question heads in {folder}, missing {missing}: name the folder of the unpacked archive as `heads`"
        )
    return (
        tuple(next(path for path in found if path.stem == name) for name in HEAD_FILES)
        if found
        else ()
    )


@lru_cache(maxsize=2)
def load_heads(
    files: tuple[Path, ...], dim: int, device: str, _stamp: object = None, *, out: int | None = None
) -> "tuple[nn.Module, ...]":
    """Return the start and the end head in float32, ready to use.

    Args:
        files: What ``head_files`` found.
        dim: Width of the encoder.
        device: Where to put them.
        out: As for ``head``.

    Raises:
        CheckpointError: A file cannot be read, a tensor is missing, left over or of another shape.
    """
    return tuple(_load_head(path, dim, out).to(device) for path in files)


def _load_head(path: Path, dim: int, out: int | None) -> "nn.Module":
    import torch

    state = tensors(path)
    with torch.device(
        "meta"
    ):  # so that no random number is drawn for weights that are replaced at once
        made = head(dim, out)
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}
    if found != wanted:
        raise CheckpointError(
            f"expected the tensors {wanted} in {path}, got {found}: the heads must belong to the encoder"
        )
    made.load_state_dict(state, assign=True)
    return made.float().eval().requires_grad_(requires_grad=False)
