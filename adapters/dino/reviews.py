"""Film reviews that a language model generates: the training data of the task ``imdb-generated``.

Run: ``python -m adapters.dino.reviews DIR --films 100``, then ``bench run --data DIR --task
imdb-generated``. Titles are generated first, then a bad and a good review of each, self-debiased
against each other; an interrupted run resumes. The released code (timoschick/dino at 0e4a052)
trains a classifier on such reviews; here it is the probe that every encoder gets.
"""

import argparse
import gzip
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from adapters._backbone import PACKAGED, Backbone
from adapters.dino.generate import Generation, Job, generate, generator_digest, read_task
from bench.errors import BenchError, DataError
from bench.files import ESCAPED, write_atomic
from bench.recipe import Progress

log = logging.getLogger(__name__)


class Review(NamedTuple):
    """A review and its label: 0 bad, 1 good."""

    text: str
    label: int


def generate_reviews(
    folder: Path,
    generator: Backbone,
    *,
    films: int,
    samples: int,
    new_tokens: int,
    seed: int,
    progress: Progress,
) -> list[Review]:
    """Generate titles and reviews, and return the distinct reviews with a single label.

    Args:
        folder: Folder of the generated texts; those that it has are reused.
        generator: A decoder with its language-model head.
        films: Number of titles asked for; unusable ones and duplicates are dropped.
        samples: Reviews of each film and label.
        new_tokens: Most tokens of a review.
        seed: Random seed.
        progress: Called with the number of texts.

    Raises:
        DataError: There are no reviews, or only of one label.
    """
    model = generator_digest(generator)
    naming = Generation(top_k=0, new_tokens=20, seed=seed)
    job = Job(read_task("imdb-x1"), [""], -(-films // 2), naming, model)
    rows, _ = generate(job, generator, folder, progress)
    titles = list(dict.fromkeys(row["text_a"] for row in rows))
    writing = Generation(new_tokens=new_tokens, seed=seed)
    job = Job(read_task("imdb-x2"), titles, samples, writing, model)
    rows, _ = generate(job, generator, folder, progress) if titles else ([], {})
    found = single_label(Review(row["text_b"], int(row["label"])) for row in rows)
    if {review.label for review in found} != {0, 1}:
        raise DataError(
            f"expected reviews of both labels, got {len(found)} reviews of {len(titles)} titles: "
            "ask for more films or tokens"
        )
    return found


def single_label(reviews: Iterable[Review]) -> list[Review]:
    """Return the distinct reviews whose text has a single label."""
    labels: dict[str, set[int]] = {}
    for text, label in reviews:
        labels.setdefault(text, set()).add(label)
    return [Review(text, *found) for text, found in labels.items() if len(found) == 1]


def write_reviews(folder: Path, reviews: Sequence[Review]) -> Path:
    """Write reviews where tasks look for them under ``folder``, and return the file."""
    path = folder / "dino" / "imdb-generated" / "train.jsonl.gz"
    lines = [json.dumps(review._asdict(), ensure_ascii=False) + "\n" for review in reviews]
    write_atomic(path, gzip.compress("".join(lines).encode("utf-8", ESCAPED), mtime=0))
    return path


def log_progress(what: str, done: int, total: int) -> None:
    """Log how many texts are generated."""
    log.info("%s: %d of %d", what, done, total)


def main() -> None:
    """Run the command line."""
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
    generator = Backbone(args.generator, head="lm")
    try:
        reviews = generate_reviews(
            args.folder / "dino" / "generated",
            generator,
            films=args.films,
            samples=args.samples,
            new_tokens=args.new_tokens,
            seed=args.seed,
            progress=log_progress,
        )
    except BenchError as error:
        parser.exit(2, f"error: {error}\n")
    log.info("%s: %d reviews", write_reviews(args.folder, reviews), len(reviews))


if __name__ == "__main__":
    main()
