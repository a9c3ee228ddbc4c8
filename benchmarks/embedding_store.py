"""Time, memory and disk that the store of embeddings takes.

Run: ``python benchmarks/embedding_store.py``. For each number of texts there are three steps, each
in a new process: "fill" encodes and keeps the embeddings in a folder, "read" reads them again,
"memory" has no folder (``--no-cache``). All three must give the same embeddings.

Memory is the peak RSS less what the process used before it had any texts; "ratio" is that over
the bytes of the vectors and texts. Without a folder the vectors that were planned are handed out
in place.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from adapters.baseline.hashing import Hashing
from bench.embeddings import cached
from bench.encoder import Batch, Embeddings, Encoder, Item, gather
from bench.vectors import Vectors

STEPS = ("fill", "read", "memory")
FIELDS = ("texts", "step", "seconds", "vectors_mb", "texts_mb", "memory_mb", "ratio", "disk_mb")


@dataclass(frozen=True)
class Instant:
    """Vectors that cost next to nothing and depend on the text alone, in batches of 256."""

    dim: int
    batch: int = field(default=256, compare=False)
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        """Return float32 (n, dim)."""
        return gather(self.stream([Item(text, instruction) for text in texts]), len(texts))

    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield the vectors of items in order."""
        wave = np.arange(1, self.dim + 1, dtype=np.float32)
        for start in range(0, len(items), self.batch):
            texts = [item.text for item in items[start : start + self.batch]]
            seeds = np.array([int(text.rpartition(" ")[2]) for text in texts], np.float32)
            zeros = np.zeros(len(texts), np.int32)
            yield Batch(
                np.arange(start, start + len(texts)),
                np.sqrt(seeds[:, None] + wave),
                zeros,
                zeros.astype(bool),
                0,
            )


ENCODERS = {"hashing": Hashing, "instant": Instant}


def measure(encoder: Encoder, step: str, folder: Path, texts: int) -> dict[str, Any]:
    """Return what one step took in this process."""
    encoder.encode(["one text 0", "another text 1"])  # imports what it needs
    before, start = _peak(), time.perf_counter()
    passages = [
        f"a passage of some sixty characters, which stands for any {i}" for i in range(texts)
    ]
    wrapped = cached(encoder, Vectors(None if step == "memory" else folder, limit=64 << 30))
    planned = wrapped.missing(Item(passage) for passage in passages)
    wrapped.add(planned)
    encoded = len(planned)
    del planned
    vectors = wrapped.encode(passages)
    seconds = time.perf_counter() - start
    memory = _peak() - before
    size = sum(map(sys.getsizeof, passages))
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        "texts": texts,
        "step": step,
        "seconds": round(seconds, 2),
        "encoded": encoded,
        "vectors_mb": round(vectors.nbytes / 1e6),
        "texts_mb": round(size / 1e6),
        "memory_mb": round(memory / 1e6),
        "ratio": round(memory / (vectors.nbytes + size), 2),
        "rss_mb": round(_peak() / 1e6),
        "disk_mb": round(sum(path.stat().st_blocks * 512 for path in files) / 1e6),
        "files": len(files),
        "crc": zlib.crc32(vectors),
    }


def _peak() -> int:
    """Return the peak RSS of this process in bytes; ``ru_maxrss`` would begin with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _measure_apart(args: argparse.Namespace, step: str, texts: int, folder: str) -> dict[str, Any]:
    """Return what one step took in a new process."""
    call = [sys.executable, __file__, "--encoder", args.encoder, "--dim", str(args.dim)]
    call += ["--texts", str(texts), "--step", step, "--folder", folder]
    done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Measure every step and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", choices=ENCODERS, default="hashing", help="[hashing]")
    parser.add_argument(
        "--texts",
        type=int,
        nargs="+",
        default=[100_000, 1_000_000],
        help="numbers of distinct texts [100000 1000000]",
    )
    parser.add_argument("--dim", type=int, default=384, help="numbers in a vector [384]")
    parser.add_argument("--json", action="store_true", help="print JSON objects, with more fields")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        encoder = ENCODERS[args.encoder](dim=args.dim)
        print(json.dumps(measure(encoder, args.step, args.folder, args.texts[0])))
        return
    if not args.json:
        print(*(f"{name:>10}" for name in FIELDS))
    for texts in args.texts:
        sums = set()
        with tempfile.TemporaryDirectory() as folder:
            for step in STEPS:
                found = _measure_apart(args, step, texts, folder)
                sums.add(found["crc"])
                line = json.dumps(found) if args.json else _as_row(found)
                print(line, flush=True)
        if len(sums) > 1:
            sys.exit("the embeddings differ")


def _as_row(found: dict[str, Any]) -> str:
    return " ".join(f"{found[name]:>10}" for name in FIELDS)


if __name__ == "__main__":
    main()
