"""QuIP's encoder: token states trained to answer questions, and question vectors in their space.

Jia, Lewis, Zettlemoyer. Question Answering Infused Pre-training of General-Purpose Contextualized
Representations. Findings of ACL 2022. Section 2: one network r reads passages c and questions q;
two heads turn the state of a question's first token into f_start(q) and f_end(q); the answer
starts at token i with probability softmax_i(r(c)_i . f_start(q)), and ends likewise with f_end(q).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from adapters import _batching, _pooling
from adapters._backbone import PACKAGED, Backbone
from adapters._batching import Prompt
from adapters._checkpoint import locate, runs_of
from adapters._encoder import NetworkEncoder
from adapters._export import SentenceLayout, plain_layer
from adapters._files import files_digest, tensors
from adapters._network import Network
from adapters._source import folder_of
from adapters._text import Framed, make_prompts, prepare_bare
from bench.encoder import Batch, Card, Item, QuestionVectors, TokenStates, digest, gather, location
from bench.errors import CheckpointError, UsageError, unknown
from bench.files import stamp
from bench.overlap import Ngrams
from bench.spans import ANSWER_TOKENS, Answer, extract_answer

HEAD_FILES = ("model_qa_head_start", "model_qa_head_end")
"""File names of the two question heads, ending in ``.safetensors`` or ``.pt``."""

READOUTS = ("mean", "question")
QUESTION_TOKENS = ("auto", "first", "last")


@dataclass(frozen=True)
class QuIP(NetworkEncoder):
    """QuIP (Jia et al. 2022): a text is the mean of its token states, trained to answer questions.

    The paper reads token states and question vectors; both read-outs of one vector per text are
    ours.

    Attributes:
        checkpoint: "default" for the weights of this package, a folder that the recipe wrote, or
            an encoder's folder or hub id. The authors' archives (facebookresearch/quip at 934c724,
            CC BY-NC 4.0) are never downloaded here: unpack ``<name>-hf``, which holds the encoder
            and needs the tokenizer files of roberta-large beside it, and ``<name>``, which holds
            the heads; <name> is quip, quip-noTeacher or quip-concat.
        heads: Folder of the question heads; "" looks in the checkpoint folder. Without heads a
            question's vector is its bare state, and the encoder counts as untrained.
        readout: "mean" of the token states of one layer, or "question": start and end vector of
            the text, concatenated.
        layer: Layer of the mean. None is layer 20 of 24, scaled to the depth (the paper's layer
            for paraphrase); of a decoder the last one, since in its inner layers a few huge
            numbers dominate a mean.
        question_token: Which state represents a question: "first" (the paper's), "last", or
            "auto": the last one of a decoder, whose first state has seen nothing of the question.
        attention: "native", "bidirectional" for a decoder, or "auto": that of the training.
        max_length: Most tokens of a text, without special ones.
        max_question: Most tokens of a question, without special ones.
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
        """Yield the vectors of items, longest first.

        Raises:
            UsageError: The read-out or the question token is not a known one.
        """
        if self.readout not in READOUTS:
            raise unknown("readout", self.readout, READOUTS)
        network = self._network()
        if self.readout == "question":
            return self._stream_questions(items, network, self.max_length)
        layer = self._layer(network)

        def forward(ids: Tensor, mask: Tensor) -> Tensor:
            return _pooling.mean(network.hidden_states(ids, mask, layer), mask)

        prepare = self._prepare(network)
        return _batching.stream(items, prepare, forward, network, budget=self.budget)

    def encode_questions(self, questions: Sequence[str]) -> QuestionVectors:
        """Return start and end vectors, float32 (m, dim) each, for last-layer token states.

        Raises:
            CheckpointError: The heads are incomplete or of another width.
        """
        items = [Item(question) for question in questions]
        batches = list(self._stream_questions(items, self._network(), self.max_question))
        start, end = np.split(gather(batches, len(items)), 2, axis=1)
        read = sum(int(batch.tokens.sum()) for batch in batches)
        return QuestionVectors(start.copy(), end.copy(), read)

    def encode_long(
        self, texts: Sequence[str], *, window: int = 456, stride: int = 328
    ) -> list[TokenStates]:
        """Return the last-layer token states of texts of any length, read in overlapping windows.

        Special tokens are at a text's own ends alone, so that an inner window has none.

        Args:
            texts: What is read.
            window: Most tokens read at once, special ones included; less if the network takes less.
            stride: Tokens from one window's start to the next, reduced with the window.

        Raises:
            UsageError: The stride is not between 1 and the window.

        Source:
            Windows and stride of the released code.
        """
        if not 1 <= stride <= window:
            raise UsageError(f"expected a stride from 1 to the window of {window}, got {stride}")
        network = self._network()
        size = min(window, network.max_length)
        step = max(stride * size // window, 1)
        framed = [Framed(text) for text in texts]
        wholes = make_prompts(network.tokenizer, framed, limit=1 << 30, spans=True)
        pieces: list[Prompt] = []
        kept: list[list[slice]] = []
        for whole in wholes:
            windows = split_windows(len(whole.ids), size, step)
            pieces += [_cut_prompt(whole, window) for window, _ in windows]
            kept.append([inner for _, inner in windows])

        def prepare(items: Sequence[Item]) -> list[Prompt]:
            return [pieces[int(item.text)] for item in items]

        items = [Item(str(i)) for i in range(len(pieces))]
        forward = network.hidden_states
        found = _batching.stream_tokens(items, prepare, forward, network, budget=self.budget)
        states = iter(found)
        return [_join_windows(states, inners) for inners in kept]

    def card(self) -> Card:
        """Return the backbone's card with the heads' digest added; trained if there are heads."""
        files = self._head_files()
        card = replace(self._backbone().card(), trained=bool(files))
        return replace(card, weights=digest([card.weights, files_digest(files)])) if files else card

    def runs(self) -> Ngrams | None:
        """Return the 8-grams that a recipe's checkpoint was trained on; None for other weights."""
        return runs_of(self._backbone().source)

    def _source(self) -> str:
        return locate(self.checkpoint, __file__, PACKAGED)

    def _backbone(self) -> Backbone:
        return Backbone.of_checkpoint(
            self._source(), self.attention, dtype=self.dtype, device=self.device
        )

    def _head_files(self) -> tuple[Path, ...]:
        if self.heads:
            return find_heads(Path(self.heads).expanduser())
        source = self._source()
        return () if source == PACKAGED else find_heads(folder_of(source), required=False)

    def _sentence_layout(self, network: Network) -> SentenceLayout:
        if self.readout != "mean":
            raise UsageError("sentence-transformers cannot apply the heads of two question vectors")
        plain_layer(self._layer(network), network)
        return SentenceLayout(token_limit(network, self.max_length))

    def _layer(self, network: Network) -> int:
        """Return the layer of the mean."""
        if self.layer is not None:
            return self.layer
        return network.layers if network.decoder else mean_layer(network.layers)

    def _prepare(
        self, network: Network, *, spans: bool = False, length: int | None = None
    ) -> _batching.Prepare:
        limit = token_limit(network, length or self.max_length)
        return prepare_bare(network.tokenizer, limit=limit, spans=spans)

    def _stream_questions(
        self, items: Sequence[Item], network: Network, length: int
    ) -> Iterator[Batch]:
        if self.question_token not in QUESTION_TOKENS:
            raise unknown("question_token", self.question_token, QUESTION_TOKENS)
        last = self.question_token == "last"  # noqa: S105 - a token of text
        if self.question_token == "auto":  # noqa: S105
            last = network.decoder
        pool = _pooling.last if last else _pooling.first
        files = self._head_files()
        heads: Sequence[Callable[[Tensor], Tensor]] = (nn.Identity(), nn.Identity())
        if files:
            heads = load_heads(files, network)

        def forward(ids: Tensor, mask: Tensor) -> Tensor:
            state = pool(network.hidden_states(ids, mask), mask)  # (b, dim)
            return torch.cat([head(state) for head in heads], dim=-1)  # (b, 2 dim)

        prepare = self._prepare(network, length=length)
        return _batching.stream(items, prepare, forward, network, budget=self.budget)


def find_answers(
    encoder: QuIP,
    passages: Sequence[str],
    questions: Sequence[str],
    *,
    longest: int = ANSWER_TOKENS,
) -> list[Answer]:
    """Return the most probable answer to each question in its passage.

    Args:
        encoder: With question heads.
        passages: Texts of any length, one for each question; each distinct one is encoded once.
        questions: What is asked.
        longest: Most tokens of an answer.

    Raises:
        UsageError: The numbers of passages and questions differ.

    Source:
        Released code: the largest p_start times p_end, one softmax over the whole passage.
    """
    if len(passages) != len(questions):
        got = f"{len(passages)} passages and {len(questions)} questions"
        raise UsageError(f"expected a passage for each question, got {got}")
    distinct = list(dict.fromkeys(passages))
    states = dict(zip(distinct, encoder.encode_long(distinct), strict=True))
    vectors = encoder.encode_questions(questions)
    rows = zip(passages, vectors.start, vectors.end, strict=True)
    return [extract_answer(text, states[text], start, end, longest) for text, start, end in rows]


def mean_layer(layers: int) -> int:
    """Return the layer as deep as layer 20 in the 24 of RoBERTa-large, the paper's choice."""
    return round(layers * 20 / 24)


def token_limit(network: Network, tokens: int) -> int:
    """Return how many ids of a text the network reads: its tokens and the special ones."""
    return min(tokens + network.tokenizer.num_special_tokens_to_add(), network.max_length)


def split_windows(n: int, size: int, stride: int) -> list[tuple[slice, slice]]:
    """Return the windows of n tokens: each one's tokens, and which of them are kept.

    Every token is kept once; an overlap is divided in its middle.

    Source:
        facebookresearch/quip at 934c724.
    """
    windows = []
    kept = 0
    for start in range(0, max(n - size, 0) + stride, stride):
        last = start + size >= n
        end = n if last else start + (size + stride) // 2
        windows.append((slice(start, start + size), slice(kept - start, end - start)))
        if last:
            break
        kept = end
    return windows


def _cut_prompt(prompt: Prompt, window: slice) -> Prompt:
    _, spans = prompt.text_tokens()
    return Prompt(prompt.ids[window], spans=spans[window])


def _join_windows(states: Iterator[TokenStates], inners: Sequence[slice]) -> TokenStates:
    parts = [(next(states), inner) for inner in inners]
    vectors = np.concatenate([part.states[inner] for part, inner in parts])
    spans = np.concatenate([part.spans[inner] for part, inner in parts])
    return TokenStates(vectors, spans, read=sum(part.read or 0 for part, _ in parts))


def make_head(dim: int, out: int) -> nn.Sequential:
    """Return a new head, Linear -> tanh -> Linear, from ``dim`` to ``out`` numbers.

    Its tensors are named as in the published files. Question heads have ``out`` = ``dim``.
    """
    head = nn.Sequential()
    head.add_module("dense", nn.Linear(dim, dim))
    head.add_module("tanh", nn.Tanh())
    head.add_module("out_proj", nn.Linear(dim, out))
    return head


def find_heads(folder: Path, *, required: bool = True) -> tuple[Path, ...]:
    """Return the files of the start and the end head; nothing if both are absent and not required.

    Raises:
        CheckpointError: One of them is missing.
    """
    found: list[Path] = []
    for name in HEAD_FILES:
        candidates = (folder / f"{name}.safetensors", folder / f"{name}.pt")
        found += [path for path in candidates if path.is_file()][:1]
    names = [path.stem for path in found]
    missing = [f"{name}.pt" for name in HEAD_FILES if name not in names]
    if missing and (found or required):
        raise CheckpointError(
            f"expected two question heads in {folder}, missing {', '.join(missing)}: "
            "give the folder of the unpacked archive as `heads`"
        )
    return tuple(found)


def load_heads(
    files: tuple[Path, ...], network: Network, *, out: int | None = None
) -> tuple[nn.Module, ...]:
    """Return the start and the end head in float32 on the network's device, for inference.

    Args:
        files: What ``find_heads`` returned.
        network: Says the width and the device.
        out: Numbers that a head returns; None for the network's width.

    Raises:
        CheckpointError: A file cannot be read, or its tensors do not belong to the encoder.
    """
    return _load_heads(files, network.dim, out or network.dim, network.device, stamp(files))


@lru_cache(maxsize=2)
def _load_heads(
    files: tuple[Path, ...], dim: int, out: int, device: str, _stamp: object
) -> tuple[nn.Module, ...]:
    return tuple(_load_head(path, dim, out).to(device) for path in files)


def _load_head(path: Path, dim: int, out: int) -> nn.Module:
    state = tensors(path)
    with torch.device("meta"):  # so that no random numbers are drawn for weights replaced at once
        head = make_head(dim, out)
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    if found != wanted:
        raise CheckpointError(
            f"expected the tensors {wanted} in {path}, got {found}: "
            "the heads must belong to the encoder"
        )
    head.load_state_dict(state, assign=True)
    return head.float().eval().requires_grad_(requires_grad=False)
