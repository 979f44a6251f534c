"""The sweep's soups: held-out skill loss against what they solve of the target."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from lorasoups.report.figures import style
from lorasoups.results.reading import estimate

_LOOKS = {"none": (style.BLUE, "o"), "sigmoid": (style.ORANGE, "s"), "softmax": (style.GREEN, "^")}


@style.styled
def draw(results: Mapping[str, Any]) -> Figure:
    """One point per combination of normalisation, start and learning rate, on the first seed."""
    figure = style.new_figure(3.4)
    ax = figure.subplots()
    entries = [e for e in results["sweep"] if "target_accuracy" in e]
    for name, (color, marker) in _LOOKS.items():
        own = [e for e in entries if e["normalise"] == name]
        if own:
            losses = [e["heldout_loss"] for e in own]
            ax.plot(losses, [100 * e["target_accuracy"] for e in own], marker,
                    ms=7, mfc=color, mec=style.BLACK, label=f"normalise {name}")  # fmt: skip
    for e in entries:
        if e["chosen"]:
            ax.plot(e["heldout_loss"], 100 * e["target_accuracy"], "o", ms=13, mfc="none",
                    mec=style.BLACK, mew=1.2, label="chosen (lowest skill loss)")  # fmt: skip
    for method, text, line in (
        ("linear@delta/w1", "exact sum, weights 1", "--"),
        ("linear@delta", "exact sum, weights 1/k", ":"),
    ):
        found = estimate(results, method)
        if found:
            height = 100 * found.mean
            ax.axhline(height, color=style.BLACK, linestyle=line, lw=1, label=text)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    losses = [e["heldout_loss"] for e in entries] or [1.0]
    ticks = [min(losses), (min(losses) * max(losses)) ** 0.5, max(losses)]
    ax.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    ax.set_xlabel("held-out skill loss, nats per token (log scale; what the choice looks at)")
    ax.set_ylabel("target solved, %")
    ax.set_ylim(bottom=0)
    ax.margins(y=0.2)
    ax.grid(axis="y")
    figure.legend(loc="outside right center")
    style.title(figure, "Does less loss on the skills mean more of the target?")
    return figure
