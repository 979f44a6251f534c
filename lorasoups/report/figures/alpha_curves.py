"""Alpha during training: our schedule beside the released one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lorasoups.report.figures import style
from lorasoups.results import reading

LOOKS = {
    "ours": {"linestyle": "-", "marker": "o"},
    "released": {"linestyle": "--", "marker": "s"},
}
# colour and fill of the markers tell the LoRAs apart, the fill in grey too
COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.PURPLE)


@style.styled
def draw(results: Mapping[str, Any]) -> Figure:
    """Left: mean alpha of each LoRA; right: how far an alpha is from its start. Thin: one seed."""
    figure = style.new_figure(3.3)
    left, right = figure.subplots(1, 2)
    for preset in [p for p in LOOKS if any(e["preset"] == p for e in results["curves"])]:
        curves = by_seed(results["curves"], preset)
        for i, skill in enumerate(reading.skills(results)):
            own = [[(step, e["alpha_mean"][i]) for step, e in curve.items()] for curve in curves]
            color = COLOURS[i % len(COLOURS)]
            fill = style.WHITE if i % 2 else color
            _lines(left, own, preset, f"{skill}, {preset}", color, fill)
        moved = [[(step, e["alpha_moved"]) for step, e in curve.items()] for curve in curves]
        _lines(right, moved, preset, preset)
    left.set_title("mean alpha over modules")
    right.set_title("mean distance of an alpha from its start")
    for ax in (left, right):
        ax.set_xlabel("optimizer step")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.grid()
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.35 * (high - low))  # room for the legend
    left.legend(loc="upper left", ncols=2, handlelength=2.6)
    right.legend(loc="upper left", ncols=2, handlelength=2.6)
    style.title(figure, "Alphas while they are learned: our schedule and the released one")
    return figure


def by_seed(curves: Sequence[Mapping[str, Any]], preset: str) -> list[dict[int, Mapping]]:
    """The entries of a preset, one dict step -> entry per seed."""
    found: dict[int, dict[int, Mapping]] = {}
    for entry in curves:
        if entry["preset"] == preset:
            found.setdefault(entry["seed"], {})[entry["step"]] = entry
    return list(found.values())


def _lines(
    ax: Axes,
    curves: list[list[tuple]],
    preset: str,
    label: str,
    color: str = style.BLACK,
    fill: str = style.BLACK,
) -> None:
    """Every seed thin, their mean over common steps thick with a few markers."""
    look = LOOKS[preset]
    for curve in curves:
        ax.plot(*zip(*curve, strict=True), color=color, linewidth=0.5, alpha=0.5)
    tables = [dict(curve) for curve in curves]
    common = sorted(set.intersection(*(set(t) for t in tables)))
    mean = [np.mean([t[step] for t in tables]) for step in common]
    every = max(1, len(common) // 6)
    ax.plot(
        common, mean, color=color, lw=1.8, label=label, ms=4.5, mfc=fill, markevery=every, **look
    )
