"""Answers in words, embedded by another encoder: any that is registered, found by its name."""

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from importlib.metadata import entry_points

import numpy as np

from adapters.inbedder.generation import Answered
from bench.encoder import Batch, Encoder, checked
from bench.errors import UsageError, unknown

GROUPS = ("bench.encoders.default", "bench.encoders")
"""Groups of entry points under which encoders announce themselves."""


def registered(name: str, **settings: object) -> Encoder:
    """Return the encoder of a name such as "all-MiniLM-L6-v2" or "st:FOLDER", weights not loaded.

    Args:
        name: A registered name, with ``:PATH_OR_ID`` for another checkpoint.
        settings: Values of fields, taken where the encoder has them.

    Raises:
        UsageError: No such encoder, or it takes no checkpoint.
    """
    head, _, checkpoint = name.partition(":")
    points = {point.name: point for group in GROUPS for point in entry_points(group=group)}
    if head not in points:
        raise unknown("encoder", head, points, hint="(reencoder is a registered name)")
    encoder: Encoder = points[head].load()()
    present = {field.name for field in fields(encoder)}  # type: ignore[arg-type]
    if checkpoint and "checkpoint" not in present:
        raise UsageError(f"reencoder {head!r} takes no checkpoint, got {checkpoint!r}")
    wanted = {**settings, **({"checkpoint": checkpoint} if checkpoint else {})}
    return replace(encoder, **{key: value for key, value in wanted.items() if key in present})  # type: ignore[type-var]


def reencoded(batches: Iterable[Answered], encoder: Encoder) -> Iterator[Batch]:
    """Yield the vectors of answers; where there are several to a prompt, their mean.

    Args:
        batches: Answers, as many to each prompt.
        encoder: What embeds them; it gets no instruction. Tokens are those of the answering network alone.

    Raises:
        EncodingError: The other encoder gives no embeddings.
    """
    for done in batches:
        flat = [answer for answers in done.answers for answer in answers]
        distinct = list(dict.fromkeys(flat))
        vectors = dict(zip(distinct, checked(encoder.encode(distinct), distinct), strict=True))
        prompts = [row.prompts[0] for row in done.rows]
        yield Batch(
            positions=np.asarray([row.positions[0] for row in done.rows], np.int64),
            vectors=np.stack(
                [
                    np.mean([vectors[answer] for answer in answers], axis=0)
                    for answers in done.answers
                ]
            ),
            tokens=np.asarray([len(prompt.ids) + done.generated for prompt in prompts], np.int32),
            truncated=np.asarray([prompt.truncated for prompt in prompts], np.bool_),
            padded=done.padded,
        )
