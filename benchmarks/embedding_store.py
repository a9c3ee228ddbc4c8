"""What the store of embeddings costs: seconds, peak memory and bytes on disk to fill it, to read it again, and without a disk.

Run: ``python benchmarks/embedding_store.py``. Every step is a fresh process; all three must give the same embeddings. Memory
is counted over what the process holds before it has any texts.
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

from bench.cache import cached
from bench.encoder import Batch, Embeddings, Item, gather
from bench.vectors import Vectors

STEPS = ("fill", "read", "memory")


@dataclass(frozen=True)
class Instant:
    """Vectors that cost next to nothing and depend on the text alone, in batches as a network gives them."""

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


def measure(step: str, folder: Path, texts: int, dim: int) -> dict[str, Any]:
    """Return what one step took in this process."""
    before, start = _peak(), time.perf_counter()
    passages = [
        f"a passage of some sixty characters, which stands for any {i}" for i in range(texts)
    ]
    size = sum(map(sys.getsizeof, passages))
    encoder = cached(Instant(dim), Vectors(None if step == "memory" else folder, limit=64 << 30))
    planned = encoder.missing(Item(passage) for passage in passages)
    encoder.add(planned)
    found = encoder.encode(passages)
    seconds = time.perf_counter() - start
    return {
        "step": step,
        "seconds": round(seconds, 2),
        "encoded": len(planned),
        "memory_mb": round((_peak() - before) / 1e6),
        "vectors_mb": round(found.nbytes / 1e6),
        "texts_mb": round(size / 1e6),
        "disk_mb": round(sum(p.stat().st_blocks * 512 for p in folder.rglob("*")) / 1e6),
        "files": sum(p.is_file() for p in folder.rglob("*")),
        "crc": zlib.crc32(found),
    }


def _peak() -> int:
    """Return the most bytes this process has held; ``ru_maxrss`` would begin with what the parent held."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    """Measure every step and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=1_000_000, help="different texts [1000000]")
    parser.add_argument("--dim", type=int, default=384, help="numbers in a vector [384]")
    parser.add_argument("--json", action="store_true", help="print JSON objects only")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(measure(args.step, args.folder, args.texts, args.dim)))
        return
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            call = [sys.executable, __file__, "--texts", str(args.texts), "--dim", str(args.dim)]
            call += ["--step", step, "--folder", folder]
            done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True)
            found.append(json.loads(done.stdout))
            print(json.dumps(found[-1]), flush=True)
    if len({one["crc"] for one in found}) > 1:
        sys.exit("the embeddings differ")
    if not args.json:
        print("all embeddings are equal")


if __name__ == "__main__":
    main()
