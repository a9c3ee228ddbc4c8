"""What every figure of the report shares: its style, its words, and how it becomes a file."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from bench.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Asked = ParamSpec("Asked")

KINDS = ("png", "svg")

INK, MUTED, RULE, SURFACE = "#333333", "#767676", "#d9d9d9", "#ffffff"
"""Colours of letters and axes, of what steps back, of thin lines, and of the ground."""

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b5b5b")
"""Okabe and Ito's colours without their yellow, which is too light for lines; told apart by colour-blind readers."""

TRAINED, UNTRAINED = COLORS[0], COLORS[4]

MARKERS = "osD^vPX"

LETTER = 0.075
"""Inches a letter of a label takes, about."""

_STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "font.size": 9,
    "legend.frameon": False,
    "svg.fonttype": "path",  # the letters' shapes are in the file, so that it looks the same everywhere
    "svg.hashsalt": "bench",
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "xtick.color": INK,
    "ytick.color": INK,
}
_TIP = "tip: "
_BLANK = re.compile(r"[\x00-\x20\x7f]+")
_LONGEST = 40


@dataclass(frozen=True)
class Drawing:
    """A figure of the report, or why it is not there.

    Attributes:
        name: Stem of its files, lower case with hyphens.
        title: Headline, a few words.
        about: What is shown and how to read it, one or two sentences.
        figure: The figure; None where the results do not hold what it shows.
        why: What is not there, where there is no figure; one line.
    """

    name: str
    title: str
    about: str = ""
    figure: "Figure | None" = None
    why: str = ""

    @cached_property
    def png(self) -> bytes:
        """The figure as a PNG file, 160 dots an inch, without the library's version."""
        return self._saved("png", ("Software",))

    @cached_property
    def svg(self) -> bytes:
        """The figure as an SVG file without a date; what it draws tells its numbers when pointed at."""
        text = self._saved("svg", ("Date", "Creator")).decode()
        return re.sub(f'<g id="{_TIP}([^"]*)">', r'<g class="tip"><title>\1</title>', text).encode()

    def rendered(self, kind: str) -> bytes:
        """Return the bytes of a file of this kind, one of ``KINDS``."""
        return self.png if kind == "png" else self.svg

    def _saved(self, kind: str, untold: Sequence[str]) -> bytes:
        if self.figure is None:
            raise UsageError(f"there is no figure {self.name!r} to render: {self.why}")
        buffer = io.BytesIO()
        with style():
            settle(self.figure)
            self.figure.savefig(buffer, format=kind, dpi=160, metadata=dict.fromkeys(untold))
        return buffer.getvalue()


def told(artist: "Artist", words: str) -> None:
    """Have an artist tell these words when it is pointed at in an SVG file."""
    artist.set_gid(_TIP + _BLANK.sub(" ", words))


def number(value: float, bounds: tuple[float, float] | None = None) -> str:
    """Return a score x 100 in words, with its 95 % interval where there is one."""
    return f"{100 * value:z.2f}" + (
        f", 95 % interval {100 * bounds[0]:z.2f} to {100 * bounds[1]:z.2f}" if bounds else ""
    )


def shortened(text: str) -> str:
    """Return a name that fits beside an axis, on one line; a long one loses its middle."""
    text = _BLANK.sub(" ", text)
    half = _LONGEST // 2 - 1
    return text if len(text) <= _LONGEST else f"{text[:half]}…{text[-half:]}"


def styled(draw: Callable[Asked, Drawing]) -> Callable[Asked, Drawing]:
    """Draw in our style, whatever the user's own matplotlib settings are."""

    @wraps(draw)
    def drawn(*args: Asked.args, **settings: Asked.kwargs) -> Drawing:
        with style():
            return draw(*args, **settings)

    return drawn


@contextmanager
def style() -> Iterator[None]:
    """Set our style for as long as the context lasts."""
    from matplotlib import rc_context, rcdefaults, rcParams

    with rc_context():
        rcdefaults()
        rcParams.update(_STYLE)
        yield


def blank(width: float, height: float) -> "Figure":
    """Return an empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def settle(figure: "Figure") -> None:
    """Lay the figure out, once: every file of it is the same, and none waits for another layout."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def panels(
    titles: Sequence[str], names: Sequence[str], *, row: float = 0.22
) -> "tuple[Figure, list[Any]]":
    """Return a figure with one panel a title, side by side, whose rows are the names, from top to bottom.

    Args:
        titles: Titles of the panels.
        names: What stands beside the rows.
        row: Height of a row in inches.
    """
    down = -(-len(titles) // (3 if len(names) <= 16 else 6))
    across = -(-len(titles) // down)
    short = [shortened(name) for name in names]
    figure = blank(
        max(5.5, 0.6 + LETTER * max(map(len, short)) + 2.6 * across),
        0.8 + down * (0.6 + row * len(names)),
    )
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for panel, title in zip(grid.flat, titles, strict=False):
        panel.set_title(shortened(title), loc="left")
        panel.set_yticks(range(len(short)), short)
        panel.tick_params(axis="y", length=0)
        panel.tick_params(axis="x", labelbottom=True)
        panel.xaxis.grid(visible=True, color=RULE, linewidth=0.6)
        panel.set_axisbelow(True)
    for panel in grid.flat[len(titles) :]:
        panel.set_visible(False)
    grid[0, 0].set(ylim=(len(short) - 0.4, -0.6))
    return figure, list(grid.flat[: len(titles)])


def side_by_side(titles: Sequence[str]) -> "tuple[Figure, list[Axes]]":
    """Return a figure with one panel a title, three in a row."""
    across = min(len(titles), 3)
    down = -(-len(titles) // across)
    figure = blank(
        5.6 if across == 1 else 0.4 + 3.3 * across, 3.2 if across == 1 else 0.3 + 2.6 * down
    )
    grid = figure.subplots(down, across, squeeze=False)
    for panel, title in zip(grid.flat, titles, strict=False):
        panel.set_title(shortened(title), loc="left")
        panel.grid(color=RULE, linewidth=0.6)
        panel.set_axisbelow(True)
    for panel in grid.flat[len(titles) :]:
        panel.set_visible(False)
    return figure, list(grid.flat[: len(titles)])
