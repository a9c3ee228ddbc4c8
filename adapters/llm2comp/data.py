"""Training data of LLM2Comp: passages to compress, sentences and triples to contrast.

Stage 1 splits passages at random points; stage 2 takes sentences; stage 3 takes (query, positive,
negative) triples. Instructions of stage 3 are those of the released script
(longtaizi13579/LLM2Comp at c22f4c4) for the sets of the public E5 data.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from adapters._text import Framed, count_words
from adapters._training.card import DataSource
from adapters._training.texts import list_sentences, shuffle_repeatedly
from adapters.llm2comp.encoder import frame_query
from bench.errors import DataError, UsageError
from bench.recipe import Load

MARGIN = 10
"""Fewest tokens before and after the point at which a passage is split."""

Ids = list[int]


_ENTAILED = "Given a premise, retrieve a hypothesis that is entailed by the premise"
_SIMILAR = "Retrieve semantically similar text"
_CHINESE = "Given a Chinese search query, retrieve web passages that answer the question"
_WIKIPEDIA = "Given a question, retrieve Wikipedia passages that answer the question"
_ANSWERS = "Retrieve Wikipedia passages that answer the question"
_ELI5 = "Provided a user question, retrieve the highest voted answers on Reddit ELI5 forum"
_CLAIM = "Given a claim, retrieve documents that support or refute the claim"
_MULTI_HOP = "Given a multi-hop question, retrieve documents that can help answer the question"
_DOCUMENTS = "Given a web search query, retrieve relevant documents that answer the query"
_PASSAGES = "Given a web search query, retrieve relevant passages that answer the query"
_EQUIVALENT = (
    "Given a question, retrieve questions that are semantically equivalent to the given question"
)
_SAME = "Find questions that have the same meaning as the input question"

INSTRUCTIONS: Mapping[str, tuple[str, ...]] = {
    "allnli": (f"{_ENTAILED} {_SIMILAR}",),
    "dureader": (_CHINESE,),
    "eli5_question_answer": (_ELI5,),
    "fever": (_CLAIM,),
    "hotpot_qa": (_MULTI_HOP,),
    "miracl": (_WIKIPEDIA,),
    "mrtydi": (_WIKIPEDIA,),
    "msmarco_document": (_DOCUMENTS,),
    "msmarco_passage": (_PASSAGES,),
    "nq": (_WIKIPEDIA,),
    "quora_duplicates": (_EQUIVALENT, _SAME),
    "squad": (_ANSWERS,),
    "t2ranking": (_CHINESE,),
    "trivia_qa": (_ANSWERS,),
}
"""Instructions of each set of stage 3; two of one set alternate from row to row.

AllNLI's two are one string, as in the released code, where a comma is missing. A column
``instruction`` in the file of the set replaces it.
"""


class TextPassage(NamedTuple):
    """Consecutive sentences of one text, and their token ids without special tokens."""

    text: str
    ids: Ids


class Split(NamedTuple):
    """A passage split in two.

    Attributes:
        passage: Number of the passage.
        read: What the encoder reads: the context with the tokenizer's special tokens.
        context: Token ids to compress.
        continuation: Token ids that follow.
    """

    passage: int
    read: Ids
    context: Ids
    continuation: Ids


class RetrievalTriple(NamedTuple):
    """An example of stage 3: a query with its instruction, a relevant and an irrelevant text."""

    query: Framed
    positive: Framed
    negative: Framed


def make_passages(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int
) -> list[TextPassage]:
    """Return passages of whole sentences, as many as fit into ``length`` tokens.

    A longer sentence is truncated. Passages of less than half of ``length``, or too short to be
    split, are left out.

    Raises:
        DataError: No passage is long enough.
    """
    shortest = max(length // 2, 2 * MARGIN)
    sentences = [list_sentences(text) for text in texts]
    counts = map(len, _tokenise(list(itertools.chain.from_iterable(sentences)), tokenizer))
    packed: list[str] = []
    for group in sentences:
        packed += _pack(group, list(itertools.islice(counts, len(group))), length)
    rows = zip(packed, _tokenise(packed, tokenizer), strict=True)
    found = [TextPassage(text, ids[:length]) for text, ids in rows if len(ids) >= shortest]
    if not found:
        raise DataError(
            f"expected passages of {shortest} tokens or more, got none in {len(texts)} texts: "
            "lower length, or give longer texts"
        )
    return found


def _pack(sentences: Sequence[str], counts: Sequence[int], length: int) -> Iterator[str]:
    """Yield consecutive sentences joined, as many as have at most ``length`` tokens together."""
    group: list[str] = []
    total = 0
    for sentence, count in zip(sentences, counts, strict=True):
        if group and total + count > length:
            yield " ".join(group)
            group, total = [], 0
        group.append(sentence)
        total += count
    if group:
        yield " ".join(group)


def _tokenise(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[Ids]:
    if not texts:
        return []
    return list(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])


def find_special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[Ids, Ids]:
    """Return the special tokens that a tokenizer puts before and after every text.

    Raises:
        UsageError: It tokenises a text differently when it adds special tokens.
    """
    plain, whole = (
        tokenizer("a", add_special_tokens=special, verbose=False)["input_ids"]
        for special in (False, True)
    )
    for start in range(len(whole)):
        end = start + len(plain)
        if whole[start:end] == plain:
            return whole[:start], whole[end:]
    raise UsageError(
        f"expected special tokens around the text's own, got {whole} for 'a', which is {plain}: "
        "name another backbone"
    )


def draw_splits(
    passages: Sequence[TextPassage],
    around: tuple[Ids, Ids],
    *,
    budget: int,
    k: int,
    continuation: int,
    seed: int,
) -> list[Split]:
    """Return passages split at random points, in random order; all are used before one repeats.

    The point is uniform in [MARGIN, length - MARGIN].

    Args:
        passages: Each of at least 2 * MARGIN tokens.
        around: Special tokens before and after every text.
        budget: Tokens of contexts and memory together, exceeded by less than one passage.
        k: Number of memory tokens.
        continuation: Most tokens of the continuation.
        seed: Of order and points.
    """
    rng = np.random.default_rng([seed, 1])
    before, after = around
    drawn: list[Split] = []
    for i in shuffle_repeatedly(len(passages), seed):
        ids = passages[i].ids
        point = int(rng.integers(MARGIN, len(ids) - MARGIN, endpoint=True))
        read = [*before, *ids[:point], *after]
        drawn.append(Split(i, read, ids[:point], ids[point : point + continuation]))
        budget -= len(read) + k
        if budget < 0:
            break
    return drawn


def draw_passages(passages: Sequence[TextPassage], *, budget: int, seed: int) -> list[TextPassage]:
    """Return passages in random order, for ``budget`` tokens; all are drawn before one repeats."""
    drawn: list[TextPassage] = []
    for i in shuffle_repeatedly(len(passages), seed):
        drawn.append(passages[i])
        budget -= len(passages[i].ids)
        if budget < 0:
            break
    return drawn


def draw_sentences(texts: Sequence[str], *, count: int, seed: int) -> list[str]:
    """Return at most ``count`` distinct sentences of three words or more, in random order."""
    sentences = itertools.chain.from_iterable(map(list_sentences, texts))
    distinct = [text for text in dict.fromkeys(sentences) if count_words(text) >= 3]
    order = itertools.islice(shuffle_repeatedly(len(distinct), seed), min(count, len(distinct)))
    return [distinct[i] for i in order]


def read_triples(
    files: Sequence[str], load: Load
) -> tuple[list[RetrievalTriple], list[DataSource]]:
    """Return the triples of files with columns query, positive, negative and maybe instruction.

    Without that column a file named like a set of the paper, such as ``nq.jsonl``, gets the
    instruction of that set; any other gets none.

    Args:
        files: Names of files or sets.
        load: Reads them.

    Raises:
        Unavailable: A file does not exist.
        DataError: A column is missing, or one of the three texts of a row is missing or blank.
    """
    triples: list[RetrievalTriple] = []
    records = []
    for name in files:
        table = load(name, "train", columns=("query", "positive", "negative"))
        known = INSTRUCTIONS.get(Path(name).name.partition(".")[0], ("",))
        asked: Iterator[str | None] = itertools.cycle(known)
        if "instruction" in table.columns:
            asked = iter(table["instruction"])
        rows = zip(table["query"], table["positive"], table["negative"], strict=True)
        for line, (texts, instruction) in enumerate(zip(rows, asked, strict=False), 1):
            if not all(isinstance(text, str) and text.strip() for text in texts):
                raise DataError(
                    f"{name} line {line}: expected texts as query, positive and negative, "
                    f"got {texts!r:.80}"
                )
            query = frame_query(texts[0], instruction or "")
            triples.append(RetrievalTriple(query, *map(Framed, texts[1:])))
        records.append(DataSource(name, "as its owner says", len(table), dict(table.pin)))
    return triples, records
