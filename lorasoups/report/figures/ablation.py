"""An ablation: its single variants as points with intervals, its sweeps as curves."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lorasoups.report.figures import style
from lorasoups.results import reading
from lorasoups.results.reading import Results, estimate

_LOOKS = ((style.BLUE, "o", "-"), (style.ORANGE, "s", "--"), (style.GREEN, "^", ":"))
ROW = 0.27  # inches per variant


@style.styled
def bars(results: Results, title: str) -> Figure:
    """Every variant that is no point of a curve: mean, 95 % interval, a circle per seed."""
    on_curves = results["config"]["places"]
    names = [m for ms in reading.methods(results).values() for m in ms if m not in on_curves]
    figure, [ax] = style.panels(ROW * len(names) + 1.0, title)
    for y, method in enumerate(names):
        color = style.BLUE if method == "cat" else style.GREY
        style.bar(ax, y, estimate(results, method), 0.65, color=color)
    style.rows(ax, [reading.label(m, results) for m in names])
    ax.set_xlim(left=0)
    ax.margins(x=0.12)
    ax.grid(axis="x")
    ax.set_xlabel(style.solved(results))
    return figure


@style.styled
def curves(
    results: Results,
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
    width = style.WIDTH if facts else style.WIDTH * 0.75
    figure, (main, *others) = style.panels(3.0, title, 1, 1 + len(facts), width)
    places = reading.places(results)
    for (curve, name), (color, mark, line) in zip(names.items(), _LOOKS, strict=False):
        points = [(x, m, estimate(results, m)) for x, m in places.get(curve, [])]
        points = [point for point in points if point[2]]
        if not points:
            continue
        xs, methods, estimates = zip(*points, strict=True)
        main.fill_between(xs, [100 * e.lo for e in estimates], [100 * e.hi for e in estimates],
                          color=color, alpha=0.18, lw=0)  # fmt: skip
        look = {"color": color, "marker": mark, "linestyle": line, "label": name}
        main.plot(xs, [100 * e.mean for e in estimates], **look)
        for ax, fact in zip(others, facts, strict=True):
            ax.plot(xs, [_fact(results, m, fact) for m in methods], **look)
    main.set_ylabel(f"solved, % ({reading.target(results)})")
    main.set_ylim(bottom=0)
    ticks = sorted({x for points in places.values() for x, _ in points})
    for ax, text in zip((main, *others), ("", *facts.values()), strict=True):
        _axis(ax, xlabel, text, log, ticks)
    main.legend()
    return figure


def _axis(ax: Axes, xlabel: str, ylabel: str, log: bool, ticks: list[float]) -> None:
    if log:
        ax.set_xscale("log")
    if len(ticks) <= 6:
        ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        ax.minorticks_off()
    ax.set_xlabel(xlabel)
    if ylabel:
        ax.set(ylabel=ylabel, yscale="log" if "log" in ylabel else "linear")
    ax.grid(axis="y")


def _fact(results: Results, method: str, fact: str) -> float:
    """Mean over seeds of a further number of a method's rows; NaN where none has it."""
    values = reading.extras(results, method, fact)
    return float(np.mean(values)) if values else float("nan")
