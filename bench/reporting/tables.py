"""Every table of the report, in order."""

from bench.reporting import (
    by_method,
    context,
    differences,
    notes,
    published,
    scores,
    summary,
    variants,
)
from bench.reporting.comparison import Comparison
from bench.reporting.table import Table

_INSTRUCTION = (
    "One encoder on the same texts under different instructions: harmonic mean of the scores under "
    "each instruction, each against its own labels; the gap is the score under the right "
    "instruction minus that under the wrong one. Scores under a wrong instruction are not ranked."
)
_ROBUSTNESS = (
    "Are paraphrased instructions equivalent, and wrong ones not? Scores under correct, implicit "
    "and incorrect wordings of one instruction, one repeat each; the deltas are the worst correct "
    "(delta ci) and the worst implicit wording (delta ii) minus the best incorrect one."
)
_DIAGNOSTICS = "Properties of the embeddings; excluded from means and significance tests."


def tables(c: Comparison) -> tuple[Table, ...]:
    """Return every table of the report that has rows, the most important first."""
    gap = ("harmonic_mean", "gap")
    made = [
        summary.summary(c),
        scores.families(c),
        scores.by_task(c),
        *scores.equal_budget(c),
        by_method.table(c),
        *variants.tables(c),
        differences.ranks(c),
        differences.win_tie_loss(c),
        differences.differences(c),
        context.cost(c),
        published.table(c),
        scores.by_metric(c, "instruction", "Instructions", _INSTRUCTION, first=gap),
        scores.by_metric(c, "robustness", "Robustness to wording", _ROBUSTNESS),
        scores.by_metric(c, "diagnostics", "Diagnostics", _DIAGNOSTICS, scale=1, digits=3),
        context.samples(c),
        context.training(c),
        context.overlap(c),
        context.data(c),
        context.missing(c),
        notes.notes(c),
        context.made(c),
    ]
    return tuple(table for table in made if table.rows)
