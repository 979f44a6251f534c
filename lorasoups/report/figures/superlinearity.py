"""The soup's gain over the base against the sum of its skills' gains."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lorasoups.report.figures import style
from lorasoups.results import reading
from lorasoups.results.reading import estimate

_FILLS = ((style.SKY, ""), (style.ORANGE, "///"), (style.GREEN, "\\\\\\"), (style.YELLOW, "..."))


@style.styled
def draw(results: Mapping[str, Any]) -> Figure:
    """Left: stacked gains of the skills beside the soup's gain; right: their difference."""
    figure = style.new_figure(3.4)
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    _gains(left, results)
    _difference(right, results["superlinearity"])
    style.title(figure, "Is the soup more than the sum of its skills?")
    return figure


def _gains(ax: Axes, results: Mapping[str, Any]) -> None:
    base = estimate(results, "base").mean
    tops = {1: 0.0, -1: 0.0}  # what rises and what falls is stacked apart
    for skill, (fill, hatch) in zip(reading.skills(results), _FILLS, strict=False):
        gain = 100 * (estimate(results, skill).mean - base)
        side = 1 if gain >= 0 else -1
        ax.bar(0, gain, 0.6, bottom=tops[side], color=fill, hatch=hatch, edgecolor=style.BLACK,
               linewidth=0.7, label=f"{skill}: {gain:+.1f}")  # fmt: skip
        tops[side] += gain
    soup = 100 * results["superlinearity"]["gain_soup"]
    ax.bar(1, soup, 0.6, color=style.BLUE, edgecolor=style.BLACK, linewidth=0.7,
           label=f"CAT: {soup:+.1f}")  # fmt: skip
    ax.axhline(0, color=style.BLACK, linewidth=0.8)
    ax.set_xticks([0, 1], ["the skills' gains, stacked", "the soup's gain"])
    ax.set_xlim(-0.6, 1.6)
    low, high = min(tops[-1], soup, 0), max(tops[1], soup, 1)
    ax.set_ylim(low - 0.06 * (high - low), high + 0.45 * (high - low))  # room for the legend
    ax.set_ylabel("gain over the base, points")
    ax.grid(axis="y")
    ax.legend(loc="upper left", ncols=3, columnspacing=1.2, handlelength=1.6)


def _difference(ax: Axes, found: Mapping[str, Any]) -> None:
    diff = 100 * found["diff"]
    ax.axhline(0, color=style.BLACK, linewidth=0.8)
    if found["lo"] is not None and found["hi"] is not None:
        ends = [100 * found["lo"], 100 * found["hi"]]
        ax.plot([0, 0], ends, color=style.BLACK, linewidth=1.6, marker="_", ms=9)
    ax.plot(0, diff, "o", ms=7, mfc=style.BLUE, mec=style.BLACK)
    ax.annotate(f"{diff:+.1f}", (0, diff), (9, 0), textcoords="offset points",
                va="center", bbox={"fc": style.WHITE, "ec": "none", "pad": 1})  # fmt: skip
    ax.set_xlim(-1, 1)
    ax.set_xticks([0], ["soup minus sum,\n95 % interval"])
    ax.margins(y=0.25)
    ax.set_ylabel("points")
    ax.grid(axis="y")
