"""Film reviews that a language model writes, with the labels it was told to write them for: training data of ``imdb-generated``.

Run: ``python -m adapters.dino.reviews DIR --films 100``, then ``bench run --data DIR --task imdb-generated``. Titles are written first,
then a bad and a good review of each, steered away from each other; a run that was stopped goes on. The same of the released code
(timoschick/dino at 0e4a052) trains a classifier of its own; here it is the probe that reads every encoder.
"""

import argparse
import gzip
import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from adapters._backbone import PACKAGED, Backbone
from adapters.dino.dataset import Order, Report, generated, generator_of
from adapters.dino.debiasing import Sampling
from adapters.dino.generation import Writing
from adapters.dino.specification import read
from bench.errors import BenchError, DataError
from bench.files import ESCAPED, write_atomic

log = logging.getLogger(__name__)


class Review(NamedTuple):
    """A review and its label: 0 bad, 1 good."""

    text: str
    label: int


def reviews(
    folder: Path,
    generator: Backbone,
    *,
    films: int,
    samples: int,
    new_tokens: int,
    seed: int,
    report: Report,
) -> list[Review]:
    """Write titles and reviews, and return the reviews, each text once; one that was written for both labels is dropped.

    Args:
        folder: Of the generated texts; what is there is not written again.
        generator: A decoder with its language-model head.
        films: Titles that are asked for; a bad title is dropped, as is one that comes twice.
        samples: Reviews of each film and label.
        new_tokens: Most tokens of a review.
        seed: The only source of randomness.
        report: Told about texts.

    Raises:
        DataError: Reviews of only one label, or none, came of it.
    """
    model = generator_of(generator)
    naming = Order(
        read("imdb-x1"), [""], -(-films // 2), Writing(Sampling(top_k=0), 20, seed=seed), model
    )
    titles = list(
        dict.fromkeys(row["text_a"] for row in generated(naming, generator, folder, report).rows())
    )
    writing = Order(
        read("imdb-x2"), titles, samples, Writing(Sampling(), new_tokens, seed=seed), model
    )
    rows = generated(writing, generator, folder, report).rows() if titles else ()
    labels: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        labels[row["text_b"]].add(int(row["label"]))
    found = [Review(text, *seen) for text, seen in labels.items() if len(seen) == 1]
    if {review.label for review in found} != {0, 1}:
        raise DataError(
            f"expected reviews of both labels, {len(found)} came of {len(titles)} titles: ask for more films or tokens"
        )
    return found


def write(folder: Path, found: Sequence[Review]) -> Path:
    """Write reviews where tasks look for them under ``folder``, and return the file."""
    path = folder / "dino" / "imdb-generated" / "train.jsonl.gz"
    lines = "".join(json.dumps(review._asdict(), ensure_ascii=False) + "\n" for review in found)
    write_atomic(path, gzip.compress(lines.encode("utf-8", ESCAPED), mtime=0))
    return path


def main() -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of data sets, to be given as --data")
    parser.add_argument("--films", type=int, default=200, help="titles [200]")
    parser.add_argument("--samples", type=int, default=1, help="reviews of each film and label [1]")
    parser.add_argument("--new-tokens", type=int, default=80, help="most tokens of a review [80]")
    parser.add_argument(
        "--generator",
        default=PACKAGED,
        help="a decoder: a folder, or a hub id with @revision [the packaged one]",
    )
    parser.add_argument("--seed", type=int, default=42, help="[42]")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        found = reviews(
            args.folder / "dino" / "generated", Backbone(args.generator, head="lm"), films=args.films, samples=args.samples,
            new_tokens=args.new_tokens, seed=args.seed, report=lambda what, done, of: log.info("%s: %d of %d", what, done, of),
        )  # fmt: skip
    except BenchError as error:
        parser.exit(2, f"error: {error}\n")
    log.info("%s: %d reviews", write(args.folder, found), len(found))


if __name__ == "__main__":
    main()
