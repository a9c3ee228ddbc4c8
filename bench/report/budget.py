"""The comparison at equal budget: encoders trained on one backbone with equally many tokens, and what they started from."""

from dataclasses import replace
from itertools import pairwise

from bench.report.cells import Cells
from bench.report.pairs import Pairs
from bench.report.scores import overview
from bench.report.table import Table

_WITHIN = 0.05  # budgets this near to each other count as equal


def equal_budget(pairs: Pairs) -> list[Table]:
    """Return the comparison of encoders trained on one backbone at one budget, a table each, and that of all others."""
    cells = pairs.cells
    budgets = _budgets(cells)
    untrained = {label for label in cells.encoders if cells.tokens(label) is None}
    made, placed = [], set()
    for i, group in enumerate(budgets):
        backbone = str(cells.card(group[0]).get("backbone") or cells.base(group[0]))
        names = {
            "",
            *(
                name
                for label in group
                for name in (cells.base(label), cells.card(label).get("backbone"))
            ),
        }
        beside = [
            label for label in untrained if (cells.card(label).get("backbone") or "") in names
        ]
        shown = [label for label in cells.encoders if label in {*group, *beside}]
        placed |= set(shown)
        low, high = (f(cells.tokens(label) or 0 for label in group) for f in (min, max))
        table = overview(
            pairs,
            shown,
            f"equal-budget{f'-{i + 1}' if len(budgets) > 1 else ''}",
            f"Equal budget on {backbone}",
        )
        about = f"{low:,.0f} to {high:,.0f} training tokens (within {100 * _WITHIN:.0f} %), beside the backbone without training. {table.about}"  # noqa: E501
        made.append(replace(table, about=about))
    others = [label for label in cells.encoders if label not in placed]
    if made and others:
        made.append(overview(pairs, others, "other-checkpoints", "Other checkpoints"))
    return made


def _budgets(cells: Cells) -> list[list[str]]:
    """Return the groups of encoders of at least two methods that share backbone and budget, largest budget first."""
    trained = sorted(
        (cells.base(label), -(cells.tokens(label) or 0), label)
        for label in cells.encoders
        if cells.tokens(label)
    )
    groups: list[list[str]] = [[label] for _, _, label in trained[:1]]
    for (_, _, before), (backbone, tokens, label) in pairwise(trained):
        most = cells.tokens(groups[-1][0]) or 0
        if cells.base(before) == backbone and -tokens >= most * (1 - _WITHIN):
            groups[-1].append(label)
        else:
            groups.append([label])
    several = [g for g in groups if len({_method(cells, label) for label in g}) > 1]
    return sorted(several, key=lambda g: -(cells.tokens(g[0]) or 0))


def _method(cells: Cells, label: str) -> str:
    return str(cells.training(label).get("method") or label)
