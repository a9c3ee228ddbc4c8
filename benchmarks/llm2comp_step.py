"""A compression step of LLM2Comp as the recipe makes it, and as one would write it down first.

Texts: the recipe's, or Wikipedia passages of a file; model: the packaged backbone. Run: ``python benchmarks/llm2comp_step.py --data
DIR``, DIR in the layout of BENCH_DATA. Both sides train low-rank weights and memory rows by KL on the same splits of the same
passages, each passage once, under autocast where the number type is bfloat16, each side in a fresh process. ``straightforward`` keeps
a second copy of the model for decoder and teacher, takes examples in random order, pads each batch to its longest text and computes
the scores of the whole vocabulary at every position. ``recipe`` is what ``bench train llm2comp`` runs, with one copy. The first step of
each is not timed; the loss of that step, on one example alone, agrees to four decimals in float32, and to rounding in bfloat16. Memory
is the largest resident memory of the process, and that less what was resident after imports and texts, before any model was loaded:
every copy of the model counts, two on one side and one on the other. The second number is compared; a GPU's own memory is in neither.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psutil
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.functional import kl_div, pad
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters._backbone import PACKAGED, Backbone, Network, resolve
from adapters._training.budget import batches
from adapters._training.loop import autocast
from adapters._training.sources import named
from adapters._training.weights import differentiable, targets
from adapters.llm2comp import texts
from adapters.llm2comp.compression import Compression, Split, splits
from adapters.llm2comp.train import Recipe
from adapters.llm2comp.trainee import first_memory, prepared
from bench.data import load

SIDES = ("straightforward", "recipe")

Step = Callable[[Sequence[int]], float]
"""From example numbers to the loss, with gradients added to the weights."""


def examples(tokenizer: Any, recipe: Recipe, count: int) -> list[Split]:  # noqa: ANN401 - a tokenizer
    """Return splits of the longer passages, about as many as asked for."""
    plain, _ = texts.gathered(
        named(recipe.sources, texts.Plain)
        or [s for s in texts.OPEN if s.id == "ludwigschmidt/squadshifts"],
        load,
    )
    found = texts.long_passages(plain, tokenizer, recipe.length)
    positions = count * (recipe.length // 2 + recipe.k)
    return splits(
        found,
        texts.around(tokenizer),
        positions=positions,
        k=recipe.k,
        continuation=recipe.continuation,
        seed=0,
    )[:count]


def straightforward(
    recipe: Recipe, network: Network, rows: Sequence[Split]
) -> tuple[Step, list[Tensor]]:
    """Return a step with two copies of the model, the network's and its own, and every position computed; and what it trains."""
    folder, dtype = Backbone(recipe.backbone).folder(), getattr(torch, network.dtype)
    frozen: Any = network.model
    encoder = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(network.device)
    encoder = get_peft_model(
        encoder,
        LoraConfig(r=recipe.rank, lora_alpha=2 * recipe.rank, target_modules=targets(encoder)),
    ).train()
    memory = torch.nn.Parameter(
        first_memory(network, recipe.k, recipe.words).to(network.device, torch.float32)
    )
    table, bos = frozen.get_input_embeddings(), [network.tokenizer.bos_token_id]
    trunk = encoder.get_base_model().model

    def embedded(ids: Sequence[int]) -> Tensor:
        return table(torch.tensor(ids, device=network.device))  # type: ignore[no-any-return]

    def step(batch: Sequence[int]) -> float:
        chosen = [rows[i] for i in batch]
        inputs = [torch.cat([embedded(row.read), memory.to(dtype)]) for row in chosen]
        states = trunk(inputs_embeds=_stacked(inputs), use_cache=False).last_hidden_state
        slots = [
            states[i, len(row.read) : len(row.read) + recipe.k] for i, row in enumerate(chosen)
        ]
        read = [
            torch.cat([embedded(bos), s, embedded(row.continuation)])
            for s, row in zip(slots, chosen, strict=True)
        ]
        student = (
            frozen(inputs_embeds=_stacked(read), use_cache=False).logits.float().log_softmax(-1)
        )
        with torch.no_grad():
            whole = [embedded([*bos, *row.context, *row.continuation]) for row in chosen]
            teacher = (
                frozen(inputs_embeds=_stacked(whole), use_cache=False)
                .logits.float()
                .log_softmax(-1)
            )
        loss = torch.zeros((), device=network.device)
        for i, row in enumerate(chosen):
            n, a = len(row.continuation) + 1, len(row.context)
            divergence = kl_div(
                student[i, recipe.k : recipe.k + n],
                teacher[i, a : a + n],
                log_target=True,
                reduction="sum",
            )
            loss = loss + divergence / (n * len(chosen))
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    return step, [memory, *(weight for weight in encoder.parameters() if weight.requires_grad)]


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.stack([pad(row, (0, 0, 0, width - len(row))) for row in rows])


def ours(recipe: Recipe, network: Network, rows: Sequence[Split]) -> tuple[Step, list[Tensor]]:
    """Return the recipe's step, and what it trains."""
    trainee = prepared(
        network, recipe.k, recipe.attention, rank=recipe.rank, seed=0, words=recipe.words
    )
    objective = Compression(trainee, differentiable(network), rows, "kl", recipe.positions)

    def step(batch: Sequence[int]) -> float:
        total = 0.0
        for part in objective.parts(batch):
            loss, _ = objective.loss(part)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    return step, list(trainee.weights().values())


def measured(side: str, recipe: Recipe, steps: int) -> dict[str, Any]:
    """Return time, token positions and memory of one side."""
    device, dtype = resolve(recipe.device, recipe.dtype)
    backbone = Backbone(recipe.backbone, head="lm", dtype=dtype, device=device)
    rows = examples(
        AutoTokenizer.from_pretrained(backbone.folder()), recipe, steps * recipe.batch_size
    )
    lengths = [len(row.read) + recipe.k for row in rows]
    before = psutil.Process().memory_info().rss / 1024**2
    network = backbone.load()
    if side == "recipe":
        step, weights = ours(recipe, network, rows)
        plan = batches(lengths, budget=sum(lengths), size=recipe.batch_size, seed=0)
    else:
        step, weights = straightforward(recipe, network, rows)
        order = np.random.default_rng(0).permutation(len(rows)).tolist()
        plan = [order[i : i + recipe.batch_size] for i in range(0, len(order), recipe.batch_size)]
    optimizer = torch.optim.AdamW(weights, lr=recipe.lr)
    with autocast(network):
        first = step([0])
    start, start_cpu = time.perf_counter(), time.process_time()
    for batch in plan:
        with autocast(network):
            step(batch)
        optimizer.step()
        optimizer.zero_grad()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    positions = sum(lengths[i] for batch in plan for i in batch)
    return {
        "side": side, "dtype": dtype, "steps": len(plan), "first_loss": round(first, 4), "positions": positions,
        "seconds": round(seconds, 2), "cpu_seconds": round(cpu_seconds, 2), "positions_per_second": round(positions / seconds, 1),
        "peak_mb": round(_peak()), "added_mb": round(_peak() - before),
    }  # fmt: skip


def _peak() -> float:
    """Return the largest resident memory of this process so far in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024 if sys.platform != "darwin" else 1024**2
    )


def show(found: Sequence[dict[str, Any]]) -> None:
    """Print one line a side and how they compare."""
    print(
        f"{'side':<16}{'steps':>6}{'loss':>9}{'positions':>11}{'seconds':>9}{'positions/s':>13}{'peak MB':>9}{'added MB':>10}"
    )
    for row in found:
        print(
            f"{row['side']:<16}{row['steps']:>6}{row['first_loss']:>9}{row['positions']:>11,}{row['seconds']:>9}",
            end="",
        )
        print(f"{row['positions_per_second']:>13}{row['peak_mb']:>9,}{row['added_mb']:>10,}")
    if len(found) == len(SIDES):
        plain, recipe = found
        print(
            f"\nspeed {recipe['positions_per_second'] / plain['positions_per_second']:.2f}x, ",
            end="",
        )
        print(f"memory {recipe['added_mb'] / plain['added_mb']:.2f}x")


def main() -> None:
    """Measure both sides, each in its own process, and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder in the layout of BENCH_DATA")
    parser.add_argument(
        "--sources", default="", help="files of texts instead, as the recipe's setting"
    )
    parser.add_argument("--backbone", default=PACKAGED)
    parser.add_argument(
        "--attention",
        default="native",
        choices=("native", "bidirectional"),
        help="of the recipe's side [native]",
    )
    parser.add_argument(
        "--positions",
        type=int,
        default=Recipe().positions,
        help="of the recipe's side, computed at once [the recipe's]",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=Recipe().batch_size,
        help="passages a step, of both sides [the recipe's]",
    )
    parser.add_argument(
        "--length",
        type=int,
        default=Recipe().length,
        help="longest passage in tokens, of both sides [the recipe's]",
    )
    parser.add_argument(
        "--continuation",
        type=int,
        default=Recipe().continuation,
        help="most tokens predicted [the recipe's]",
    )
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--side", choices=SIDES, help="measure one in this process")
    parser.add_argument("--json", action="store_true", help="print one JSON object a side")
    args = parser.parse_args()
    if args.data:
        os.environ["BENCH_DATA"] = args.data
    if args.side:
        names = (
            "backbone",
            "sources",
            "attention",
            "positions",
            "batch_size",
            "length",
            "continuation",
            "device",
            "dtype",
        )
        print(
            json.dumps(
                measured(
                    args.side, Recipe(**{name: getattr(args, name) for name in names}), args.steps
                )
            )
        )
        return
    Backbone(
        args.backbone
    ).folder()  # converted here where it never was, so that no side's memory has that in it
    found = []
    for side in SIDES:
        done = subprocess.run(
            [sys.executable, *sys.argv, "--side", side],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
    print("\n".join(map(json.dumps, found))) if args.json else show(found)


if __name__ == "__main__":
    main()
