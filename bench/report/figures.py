"""Figures of the results, drawn without global state so that the same results give the same bytes."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report.cells import Cells, grouped, named
from bench.report.tables import MISSING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE: Any = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "svg.fonttype": "path",  # the letters' shapes are in the file, so that it looks the same everywhere
    "svg.hashsalt": "bench",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}
_INK, _TRAINED, _UNTRAINED = "#333333", "#0072b2", "#e69f00"  # Okabe and Ito's blue and orange, told apart by colour-blind readers
_LETTER = 0.075  # inches a letter of a label takes, about


def heatmap(cells: Cells) -> "Figure":
    """Return the scores of every cell as colours, task by encoder; a missing cell is left white with a dash."""
    scores = np.array([[100 * s.mean if (s := cells.score(e, c)) else np.nan for e in cells.encoders] for c in cells.columns])
    rows, columns = scores.shape
    tasks, encoders = [cells.title(column) for column in cells.columns], [named(cells, label) for label in cells.encoders]
    numbers = columns <= 14  # beyond that they would be too small to read
    with _style():
        height = 0.26 * max(rows, 4)
        figure = _figure(
            2.2 + _LETTER * max(map(len, tasks)) + max(columns, 4) * (0.62 if numbers else 0.2),
            0.9 + (0.65 if numbers else 1) * _LETTER * max(map(len, encoders)) + height,
        )
        axes = figure.add_subplot()
        low = min(0.0, float(np.nanmin(scores)))
        image = axes.imshow(scores, cmap="cividis", aspect="auto", vmin=low, vmax=100)
        for y, x in np.ndindex(*scores.shape):
            if np.isnan(scores[y, x]):
                axes.text(x, y, MISSING, ha="center", va="center", color="#888888")
            elif numbers:
                color = "white" if scores[y, x] < (low + 100) / 2 else "black"
                axes.text(x, y, f"{scores[y, x]:z.1f}", ha="center", va="center", fontsize=7.5, color=color)
        slant: Any = {"rotation": 40} if numbers else {"rotation": 90, "va": "center"}
        axes.set_xticks(range(columns), encoders, ha="right", rotation_mode="anchor", **slant)
        axes.set_yticks(range(rows), tasks)
        axes.tick_params(length=0)
        _bracket_families(axes, cells)
        figure.colorbar(image, ax=axes, pad=0.02, anchor=(0, 1), shrink=min(1.0, 4 / height), aspect=min(4.0, height) / 0.15)
        axes.set_title("Main score of every task x 100", loc="left")
    return figure


def _bracket_families(axes: "Axes", cells: Cells) -> None:
    """Set the families apart by white lines, and name each to the right of its rows."""
    top = 0
    for family, count in grouped(cells.columns):
        if top:
            axes.axhline(top - 0.5, color="white", linewidth=3)
        axes.text(len(cells.encoders) - 0.4, top + (count - 1) / 2, family, va="center", fontsize=8, color=_INK)
        top += count


def families(cells: Cells) -> "Figure":
    """Return the family means as bars with their spread over repeats, a panel a family."""
    from matplotlib.patches import Patch

    shown = sorted({column.family for column in cells.common})
    labels = cells.encoders[::-1]
    names = [named(cells, label) for label in labels]
    down = math.ceil(len(shown) / (3 if len(labels) <= 16 else 6))
    across = math.ceil(len(shown) / down)
    untrained = [not cells.of_encoder(label)[0].card.get("trained", True) for label in labels]
    with _style():
        figure = _figure(max(5.5, 0.6 + _LETTER * max(map(len, names)) + 2.6 * across), 0.8 + down * (0.6 + 0.22 * len(labels)))
        panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for panel, family in zip(panels.flat, shown, strict=False):
            for y, label in enumerate(labels):
                _bar(panel, y, cells, label, family, color=_UNTRAINED if untrained[y] else _TRAINED)
            panel.set_title(family, loc="left")
            panel.set_yticks(range(len(labels)), names)
            panel.tick_params(axis="y", length=0)
            panel.tick_params(axis="x", labelbottom=True)
        low = min(0.0, *(panel.get_xlim()[0] for panel in panels.flat[: len(shown)]))
        panels[0, 0].set(xlim=(low, 112), ylim=(-0.6, len(labels) - 0.4))
        for panel in panels.flat[len(shown) :]:
            panel.set_visible(False)
        figure.suptitle("Mean of main scores x 100; whiskers: standard deviation over repeats", fontsize=9, x=0.01, ha="left")
        if any(untrained):
            handles = [Patch(color=_TRAINED, label="trained, or nothing to train"), Patch(color=_UNTRAINED, label="method, untrained")]
            figure.legend(handles=handles, loc="outside lower right", frameon=False, fontsize=8, ncols=2)
    return figure


def _bar(panel: "Axes", y: int, cells: Cells, label: str, family: str, *, color: str) -> None:
    """Draw an encoder's mean with its number, or say how many of the family's tasks there are."""
    mean = cells.family(label, family)
    if mean is None:
        panel.text(1, y, "{} of {} tasks".format(*cells.have(label, family)), va="center", fontsize=7, color="#777777")
        return
    value, spread = 100 * mean[0], 100 * (mean[1] or 0.0)
    panel.barh(y, value, xerr=spread or None, color=color, height=0.7, error_kw={"elinewidth": 1, "capsize": 2, "ecolor": _INK})
    panel.text(max(value + spread, 0) + 1.5, y, f"{value:z.1f}", va="center", fontsize=7, color=_INK)


def rendered(figure: "Figure", kind: str) -> bytes:
    """Return the figure as the bytes of a png or svg file, without a date or the library's version."""
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format=kind, dpi=160, metadata={"Date": None, "Creator": None} if kind == "svg" else {"Software": None})
    return buffer.getvalue()


@contextmanager
def _style() -> Iterator[None]:
    """Draw in our style, whatever the user's own matplotlib settings are."""
    from matplotlib import rc_context, rcdefaults, rcParams

    with rc_context():
        rcdefaults()
        rcParams.update(_STYLE)
        yield


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
