"""Extractive question answering with QuIP: which words of a passage answer a question.

Long passages are read in windows (``QuIP.encode_long``), with one softmax over the whole passage.
"""

from collections.abc import Sequence

from adapters.quip.encoder import QuIP
from bench.errors import UsageError
from bench.spans import ANSWER_TOKENS, RATIONALE_TOKENS, Answer, extract_answer


def answered(
    encoder: QuIP,
    passages: Sequence[str],
    questions: Sequence[str],
    *,
    longest: int = ANSWER_TOKENS,
) -> list[Answer]:
    """Return the best answer in each passage to its question.

    Args:
        encoder: With question heads.
        passages: Texts of any length; each distinct one is encoded once.
        questions: One for each passage.
        longest: Most tokens of an answer.

    Raises:
        UsageError: There is not one question for each passage.
    """
    if len(passages) != len(questions):
        raise UsageError(
            f"expected a question for each passage, got {len(passages)} passages and {len(questions)} questions"
        )
    distinct, asked = list(dict.fromkeys(passages)), list(dict.fromkeys(questions))
    states = dict(zip(distinct, encoder.encode_long(distinct), strict=True))
    vectors = encoder.encode_questions(asked)
    number = {question: i for i, question in enumerate(asked)}
    return [
        extract_answer(
            text, states[text], vectors.start[number[q]], vectors.end[number[q]], longest
        )
        for text, q in zip(passages, questions, strict=True)
    ]


def rationales(
    encoder: QuIP, texts: Sequence[str], question: str, *, longest: int = RATIONALE_TOKENS
) -> list[Answer]:
    """Return the few words of each text that answer a question best, such as why a review counts as good."""
    return answered(encoder, texts, [question] * len(texts), longest=longest)
