"""When two sets of vectors count as equal, and the error of a broken rule."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.encoder import Embeddings, Encoder, card, checked, shortened
from bench.errors import EncodingError


class ContractError(AssertionError):
    """A rule of the contract is broken; the message names it and the likely fault."""


def embeddings(vectors: Embeddings, texts: Sequence[str], fault: str) -> Embeddings:
    """Return the vectors if they are embeddings of the texts; otherwise raise, naming the fault."""
    try:
        return checked(vectors, texts)
    except EncodingError as error:
        raise ContractError(f"{error}; {fault}") from error


def agree(
    encoder: Encoder,
    expected: Embeddings,
    got: Embeddings,
    texts: Sequence[str],
    what: str,
    fault: str,
) -> None:
    """Raise unless two sets of vectors are equal up to rounding; ``what`` gave the second one."""
    if expected.shape != got.shape:
        raise ContractError(f"{what} shape {got.shape}, expected {expected.shape}; {fault}")
    apart, allowed = distance(expected, got), tolerance(encoder)
    if not (apart <= allowed).all():  # a distance that is not a number is not within the tolerance
        worst = int(apart.argmax())
        raise ContractError(
            f"{what} another vector for {shortened(texts[worst])}, "
            f"{apart[worst]:.2g} off (allowed {allowed:g}); {fault}"
        )


def distance(a: Embeddings, b: Embeddings) -> NDArray[np.float64]:
    """Return the distances of rows relative to the longer one; NaN where one is not finite."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):  # of infinity minus infinity, NaN is the wanted answer
        longer = np.maximum(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
        return np.asarray(np.linalg.norm(a - b, axis=1) / np.maximum(longer, 1e-12))


def tolerance(encoder: Encoder) -> float:
    """Return the relative difference that rounding explains, as batches change sums."""
    # Half types keep 8 to 11 bits, through some tens of layers.
    return 1e-4 if card(encoder).dtype == "float32" else 5e-2
