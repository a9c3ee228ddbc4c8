"""Training data of LLM2Vec-Gen: unlabelled queries, the model's own answers, a teacher's vectors.

The released code takes the first turns of Tulu 3's conversations. Here queries are sentences and
questions of open sets, half of them after an instruction, so that vectors react to instructions.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from adapters._text import count_words, make_prompts
from adapters._training.texts import list_sentences, shuffle_repeatedly
from adapters.llm2vec_gen.encoder import frame_query
from bench.encoder import Encoder, Item, stream
from bench.errors import DataError

QUESTIONS = (
    "Generate a passage that answers this question:",
    "Generate a question that means the same as this one:",
    "Answer this question in one sentence:",
    "Name the topic of this question:",
    "Say what kind of answer this question asks for:",
)
"""Instructions for texts that end in a question mark, as if the answer were to be generated."""

SENTENCES = (
    "Generate a sentence that means the same as this one:",
    "Generate text on the same subject as this text:",
    "Summarize this text in a few words:",
    "Name the topic of this text:",
    "Name the category that this text belongs to:",
    "Say who or what this text is about:",
    "Say what the writer of this text feels:",
)
"""Instructions for all other texts. None is one that embeddings are scored with."""

FEWEST_WORDS = 3
"""Words of the shortest query, without instruction."""

_RIDGES = tuple(10.0**k for k in range(-3, 5))


class Query(NamedTuple):
    """A text with its instruction, "" for none, and the ids that the encoder reads before its own.

    Attributes:
        text: Without surrounding white space.
        instruction: What is put before it.
        ids: Token ids.
    """

    text: str
    instruction: str
    ids: list[int]

    @property
    def words(self) -> str:
        """Instruction and text, as the model is asked."""
        framed = frame_query(self.text, self.instruction)
        return framed.before + framed.text


class Sample(NamedTuple):
    """A training row.

    Attributes:
        query: Token ids that the encoder reads before the new tokens.
        answer: Token ids to write, with the token that ended the answer, if it ended.
    """

    query: list[int]
    answer: list[int]


class Target(NamedTuple):
    """The teacher's vectors, moved and scaled: 0 predicts them with a mean square of 1.

    Attributes:
        vectors: float32 (n, dim).
        mean: What was subtracted, float32 (dim,).
        scale: What they were divided by.
    """

    vectors: Tensor
    mean: Tensor
    scale: float


def draw_queries(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    count: int,
    most: int,
    around: tuple[str, str],
    instructed: float,
    sentences: bool,
    seed: int,
) -> list[Query]:
    """Return distinct queries in random order, some after an instruction.

    Args:
        texts: Texts of any length.
        tokenizer: Of the backbone.
        count: Most queries; fewer where there are not enough sentences.
        most: Longest query in tokens, without ``around``; longer ones are left out.
        around: What the encoder reads before and after a query.
        instructed: Share of the queries that follow an instruction.
        sentences: Whether texts are split into sentences.
        seed: Of order and instructions.

    Raises:
        DataError: No query is short enough.
    """
    rng = np.random.default_rng([seed, 1])
    parts = chain.from_iterable(map(list_sentences, texts)) if sentences else texts
    distinct = list(dict.fromkeys(map(str.strip, parts)))
    asked: list[tuple[str, str]] = []
    for i in islice(shuffle_repeatedly(len(distinct), seed), len(distinct)):
        known = QUESTIONS if distinct[i].endswith("?") else SENTENCES
        drawn = known[int(rng.integers(len(known)))]
        instruction = drawn if rng.random() < instructed else ""
        if count_words(distinct[i]) >= FEWEST_WORDS:
            asked.append((distinct[i], instruction))
    found = list(islice(_short(asked, tokenizer, most, around), count))
    if not found:
        raise DataError(
            f"expected queries of at most {most} tokens and {FEWEST_WORDS} words or more, "
            f"got none in {len(texts)} texts: give others, or raise length"
        )
    return found


def _short(
    asked: Sequence[tuple[str, str]],
    tokenizer: PreTrainedTokenizerBase,
    most: int,
    around: tuple[str, str],
) -> Iterator[Query]:
    before, after = around
    for start in range(0, len(asked), 1024):
        some = asked[start : start + 1024]
        framed = [frame_query(*each) for each in some]
        words = [query.before + query.text for query in framed]
        lengths = map(len, tokenizer(words, add_special_tokens=False)["input_ids"])
        whole = [query._replace(before=before + query.before, after=after) for query in framed]
        prompts = make_prompts(tokenizer, whole, limit=1 << 30)
        for (text, instruction), length, prompt in zip(some, lengths, prompts, strict=True):
            if length <= most:
                yield Query(text, instruction, list(prompt.ids))


def embed_answers(teacher: Encoder, answers: Sequence[str]) -> tuple[NDArray[np.float32], int]:
    """Return the teacher's vectors of answers (n, dim), and the tokens that it read for them.

    Answers are given bare: without instruction, template or new tokens.
    """
    vectors = np.empty((0, 0), np.float32)
    tokens = 0
    for batch in stream(teacher, [Item(answer) for answer in answers]):
        if not len(vectors):
            vectors = np.empty((len(answers), batch.vectors.shape[1]), np.float32)
        vectors[batch.positions] = batch.vectors
        tokens += int(batch.tokens.sum())
    return vectors, tokens


def standardise(vectors: NDArray[np.float32], trained: int) -> Target:
    """Return the teacher's vectors less their mean, with a mean square of 1.

    Args:
        vectors: float32 (n, dim).
        trained: How many of them, the first ones, decide the mean and the scale.
    """
    found = torch.from_numpy(vectors)
    mean = found[:trained].mean(0)
    scale = float((found[:trained] - mean).square().mean().sqrt())
    return Target((found - mean) / scale, mean, scale)


def fit_ridge(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return weight (out, dim) and bias (out,) of the ridge regression of targets on inputs.

    The strength is the one with the least error when each row is left out.

    Args:
        inputs: (n, dim).
        targets: (n, out).
    """
    made: Any = RidgeCV(alphas=_RIDGES).fit(inputs.double().numpy(), targets.double().numpy())
    weight, bias = (torch.from_numpy(part).float() for part in (made.coef_, made.intercept_))
    return weight, bias, float(made.alpha_)
