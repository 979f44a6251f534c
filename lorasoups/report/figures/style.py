"""One look for all figures: colour-blind safe, readable in grey, the same bytes every time."""

import io
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.style import context

from lorasoups.files import write_bytes_atomic
from lorasoups.results import reading

# Okabe & Ito, "Color Universal Design" (2008): told apart with any common colour blindness
BLACK, GREY, WHITE = "#000000", "#BBBBBB", "#FFFFFF"
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

# fill and hatch of a group of methods: the hatch tells groups apart in grey
GROUPS = {
    reading.SKILLS: (SKY, ""), reading.CEILING: (YELLOW, ""), reading.MIX: (ORANGE, "///"),
    reading.CAT: (BLUE, ""), reading.SEARCH: (GREEN, "xx"),
    reading.CONTROLS: (PURPLE, "\\\\\\"), reading.STATIC: (GREY, "..."),
}  # fmt: skip

WIDTH = 7.2  # inches
DPI = 150

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 9, "axes.titlesize": 9, "axes.titlelocation": "left", "axes.labelsize": 9,
    "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "legend.fontsize": 8.5,
    "legend.frameon": False, "figure.titlesize": 10.5, "figure.titleweight": "bold",
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "grid.color": "#DDDDDD", "grid.linewidth": 0.6, "hatch.linewidth": 0.6,
    "pdf.fonttype": 42, "svg.hashsalt": "lorasoups",
}  # fmt: skip
# dates and version strings would change the bytes of an unchanged figure
_METADATA = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """A drawing function that runs in the one style, whatever the caller's settings are."""

    @wraps(draw)
    def inside(*args, **options) -> Figure:
        with context(STYLE, after_reset=True):
            figure = draw(*args, **options)
            figure.draw_without_rendering()  # ticks are made when first drawn: now, in this style
        return figure

    return inside


def panels(
    height: float, title: str = "", rows: int = 1, columns: int = 1, width: float = WIDTH, **options
) -> tuple[Figure, list[Axes]]:
    """A figure (inches) with its title over the left edge, and its panels, row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure, list(axes.flat)


def rows(ax: Axes, labels: list[str]) -> None:
    """One horizontal row per label, the first on top; the panel spans ``len(labels) + 0.2``."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def bar(ax: Axes, y: float, e: reading.Estimate, height: float, **look) -> None:
    """A bar of the mean in percent, its 95 % interval, a circle per seed, and the number."""
    dots = [100 * x for x in e.per_seed]
    ax.barh(y, 100 * e.mean, height=height, edgecolor=BLACK, linewidth=0.5, **look)
    ax.plot([100 * e.lo, 100 * e.hi], [y, y], color=BLACK, linewidth=1.4)
    ax.plot(dots, [y] * len(dots), "o", ms=3.2, mfc=WHITE, mec=BLACK, mew=0.7)
    right = max(100 * e.hi, 100 * e.mean, *dots)
    ax.text(right + 1.5, y, f"{100 * e.mean:.1f}", va="center", fontsize=8.5)


def solved(results: reading.Results) -> str:
    """What the axis of bars says."""
    return (
        f"solved, % of {reading.rows(results)[0]['n']} problems ({reading.target(results)})\n"
        f"bar: mean; circles: {reading.seeds_text(results)}; line: 95 % interval"
    )


def in_words(figure: Figure) -> str:
    """The title of the figure, and of every panel its title and what its axes show."""
    parts = [figure.get_suptitle()]
    for ax in figure.axes:
        axes = (("x", ax.get_xlabel()), ("y", ax.get_ylabel()))
        named = [f"{axis}: {label}" for axis, label in axes if label]
        parts.append(", ".join(filter(None, [ax.get_title(), *named])))
    return ". ".join(" ".join(part.split()) for part in parts if part)


def render(figure: Figure, kind: str, dpi: int = DPI) -> bytes:
    """The bytes of ``png`` or ``pdf``, without dates: equal figures give equal bytes."""
    buffer = io.BytesIO()
    with context(STYLE, after_reset=True):
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=_METADATA[kind])
    return buffer.getvalue()


def save(figure: Figure, folder: Path | str, name: str) -> Path:
    """Write ``name.pdf`` and ``name.png`` into ``folder``, each in one step; the path of the PNG.

    Raises SoupError if the folder cannot be written; older figures stand as they were.
    """
    for kind in ("pdf", "png"):
        written = write_bytes_atomic(Path(folder) / f"{name}.{kind}", render(figure, kind))
    return written
