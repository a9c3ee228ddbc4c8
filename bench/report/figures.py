"""Figures of the results, drawn without global state so that the same results give the same bytes."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report.tables import Cells, grouped, named

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE: Any = {"svg.hashsalt": "bench", "svg.fonttype": "path", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
_INK, _TRAINED, _UNTRAINED = "#333333", "#0072b2", "#e69f00"  # Okabe and Ito's blue and orange, told apart by colour-blind readers


def heatmap(cells: Cells) -> "Figure":
    """Return the scores of every cell as colours, encoder by task; a missing cell is left white and crossed out."""
    from matplotlib import rc_context

    scores = np.array([[100 * s.mean if (s := cells.score(e, c)) else np.nan for e in cells.encoders] for c in cells.columns])
    rows, columns = scores.shape
    numbers = columns <= 14
    with rc_context(_STYLE):
        figure = _figure(2.9 + columns * (0.62 if numbers else 0.2), 1.9 + 0.26 * rows)
        axes = figure.add_subplot()
        image = axes.imshow(scores, cmap="cividis", aspect="auto", vmin=min(0.0, float(np.nanmin(scores))), vmax=100)
        middle = sum(image.get_clim()) / 2
        for y, x in np.ndindex(*scores.shape):
            if np.isnan(scores[y, x]):
                axes.plot([x - 0.15, x + 0.15], [y, y], color="#aaaaaa", linewidth=1)
            elif numbers:
                axes.text(
                    x, y, f"{scores[y, x]:.1f}", ha="center", va="center", fontsize=7.5, color="white" if scores[y, x] < middle else "black"
                )
        axes.set_xticks(
            range(columns), [named(cells, e) for e in cells.encoders], rotation=40 if numbers else 90, ha="right" if numbers else "center"
        )
        axes.set_yticks(range(rows), [cells.title(c) for c in cells.columns])
        axes.tick_params(length=0)
        for edge in np.cumsum([count for _, count in grouped(cells.columns)])[:-1]:
            axes.axhline(edge - 0.5, color="white", linewidth=3)
        figure.colorbar(image, ax=axes, label="main score x 100", pad=0.02, aspect=30)
        axes.set_title("Every task", loc="left")
    return figure


def families(cells: Cells) -> "Figure":
    """Return the family means as bars with their spread over repeats, a panel a family."""
    from matplotlib import rc_context
    from matplotlib.patches import Patch

    shown = [family for family in cells.families if any(column.family == family for column in cells.common)] or cells.families
    labels = cells.encoders[::-1]
    trained = [cells.of_encoder(label)[0].card.get("trained", True) for label in labels]
    across = min(len(shown), 3)
    down = -(-len(shown) // across)
    with rc_context(_STYLE):
        figure = _figure(2.0 + 2.6 * across, 0.6 + down * (0.75 + 0.22 * len(labels)))
        panels = figure.subplots(down, across, sharey=True, squeeze=False)
        for panel, family in zip(panels.flat, shown, strict=False):
            for y, label in enumerate(labels):
                mean = cells.family(label, family)
                if mean is None:
                    panel.text(1, y, "{} of {} tasks".format(*cells.have(label, family)), va="center", fontsize=7, color="#777777")
                    continue
                value, spread = 100 * mean[0], 100 * mean[1]
                panel.barh(
                    y,
                    value,
                    xerr=spread or None,
                    color=_TRAINED if trained[y] else _UNTRAINED,
                    height=0.7,
                    error_kw={"elinewidth": 1, "capsize": 2, "ecolor": _INK},
                )
                panel.text(max(value, 0) + spread + 1.5, y, f"{value:.1f}", va="center", fontsize=7, color=_INK)
            panel.set_title(family, loc="left")
            panel.set_xlim(min(0, panel.get_xlim()[0]), 112)
            panel.set_yticks(range(len(labels)), labels)
            panel.tick_params(axis="y", length=0)
        for panel in panels.flat[len(shown) :]:
            panel.set_visible(False)
        figure.supxlabel("mean of main scores x 100; whiskers: standard deviation over repeats", fontsize=8)
        if not all(trained):
            handles = [Patch(color=_TRAINED, label="as published or without a method"), Patch(color=_UNTRAINED, label="method, untrained")]
            figure.legend(handles=handles, loc="outside upper right", frameon=False, fontsize=8, ncols=2)
    return figure


def rendered(figure: "Figure", kind: str) -> bytes:
    """Return the figure as the bytes of a png or svg file, without a date or the library's version."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context(_STYLE):
        figure.savefig(buffer, format=kind, dpi=160, metadata={"Date": None, "Creator": None} if kind == "svg" else {"Software": None})
    return buffer.getvalue()


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
