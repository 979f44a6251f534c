"""Figures of a study: accuracy by method, what became of the answers, parts of a test."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lorasoups.report.figures import style
from lorasoups.results import reading
from lorasoups.results.reading import Results, estimate

_TITLES = {
    "hard_math": "Word problems answered by a program that runs",
    "gsm_hard": "Word problems answered by a program that runs",
}
_ROW, _HEAD = 0.19, 0.33  # inches per method and per group title
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_COLORS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILION,
           style.BLACK)  # fmt: skip

OUTCOMES = {
    "ok": ("right", style.BLUE, ""),
    "wrong": ("wrong number or value", style.SKY, "///"),
    "no_solution": ("no program", style.WHITE, ""),
    "syntax": ("syntax error", style.ORANGE, "..."),
    "exception": ("exception", style.VERMILION, "xxx"),
    "bad_type": ("no number returned", style.YELLOW, "\\\\\\"),
    "timeout": ("timeout", style.PURPLE, ""),
    "memory": ("out of memory", style.GREEN, "///"),
    "wrong_form": ("wrong, not in the form", style.GREY, "---"),
    "abstained": ("wrongly abstained", style.YELLOW, "+++"),
    "no_abstention": ("did not abstain", style.PURPLE, "ooo"),
    "diverged": ("training diverged", style.BLACK, "**"),
    "refused": ("refused by the sandbox", style.BLACK, ""),
}
"""Outcome -> what it means, fill, hatch; neighbours differ in brightness or hatch."""


@style.styled
def accuracy(results: Results) -> Figure:
    """Bars of the mean over seeds with a 95 % interval, a dot per seed, grouped by kind. Dotted
    lines: what constant answers solve."""
    task = reading.target(results)
    figure, axes = _groups(results, _TITLES.get(task, f"Solved problems of {task}"), 0.8)
    for ax, (name, members) in zip(axes, reading.methods(results).items(), strict=True):
        fill, hatch = style.GROUPS[name]
        for y, method in enumerate(members):
            style.bar(ax, y, estimate(results, method), 0.7, color=fill, hatch=hatch)
        for floor in results.get("floors", {}).values():
            ax.axvline(100 * floor, color=style.BLACK, lw=0.8, ls=":")
        ax.set(xlim=(0, 109), xticks=range(0, 101, 20))
        ax.grid(axis="x")
        ax.spines["bottom"].set_visible(ax is axes[-1])
    axes[-1].set_xlabel(style.solved(results))
    return figure


def _groups(results: Results, title: str, more: float) -> tuple[Figure, list[Axes]]:
    """A panel per group of methods, a row per method; ``more``: inches for the rest."""
    groups = reading.methods(results)
    spans = [len(members) + 0.2 for members in groups.values()]
    height = _ROW * sum(spans) + _HEAD * len(groups) + more
    figure, axes = style.panels(height, title, len(groups), sharex=True, height_ratios=spans)
    for ax, (name, members) in zip(axes, groups.items(), strict=True):
        style.rows(ax, [reading.label(m, results) for m in members])
        ax.set_title(name, fontweight="bold")
    for ax in axes[:-1]:
        ax.tick_params(axis="x", length=0)
    return figure, axes


def shares(results: Results, method: str) -> dict[str, float]:
    """Share of each outcome of a method on the target, over all its seeds; zero ones left out."""
    counts = reading.outcomes(results, method)
    known = [*OUTCOMES, *sorted(set(counts) - set(OUTCOMES))]
    return {outcome: counts[outcome] / counts.total() for outcome in known if counts[outcome]}


@style.styled
def outcomes(results: Results) -> Figure:
    """One stacked bar per method, in the groups of the accuracy figure."""
    figure, axes = _groups(results, "What became of the answers", 1.1)
    handles = {}
    for ax, members in zip(axes, reading.methods(results).values(), strict=True):
        for y, method in enumerate(members):
            left = 0.0
            for outcome, share in shares(results, method).items():
                text, fill, hatch = OUTCOMES.get(outcome, (outcome, style.GREY, ""))
                handles[text] = ax.barh(y, 100 * share, 0.74, left, color=fill, hatch=hatch,
                                        ec=style.BLACK, lw=0.5, clip_on=False)  # fmt: skip
                left += 100 * share
        ax.set_xlim(0, 100)
        ax.spines[:].set_visible(False)
    seeds = reading.seeds_text(results)
    axes[-1].set_xlabel(f"share of the answers, % ({reading.target(results)}, {seeds})")
    order = [look[0] for look in OUTCOMES.values() if look[0] in handles]
    order += [text for text in handles if text not in order]
    figure.legend([handles[text] for text in order], order, loc="outside lower center", ncols=3)
    return figure


@style.styled
def parts(
    results: Results, shown: Sequence[tuple[str, str, str]], methods: Sequence[str], title: str
) -> Figure:
    """One column per part of a test, one mark per method: mean over seeds, 95 % interval.

    ``shown``: (text under the column, task, view). ``methods``: at most seven; those that were not
    evaluated on a part have no mark there.
    """
    figure, [ax] = style.panels(3.6, title)
    width = 0.7 / max(1, len(methods) - 1)
    for i, method in enumerate(methods):
        estimates = [estimate(results, method, task, view) for _, task, view in shown]
        xs = [x - 0.35 + i * width for x, e in enumerate(estimates) if e]
        ends = np.reshape([(e.mean, e.mean - e.lo, e.hi - e.mean) for e in estimates if e], (-1, 3))
        means, *errors = 100 * ends.T
        ax.errorbar(xs, means, errors, fmt=_MARKS[i], color=_COLORS[i], mec=style.BLACK, mew=0.6,
                    ms=6, lw=1.2, label=reading.label(method, results))  # fmt: skip
    for column in range(len(shown) - 1):
        ax.axvline(column + 0.5, color=style.GREY, lw=0.6)
    ax.set_xticks(range(len(shown)), [text for text, _, _ in shown])
    ax.tick_params(axis="x", length=0)
    ax.set(ylim=(-3, 103), ylabel="right, %")
    ax.grid(axis="y")
    figure.legend(loc="outside right center")
    return figure
