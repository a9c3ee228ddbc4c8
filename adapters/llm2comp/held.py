"""What memory holds: how far the backbone goes astray after a text's own memory, and how much further after another text's.

At first a memory is the same for every text and both numbers are equal; the wider they are apart, the more of a text is in its memory.
``python benchmarks/llm2comp_memory.py FOLDER ...`` prints them for checkpoints of the recipe.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapters import _lora
from adapters._backbone import Backbone, Network
from adapters._files import tensors
from adapters._training.loop import autocast
from adapters.llm2comp import texts
from adapters.llm2comp.compression import MARGIN, Compression, Split, splits
from adapters.llm2comp.encoder import checkpoint_files, read_checkpoint
from adapters.llm2comp.trainee import Trainee, attending
from bench.errors import DataError, UsageError


def held(
    folder: Path, plain: Sequence[str], *, limit: int = 100, length: int = 128, continuation: int = 24, seed: int = 0
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

    Raises:
        CheckpointError: The folder is no checkpoint.
        UsageError: It has no memory.
        DataError: There are fewer than two passages that are long enough.
    """
    import torch

    frozen, trainee = _restored(folder)
    own = _drawn(plain, frozen, length, continuation, len(trainee.memory), limit, seed)
    others = [row._replace(read=before.read) for row, before in zip(own, [own[-1], *own[:-1]], strict=True)]
    step = Compression(trainee, frozen, [*own, *others], "kl", positions=1)
    with torch.no_grad(), autocast(frozen):
        found = [float(step.loss(*step.parts([i]))[0]) for i in range(len(step.splits))]
    return np.asarray(found).reshape(2, -1).T


def _restored(folder: Path) -> tuple[Network, Trainee]:
    """Return the frozen backbone and the encoder of a checkpoint."""
    import torch

    made = read_checkpoint(folder)
    if not made.k:
        raise UsageError(f"expected a checkpoint with memory, {folder} has k=0: its embedding is the mean of token states")
    rows = tensors(checkpoint_files(folder, made)[0])["memory"]
    frozen = Backbone(made.base, head="lm").load()
    network = attending(_lora.merged(frozen, [folder / stage for stage in made.stages]), made.attention)
    return frozen, Trainee(network, torch.nn.Parameter(rows.to(frozen.device, torch.float32), requires_grad=False))


def _drawn(plain: Sequence[str], frozen: Network, length: int, continuation: int, k: int, limit: int, seed: int) -> list[Split]:
    """Return splits of passages, each of another one."""
    shortest = max(length // 2, 2 * MARGIN)
    found = [passage for passage in texts.passages(plain, frozen.tokenizer, length) if len(passage.ids) >= shortest]
    limit = min(limit, len(found))
    if limit < 2:
        raise DataError(f"expected two passages of {shortest} tokens or more, got {limit} in {len(plain)} texts: give longer texts")
    positions = limit * (length + k + frozen.tokenizer.num_special_tokens_to_add())
    return splits(found, texts.around(frozen.tokenizer), positions=positions, k=k, continuation=continuation, seed=seed)[:limit]
