"""How much of a text the memory of LLM2Comp's checkpoints contains.

Run: ``python benchmarks/llm2comp_memory.py FOLDER ... --data DIR``, DIR in the layout of
BENCH_DATA. Each line has the KL divergence of the frozen backbone after a text's own memory, that
after another text's memory, both with their standard error over texts, and the folder. The larger
the difference, the more of a text its memory contains; with random memory embeddings the two are
nearly equal. The default texts are articles on medicine, on which the recipe does not train.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from adapters._backbone import Backbone
from adapters._trainable import autocast
from adapters._training.sources import parse_sources
from adapters._training.texts import TextSource, read_texts
from adapters.llm2comp import data
from adapters.llm2comp.encoder import load_checkpoint, merge_checkpoint
from adapters.llm2comp.objective import Compression, Student, set_attention
from bench.data import load
from bench.errors import BenchError, UsageError

SOURCES = "deepset/covid_qa_excerpts"


def measure_memory(
    folder: Path,
    texts: Sequence[str],
    *,
    limit: int = 100,
    length: int = 128,
    continuation: int = 24,
    dtype: str = "auto",
    device: str = "auto",
) -> NDArray[np.float64]:
    """Return the KL of the backbone after a text's own memory and after another's (n, 2), in nats.

    Args:
        folder: A checkpoint with memory.
        texts: Plain texts.
        limit: Most passages, at least 2; each is split once, with seed 0.
        length: Longest passage in tokens, and twice the shortest.
        continuation: Most tokens that are predicted after a context.
        dtype: "auto", "float32" or "bfloat16".
        device: "auto", "cpu", "cuda", "mps".

    Raises:
        CheckpointError: The folder is not a checkpoint.
        UsageError: It has no memory, or there are fewer than two passages.
        DataError: No passage is long enough.
    """
    made = load_checkpoint(str(folder))
    frozen = Backbone(made.base, head="lm", dtype=dtype, device=device).load()
    passages = data.make_passages(texts, frozen.tokenizer, length)
    limit = min(limit, len(passages))
    if limit < 2 or not made.k:
        raise UsageError(
            f"expected a checkpoint with memory and at least 2 passages, got k={made.k} in "
            f"{folder} and {limit} passages"
        )
    special = data.find_special_tokens(frozen.tokenizer)
    budget = limit * (length + made.k + frozen.tokenizer.num_special_tokens_to_add())
    own = data.draw_splits(
        passages, special, budget=budget, k=made.k, continuation=continuation, seed=0
    )[:limit]
    shifted = [own[-1], *own[:-1]]
    others = [row._replace(read=other.read) for row, other in zip(own, shifted, strict=True)]
    merged, memory = merge_checkpoint(frozen, made)
    rows = torch.nn.Parameter(memory.to(frozen.device, torch.float32), requires_grad=False)
    student = Student(set_attention(merged, made.attention), rows)
    step = Compression(student, frozen, [*own, *others], "kl", positions=1)
    with torch.no_grad(), autocast(frozen):
        kl = [float(step.loss(*step.parts([i]))[0]) for i in range(len(step.splits))]
    return np.asarray(kl).reshape(2, -1).T


def main() -> None:
    """Print a line for each checkpoint on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="checkpoints with memory"
    )
    sources = f"texts: files, ids, id:config or id:config:split [{SOURCES}]"
    parser.add_argument("--sources", default=SOURCES, help=sources)
    parser.add_argument("--limit", type=int, default=100, help="most passages [100]")
    parser.add_argument("--data", help="folder of data sets")
    args = parser.parse_args()
    if args.data:
        os.environ["BENCH_DATA"] = args.data
    try:
        texts, _ = read_texts(parse_sources(args.sources, TextSource), load)
        for folder in args.folders:
            found = measure_memory(folder, texts, limit=args.limit)
            own, other = found.mean(0)
            a, b = found.std(0, ddof=1) / len(found) ** 0.5
            print(f"{own:.3f} ± {a:.3f}   {other:.3f} ± {b:.3f}   {folder}", flush=True)
    except BenchError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
