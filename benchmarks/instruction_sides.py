"""Which side of a reranking gets the instruction: mean average precision of duplicate questions.

Run: ``python benchmarks/instruction_sides.py --data DIR``, DIR in the layout of BENCH_DATA. Data:
questions of the STS sets; pairs with a score of at least 4 are duplicates. Each question ranks the
second questions of all pairs by cosine.
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

Pair = tuple[str, str, float]


def read_question_pairs() -> list[Pair]:
    """Return pairs of two different questions with their scores, from 0 to 5."""
    pairs = []
    for name in SETS:
        table = load(name, "test")
        columns = (table[column] for column in ("sentence1", "sentence2", "score"))
        for first, second, score in zip(*columns, strict=True):
            a, b = first.strip(), second.strip()
            if a != b and a.endswith("?") and b.endswith("?"):
                pairs.append((a, b, score))
    return pairs


def score(encoder: Encoder, pairs: list[Pair], instructions: tuple[str, str]) -> float:
    """Return the mean average precision over all questions that have a duplicate.

    Args:
        encoder: Embeds queries and candidates.
        pairs: Of questions.
        instructions: Of queries and of candidates.
    """
    duplicates: dict[str, set[str]] = {}
    for a, b, similarity in pairs:
        if similarity >= 4:
            duplicates.setdefault(a, set()).add(b)
    queries, candidates = list(duplicates), list(dict.fromkeys(b for _, b, _ in pairs))
    left = unit(encoder.encode(queries, instruction=instructions[0]))
    right = unit(encoder.encode(candidates, instruction=instructions[1]))
    found = []
    for query, cosines in zip(queries, left @ right.T, strict=True):
        others = np.array([text != query for text in candidates])
        relevant = np.array([text in duplicates[query] for text in candidates])
        found.append(average_precision_score(relevant[others], cosines[others]))
    return float(np.mean(found))


def main() -> None:
    """Print one line an encoder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of data sets")
    os.environ["BENCH_DATA"] = parser.parse_args().data
    pairs = read_question_pairs()
    count = sum(similarity >= 4 for *_, similarity in pairs)
    print(f"{len(pairs)} pairs, {count} of them duplicates")
    for name in ("inbedder", "llm2comp", "backbone-mean"):
        encoder, scores = load_encoder(name), []
        for side, instructions in SIDES.items():
            if encoder.follows_instructions or side == "none":
                scores.append(f"{side} {100 * score(encoder, pairs, instructions):.1f}")
        print(f"{name:15}{'   '.join(scores)}", flush=True)


if __name__ == "__main__":
    main()
