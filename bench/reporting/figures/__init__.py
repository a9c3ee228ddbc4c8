"""Figures of the report, drawn without global state so that the same results give the same bytes."""

from bench.reporting.comparison import Comparison
from bench.reporting.figures.curves import layers, learning, loss, spectrum
from bench.reporting.figures.drawing import KINDS, Drawing
from bench.reporting.figures.instruction import instruction, robustness
from bench.reporting.figures.scores import critical_difference, families, heatmap
from bench.reporting.figures.tradeoff import throughput, training_tokens
from bench.reporting.figures.variants import ablations, sweeps

__all__ = ["KINDS", "Drawing", "draw"]


def draw(c: Comparison) -> tuple[Drawing, ...]:
    """Return every figure of the report; one without its data says why it is not there."""
    return (
        families(c),
        heatmap(c),
        critical_difference(c),
        throughput(c),
        training_tokens(c),
        instruction(c),
        robustness(c),
        layers(c),
        learning(c),
        loss(c),
        spectrum(c),
        ablations(c),
        *sweeps(c),
    )
