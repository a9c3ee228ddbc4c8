"""A compression step of LLM2Comp's recipe, compared with a direct implementation.

Run: ``python benchmarks/llm2comp_step.py --data DIR``, DIR in the layout of BENCH_DATA. Texts are
those of the recipe, or of files; the model is the packaged backbone. Both sides train LoRA weights
and memory embeddings by KL on the same splits of the same passages, each passage once, each side in
its own process. ``direct`` keeps a second copy of the model for decoder and teacher, takes examples
in random order, pads each batch to its longest text and computes the logits of every position.
``recipe`` is what ``bench train llm2comp`` runs, with one copy.

The first step, of one example, is not timed; its loss agrees to four decimals in float32, and to
rounding in bfloat16. Memory is the peak resident memory of the process, and the increase since
before any model was loaded, which is compared. A GPU's own memory is in neither.
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
from torch.nn.functional import kl_div
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters._backbone import PACKAGED, Backbone, resolve
from adapters._network import Network
from adapters._trainable import autocast, make_differentiable
from adapters._training.budget import batches
from adapters._training.sources import parse_sources
from adapters._training.texts import OPEN, TextSource, read_texts
from adapters._training.weights import lora_targets
from adapters.llm2comp import data
from adapters.llm2comp.objective import Compression, initial_memory, make_student
from adapters.llm2comp.train import Recipe
from bench.data import load

SIDES = ("direct", "recipe")
SETTINGS = ("backbone", "sources", "positions", "batch_size", "length", "continuation")
"""Settings of the recipe that the command line takes."""

Step = Callable[[Sequence[int]], float]
"""From example numbers to the loss, with gradients added to the weights."""


def draw_examples(tokenizer: Any, recipe: Recipe, count: int) -> list[data.Split]:  # noqa: ANN401
    """Return at most ``count`` splits of passages."""
    open_ = [source for source in OPEN if source.id == "ludwigschmidt/squadshifts"]
    texts, _ = read_texts(parse_sources(recipe.sources, TextSource) or open_, load)
    splits = data.draw_splits(
        data.make_passages(texts, tokenizer, recipe.length),
        data.find_special_tokens(tokenizer),
        budget=count * (recipe.length // 2 + recipe.k),
        k=recipe.k,
        continuation=recipe.continuation,
        seed=0,
    )
    return splits[:count]


def make_direct(
    recipe: Recipe, network: Network, splits: Sequence[data.Split]
) -> tuple[Step, list[Tensor]]:
    """Return a step with two copies of the model and every position computed; and its weights."""
    folder, dtype = Backbone(recipe.backbone).folder(), getattr(torch, network.dtype)
    frozen: Any = network.model
    copied = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(network.device)
    config = LoraConfig(
        r=recipe.rank, lora_alpha=2 * recipe.rank, target_modules=lora_targets(copied)
    )
    encoder = get_peft_model(copied, config).train()
    rows = initial_memory(network, recipe.k, recipe.words).to(network.device, torch.float32)
    memory = torch.nn.Parameter(rows)
    table, bos = frozen.get_input_embeddings(), [network.tokenizer.bos_token_id]
    trunk = encoder.get_base_model().model

    def embed(ids: Sequence[int]) -> Tensor:
        return table(torch.tensor(ids, device=network.device))  # type: ignore[no-any-return]

    def predict(inputs: list[Tensor]) -> Tensor:
        padded = pad_sequence(inputs, batch_first=True)
        return frozen(inputs_embeds=padded, use_cache=False).logits.float().log_softmax(-1)  # type: ignore[no-any-return]

    def step(batch: Sequence[int]) -> float:
        chosen = [splits[i] for i in batch]
        inputs = [torch.cat([embed(split.read), memory.to(dtype)]) for split in chosen]
        padded = pad_sequence(inputs, batch_first=True)
        states = trunk(inputs_embeds=padded, use_cache=False).last_hidden_state
        read = []
        for state, split in zip(states, chosen, strict=True):
            compressed = state[len(split.read) : len(split.read) + recipe.k]
            read.append(torch.cat([embed(bos), compressed, embed(split.continuation)]))
        log_q = predict(read)
        with torch.no_grad():
            log_p = predict([embed([*bos, *s.context, *s.continuation]) for s in chosen])
        loss = torch.zeros((), device=network.device)
        for i, split in enumerate(chosen):
            n, a = len(split.continuation) + 1, len(split.context)
            q, p = log_q[i, recipe.k : recipe.k + n], log_p[i, a : a + n]
            divergence = kl_div(q, p, log_target=True, reduction="sum")
            loss = loss + divergence / (n * len(chosen))
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    return step, [memory, *(weight for weight in encoder.parameters() if weight.requires_grad)]


def make_recipe_step(
    recipe: Recipe, network: Network, splits: Sequence[data.Split]
) -> tuple[Step, list[Tensor]]:
    """Return the recipe's step, and its weights."""
    student = make_student(
        network, recipe.k, "native", rank=recipe.rank, seed=0, words=recipe.words
    )
    objective = Compression(student, make_differentiable(network), splits, "kl", recipe.positions)

    def step(batch: Sequence[int]) -> float:
        total = 0.0
        for part in objective.parts(batch):
            loss, _ = objective.loss(part)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    return step, list(student.weights().values())


def measure(side: str, recipe: Recipe, steps: int) -> dict[str, Any]:
    """Return time, tokens and memory of one side."""
    device, dtype = resolve(recipe.device, recipe.dtype)
    backbone = Backbone(recipe.backbone, head="lm", dtype=dtype, device=device)
    tokenizer = AutoTokenizer.from_pretrained(backbone.folder())
    splits = draw_examples(tokenizer, recipe, steps * recipe.batch_size)
    lengths = [len(split.read) + recipe.k for split in splits]
    before = psutil.Process().memory_info().rss / 1024**2
    network = backbone.load()
    if side == "recipe":
        step, weights = make_recipe_step(recipe, network, splits)
        plan = batches(lengths, budget=sum(lengths), size=recipe.batch_size, seed=0)
    else:
        step, weights = make_direct(recipe, network, splits)
        order = np.random.default_rng(0).permutation(len(splits)).tolist()
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
    tokens = sum(lengths[i] for batch in plan for i in batch)
    unit = 1024**2 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {
        "side": side,
        "dtype": dtype,
        "steps": len(plan),
        "first_loss": round(first, 4),
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "tokens_per_second": round(tokens / seconds, 1),
        "peak_mb": round(peak),
        "added_mb": round(peak - before),
    }


def main() -> None:
    """Measure both sides, each in its own process, and print one JSON object a side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder in the layout of BENCH_DATA")
    for name in SETTINGS:
        default = getattr(Recipe(), name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(default), default=default, help="of the recipe")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--side", choices=SIDES, help="measure one in this process")
    args = parser.parse_args()
    if args.data:
        os.environ["BENCH_DATA"] = args.data
    if args.side:
        settings = {name: getattr(args, name) for name in (*SETTINGS, "device", "dtype")}
        print(json.dumps(measure(args.side, Recipe(**settings), args.steps)))
        return
    # converted here where it never was, so that no side's memory includes the conversion
    Backbone(args.backbone or PACKAGED).folder()
    found = []
    for side in SIDES:
        command = [sys.executable, *sys.argv, "--side", side]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        print(done.stdout.splitlines()[-1])
        found.append(json.loads(done.stdout.splitlines()[-1]))
    direct, recipe = found
    speed = recipe["tokens_per_second"] / direct["tokens_per_second"]
    memory = recipe["added_mb"] / direct["added_mb"]
    print(f"speed {speed:.2f}x, memory {memory:.2f}x", file=sys.stderr)


if __name__ == "__main__":
    main()
