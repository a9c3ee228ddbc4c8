"""Every table of the report, in order."""

from bench.reporting import context, differences, published, scores, variants
from bench.reporting.comparison import Comparison
from bench.reporting.table import Table

_INSTRUCTION = (
    "One encoder on the same texts under different instructions: harmonic mean of the scores under each "
    "instruction, each against its own labels; the gap is what the right instruction gains over the wrong one."
)
_ROBUSTNESS = (
    "Are paraphrased instructions equivalent, and wrong ones not? Scores under correct, implicit and incorrect "
    "wordings of one instruction, a repeat each; the deltas are the worst correct (delta ci) and the worst "
    "implicit wording (delta ii) minus the best incorrect one."
)
_DIAGNOSTICS = "Properties of the embeddings; excluded from means."


def tables(c: Comparison) -> tuple[Table, ...]:
    """Return every table of the report that has rows, the most important first."""
    made = [
        scores.families(c),
        scores.by_task(c),
        *scores.equal_budget(c),
        *variants.tables(c),
        differences.ranks(c),
        differences.win_tie_loss(c),
        differences.differences(c),
        context.cost(c),
        published.table(c),
        scores.by_metric(
            c, "instruction", "Following instructions", _INSTRUCTION, first=("harmonic_mean", "gap")
        ),
        scores.by_metric(c, "robustness", "Robustness to wording", _ROBUSTNESS),
        scores.by_metric(c, "diagnostics", "Diagnostics", _DIAGNOSTICS, scale=1, digits=3),
        context.samples(c),
        context.training(c),
        context.overlap(c),
        context.data(c),
        context.missing(c),
        context.made(c),
    ]
    return tuple(
        table for table in made if table.rows or (table.name == "published" and table.notes)
    )
