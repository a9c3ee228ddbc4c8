"""What memory holds: how far the backbone goes astray after a text's own memory, and how much further after another text's.

The wider the two numbers are apart, the more of a text is in its memory. With random rows they are at first nearly equal.
``python benchmarks/llm2comp_memory.py FOLDER ...`` prints them for checkpoints of the recipe.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapters._backbone import Backbone
from adapters._training.loop import autocast
from adapters.llm2comp import texts
from adapters.llm2comp.compression import Compression, splits
from adapters.llm2comp.encoder import read_checkpoint, restored
from adapters.llm2comp.trainee import Trainee, attending
from bench.errors import DataError, UsageError


def held(
    folder: Path,
    plain: Sequence[str],
    *,
    limit: int = 100,
    length: int = 128,
    continuation: int = 24,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
) -> NDArray[np.float64]:
    """Return the divergences of the backbone after memory from the backbone after the text itself (n, 2), in nats.

    The first column is for the text's own memory, the second for that of the text before it. Each is the compression stage's KL, the mean
    over the positions of a continuation.

    Args:
        folder: A checkpoint with memory.
        plain: Texts.
        limit: Most passages that are looked at, at least 2.
        length: Longest passage in tokens, and twice the shortest.
        continuation: Most tokens that are predicted after a context.
        seed: Of the passages and the points at which they are split.
        dtype: "auto", "float32" or "bfloat16".
        device: "auto", "cpu", "cuda", "mps".

    Raises:
        CheckpointError: The folder is no checkpoint.
        UsageError: It has no memory, or the limit is less than 2.
        DataError: There are fewer than two passages that are long enough.
    """
    import torch

    made = read_checkpoint(folder)
    if not made.k:
        raise UsageError(
            f"expected a checkpoint with memory, {folder} has k=0: its embedding is the mean of token states"
        )
    if limit < 2:
        raise UsageError(f"limit is at least 2, as a text is held against another, got {limit}")
    frozen = Backbone(made.base, head="lm", dtype=dtype, device=device).load()
    found = texts.long_passages(plain, frozen.tokenizer, length)
    if len(found) < 2:
        raise DataError(
            f"expected two long passages, got one in {len(plain)} texts: give more texts"
        )
    limit = min(limit, len(found))
    positions = limit * (length + made.k + frozen.tokenizer.num_special_tokens_to_add())
    around = texts.around(frozen.tokenizer)
    own = splits(
        found, around, positions=positions, k=made.k, continuation=continuation, seed=seed
    )[:limit]  # each of another passage
    others = [
        row._replace(read=before.read)
        for row, before in zip(own, [own[-1], *own[:-1]], strict=True)
    ]
    network, rows = restored(frozen, folder, made)
    memory = torch.nn.Parameter(rows.to(frozen.device, torch.float32), requires_grad=False)
    step = Compression(
        Trainee(attending(network, made.attention), memory),
        frozen,
        [*own, *others],
        "kl",
        positions=1,
    )
    with torch.no_grad(), autocast(frozen):
        kl = [float(step.loss(*step.parts([i]))[0]) for i in range(len(step.splits))]
    return np.asarray(kl).reshape(2, -1).T
