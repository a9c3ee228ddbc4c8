"""What the queries of stage 3 are told to look for, by the set that they come from.

Source: the stage-3 script of the released code (longtaizi13579/LLM2Comp at c22f4c4); the sets are those of the public E5 data.
"""

from collections.abc import Mapping

_ENTAILED = "Given a premise, retrieve a hypothesis that is entailed by the premise"
_SIMILAR = "Retrieve semantically similar text"
_CHINESE = "Given a Chinese search query, retrieve web passages that answer the question"
_PASSAGES = "Given a question, retrieve Wikipedia passages that answer the question"
_ANSWERS = "Retrieve Wikipedia passages that answer the question"

INSTRUCTIONS: Mapping[str, tuple[str, ...]] = {
    "allnli": (f"{_ENTAILED} {_SIMILAR}",),
    "dureader": (_CHINESE,),
    "eli5_question_answer": (
        "Provided a user question, retrieve the highest voted answers on Reddit ELI5 forum",
    ),
    "fever": ("Given a claim, retrieve documents that support or refute the claim",),
    "hotpot_qa": (
        "Given a multi-hop question, retrieve documents that can help answer the question",
    ),
    "miracl": (_PASSAGES,),
    "mrtydi": (_PASSAGES,),
    "msmarco_document": (
        "Given a web search query, retrieve relevant documents that answer the query",
    ),
    "msmarco_passage": (
        "Given a web search query, retrieve relevant passages that answer the query",
    ),
    "nq": (_PASSAGES,),
    "quora_duplicates": (
        "Given a question, retrieve questions that are semantically equivalent to the given question",
        "Find questions that have the same meaning as the input question",
    ),
    "squad": (_ANSWERS,),
    "t2ranking": (_CHINESE,),
    "trivia_qa": (_ANSWERS,),
}
"""Instructions of each set; several take turns, line by line. Two of AllNLI's are one, as a comma is missing in the released code."""

CORRECTED: Mapping[str, tuple[str, ...]] = {**INSTRUCTIONS, "allnli": (_ENTAILED, _SIMILAR)}
"""The same with that comma."""


def instruction_of(source: str, line: int, *, corrected: bool) -> str:
    """Return the instruction of a query, "" where the set has none.

    Args:
        source: Name of the set.
        line: Number of the query in it.
        corrected: Whether AllNLI's two instructions take turns instead of being run together.
    """
    known = (CORRECTED if corrected else INSTRUCTIONS).get(source, ("",))
    return known[line % len(known)]
