"""The plane of one alpha per LoRA: held-out skill loss and solved problems, methods marked."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lorasoups.report.figures import style
from lorasoups.results import reading

_MARKS = ("*", "o", "s", "^", "D", "v")


def grid(results: Mapping[str, Any], number: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both axes and the values [alpha_2, alpha_1] of ``heldout_loss`` or ``accuracy``."""
    rows = reading.rows(results)
    first = sorted({r["extra"]["alpha_1"] for r in rows})
    second = sorted({r["extra"]["alpha_2"] for r in rows})
    values = np.full((len(second), len(first)), np.nan)
    for r in rows:
        place = second.index(r["extra"]["alpha_2"]), first.index(r["extra"]["alpha_1"])
        values[place] = 100 * r["accuracy"] if number == "accuracy" else r["extra"][number]
    return np.array(first), np.array(second), values


@style.styled
def draw(results: Mapping[str, Any], marks: Mapping[str, tuple[float, float]]) -> Figure:
    """Two maps of the same plane; ``marks``: what to call a point -> its two (mean) alphas."""
    figure = style.new_figure(3.7)
    axes = figure.subplots(1, 2, sharey=True)
    skills = reading.skills(results)
    n = reading.rows(results)[0]["n"]
    for ax, number, text in (
        (axes[0], "heldout_loss", "held-out skill loss, log10 (nats)"),
        (axes[1], "accuracy", f"target solved, % of {n}"),
    ):
        xs, ys, values = grid(results, number)
        shown = np.log10(values) if number == "heldout_loss" else values
        image = ax.pcolormesh(xs, ys, shown, cmap="cividis", shading="nearest")
        figure.colorbar(image, ax=ax, label=text, fraction=0.06)
        for (name, (x, y)), mark in zip(marks.items(), _MARKS, strict=False):
            inside = np.clip([x, y], [xs[0], ys[0]], [xs[-1], ys[-1]])
            ax.plot(*inside, mark, ms=9, mfc=style.VERMILION, mec=style.WHITE, mew=1.0, label=name)
        ax.set_xlabel(f"alpha of the {skills[0]} LoRA")
    axes[0].set_ylabel(f"alpha of the {skills[1]} LoRA")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    style.title(figure, "One alpha per LoRA: what the loss wants and what the target wants")
    return figure
