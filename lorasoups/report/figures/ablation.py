"""An ablation: its single variants as points with intervals, its sweeps as curves."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lorasoups.report.figures import style
from lorasoups.results import reading
from lorasoups.results.reading import estimate

_LOOKS = ((style.BLUE, "o", "-"), (style.ORANGE, "s", "--"), (style.GREEN, "^", ":"))
ROW = 0.27  # inches per variant


def places(results: Mapping[str, Any]) -> dict[str, list[tuple[float, str]]]:
    """Curve -> its points (x, method), by x."""
    found: dict[str, list[tuple[float, str]]] = {}
    for method, place in results["config"]["places"].items():
        found.setdefault(place["curve"], []).append((place["x"], method))
    return {curve: sorted(points) for curve, points in found.items()}


@style.styled
def bars(results: Mapping[str, Any], title: str) -> Figure:
    """Every variant that is no point of a curve: mean, 95 % interval, a circle per seed."""
    on_curves = results["config"]["places"]
    names = [m for ms in reading.methods(results).values() for m in ms if m not in on_curves]
    figure = style.new_figure(ROW * len(names) + 1.0)
    ax = figure.subplots()
    for y, method in enumerate(names):
        color = style.BLUE if method == "cat" else style.GREY
        style.bar(ax, y, estimate(results, method), 0.65, color=color)
    style.rows(ax, [reading.label(m, results) for m in names])
    ax.set_xlim(left=0)
    ax.margins(x=0.12)
    ax.grid(axis="x")
    ax.set_xlabel(style.solved(results))
    style.title(figure, title)
    return figure


@style.styled
def curves(
    results: Mapping[str, Any],
    xlabel: str,
    title: str,
    names: Mapping[str, str],
    log: bool = True,
    facts: Mapping[str, str] | None = None,
) -> Figure:
    """Solved problems over what is varied, one line per curve; a panel more per fact.

    Args:
        results: of the ablation.
        xlabel: what is varied.
        title: of the figure.
        names: curve -> what the legend calls it; curves that are not named are left out.
        log: logarithmic x axis.
        facts: further numbers of the rows (``extra``) -> label of their panel.
    """
    facts = facts or {}
    figure = style.new_figure(3.0, style.WIDTH if facts else style.WIDTH * 0.75)
    axes = figure.subplots(1, 1 + len(facts), squeeze=False)[0]
    lines = places(results)
    for (curve, name), (color, mark, line) in zip(names.items(), _LOOKS, strict=False):
        points = [(x, m) for x, m in lines.get(curve, []) if estimate(results, m)]
        if not points:
            continue
        found = [estimate(results, m) for _, m in points]
        xs = [x for x, _ in points]
        axes[0].fill_between(xs, [100 * f.lo for f in found], [100 * f.hi for f in found],
                             color=color, alpha=0.18, lw=0)  # fmt: skip
        look = {"color": color, "marker": mark, "linestyle": line, "label": name}
        axes[0].plot(xs, [100 * f.mean for f in found], **look)
        for ax, fact in zip(axes[1:], facts, strict=True):
            values = [_fact(results, m, fact) for _, m in points]
            ax.plot(xs, values, **look)
    axes[0].set_ylabel(f"solved, % ({reading.target(results)})")
    axes[0].set_ylim(bottom=0)
    for ax, text in zip(axes, ("", *facts.values()), strict=True):
        _axis(ax, xlabel, text, log, sorted({x for own in lines.values() for x, _ in own}))
    axes[0].legend()
    style.title(figure, title)
    return figure


def _axis(ax: Axes, xlabel: str, ylabel: str, log: bool, ticks: list[float]) -> None:
    if log:
        ax.set_xscale("log")
    if len(ticks) <= 6:
        ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        ax.minorticks_off()
    ax.set_xlabel(xlabel)
    if ylabel:
        ax.set_ylabel(ylabel)
        if "log" in ylabel:
            ax.set_yscale("log")
    ax.grid(axis="y")


def _fact(results: Mapping[str, Any], method: str, fact: str) -> float:
    """Mean over seeds of a further number of a method's rows; NaN where none has it."""
    values = [r["extra"][fact] for r in reading.rows(results, method=method) if fact in r["extra"]]
    return float(np.mean(values)) if values else float("nan")
