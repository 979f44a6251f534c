"""An ablation's sweeps as curves."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from lorasoups.report.figures import style
from lorasoups.results import reading
from lorasoups.results.reading import Results, estimate

_LOOKS = ((style.BLUE, "o", "-"), (style.ORANGE, "s", "--"), (style.GREEN, "^", ":"))


@style.styled
def curves(
    results: Results, xlabel: str, title: str, names: Mapping[str, str], log: bool = True,
    facts: Mapping[str, str] | None = None,
) -> Figure:  # fmt: skip
    """Solved problems over what is varied (``xlabel``), one line per curve; a panel more per fact.

    ``names``: curve -> what the legend calls it; curves that are not named are left out. ``log``:
    logarithmic x axis. ``facts``: further numbers of the rows (``extra``) -> label of their panel.
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
            values = [np.mean(reading.extras(results, m, fact) or [np.nan]) for m in methods]
            ax.plot(xs, values, **look)
    main.set(ylabel=f"solved, % ({reading.target(results)})", ylim=(0, None))
    ticks = sorted({x for points in places.values() for x, _ in points})
    for ax in (main, *others):
        ax.set(xlabel=xlabel, xscale="log" if log else "linear")
        ax.grid(axis="y")
        if len(ticks) <= 6:
            ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
            ax.minorticks_off()
    for ax, text in zip(others, facts.values(), strict=True):
        ax.set(ylabel=text, yscale="log" if "log" in text else "linear")
    main.legend()
    return figure
