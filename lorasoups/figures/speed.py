"""The speed figures of one or more machines against their goals."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lorasoups.figures import style
from lorasoups.speed import GOALS

MARKERS = ("o", "s", "^", "D")
COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE)


@style.styled
def draw(machines: Sequence[Mapping[str, Any]]) -> Figure:
    """How many times better than its goal each figure is; left of the line a goal is missed."""
    names = [n for n in GOALS if any(n in m["figures"] for m in machines)]
    figure = style.new_figure(0.42 * len(names) + 1.5)
    ax = figure.subplots()
    ax.axvline(1, color=style.BLACK, linewidth=1.2)
    shift = 0.26
    for i, machine in enumerate(machines):
        offset = shift * (i - (len(machines) - 1) / 2)
        for y, name in enumerate(names):
            if name not in machine["figures"]:
                continue
            goal, value = GOALS[name], machine["figures"][name]["value"]
            bound = goal.bound(machine["on_cpu"])
            better = value / bound if goal.at_least else bound / value
            ax.plot(better, y + offset, MARKERS[i], ms=6.5, mfc=COLOURS[i], mec=style.BLACK)
            sign = ">=" if goal.at_least else "<="
            unit = "" if goal.unit == "x" else f" {goal.unit}"
            text = f"{value:.3g}{unit}  (goal {sign} {bound:g})"
            ax.annotate(text, (better, y + offset), (8, 0), textcoords="offset points",
                        va="center", fontsize=8,
                        bbox={"fc": style.WHITE, "ec": "none", "pad": 0.4})  # fmt: skip
        ax.plot([], [], MARKERS[i], mfc=COLOURS[i], mec=style.BLACK, label=machine["device"])
    ax.set_yticks(range(len(names)), [GOALS[name].label for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, 0.3), high * 12)  # room for the numbers
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("times better than the goal (left of the line: missed)")
    figure.legend(loc="outside lower right")
    style.title(figure, "Speed against its goals")
    return figure
