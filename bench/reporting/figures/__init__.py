"""Figures of the report, drawn without global state: the same results give the same bytes."""

from collections.abc import Sequence
from itertools import product

from bench.reporting.comparison import Comparison
from bench.reporting.figures.curves import layers, learning, loss, spectrum
from bench.reporting.figures.drawing import KINDS, Drawing
from bench.reporting.figures.instruction import instruction, robustness
from bench.reporting.figures.scores import families, forest, heatmap, mean_ranks
from bench.reporting.figures.tradeoff import throughput
from bench.reporting.figures.variants import ablations, sweeps
from bench.reporting.table import Table

__all__ = ["Drawing", "beside", "draw", "files", "pictures"]


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
    """Return the figures that are shown with a table, of those that could be drawn.

    Of several numbered tables the first has them, as has the first of all tables those whose own
    table has no rows.
    """
    first: dict[str, str] = {}
    for table in tables:
        first.setdefault(table.name.rstrip("-0123456789"), table.name)
    there = [drawing for drawing in drawings if drawing.figure is not None]
    return [each for each in there if first.get(each.beside, tables[0].name) == name]


def pictures(tables: Sequence[Table], drawings: Sequence[Drawing]) -> dict[str, list[str]]:
    """Return the PNG files that are shown with each table, by its name."""
    names = [table.name for table in tables]
    return {name: [f"{each.name}.png" for each in beside(name, tables, drawings)] for name in names}


def files(drawings: Sequence[Drawing]) -> dict[str, bytes]:
    """Return every file, by name, of the figures that could be drawn."""
    drawn = [drawing for drawing in drawings if drawing.figure is not None]
    return {f"{each.name}.{kind}": each.rendered(kind) for each, kind in product(drawn, KINDS)}
