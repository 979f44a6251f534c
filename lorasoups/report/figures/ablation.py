"""An ablation's sweeps as curves."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from lorasoups.report.figures import style
from lorasoups.results import reading
from lorasoups.results.reading import Results, estimate

_LOOKS = ((style.BLUE, "o", "-"), (style.ORANGE, "s", "--"), (style.GREEN, "^", ":"))


@style.styled
def curves(results: Results, xlabel: str, title: str, names: Mapping[str, str]) -> Figure:
    """Solved problems and held-out skill loss over what is varied (``xlabel``), a line per curve.

    ``names``: curve -> what the legend calls it; curves that are not named are left out.
    """
    figure, (main, loss) = style.panels(3.0, title, columns=2)
    places = reading.places(results)
    for (curve, name), (color, mark, line) in zip(names.items(), _LOOKS, strict=False):
        points = [(x, m, e) for x, m in places.get(curve, []) if (e := estimate(results, m))]
        if not points:
            continue
        xs, methods, estimates = zip(*points, strict=True)
        main.fill_between(xs, [100 * e.lo for e in estimates], [100 * e.hi for e in estimates],
                          color=color, alpha=0.18, lw=0)  # fmt: skip
        look = {"color": color, "marker": mark, "linestyle": line, "label": name}
        main.plot(xs, [100 * e.mean for e in estimates], **look)
        losses = [np.mean(reading.extras(results, m, "heldout_loss") or [np.nan]) for m in methods]
        loss.plot(xs, losses, **look)
    main.set(ylabel=f"solved, % ({reading.target(results)})", ylim=(0, None))
    loss.set_ylabel("held-out skill loss")
    ticks = sorted({x for points in places.values() for x, _ in points})
    for ax in (main, loss):
        ax.set(xlabel=xlabel, xscale="log")
        ax.grid(axis="y")
        ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        ax.minorticks_off()
    main.legend()
    return figure
