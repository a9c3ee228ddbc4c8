"""Figures of the report, drawn without global state: the same results give the same bytes."""

from collections.abc import Sequence

from bench.reporting.comparison import Comparison
from bench.reporting.figures.curves import layers, learning, loss, spectrum
from bench.reporting.figures.drawing import KINDS, Drawing
from bench.reporting.figures.instruction import instruction, robustness
from bench.reporting.figures.scores import families, forest, heatmap, mean_ranks
from bench.reporting.figures.tradeoff import throughput
from bench.reporting.figures.variants import ablations, sweeps
from bench.reporting.table import Table

__all__ = ["KINDS", "Drawing", "beside", "draw"]


def draw(c: Comparison) -> tuple[Drawing, ...]:
    """Return every figure of the report; one without the necessary results says why."""
    return (
        forest(c),
        families(c),
        heatmap(c),
        mean_ranks(c),
        throughput(c),
        instruction(c),
        robustness(c),
        layers(c),
        learning(c),
        loss(c),
        spectrum(c),
        ablations(c),
        *sweeps(c),
    )


def beside(name: str, tables: Sequence[Table], drawings: Sequence[Drawing]) -> list[Drawing]:
    """Return the figures that are shown with a table.

    Of several numbered tables the first has them, as has the first of all tables those whose own
    table has no rows.
    """
    first: dict[str, str] = {}
    for table in tables:
        first.setdefault(table.name.rstrip("-0123456789"), table.name)
    return [each for each in drawings if first.get(each.beside, tables[0].name) == name]
