"""Figures of CAT's alphas: while they are learned, by place, by seed, on a grid, on the plane."""

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from lorasoups.report.figures import style
from lorasoups.results import reading
from lorasoups.results.reading import Results, estimate

_PRESETS = {
    "ours": {"linestyle": "-", "marker": "o"},
    "released": {"linestyle": "--", "marker": "s"},
}
# colour and fill of the markers tell the LoRAs apart, the fill in grey too
_COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.PURPLE)
_ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_NORMALISE = {"none": (style.BLUE, "o"), "sigmoid": (style.ORANGE, "s"),
              "softmax": (style.GREEN, "^")}  # fmt: skip
_STARS = ("*", "o", "s", "^", "D", "v")
MOST_WRITTEN = 12  # layers up to which the numbers stand in the cells


@style.styled
def alpha_curves(results: Results) -> Figure:
    """Left: mean alpha of each LoRA; right: how far an alpha is from its start. Thin: one seed."""
    title = "Alphas while they are learned: our schedule and the released one"
    figure, (left, right) = style.panels(3.3, title, columns=2)
    curves = pd.DataFrame(results["curves"]).set_index(["step", "seed"])
    for preset in [p for p in _PRESETS if p in set(curves["preset"])]:
        of_preset = curves[curves["preset"] == preset]
        for i, skill in enumerate(reading.skills(results)):
            color = _COLOURS[i % len(_COLOURS)]
            means = of_preset["alpha_mean"].str[i]
            _lines(
                left, means, preset, f"{skill}, {preset}", color, style.WHITE if i % 2 else color
            )
        _lines(right, of_preset["alpha_moved"], preset, preset, style.BLACK, style.BLACK)
    left.set_title("mean alpha over modules")
    right.set_title("mean distance of an alpha from its start")
    for ax in (left, right):
        ax.set_xlabel("optimizer step")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.grid()
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.35 * (high - low))  # room for the legend
        ax.legend(loc="upper left", ncols=2, handlelength=2.6)
    return figure


def _lines(ax: Axes, values: pd.Series, preset: str, label: str, color: str, fill: str) -> None:
    """Every seed thin, their mean over common steps thick with a few markers."""
    seeds = values.unstack("seed")
    for seed in seeds:
        ax.plot(seeds[seed].dropna(), color=color, linewidth=0.5, alpha=0.5)
    mean = seeds.dropna().mean(axis=1)
    ax.plot(mean, color=color, lw=1.8, label=label, ms=4.5, mfc=fill,
            markevery=max(1, len(mean) // 6), **_PRESETS[preset])  # fmt: skip


def grid(results: Results, preset: str = "ours") -> tuple[np.ndarray, list[str], list[int]]:
    """Mean alphas over seeds [k, module types, layers] (NaN where none), the types, the layers."""
    entries = [e for e in results["alphas"] if e["preset"] == preset]
    types = [e["module"].rpartition(".")[2] for e in entries]
    layers = [re.search(r"\.(\d+)\.", e["module"]) for e in entries]
    layers = [int(layer[1]) if layer else 0 for layer in layers]
    means = pd.DataFrame([e["values"] for e in entries]).groupby([types, layers]).mean().unstack()
    known = {name: position for position, name in enumerate(_ORDER)}
    means = means.loc[sorted(means.index, key=lambda name: (known.get(name, len(known)), name))]
    values = np.stack([means[i] for i in means.columns.levels[0]])
    return values, list(means.index), list(means[0].columns)


@style.styled
def alphas_map(results: Results, preset: str = "ours") -> Figure:
    """Heat maps by layer and module type, one per LoRA, with one scale."""
    values, types, layers = grid(results, preset)
    seeds = len({e["seed"] for e in results["alphas"] if e["preset"] == preset})
    title = f"CAT's learned alphas, {'one seed' if seeds == 1 else f'mean of {seeds} seeds'}"
    figure, axes = style.panels(1.3 + 0.29 * len(types), title, columns=len(values), sharey=True)
    few = len(layers) <= MOST_WRITTEN
    scale = {"cmap": "cividis", "vmin": np.nanmin(values), "vmax": np.nanmax(values)}
    leaves = [name.removesuffix("_proj") for name in types]
    for ax, name, of_lora in zip(axes, reading.skills(results), values, strict=True):
        frame = pd.DataFrame(of_lora, leaves, layers)
        seaborn.heatmap(frame, ax=ax, annot=few, fmt=".2f", annot_kws={"size": 7.5}, cbar=False,
                        xticklabels=1 if few else 5, yticklabels=1, **scale)  # fmt: skip
        ax.tick_params(length=0, rotation=0)
        ax.set(xlabel="layer", title=f"alpha of the {name} LoRA, mean {np.nanmean(of_lora):.2f}")
    figure.colorbar(axes[-1].collections[0], ax=axes, label="alpha", fraction=0.05)
    return figure


@style.styled
def stability(results: Results, preset: str = "ours") -> Figure:
    """Alphas of every module and seed, modules in rising order of their mean; a panel per LoRA."""
    values = reading.alphas_by_seed(results, preset)
    pairs = reading.correlations(results, preset)
    title = "Do the seeds agree on where a LoRA is used?"
    figure, axes = style.panels(2.8, title, columns=len(pairs), sharey=True)
    for i, (ax, skill) in enumerate(zip(axes, reading.skills(results), strict=True)):
        order = np.argsort(values[:, :, i].mean(0))
        for of_seed in values[:, :, i]:
            ax.plot(of_seed[order], "o", ms=3, mfc="none", mec=style.BLUE, mew=0.7)
        ax.plot(values[:, order, i].mean(0), color=style.BLACK, lw=1.2)
        mean = f", mean rank correlation {np.mean(pairs[i]):+.2f}" if pairs[i] else ""
        ax.set(title=f"{skill} LoRA{mean}", xlabel="modules, by mean alpha")
        ax.grid(axis="y")
    axes[0].set_ylabel("alpha (circle: a seed)")
    return figure


@style.styled
def alpha_grid(results: Results) -> Figure:
    """Held-out skill loss of the grid's soups against what they solve of the target (one seed)."""
    figure, [ax] = style.panels(3.4, "Does less loss on the skills mean more of the target?")
    entries = [e for e in results["sweep"] if "target_accuracy" in e]
    points = [(e["heldout_loss"], 100 * e["target_accuracy"]) for e in entries]
    for name, (color, marker) in _NORMALISE.items():
        same = [p for p, e in zip(points, entries, strict=True) if e["normalise"] == name]
        if same:
            ax.plot(*zip(*same, strict=True), marker, ms=7, mfc=color, mec=style.BLACK,
                    label=f"normalise {name}")  # fmt: skip
    for point in [p for p, e in zip(points, entries, strict=True) if e["chosen"]]:
        ax.plot(*point, "o", ms=13, mfc="none", mec=style.BLACK, mew=1.2,
                label="chosen (lowest skill loss)")  # fmt: skip
    for method, weights, line in (("linear@delta/w1", "1", "--"), ("linear@delta", "1/k", ":")):
        level = estimate(results, method)
        if level:
            ax.axhline(100 * level.mean, color=style.BLACK, linestyle=line, lw=1,
                       label=f"exact sum, weights {weights}")  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())
    losses = [loss for loss, _ in points] or [1.0]
    ticks = [min(losses), (min(losses) * max(losses)) ** 0.5, max(losses)]
    ax.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    ax.set_xlabel("held-out skill loss, nats per token (log scale; what the choice looks at)")
    ax.set_ylabel("target solved, %")
    ax.set_ylim(bottom=0)
    ax.margins(y=0.2)
    ax.grid(axis="y")
    figure.legend(loc="outside right center")
    return figure


@style.styled
def surface(results: Results, marks: Mapping[str, tuple[float, float]]) -> Figure:
    """The plane of one alpha per LoRA: held-out skill loss, and solved problems.

    ``marks``: what to call a point -> its two (mean) alphas; ``results``: of ``surface``.
    """
    title = "One alpha per LoRA: what the loss wants and what the target wants"
    figure, axes = style.panels(3.7, title, columns=2, sharey=True)
    skills, rows = reading.skills(results), reading.rows(results)
    solved = f"target solved, % of {rows[0]['n']}"
    frame = pd.DataFrame(row["extra"] | {solved: 100 * row["accuracy"]} for row in rows)
    frame["held-out skill loss, log10 (nats)"] = np.log10(frame["heldout_loss"])
    for ax, text in zip(axes, ("held-out skill loss, log10 (nats)", solved), strict=True):
        plane = frame.pivot(index="alpha_2", columns="alpha_1", values=text)
        xs, ys = plane.columns, plane.index
        image = ax.pcolormesh(xs, ys, plane, cmap="cividis", shading="nearest")
        figure.colorbar(image, ax=ax, label=text, fraction=0.06)
        for (name, point), mark in zip(marks.items(), _STARS, strict=False):
            inside = np.clip(point, [xs[0], ys[0]], [xs[-1], ys[-1]])
            ax.plot(*inside, mark, ms=9, mfc=style.VERMILION, mec=style.WHITE, mew=1.0, label=name)
        ax.set_xlabel(f"alpha of the {skills[0]} LoRA")
    axes[0].set_ylabel(f"alpha of the {skills[1]} LoRA")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
