"""Why answers fail: what became of every answer on the target, by method."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lorasoups.report.figures import style
from lorasoups.results import reading

ROW, HEAD = 0.19, 0.33  # inches per method and per group title

# outcome -> what it means, fill, hatch; neighbours differ in brightness or hatch
LOOKS = {
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


def shares(results: Mapping[str, Any], method: str) -> dict[str, float]:
    """Share of each outcome of a method on the target, over all its seeds; zero ones left out."""
    counts: Counter = Counter()
    for row in reading.rows(results, method=method):
        counts.update(row["outcomes"])
    total = sum(counts.values())
    known = [*LOOKS, *sorted(set(counts) - set(LOOKS))]
    return {outcome: counts[outcome] / total for outcome in known if counts[outcome]}


@style.styled
def draw(results: Mapping[str, Any]) -> Figure:
    """One stacked bar per method, in the groups of the accuracy figure."""
    groups = reading.methods(results)
    found = {m: shares(results, m) for members in groups.values() for m in members}
    spans = [len(members) + 0.2 for members in groups.values()]
    figure = style.new_figure(ROW * sum(spans) + HEAD * len(groups) + 1.1)
    axes = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=spans)[:, 0]
    for ax, (name, members) in zip(axes, groups.items(), strict=True):
        ax.set_title(name, fontweight="bold")
        _bars(ax, results, members, found)
    axes[-1].set_xlabel(
        f"share of the answers, % ({reading.target(results)}, {reading.seeds_text(results)})"
    )
    for ax in axes[:-1]:
        ax.tick_params(axis="x", length=0)
    handles = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    order = [look[0] for look in LOOKS.values() if look[0] in handles]
    order += [label for label in handles if label not in order]
    figure.legend([handles[label] for label in order], order, loc="outside lower center", ncols=3)
    style.title(figure, "What became of the answers")
    return figure


def _bars(
    ax: Axes,
    results: Mapping[str, Any],
    members: list[str],
    found: Mapping[str, Mapping[str, float]],
) -> None:
    for y, method in enumerate(members):
        left = 0.0
        for outcome, share in found[method].items():
            text, fill, hatch = LOOKS.get(outcome, (outcome, style.GREY, ""))
            ax.barh(y, 100 * share, left=left, height=0.74, color=fill, hatch=hatch, label=text,
                    edgecolor=style.BLACK, linewidth=0.5, clip_on=False)  # fmt: skip
            left += 100 * share
    ax.set_yticks(range(len(members)), [reading.label(m, results) for m in members])
    ax.set_ylim(len(members) - 0.4, -0.6)  # the first on top; span: members + 0.2
    ax.set_xlim(0, 100)
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
