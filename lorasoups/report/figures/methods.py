"""Figures of a study: accuracy by method, what became of the answers, parts of a test, gains."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lorasoups.report.figures import style
from lorasoups.results import reading
from lorasoups.results.reading import Results, estimate

_TITLES = {
    "hard_math": "Word problems answered by a program that runs",
    "gsm_hard": "Word problems answered by a program that runs",
    "manual_qa": "Questions on a manual, answered from memory in brackets",
    "technical_qa": "Questions on technical passages, answered in brackets",
    "formats": "Counting words in prompt formats that were never trained",
}
_ROW, _HEAD = 0.19, 0.33  # inches per method and per group title
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_COLORS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILION,
           style.BLACK)  # fmt: skip
_FILLS = ((style.SKY, ""), (style.ORANGE, "///"), (style.GREEN, "\\\\\\"), (style.YELLOW, "..."))

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
    """Bars of the mean over seeds with a 95 % interval, a dot per seed, grouped by kind."""
    figure, axes = _panels(results, 0.8)
    for ax, (name, members) in zip(axes, reading.methods(results).items(), strict=True):
        fill, hatch = style.GROUPS[name]
        for y, method in enumerate(members):
            style.bar(ax, y, estimate(results, method), 0.7, color=fill, hatch=hatch)
        ax.set_xlim(0, 109)
        ax.set_xticks(range(0, 101, 20))
        ax.grid(axis="x")
    for ax in axes[:-1]:
        ax.spines["bottom"].set_visible(False)
    task = reading.target(results)
    axes[-1].set_xlabel(style.solved(results))
    style.title(figure, _TITLES.get(task, f"Solved problems of {task}"))
    return figure


def _panels(results: Results, more: float) -> tuple[Figure, Sequence[Axes]]:
    """A panel per group of methods, a row per method; ``more``: inches for the rest."""
    groups = reading.methods(results)
    spans = [len(members) + 0.2 for members in groups.values()]
    figure = style.new_figure(_ROW * sum(spans) + _HEAD * len(groups) + more)
    axes = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=spans)[:, 0]
    for ax, (name, members) in zip(axes, groups.items(), strict=True):
        style.rows(ax, [reading.label(m, results) for m in members])
        ax.set_title(name, fontweight="bold")
    for ax in axes[:-1]:
        ax.tick_params(axis="x", length=0)
    return figure, axes


def shares(results: Results, method: str) -> dict[str, float]:
    """Share of each outcome of a method on the target, over all its seeds; zero ones left out."""
    counts: Counter = Counter()
    for row in reading.rows(results, method=method):
        counts.update(row["outcomes"])
    known = [*OUTCOMES, *sorted(set(counts) - set(OUTCOMES))]
    return {outcome: counts[outcome] / counts.total() for outcome in known if counts[outcome]}


@style.styled
def outcomes(results: Results) -> Figure:
    """One stacked bar per method, in the groups of the accuracy figure."""
    figure, axes = _panels(results, 1.1)
    handles = {}
    for ax, members in zip(axes, reading.methods(results).values(), strict=True):
        for y, method in enumerate(members):
            left = 0.0
            for outcome, share in shares(results, method).items():
                text, fill, hatch = OUTCOMES.get(outcome, (outcome, style.GREY, ""))
                handles[text] = ax.barh(
                    y, 100 * share, left=left, height=0.74, color=fill, hatch=hatch,
                    edgecolor=style.BLACK, linewidth=0.5, clip_on=False,
                )  # fmt: skip
                left += 100 * share
        ax.set_xlim(0, 100)
        ax.spines[:].set_visible(False)
    axes[-1].set_xlabel(
        f"share of the answers, % ({reading.target(results)}, {reading.seeds_text(results)})"
    )
    order = [look[0] for look in OUTCOMES.values() if look[0] in handles]
    order += [text for text in handles if text not in order]
    figure.legend([handles[text] for text in order], order, loc="outside lower center", ncols=3)
    style.title(figure, "What became of the answers")
    return figure


@style.styled
def parts(
    results: Results, shown: Sequence[tuple[str, str, str]], methods: Sequence[str], title: str
) -> Figure:
    """One column per part of a test, one mark per method: mean over seeds, 95 % interval.

    Args:
        results: of a study.
        shown: (text under the column, task, view).
        methods: at most seven; those that were not evaluated on a part have no mark there.
        title: of the figure.
    """
    figure = style.new_figure(3.6)
    ax = figure.subplots()
    width = 0.7 / max(1, len(methods) - 1)
    for i, method in enumerate(methods):
        places = [(x, estimate(results, method, task, view)) for x, (_, task, view) in
                  enumerate(shown)]  # fmt: skip
        places = [(x - 0.35 + i * width, e) for x, e in places if e]
        ax.errorbar(
            [x for x, _ in places], [100 * e.mean for _, e in places],
            yerr=[[100 * (e.mean - e.lo) for _, e in places],
                  [100 * (e.hi - e.mean) for _, e in places]],
            fmt=_MARKS[i], color=_COLORS[i], mec=style.BLACK, mew=0.6, ms=6, lw=1.2,
            label=reading.label(method, results),
        )  # fmt: skip
    for column in range(len(shown) - 1):
        ax.axvline(column + 0.5, color=style.GREY, lw=0.6)
    ax.set_xticks(range(len(shown)), [text for text, _, _ in shown])
    ax.tick_params(axis="x", length=0)
    ax.set_ylim(-3, 103)
    ax.set_ylabel("right, %")
    ax.grid(axis="y")
    figure.legend(loc="outside right center")
    style.title(figure, title)
    return figure


@style.styled
def superlinearity(results: Results) -> Figure:
    """Left: stacked gains of the skills beside the soup's gain; right: their difference."""
    figure = style.new_figure(3.4)
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    _gains(left, results)
    _difference(right, results["superlinearity"])
    style.title(figure, "Is the soup more than the sum of its skills?")
    return figure


def _gains(ax: Axes, results: Results) -> None:
    base = estimate(results, "base").mean
    tops = {1: 0.0, -1: 0.0}  # what rises and what falls is stacked apart
    look = {"edgecolor": style.BLACK, "linewidth": 0.7}
    for skill, (fill, hatch) in zip(reading.skills(results), _FILLS, strict=False):
        gain = 100 * (estimate(results, skill).mean - base)
        side = 1 if gain >= 0 else -1
        ax.bar(0, gain, 0.6, bottom=tops[side], color=fill, hatch=hatch,
               label=f"{skill}: {gain:+.1f}", **look)  # fmt: skip
        tops[side] += gain
    soup = 100 * results["superlinearity"]["gain_soup"]
    ax.bar(1, soup, 0.6, color=style.BLUE, label=f"CAT: {soup:+.1f}", **look)
    ax.axhline(0, color=style.BLACK, linewidth=0.8)
    ax.set_xticks([0, 1], ["the skills' gains, stacked", "the soup's gain"])
    ax.set_xlim(-0.6, 1.6)
    low, high = min(tops[-1], soup, 0), max(tops[1], soup, 1)
    ax.set_ylim(low - 0.06 * (high - low), high + 0.45 * (high - low))  # room for the legend
    ax.set_ylabel("gain over the base, points")
    ax.grid(axis="y")
    ax.legend(loc="upper left", ncols=3, columnspacing=1.2, handlelength=1.6)


def _difference(ax: Axes, test: Mapping[str, Any]) -> None:
    diff = 100 * test["diff"]
    ax.axhline(0, color=style.BLACK, linewidth=0.8)
    if test["lo"] is not None and test["hi"] is not None:
        ends = [100 * test["lo"], 100 * test["hi"]]
        ax.plot([0, 0], ends, color=style.BLACK, linewidth=1.6, marker="_", ms=9)
    ax.plot(0, diff, "o", ms=7, mfc=style.BLUE, mec=style.BLACK)
    ax.annotate(f"{diff:+.1f}", (0, diff), (9, 0), textcoords="offset points",
                va="center", bbox={"fc": style.WHITE, "ec": "none", "pad": 1})  # fmt: skip
    ax.set_xlim(-1, 1)
    ax.set_xticks([0], ["soup minus sum,\n95 % interval"])
    ax.margins(y=0.25)
    ax.set_ylabel("points")
    ax.grid(axis="y")
