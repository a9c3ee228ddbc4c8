"""How much of a text LLM2Comp's checkpoints hold in their memory.

Run: ``python benchmarks/llm2comp_memory.py FOLDER ... --data DIR``, DIR in the layout of BENCH_DATA. Each line has the KL of the frozen
backbone after a text's own memory, that after another text's, both with their standard error over texts, and the folder. The texts are
articles on medicine unless others are named: plain English of which the recipe trains on none.
"""

import argparse
import os
from pathlib import Path

from adapters._training.sources import named
from adapters.llm2comp import texts
from adapters.llm2comp.held import held
from bench.data import load
from bench.errors import BenchError

SOURCES = "deepset/covid_qa_excerpts"


def main() -> None:
    """Print a line for each checkpoint on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="checkpoints with memory"
    )
    parser.add_argument(
        "--sources",
        default=SOURCES,
        help=f"texts: files, ids, id:config or id:config:split [{SOURCES}]",
    )
    parser.add_argument("--limit", type=int, default=100, help="most passages [100]")
    parser.add_argument("--data", help="folder of data sets")
    args = parser.parse_args()
    if args.data:
        os.environ["BENCH_DATA"] = args.data
    try:
        plain, _ = texts.gathered(named(args.sources, texts.Plain), load)
        for folder in args.folders:
            found = held(folder, plain, limit=args.limit)
            (own, other), (a, b) = found.mean(0), found.std(0, ddof=1) / len(found) ** 0.5
            print(f"{own:.3f} ± {a:.3f}   {other:.3f} ± {b:.3f}   {folder}", flush=True)
    except BenchError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
