"""Accuracy on the target, method by method."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lorasoups.report.figures import style
from lorasoups.results import reading
from lorasoups.results.reading import estimate

_TITLES = {
    "hard_math": "Word problems answered by a program that runs",
    "gsm_hard": "Word problems answered by a program that runs",
    "manual_qa": "Questions on a manual, answered from memory in brackets",
    "technical_qa": "Questions on technical passages, answered in brackets",
    "formats": "Counting words in prompt formats that were never trained",
}
ROW, HEAD = 0.19, 0.33  # inches per method and per group title


@style.styled
def draw(results: Mapping[str, Any]) -> Figure:
    """Bars of the mean over seeds with a 95 % interval, a dot per seed, grouped by kind."""
    groups = reading.methods(results)
    spans = [len(members) + 0.2 for members in groups.values()]
    figure = style.new_figure(ROW * sum(spans) + HEAD * len(groups) + 0.8)
    axes = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=spans)
    for ax, (name, members) in zip(axes[:, 0], groups.items(), strict=True):
        _group(ax, results, name, members)
    for ax in axes[:-1, 0]:
        ax.tick_params(axis="x", length=0)
        ax.spines["bottom"].set_visible(False)
    n = reading.rows(results)[0]["n"]
    task = reading.target(results)
    axes[-1, 0].set_xlabel(
        f"solved, % of {n} problems ({task})\n"
        f"bar: mean; circles: {reading.seeds_text(results)}; line: 95 % interval"
    )
    style.title(figure, _TITLES.get(task, f"Solved problems of {task}"))
    return figure


def _group(ax: Axes, results: Mapping[str, Any], name: str, members: list[str]) -> None:
    fill, hatch = style.GROUPS[name]
    for y, method in enumerate(members):
        found = estimate(results, method)
        mean, lo, hi = (100 * x for x in (found.mean, found.lo, found.hi))
        ax.barh(y, mean, height=0.7, color=fill, hatch=hatch, edgecolor=style.BLACK, linewidth=0.5)
        ax.plot([lo, hi], [y, y], color=style.BLACK, linewidth=1.4)
        dots = [100 * x for x in found.per_seed]
        ax.plot(dots, [y] * len(dots), "o", ms=3.2, mfc=style.WHITE, mec=style.BLACK, mew=0.7)
        ax.text(max(hi, *dots, mean) + 1.5, y, f"{mean:.1f}", va="center", fontsize=8.5)
    ax.set_yticks(range(len(members)), [reading.label(m, results) for m in members])
    ax.set_ylim(len(members) - 0.4, -0.6)  # the first on top; span: members + 0.2
    ax.set_xlim(0, 109)
    ax.set_xticks(range(0, 101, 20))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_title(name, fontweight="bold")
