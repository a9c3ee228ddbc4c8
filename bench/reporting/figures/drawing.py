"""What every figure of the report shares: its style, its marks, and its files."""

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, Literal, ParamSpec

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation, Transform

from bench.errors import UsageError
from bench.reporting.table import score
from bench.stats import Estimates

P = ParamSpec("P")

Bounds = tuple[float, float] | None
"""Ends of an interval; None where it is not known."""

Sketch = tuple[Figure, str] | str
"""A figure and what is shown, or why there is none."""

KINDS = ("png", "svg", "pdf")

INK, MUTED, RULE, SURFACE = "#333333", "#767676", "#d9d9d9", "#ffffff"
"""Colours of text and axes, of secondary text, of thin lines, and of the background."""

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b5b5b")
"""Okabe and Ito's colours for colour-blind readers, without yellow, too light for lines."""

ROLES = {"method": COLORS[0], "untrained": COLORS[1], "reference": COLORS[2]}
"""The colour of each role of an encoder; none is the grey of marks that stand for all of them."""

MARKERS = "osD^vPX"

MOST_CURVES = len(COLORS)
"""Curves of a panel at most: one per colour."""

LETTER = 0.075
"""Width of a letter of a label in inches, about."""

_STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "font.size": 9,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType, as publishers ask for
    "svg.fonttype": "path",  # letters are shapes, so that the file looks the same everywhere
    "svg.hashsalt": "bench",
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "xtick.color": INK,
    "ytick.color": INK,
}
_UNDATED = {
    "png": ("Software",),
    "svg": ("Date", "Creator"),
    "pdf": ("CreationDate", "Producer", "Creator"),
}
_TIP = "tip: "
_BLANK = re.compile(r"[\x00-\x20\x7f]+")
_LONGEST = 40


@dataclass(frozen=True)
class Drawing:
    """A figure of the report, or why there is none.

    Attributes:
        name: Stem of its files, lower case with hyphens.
        title: Headline, a few words.
        about: What is shown and how to read it: one or two sentences.
        figure: The figure; None without the necessary results.
        why: What is missing, where there is no figure; one line.
        beside: Name of the table it is shown with.
    """

    name: str
    title: str
    about: str = ""
    figure: Figure | None = None
    why: str = ""
    beside: str = ""

    @cached_property
    def png(self) -> bytes:
        """The figure as a PNG file, 160 dots per inch."""
        return self._saved("png")

    @cached_property
    def svg(self) -> bytes:
        """The figure as an SVG file; pointing at a mark shows its numbers."""
        text = self._saved("svg").decode()
        return re.sub(f'<g id="{_TIP}([^"]*)">', r'<g class="tip"><title>\1</title>', text).encode()

    def rendered(self, kind: str) -> bytes:
        """Return the bytes of a file of this kind, one of ``KINDS``, without date or version."""
        return self.svg if kind == "svg" else self._saved(kind)

    def _saved(self, kind: str) -> bytes:
        if self.figure is None:
            raise UsageError(f"there is no figure {self.name!r} to render: {self.why}")
        buffer = io.BytesIO()
        with style():
            settle(self.figure)
            metadata: Any = dict.fromkeys(_UNDATED[kind])
            self.figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
        return buffer.getvalue()


def add_tip(artist: Artist, words: str) -> None:
    """Have an SVG file show these words when the artist is pointed at."""
    artist.set_gid(_TIP + _BLANK.sub(" ", words))


def number(value: float, bounds: Bounds = None) -> str:
    """Return a score x 100 in words, with its 95 % interval where it is known."""
    text = score(value, digits=2)
    if not bounds:
        return text
    low, high = (score(end, digits=2) for end in bounds)
    return f"{text}, 95 % interval {low} to {high}"


def shortened(text: str) -> str:
    """Return a name on one line that fits beside an axis; a long one loses its middle."""
    text = _BLANK.sub(" ", text)
    half = _LONGEST // 2 - 1
    return text if len(text) <= _LONGEST else f"{text[:half]}…{text[-half:]}"


def styled(draw: Callable[P, Drawing]) -> Callable[P, Drawing]:
    """Draw in our style, whatever the user's own matplotlib settings are."""

    @wraps(draw)
    def draw_styled(*args: P.args, **settings: P.kwargs) -> Drawing:
        with style():
            return draw(*args, **settings)

    return draw_styled


def report_figure(
    name: str, title: str, *, beside: str
) -> Callable[[Callable[P, Sketch]], Callable[P, Drawing]]:
    """Make a drawing, in our style, of what a function returns.

    Args:
        name: As in ``Drawing``.
        title: As in ``Drawing``.
        beside: As in ``Drawing``.
    """

    def decorate(draw: Callable[P, Sketch]) -> Callable[P, Drawing]:
        @styled
        @wraps(draw)
        def draw_named(*args: P.args, **settings: P.kwargs) -> Drawing:
            made = draw(*args, **settings)
            if isinstance(made, str):
                return Drawing(name, title, why=made, beside=beside)
            figure, about = made
            return Drawing(name, title, about, figure, beside=beside)

        return draw_named

    return decorate


@contextmanager
def style() -> Iterator[None]:
    """Set our style for as long as the context lasts."""
    with rc_context():
        rcdefaults()
        rcParams.update(_STYLE)
        yield


def blank(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def settle(figure: Figure) -> None:
    """Lay the figure out once, so that every file of it is the same."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def caption(figure: Figure, words: str) -> None:
    """Write a line above all panels."""
    figure.suptitle(words, fontsize=9, x=0.01, ha="left")


def panels(
    titles: Sequence[str], names: Sequence[str], *, row: float = 0.22, across: int = 3
) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel per title, side by side; its rows are the names, downwards.

    Args:
        titles: Titles of the panels.
        names: What stands beside the rows.
        row: Height of a row in inches.
        across: Panels side by side, at most.
    """
    down = -(-len(titles) // (across if len(names) <= 16 else 6))
    across = -(-len(titles) // down)
    short = [shortened(name) for name in names]
    width = max(5.5, 0.6 + LETTER * max(map(len, short)) + (2.6 if across < 4 else 2.1) * across)
    figure = blank(width, 0.8 + down * (0.6 + row * len(names)))
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    shown = _titled(grid.ravel().tolist(), titles)
    for panel in shown:
        panel.set_yticks(range(len(short)), short)
        panel.tick_params(axis="y", length=0)
        panel.tick_params(axis="x", labelbottom=True)
        panel.xaxis.grid(visible=True, color=RULE, linewidth=0.6)
    shown[0].set(ylim=(len(short) - 0.4, -0.6))
    return figure, shown


def side_by_side(titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel per title, three in a row."""
    across = min(len(titles), 3)
    down = -(-len(titles) // across)
    size = (5.6, 3.2) if across == 1 else (0.4 + 3.3 * across, 0.3 + 2.6 * down)
    figure = blank(*size)
    shown = _titled(figure.subplots(down, across, squeeze=False).ravel().tolist(), titles)
    for panel in shown:
        panel.grid(color=RULE, linewidth=0.6)
    return figure, shown


def _titled(grid: list[Axes], titles: Sequence[str]) -> list[Axes]:
    for panel, title in zip(grid, titles, strict=False):
        panel.set_title(shortened(title), loc="left")
        panel.set_axisbelow(True)
    for panel in grid[len(titles) :]:
        panel.set_visible(False)
    return grid[: len(titles)]


def line_style(i: int) -> dict[str, Any]:
    """Return colour and marker of the i-th curve."""
    return {"color": COLORS[i], "marker": MARKERS[i], "markersize": 4.5, "linewidth": 1.2}


def draw_point(  # noqa: PLR0913 - one parameter a property
    panel: Axes,
    place: tuple[float, float],
    tip: str,
    *,
    bounds: Bounds = None,
    along: Literal["x", "y"] = "y",
    color: str = COLORS[0],
    marker: str = "o",
    hollow: bool = False,
    shift: float = 0.0,
) -> None:
    """Draw a point with its interval and a tip.

    Args:
        panel: Where to draw.
        place: Its x and y.
        tip: Words to show when it is pointed at.
        bounds: Ends of its interval, on the axis ``along``.
        along: Axis of the interval.
        color: Colour of both.
        marker: Marker of the point.
        hollow: Whether the marker is not filled.
        shift: Points by which it is drawn to the right of its place.
    """
    moved = shifted(panel, shift)
    if bounds:
        ends = list(bounds)
        line = ([place[0]] * 2, ends) if along == "y" else (ends, [place[1]] * 2)
        panel.plot(*line, color=color, linewidth=1.2, zorder=2, transform=moved)
    style: Any = {"color": SURFACE if hollow else color, "markeredgecolor": color}
    (point,) = panel.plot(*place, marker, markersize=5, zorder=3, transform=moved, **style)
    add_tip(point, tip)


def draw_wordings(
    panel: Axes,
    y: float,
    scores: Sequence[float],
    tip: str,
    *,
    color: str,
    marker: str = "o",
    reach: float,
) -> None:
    """Draw a dot per wording of an instruction, and a bar with a tip at their mean.

    Args:
        panel: Where to draw.
        y: The height.
        scores: One per wording, not x 100.
        tip: Whose they are.
        color: Of the dots.
        marker: Of the dots.
        reach: How far the bar goes up and down.
    """
    style: Any = {"color": color, "markersize": 3.5, "alpha": 0.6, "markeredgewidth": 0}
    panel.plot([100 * value for value in scores], [y] * len(scores), marker, **style)
    mean = sum(scores) / len(scores)
    (bar,) = panel.plot([100 * mean] * 2, [y - reach, y + reach], color=INK, linewidth=1.6)
    ends = f"{score(min(scores))} to {score(max(scores))} over {len(scores)} wordings"
    add_tip(bar, f"{tip}: {number(mean)} on average, {ends}")


def shifted(panel: Axes, points: float) -> Transform:
    """Return the transform of data that draws it some points to the right of its place."""
    if not points:
        return panel.transData
    figure: Any = panel.get_figure(root=True)
    return panel.transData + ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)


def draw_rows(
    panel: Axes,
    found: Estimates,
    tips: Sequence[str],
    colors: Sequence[str],
    *,
    hollow: Iterable[bool] = (),
) -> None:
    """Draw estimates x 100 with their intervals, one per row of a panel.

    Args:
        panel: Where to draw.
        found: The estimates (n,).
        tips: What each one is.
        colors: The colour of each.
        hollow: Whether the marker of each is not filled; all filled by default.
    """
    rows = zip(found.value.tolist(), found.bounds(), tips, colors, strict=True)
    empty = [*hollow] or [False] * len(tips)
    for y, (value, ends, tip, color) in enumerate(rows):
        if math.isnan(value):  # in words, at the edge, so that nobody reads it as a point
            style: Any = {"va": "center", "fontsize": 7, "color": MUTED}
            place = panel.get_yaxis_transform()
            panel.text(0.02, y, "no result", transform=place, **style)
            continue
        words = f"{tip}: {number(value, ends)}"
        bounds = scaled(ends)
        at = (100 * value, y)
        draw_point(panel, at, words, bounds=bounds, along="x", color=color, hollow=empty[y])


def draw_curve(
    panel: Axes,
    i: int,
    xs: Sequence[float],
    values: Sequence[float],
    tips: Sequence[str],
    bounds: Sequence[Bounds] = (),
    *,
    joined: int | None = None,
) -> None:
    """Draw the i-th curve with a marker, an interval and a tip at each point.

    Args:
        panel: Where to draw.
        i: Number of the curve, for its colour and marker.
        xs: Places of its points.
        values: Their heights.
        tips: Words to show when one is pointed at.
        bounds: Ends of their intervals; none are drawn by default.
        joined: How many of the points, the first ones, a line joins; all by default.
    """
    panel.plot(xs[:joined], values[:joined], linewidth=1.2, color=COLORS[i])
    ends = bounds or [None] * len(tips)
    for x, value, tip, each in zip(xs, values, tips, ends, strict=True):
        draw_point(panel, (x, value), tip, bounds=each, color=COLORS[i], marker=MARKERS[i])


def name_curves(figure: Figure, names: Iterable[str]) -> None:
    """Write the names of the curves below the panels."""
    name_marks(figure, {name: line_style(i) for i, name in enumerate(names)})


def scaled(bounds: Bounds) -> Bounds:
    """Return an interval x 100."""
    return None if bounds is None else (100 * bounds[0], 100 * bounds[1])


def name_marks(figure: Figure, styles: dict[str, dict[str, Any]]) -> None:
    """Write below the panels what each marker or line stands for."""
    if not styles:
        return
    handles = [Line2D([], [], label=shortened(name), **each) for name, each in styles.items()]
    columns = min(len(handles), 4 if max(map(len, styles)) < 28 else 3)
    figure.legend(handles=handles, loc="outside lower left", fontsize=8, ncols=columns)


def dot(color: str, marker: str = "o", *, hollow: bool = False) -> dict[str, Any]:
    """Return the style of a marker without a line, for ``name_marks``."""
    face = SURFACE if hollow else color
    return {"linestyle": "", "marker": marker, "color": face, "markeredgecolor": color}
