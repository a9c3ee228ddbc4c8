"""LLM2Vec-Gen: new tokens after a text hold the model's own answer to it; their states embed it.

BehnamGhader, Adlakha, Schmidt, Chapados, Mosbach, Reddy. LLM2Vec-Gen: Generative Embeddings from
Large Language Models. arXiv 2603.10913, version 2. Tokens, layers, read-out and checkpoint layout
are those of the released code (McGill-NLP/llm2vec-gen at fdec758): with h_i the last state at the
i-th of ten tokens after the text, s_i = R h_i is a soft prompt for the frozen backbone, and the
embedding is the mean of A s_i. R and A are linear layers with bias.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from adapters import _batching
from adapters._backbone import PACKAGED, Backbone
from adapters._checkpoint import check_present, locate, read_card, runs_of
from adapters._encoder import NetworkEncoder
from adapters._export import TEXT, SentenceLayout
from adapters._files import files_digest, load_torch, read_json, read_object, tensors
from adapters._network import Network, added_ids, embedding_table
from adapters._source import folder_of
from adapters._text import Framed, make_prompts
from adapters._trainable import replace_table
from adapters.llm2vec_gen.generate import chat_frame, write_from_prompts
from bench.encoder import Batch, Card, Embeddings, Item, Side, digest, gather, location
from bench.errors import CheckpointError, EncodingError, UsageError
from bench.files import stamp
from bench.overlap import Ngrams

PUBLISHED: Mapping[str, str] = {
    "LLM2Vec-Gen-Qwen3-06B": "McGill-NLP/LLM2Vec-Gen-Qwen3-06B",
    "LLM2Vec-Gen-Qwen3-17B": "McGill-NLP/LLM2Vec-Gen-Qwen3-17B",
    "LLM2Vec-Gen-Qwen3-4B": "McGill-NLP/LLM2Vec-Gen-Qwen3-4B",
    "LLM2Vec-Gen-Qwen3-8B": "McGill-NLP/LLM2Vec-Gen-Qwen3-8B",
    "LLM2Vec-Gen-Qwen25-05B": "McGill-NLP/LLM2Vec-Gen-Qwen25-05B",
}
"""Hub ids of the authors' checkpoints, by names that ``checkpoint`` also takes.

To pin one, use the id with ``@revision``; before 2 April 2026 they were those of version 1.
"""

CONFIG = "llm2vec_gen.json"
"""File that makes a folder a checkpoint of our recipe: fields of ``AnswerCheckpoint``, as JSON."""

WEIGHTS = "llm2vec_gen.safetensors"
"""File of the trained tensors, by the names of ``AnswerLayers``."""

RUN_CONFIG = "run_config.yml"
"""File that makes a folder a checkpoint of the released code."""

PUBLISHED_FILES = (
    RUN_CONFIG,
    "encoder_decoder_config.json",
    "encoder/adapter_config.json",
    "encoder/adapter_model.safetensors",
    "reconstruction_mlp",
    "alignment_mlp",
)
"""Files of a published checkpoint that determine vectors."""

PASSAGE = "Summarize the following passage:"
"""What precedes the documents of a retrieval, as in the released evaluation."""

WORDS = " The answer, in a few words, is:"
"""Words whose embeddings the new tokens are before training; ours, the paper draws them."""

TOKENS = 10
"""New tokens of version 2; all of them are read."""

ANSWER_TOKENS = 48
"""Most tokens of an answer for people."""


@dataclass(frozen=True)
class AnswerCheckpoint:
    """A folder that the recipe or the released code wrote, or an untrained backbone.

    Attributes:
        base: The backbone: the packaged one, a hub id or a folder.
        k: Number of new tokens.
        read: How many of them are read, the last ones; all in version 2.
        chat: Whether texts are put into the chat template.
        token_ids: Ids of the new tokens, in order; empty for the k numbers after the vocabulary.
        files: The files that determine vectors.
        folder: Where it is; None for an untrained backbone.
    """

    base: str
    k: int = TOKENS
    read: int = TOKENS
    chat: bool = False
    token_ids: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    folder: Path | None = None

    def paths(self) -> list[Path]:
        """Return the files that determine vectors.

        Raises:
            CheckpointError: One is missing.
        """
        paths = [self.folder / name for name in self.files] if self.folder else []
        check_present(paths)
        return paths


class AnswerLayers(nn.Module):
    """All that is trained, in float32.

    Attributes:
        tokens: Input embeddings of the new tokens (k, dim).
        reconstruction: R, from states to soft prompts (dim -> dim).
        alignment: A, from soft prompts to the space of the teacher (dim -> teacher's dim).
    """

    def __init__(self, tokens: Tensor, teacher_dim: int) -> None:
        super().__init__()
        dim = tokens.shape[1]
        self.tokens = nn.Parameter(tokens.float())
        self.reconstruction = nn.Linear(dim, dim)
        self.alignment = nn.Linear(dim, teacher_dim)

    def soft_prompts(self, states: Tensor) -> Tensor:
        """Return R h, float32 (..., dim), of states (..., dim), whatever dtype autocast says."""
        with torch.autocast(states.device.type, enabled=False):
            return self.reconstruction(states.float())  # type: ignore[no-any-return]

    def vectors(self, prompts: Tensor) -> Tensor:
        """Return A s, float32 (..., teacher's dim), of soft prompts (..., dim)."""
        with torch.autocast(prompts.device.type, enabled=False):
            return self.alignment(prompts.float())  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class AnswerReader:
    """A loaded checkpoint.

    Attributes:
        network: The backbone, with the new tokens in its table of input embeddings.
        layers: What was trained.
        tokens: Ids of the new tokens, int64 (k,).
        read: How many of them are read, the last ones.
    """

    network: Network
    layers: AnswerLayers
    tokens: Tensor
    read: int

    def soft_prompts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the soft prompts (b, read, dim) of token ids and mask (b, t)."""
        states = states_at(self.network.hidden_states(ids, mask), ids, self.tokens)
        return self.layers.soft_prompts(states[:, -self.read :])


@dataclass(frozen=True)
class LLM2VecGen(NetworkEncoder):
    """LLM2Vec-Gen (BehnamGhader et al. 2026): the state of new tokens that hold the answer.

    Attributes:
        checkpoint: "default" for the weights that come with this package, a name in PUBLISHED, a
            folder or hub id of the recipe or of the released code; or a backbone, which is then
            untrained: its embedding is the mean state of the words WORDS after the text.
        chat: Whether texts are put into the backbone's chat template; None for what the checkpoint
            was trained with. The released checkpoints read bare texts.
        passage: What precedes a document of a retrieval that has no instruction; "" for nothing.
        side: "document" where all texts are documents, as ``for_side`` sets it.
        normalise: Whether vectors have length 1; False is the plain mean of the released code.
        max_length: Longest text in tokens, new tokens included, which stay when it is truncated.
    """

    checkpoint: str = location("default")
    chat: bool | None = None
    passage: str = PASSAGE
    side: str = ""
    normalise: bool = True
    max_length: int = 512

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True
    instructed_sides: ClassVar[tuple[Side, ...]] = ("query",)

    def for_side(self, side: Side) -> "LLM2VecGen":
        """Return the encoder of queries or of documents; queries are like any other text."""
        return replace(self, side="document" if side == "document" else "")

    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield the vectors of items, longest first.

        Raises:
            CheckpointError: The checkpoint is incomplete or damaged, or belongs to another
                backbone.
            UsageError: ``max_length`` leaves no room for text, or there is no chat template.
        """
        reader = self._reader()

        def forward(ids: Tensor, mask: Tensor) -> Tensor:
            vectors = reader.layers.vectors(reader.soft_prompts(ids, mask)).mean(1)
            return normalize(vectors, dim=-1) if self.normalise else vectors

        prepare = self._prepare(reader.network)
        return _batching.stream(items, prepare, forward, reader.network, budget=self.budget)

    def encode_memory(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        """Return the vector of each token that is read; their mean is the embedding, before length.

        Returns:
            float32 (n, read, dim).

        Raises:
            BenchError: As for ``stream``.
        """
        reader = self._reader()

        def forward(ids: Tensor, mask: Tensor) -> Tensor:
            return reader.layers.vectors(reader.soft_prompts(ids, mask)).flatten(1)

        items = [Item(text, instruction) for text in texts]
        prepare = self._prepare(reader.network)
        batches = _batching.stream(items, prepare, forward, reader.network, budget=self.budget)
        dim = reader.layers.alignment.out_features
        return gather(batches, len(items)).reshape(len(items), reader.read, dim)

    def answer(self, texts: Sequence[str], *, instruction: str = "") -> list[str]:
        """Return what the backbone writes when all it sees of a text is its soft prompts.

        The likeliest tokens, at most ANSWER_TOKENS, on one line. The embedding, which is the mean
        of what follows the soft prompts, cannot be decoded.

        Raises:
            BenchError: As for ``stream``; also where the backbone has no language-model head.
        """
        reader = self._reader(head="lm")
        network = reader.network

        def forward(ids: Tensor, mask: Tensor) -> Tensor:
            made = write_from_prompts(network, reader.soft_prompts(ids, mask), ANSWER_TOKENS)
            return pad(made, (0, ANSWER_TOKENS - made.shape[1]), value=-1)

        items = [Item(text, instruction) for text in texts]
        found = [""] * len(items)
        prepare = self._prepare(network)
        for done in _batching.computed(items, prepare, forward, network, budget=self.budget):
            tokens = [row[row >= 0].tolist() for row in done.output.cpu()]
            words = network.tokenizer.batch_decode(tokens, skip_special_tokens=True)
            for row, text in zip(done.rows, words, strict=True):
                found[row.positions[0]] = " ".join(text.split())
        return found

    def card(self) -> Card:
        """Return the backbone's card with the digest of the checkpoint's files mixed in.

        It counts as distilled where the teacher was trained on labels.
        """
        made = self._checkpoint()
        card = self._base(made).card(trained=made.folder is not None)
        if made.folder is None:
            return card
        training = read_card(made.folder)
        return replace(
            card,
            weights=digest([card.weights, files_digest(made.paths())]),
            training=training,
            distilled=bool((training.get("teacher") or {}).get("labels")),
            training_tokens=training.get("trained_tokens"),
        )

    def runs(self) -> Ngrams | None:
        """Return the 8-grams of the training texts; None where they are not known."""
        folder = self._checkpoint().folder
        return runs_of(folder) if folder else None

    def _checkpoint(self) -> AnswerCheckpoint:
        source = locate(PUBLISHED.get(self.checkpoint, self.checkpoint), __file__, PACKAGED)
        return load_checkpoint(source)

    def _base(self, made: AnswerCheckpoint, head: str = "none") -> Backbone:
        return Backbone(made.base, head=head, dtype=self.dtype, device=self.device)

    def _network(self, *, weights: bool = True) -> Network:
        if not weights:
            return self._base(self._checkpoint()).load(weights=False)
        return self._reader().network

    def _reader(self, head: str = "none") -> AnswerReader:
        made = self._checkpoint()
        return _load_reader(self._base(made, head).load(), made, stamp(made.paths()))

    def _sentence_layout(self, network: Network) -> SentenceLayout:
        made = self._checkpoint()
        if made.chat if self.chat is None else self.chat:
            raise UsageError(
                "sentence-transformers keeps the end of a chat template when it truncates a text, "
                "which chat=true does not: set chat=false for other vectors that can be exported"
            )
        trained = None if network.empty else self._reader().layers
        return SentenceLayout(
            min(self.max_length, network.max_length),
            normalise=self.normalise,
            prompt=self.passage if self.side == "document" else "",
            document=self.passage,
            template=CHAT_TEMPLATE,
            memory=self._token_ids(network),
            read=made.read,
            layers=(trained.reconstruction, trained.alignment) if trained else (),
        )

    def _token_ids(self, network: Network) -> list[int]:
        made = self._checkpoint()
        return token_ids(made, added_ids(network, made.k).start)

    def _prepare(self, network: Network, *, spans: bool = False) -> _batching.Prepare:
        made = self._checkpoint()
        tail = self._token_ids(network)
        limit = min(self.max_length, network.max_length)
        if limit <= made.k:
            raise UsageError(
                f"expected room for text beside {made.k} new tokens, got max_length={limit}: "
                "raise it"
            )
        chat = made.chat if self.chat is None else self.chat
        before, after = chat_frame(network.tokenizer) if chat else ("", "")

        def frame(item: Item) -> Framed:
            if spans:  # places in the text as it is
                return Framed(item.text, before, after)
            document = self.side == "document" and not item.instruction
            framed = frame_query(item.text, self.passage if document else item.instruction)
            return Framed(framed.text, before + framed.before, after)

        def prepare(items: Sequence[Item]) -> list[_batching.Prompt]:
            framed = [frame(item) for item in items]
            return make_prompts(network.tokenizer, framed, limit=limit, tail=tail, spans=spans)

        return prepare


CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' and messages[0]['content'].strip() -%}"
    "{{ messages[0]['content'].strip() + ' ' }}{%- endif -%}"
    f"{{{{ {TEXT}.strip() }}}}"
)
"""What ``frame_query`` does, for sentence-transformers; the system message is the instruction."""


def frame_query(text: str, instruction: str) -> Framed:
    """Return instruction, one space and text, both without surrounding white space.

    Source:
        The released evaluation; training strips texts too.
    """
    before = instruction.strip()
    return Framed(text.strip(), f"{before} " if before else "")


def states_at(states: Tensor, ids: Tensor, tokens: Tensor) -> Tensor:
    """Return the states (b, k, dim) where the new tokens are, on whichever side padding is.

    Args:
        states: Token states (b, t, dim).
        ids: Token ids (b, t).
        tokens: Ids of the k new tokens (k,), which nothing else in a row has.

    Raises:
        EncodingError: A row does not have each of them once.
    """
    found = torch.isin(ids, tokens)  # (b, t)
    if not bool((found.sum(1) == len(tokens)).all()):
        raise EncodingError(
            f"expected each of the {len(tokens)} new tokens once in a text, got "
            f"{sorted(set(found.sum(1).tolist()))} of them: its tokenizer belongs to another model"
        )
    return states[found].view(len(ids), len(tokens), -1)


def token_ids(made: AnswerCheckpoint, vocabulary: int) -> list[int]:
    """Return the ids of the new tokens, where the backbone has so many rows in its vocabulary."""
    return list(made.token_ids or range(vocabulary, vocabulary + made.k))


def make_layers(network: Network, k: int, words: str) -> AnswerLayers:
    """Return layers that change nothing: tokens are those of words, R and A the identity.

    Args:
        network: The backbone.
        k: Number of new tokens.
        words: The first k tokens of these words, repeated if fewer, are the new ones.

    Raises:
        UsageError: The words have no token.
    """
    ids = network.tokenizer(words, add_special_tokens=False)["input_ids"]
    if not ids:
        raise UsageError(f"expected words of at least one token, got words={words!r}")
    table = embedding_table(network)
    rows = table[[ids[i % len(ids)] for i in range(k)]]
    with torch.random.fork_rng([]):  # linear layers draw their weights
        layers = AnswerLayers(rows, network.dim).to(network.device)
    for layer in (layers.reconstruction, layers.alignment):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layers


def load_checkpoint(source: str) -> AnswerCheckpoint:
    """Return the checkpoint at a source, or the settings of an untrained backbone.

    Args:
        source: A folder, a hub id or the packaged backbone.

    Raises:
        Unavailable: The hub does not have it.
        CheckpointError: A file is missing, or a field is missing, of another type or unknown.
    """
    if source == PACKAGED:
        return AnswerCheckpoint(source)
    folder = folder_of(source)
    if (folder / CONFIG).is_file():
        return _read_own(folder)
    if (folder / RUN_CONFIG).is_file():
        return _read_published(folder)
    return AnswerCheckpoint(source)


def _read_own(folder: Path) -> AnswerCheckpoint:
    path = folder / CONFIG
    found = read_json(path)
    types = {"base": str, "k": int, "chat": bool}
    if not isinstance(found, dict) or any(
        type(found.get(name)) is not kind for name, kind in types.items()
    ):
        wanted = ", ".join(f"{name}: {kind.__name__}" for name, kind in types.items())
        raise CheckpointError(
            f"expected {wanted} in {path}, got {found!r}: write the checkpoint again"
        )
    k = found["k"]
    return AnswerCheckpoint(
        found["base"], k, k, found["chat"], files=(CONFIG, WEIGHTS), folder=folder
    )


def _read_published(folder: Path) -> AnswerCheckpoint:
    """Return a checkpoint in the layout of the released code."""
    made = AnswerCheckpoint("", files=PUBLISHED_FILES, folder=folder)
    made.paths()
    try:
        config = yaml.safe_load((folder / RUN_CONFIG).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"expected YAML in {folder / RUN_CONFIG}, got {type(error).__name__}: copy it again"
        ) from error
    base = config.get("model_name_or_path") if isinstance(config, dict) else None
    adapter = read_object(folder / "encoder/adapter_config.json")
    mode = read_object(folder / "encoder_decoder_config.json").get("encoding_mode")
    indices = adapter.get("token_indices")
    read = re.fullmatch(r"last_(\d+)_tokens", str(mode))
    if not isinstance(base, str) or adapter.get("peft_type") != "TRAINABLE_TOKENS":
        raise CheckpointError(
            f"expected model_name_or_path and weights of new tokens in {folder}, got {base!r} and "
            f"{adapter.get('peft_type')!r}: other weights than new tokens are not supported"
        )
    if not isinstance(indices, list) or not all(type(index) is int for index in indices):
        raise CheckpointError(
            f"expected token_indices, a list of numbers, in {folder / 'encoder'}, got {indices!r}"
        )
    if not read or not 0 < int(read[1]) <= len(indices):
        raise CheckpointError(
            f"expected encoding_mode last_N_tokens in {folder}, N at most {len(indices)}, "
            f"got {mode!r}: no other read-out is supported"
        )
    ids = tuple(sorted(indices))  # in the order in which they were added and are joined
    return replace(made, base=base, k=len(ids), read=int(read[1]), token_ids=ids)


@lru_cache(maxsize=1)
def _load_reader(network: Network, made: AnswerCheckpoint, _stamp: object) -> AnswerReader:
    """Return a network with the new tokens in its table, and the layers behind their states.

    All other weights are shared with the given network. ``_stamp`` changes with the files.
    """
    table = embedding_table(network)
    if made.folder is None:
        layers = make_layers(network, made.k, WORDS)
    else:
        state = _own_state(made) if WEIGHTS in made.files else _published_state(made)
        layers = _make_loaded(state, made, network)
    if made.token_ids and made.token_ids[0] < len(network.tokenizer):
        raise CheckpointError(
            f"expected new tokens after the {len(network.tokenizer)} of {made.base}, "
            f"got {made.token_ids[0]} in {made.folder}: it belongs to another backbone"
        )
    ids = token_ids(made, len(table))
    grown = table.new_zeros(max(len(table), max(ids) + 1), table.shape[1])
    grown[: len(table)] = table
    grown[ids] = layers.tokens.detach().to(table)
    layers = layers.to(network.device).requires_grad_(requires_grad=False)
    tokens = torch.tensor(ids, device=network.device)
    return AnswerReader(replace_table(network, grown), layers, tokens, made.read)


def _own_state(made: AnswerCheckpoint) -> dict[str, Tensor]:
    assert made.folder is not None  # noqa: S101 - it has files
    state = tensors(made.folder / WEIGHTS)
    return {name: tensor for name, tensor in state.items() if not name.startswith("teacher.")}


def _published_state(made: AnswerCheckpoint) -> dict[str, Tensor]:
    """Return the tensors of a published checkpoint by our names."""
    assert made.folder is not None  # noqa: S101
    rows = tensors(made.folder / "encoder/adapter_model.safetensors")
    names = [name for name in rows if name.endswith("trainable_tokens_delta")]
    if len(names) != 1:
        raise CheckpointError(
            f"expected one tensor trainable_tokens_delta in {made.folder}, got {sorted(rows)}: "
            "other weights than new tokens are not supported"
        )
    indices = read_object(made.folder / "encoder/adapter_config.json")["token_indices"]
    if len(rows[names[0]]) != len(indices):
        raise CheckpointError(
            f"expected a row for each of {len(indices)} token_indices in {made.folder}, "
            f"got {len(rows[names[0]])}: copy it again"
        )
    order = sorted(range(len(indices)), key=lambda i: indices[i])
    state = {"tokens": rows[names[0]][order]}  # whole rows, in spite of the name
    for name in ("reconstruction", "alignment"):
        path = made.folder / f"{name}_mlp"
        saved = load_torch(path)
        own = saved.get("state_dict") if isinstance(saved, dict) else None
        if not isinstance(own, dict) or own.keys() != {"projection.weight", "projection.bias"}:
            raise CheckpointError(
                f"expected projection.weight and projection.bias in state_dict of {path}, "
                f"got {sorted(own or ())}: only one linear layer is supported"
            )
        for part in ("weight", "bias"):
            state[f"{name}.{part}"] = own[f"projection.{part}"]
    return state


def _make_loaded(
    state: Mapping[str, Tensor], made: AnswerCheckpoint, network: Network
) -> AnswerLayers:
    """Return layers with these tensors.

    Raises:
        CheckpointError: One is missing, or has another shape than the backbone needs.
    """
    dim = embedding_table(network).shape[1]
    out = len(state["alignment.weight"]) if "alignment.weight" in state else 0
    wanted = {
        "tokens": (made.k, dim),
        "reconstruction.weight": (dim, dim),
        "reconstruction.bias": (dim,),
        "alignment.weight": (out, dim),
        "alignment.bias": (out,),
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if shapes != wanted:
        raise CheckpointError(
            f"expected {wanted} in {made.folder}, got {shapes}: it belongs to another backbone"
        )
    with torch.random.fork_rng([]):
        layers = AnswerLayers(state["tokens"], out)
    layers.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return layers
