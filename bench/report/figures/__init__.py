"""Figures of the report, drawn without global state so that the same results give the same bytes."""

from bench.report.figures.curves import layers, learning, loss, spectrum
from bench.report.figures.drawing import KINDS, Drawing
from bench.report.figures.instruction import instruction, robustness
from bench.report.figures.ranks import critical_difference
from bench.report.figures.scores import families, heatmap
from bench.report.figures.tradeoff import throughput, training_tokens
from bench.report.figures.variants import ablations, sweeps
from bench.report.pairs import Pairs

__all__ = [
    "KINDS",
    "Drawing",
    "ablations",
    "critical_difference",
    "drawn",
    "families",
    "heatmap",
    "instruction",
    "layers",
    "learning",
    "loss",
    "robustness",
    "spectrum",
    "sweeps",
    "throughput",
    "training_tokens",
]

_DRAW = (
    families,
    heatmap,
    critical_difference,
    throughput,
    training_tokens,
    instruction,
    robustness,
    layers,
    learning,
    loss,
    spectrum,
    ablations,
)


def drawn(pairs: Pairs) -> tuple[Drawing, ...]:
    """Return every figure of the report; one without its data says so and has none."""
    return (*(draw(pairs) for draw in _DRAW), *sweeps(pairs))
