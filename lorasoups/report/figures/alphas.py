"""Figures of CAT's alphas: while they are learned, by place, by seed, on a grid, on the plane."""

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from scipy.stats import spearmanr

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
    figure = style.new_figure(3.3)
    left, right = figure.subplots(1, 2)
    for preset in [p for p in _PRESETS if any(e["preset"] == p for e in results["curves"])]:
        runs = _by_seed(results["curves"], preset)
        for i, skill in enumerate(reading.skills(results)):
            color = _COLOURS[i % len(_COLOURS)]
            means = [{step: e["alpha_mean"][i] for step, e in run.items()} for run in runs]
            fill = style.WHITE if i % 2 else color
            _lines(left, means, preset, f"{skill}, {preset}", color, fill)
        moved = [{step: e["alpha_moved"] for step, e in run.items()} for run in runs]
        _lines(right, moved, preset, preset, style.BLACK, style.BLACK)
    left.set_title("mean alpha over modules")
    right.set_title("mean distance of an alpha from its start")
    for ax in (left, right):
        ax.set_xlabel("optimizer step")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.grid()
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.35 * (high - low))  # room for the legend
        ax.legend(loc="upper left", ncols=2, handlelength=2.6)
    style.title(figure, "Alphas while they are learned: our schedule and the released one")
    return figure


def _by_seed(curves: Sequence[Mapping[str, Any]], preset: str) -> list[dict[int, Mapping]]:
    """The entries of a preset, one dict step -> entry per seed."""
    seeds: dict[int, dict[int, Mapping]] = {}
    for entry in curves:
        if entry["preset"] == preset:
            seeds.setdefault(entry["seed"], {})[entry["step"]] = entry
    return list(seeds.values())


def _lines(ax: Axes, runs: list[dict], preset: str, label: str, color: str, fill: str) -> None:
    """Every seed thin, their mean over common steps thick with a few markers."""
    for run in runs:
        ax.plot(list(run), list(run.values()), color=color, linewidth=0.5, alpha=0.5)
    common = sorted(set.intersection(*(set(run) for run in runs)))
    mean = [np.mean([run[step] for run in runs]) for step in common]
    ax.plot(common, mean, color=color, lw=1.8, label=label, ms=4.5, mfc=fill,
            markevery=max(1, len(common) // 6), **_PRESETS[preset])  # fmt: skip


def grid(results: Results, preset: str = "ours") -> tuple[np.ndarray, list[str], list[int]]:
    """Mean alphas over seeds [k, module types, layers] (NaN where none), the types, the layers."""
    members: dict[tuple[str, int], list] = {}
    for e in results["alphas"]:
        if e["preset"] == preset:
            layer = re.search(r"\.(\d+)\.", e["module"])
            place = e["module"].rpartition(".")[2], int(layer[1]) if layer else 0
            members.setdefault(place, []).append(e["values"])
    known = {name: position for position, name in enumerate(_ORDER)}
    types = sorted({t for t, _ in members}, key=lambda t: (known.get(t, len(known)), t))
    layers = sorted({layer for _, layer in members})
    k = len(next(iter(members.values()))[0])
    values = np.full((k, len(types), len(layers)), np.nan)
    for (module_type, layer), entries in members.items():
        values[:, types.index(module_type), layers.index(layer)] = np.mean(entries, axis=0)
    return values, types, layers


@style.styled
def alphas_map(results: Results, preset: str = "ours") -> Figure:
    """Heat maps by layer and module type, one per LoRA, with one scale."""
    values, types, layers = grid(results, preset)
    figure = style.new_figure(1.3 + 0.29 * len(types))
    axes = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    few = len(layers) <= MOST_WRITTEN
    scale = {"cmap": "cividis", "vmin": np.nanmin(values), "vmax": np.nanmax(values)}
    for ax, name, of_lora in zip(axes, reading.skills(results), values, strict=True):
        seaborn.heatmap(of_lora, ax=ax, annot=few, fmt=".2f", annot_kws={"size": 7.5}, cbar=False,
                        xticklabels=1 if few else 5, **scale)  # fmt: skip
        ticks = range(0, len(layers), 1 if few else 5)
        ax.set_xticks([t + 0.5 for t in ticks], [layers[t] for t in ticks])
        leaves = [t.removesuffix("_proj") for t in types]
        ax.set_yticks([t + 0.5 for t in range(len(types))], leaves,
                      rotation=0)  # fmt: skip
        ax.tick_params(length=0)
        ax.set_xlabel("layer")
        ax.set_title(f"alpha of the {name} LoRA, mean {np.nanmean(of_lora):.2f}")
    figure.colorbar(axes[-1].collections[0], ax=axes, label="alpha", fraction=0.05)
    seeds = len({e["seed"] for e in results["alphas"] if e["preset"] == preset})
    style.title(
        figure, f"CAT's learned alphas, {'one seed' if seeds == 1 else f'mean of {seeds} seeds'}"
    )
    return figure


def _matrix_by_seed(results: Results, preset: str) -> np.ndarray:
    """Alphas [seeds, modules, k], modules in the order of their names."""
    seeds: dict[int, dict[str, list]] = {}
    for e in results["alphas"]:
        if e["preset"] == preset:
            seeds.setdefault(e["seed"], {})[e["module"]] = e["values"]
    return np.stack([np.array([own[m] for m in sorted(own)]) for own in seeds.values()])


def correlations(results: Results, preset: str = "ours") -> list[list[float]]:
    """Per LoRA Spearman's rank correlation over modules, for every pair of seeds."""
    values = _matrix_by_seed(results, preset)
    return [
        [float(spearmanr(a[:, i], b[:, i]).statistic) for a, b in combinations(values, 2)]
        for i in range(values.shape[2])
    ]


@style.styled
def stability(results: Results, preset: str = "ours") -> Figure:
    """Alphas of every module and seed, modules in rising order of their mean; a panel per LoRA."""
    values, pairs = _matrix_by_seed(results, preset), correlations(results, preset)
    figure = style.new_figure(2.8)
    axes = figure.subplots(1, values.shape[2], sharey=True, squeeze=False)[0]
    for i, (ax, skill) in enumerate(zip(axes, reading.skills(results), strict=True)):
        order = np.argsort(values[:, :, i].mean(0))
        for of_seed in values[:, :, i]:
            ax.plot(of_seed[order], "o", ms=3, mfc="none", mec=style.BLUE, mew=0.7)
        ax.plot(values[:, order, i].mean(0), color=style.BLACK, lw=1.2)
        mean = f", mean rank correlation {np.mean(pairs[i]):+.2f}" if pairs[i] else ""
        ax.set_title(f"{skill} LoRA{mean}")
        ax.set_xlabel("modules, by mean alpha")
        ax.grid(axis="y")
    axes[0].set_ylabel("alpha (circle: a seed)")
    style.title(figure, "Do the seeds agree on where a LoRA is used?")
    return figure


@style.styled
def alpha_grid(results: Results) -> Figure:
    """Held-out skill loss of the grid's soups against what they solve of the target (one seed)."""
    figure = style.new_figure(3.4)
    ax = figure.subplots()
    entries = [e for e in results["sweep"] if "target_accuracy" in e]
    for name, (color, marker) in _NORMALISE.items():
        points = [(e["heldout_loss"], 100 * e["target_accuracy"]) for e in entries
                  if e["normalise"] == name]  # fmt: skip
        if points:
            ax.plot(*zip(*points, strict=True), marker, ms=7, mfc=color, mec=style.BLACK,
                    label=f"normalise {name}")  # fmt: skip
    for e in entries:
        if e["chosen"]:
            ax.plot(e["heldout_loss"], 100 * e["target_accuracy"], "o", ms=13, mfc="none",
                    mec=style.BLACK, mew=1.2, label="chosen (lowest skill loss)")  # fmt: skip
    for method, text, line in (
        ("linear@delta/w1", "exact sum, weights 1", "--"),
        ("linear@delta", "exact sum, weights 1/k", ":"),
    ):
        level = estimate(results, method)
        if level:
            ax.axhline(100 * level.mean, color=style.BLACK, linestyle=line, lw=1, label=text)
    ax.set_xscale("log")
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


@style.styled
def surface(results: Results, marks: Mapping[str, tuple[float, float]]) -> Figure:
    """The plane of one alpha per LoRA: held-out skill loss, and solved problems.

    Args:
        results: of the ablation ``surface``.
        marks: what to call a point -> its two (mean) alphas.
    """
    figure = style.new_figure(3.7)
    axes = figure.subplots(1, 2, sharey=True)
    skills, rows = reading.skills(results), reading.rows(results)
    places = [(r["extra"]["alpha_1"], r["extra"]["alpha_2"]) for r in rows]
    xs, ys = (np.array(sorted(set(axis))) for axis in zip(*places, strict=True))
    losses = [np.log10(r["extra"]["heldout_loss"]) for r in rows]
    solved = [100 * r["accuracy"] for r in rows]
    for ax, values, text in (
        (axes[0], losses, "held-out skill loss, log10 (nats)"),
        (axes[1], solved, f"target solved, % of {rows[0]['n']}"),
    ):
        plane = np.full((len(ys), len(xs)), np.nan)
        for (x, y), value in zip(places, values, strict=True):
            plane[np.searchsorted(ys, y), np.searchsorted(xs, x)] = value
        image = ax.pcolormesh(xs, ys, plane, cmap="cividis", shading="nearest")
        figure.colorbar(image, ax=ax, label=text, fraction=0.06)
        for (name, point), mark in zip(marks.items(), _STARS, strict=False):
            inside = np.clip(point, [xs[0], ys[0]], [xs[-1], ys[-1]])
            ax.plot(*inside, mark, ms=9, mfc=style.VERMILION, mec=style.WHITE, mew=1.0, label=name)
        ax.set_xlabel(f"alpha of the {skills[0]} LoRA")
    axes[0].set_ylabel(f"alpha of the {skills[1]} LoRA")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    style.title(figure, "One alpha per LoRA: what the loss wants and what the target wants")
    return figure
