"""What each change of a recipe's settings adds or takes, with its chance."""

import numpy as np

from bench.report.figures.drawing import INK, MUTED, TRAINED, Drawing, number, panels, styled, told
from bench.report.pairs import Pairs
from bench.report.variants import gaps, variants

_NAME, _TITLE = "variants", "Variants of recipes"


@styled
def ablations(pairs: Pairs) -> Drawing:
    """Return the difference of each variant of a recipe from its first one, a panel a family, a row a variant."""
    groups = variants(pairs.cells)
    if not groups or not pairs.by_family:
        return Drawing(_NAME, _TITLE, why="no two encoders that one method trained at one budget")
    names = [f"{group.method}: {group.changes[label]}" for group in groups for label in group.labels[1:]]
    figure, axes = panels(list(pairs.by_family), names)
    for panel, (family, found) in zip(axes, pairs.by_family.items(), strict=True):
        y = 0
        for group in groups:
            estimates = gaps(pairs, found, group.labels)
            for value, low, high in zip(estimates.value.tolist(), estimates.low.tolist(), estimates.high.tolist(), strict=True):
                if np.isnan(value):
                    panel.text(0, y, "  not measured", va="center", fontsize=7, color=MUTED)
                else:
                    (dot,) = panel.plot(100 * value, y, "o", color=TRAINED, markersize=5)
                    bounds = None if np.isnan(low) else (low, high)
                    told(dot, f"{names[y]}, {family}: {number(value, bounds)}")
                    if bounds:
                        panel.hlines(y, 100 * low, 100 * high, color=TRAINED, linewidth=1.4)
                y += 1
        panel.axvline(0, color=INK, linewidth=0.8)
    firsts = "; ".join(f"{group.method}: {group.labels[0]}" for group in groups)
    figure.suptitle("Difference of family means x 100 when a setting is changed; lines: 95 % interval", fontsize=9, x=0.01, ha="left")
    return Drawing(_NAME, _TITLE, f"Each minus the encoder that the changes start from ({firsts}).", figure)
