"""Parts of a test side by side: prompt formats, answerable or unanswerable, paraphrases."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from lorasoups.report.figures import style
from lorasoups.results import reading
from lorasoups.results.reading import estimate

_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_COLORS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILION,
           style.BLACK)  # fmt: skip


@style.styled
def draw(
    results: Mapping[str, Any],
    parts: Sequence[tuple[str, str, str]],
    methods: Sequence[str],
    title: str,
) -> Figure:
    """One column per part, one mark per method: mean over seeds with its 95 % interval.

    Args:
        results: of a study.
        parts: (text under the column, task, view).
        methods: at most seven; those that were not evaluated on a part have no mark there.
        title: of the figure.
    """
    figure = style.new_figure(3.6)
    ax = figure.subplots()
    width = 0.7 / max(1, len(methods) - 1)
    for i, method in enumerate(methods):
        at, means, low, high = [], [], [], []
        for column, (_, task, view) in enumerate(parts):
            found = estimate(results, method, task, view)
            if found:
                at.append(column - 0.35 + i * width)
                means.append(100 * found.mean)
                low.append(100 * (found.mean - found.lo))
                high.append(100 * (found.hi - found.mean))
        ax.errorbar(at, means, yerr=[low, high], fmt=_MARKS[i], color=_COLORS[i], mec=style.BLACK,
                    mew=0.6, ms=6, lw=1.2, label=reading.label(method, results))  # fmt: skip
    for column in range(len(parts) - 1):
        ax.axvline(column + 0.5, color=style.GREY, lw=0.6)
    ax.set_xticks(range(len(parts)), [text for text, _, _ in parts])
    ax.tick_params(axis="x", length=0)
    ax.set_ylim(-3, 103)
    ax.set_ylabel("right, %")
    ax.grid(axis="y")
    figure.legend(loc="outside right center")
    style.title(figure, title)
    return figure
