"""Every table of the report, in order. Each is made in a room of its own; all are printed from the same entries."""

from bench.report import budget, comparisons, cost, notes, published, scores, variants
from bench.report.cells import Cells
from bench.report.pairs import Pairs
from bench.report.table import Table

_INSTRUCTION = (
    "One encoder on the same texts under different instructions: harmonic mean of the scores under each instruction, each against "
    "its own labels; the gap is what the right instruction adds to the wrong one."
)
_ROBUSTNESS = (
    "Scores under correct, implicit and incorrect wordings of one instruction, a repeat each; the deltas are the worst correct "
    "(delta ci) and the worst implicit wording (delta ii) minus the best incorrect one."
)


def tables(cells: Cells, pairs: Pairs | None = None) -> tuple[Table, ...]:
    """Return every table of the report, those first that say most.

    Args:
        cells: The results.
        pairs: Their comparisons, where they are made already.
    """
    pairs = pairs or Pairs(cells)
    made = [
        scores.overview(pairs),
        scores.by_task(pairs),
        *budget.equal_budget(pairs),
        *variants.tables(pairs),
        comparisons.ranks(pairs),
        comparisons.win_tie_loss(pairs),
        comparisons.differences(pairs),
        cost.table(pairs),
        published.table(pairs),
        scores.by_score(
            pairs,
            "instruction",
            "Following instructions",
            _INSTRUCTION,
            first=("harmonic_mean", "gap"),
        ),
        scores.by_score(
            pairs, "robustness", "Robustness to how an instruction is worded", _ROBUSTNESS
        ),
        scores.by_score(
            pairs,
            "diagnostics",
            "Diagnostics",
            "What the embeddings hold; counted in no mean.",
            scale=1,
            digits=3,
        ),
        notes.samples(cells),
        cost.training(cells),
        notes.overlap(cells),
        notes.data(cells),
        notes.missing(cells),
        notes.provenance(cells),
    ]
    return tuple(
        table for table in made if table.rows or (table.notes and table.name == "published")
    )
