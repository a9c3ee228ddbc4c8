"""Which side of a reranking gets the instruction: mean average precision on pairs of duplicate questions.

Data: questions of the STS sets; pairs with a score of at least 4 are duplicates. Each question ranks the second questions of all pairs
by cosine. Run: ``python benchmarks/instruction_sides.py --data DIR``, DIR in the layout of BENCH_DATA.
"""

import argparse
import os

import numpy as np
from sklearn.metrics import average_precision_score

from bench.data import load
from bench.encoder import Encoder
from bench.registry import load_encoder
from bench.tasks.similarity import unit

SETS = ("mteb/stsbenchmark-sts", "mteb/sts14-sts", "mteb/sts15-sts")
INSTRUCTION = "What does the user want?"
SIDES = {"none": ("", ""), "query": (INSTRUCTION, ""), "both": (INSTRUCTION, INSTRUCTION)}


def question_pairs() -> list[tuple[str, str, float]]:
    """Return pairs of two different questions with their scores, from 0 to 5."""
    rows = [
        (a.strip(), b.strip(), score)
        for name in SETS
        for table in [load(name, "test")]
        for a, b, score in zip(
            *(table[c] for c in ("sentence1", "sentence2", "score")), strict=True
        )
    ]
    return [row for row in rows if row[0] != row[1] and row[0][-1:] == row[1][-1:] == "?"]


def mean_average_precision(
    encoder: Encoder, pairs: list[tuple[str, str, float]], asked: tuple[str, str]
) -> float:
    """Return the mean over all questions that have a duplicate; ``asked`` is the instruction of queries and of candidates."""
    duplicates: dict[str, set[str]] = {}
    for a, b, score in pairs:
        if score >= 4:
            duplicates.setdefault(a, set()).add(b)
    queries, pool = list(duplicates), list(dict.fromkeys(b for _, b, _ in pairs))
    left, right = (
        unit(encoder.encode(texts, instruction=instruction))
        for texts, instruction in zip((queries, pool), asked, strict=True)
    )
    found = []
    for query, cosines in zip(queries, left @ right.T, strict=True):
        others = np.array([text != query for text in pool])
        right_ones = np.array([text in duplicates[query] for text in pool])
        found.append(average_precision_score(right_ones[others], cosines[others]))
    return float(np.mean(found))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of data sets")
    os.environ["BENCH_DATA"] = parser.parse_args().data
    pairs = question_pairs()
    print(f"{len(pairs)} pairs, {sum(score >= 4 for *_, score in pairs)} of them duplicates")
    for name in ("inbedder", "llm2comp", "backbone-mean"):
        encoder = load_encoder(name)
        scores = [
            f"{side} {100 * mean_average_precision(encoder, pairs, asked):.1f}"
            for side, asked in SIDES.items()
            if encoder.follows_instructions or side == "none"
        ]
        print(f"{name:15}{'   '.join(scores)}")


if __name__ == "__main__":
    main()
