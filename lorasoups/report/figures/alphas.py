"""Figures of CAT's alphas: while they are learned, and by place."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lorasoups.report.figures import style
from lorasoups.results import reading
from lorasoups.results.reading import Results

_PRESETS = {"ours": {"ls": "-", "marker": "o"}, "released": {"ls": "--", "marker": "s"}}
# colour and fill of the markers tell the LoRAs apart, the fill in grey too
_COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.PURPLE)
_ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
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
            fill = style.WHITE if i % 2 else color
            _lines(left, of_preset["alpha_mean"].str[i], preset, f"{skill}, {preset}", color, fill)
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


def place(module: str) -> tuple[str, int]:
    """Type and layer of a module; layer 0 where its name has no number."""
    layer = re.search(r"\.(\d+)\.", module)
    return module.rpartition(".")[2], int(layer[1]) if layer else 0


def grid(weights: Mapping[str, Sequence]) -> tuple[np.ndarray, list[str], list[int]]:
    """Alphas [k, module types, layers] (NaN where none), the types, the layers."""
    places = pd.MultiIndex.from_tuples(map(place, weights))
    alphas = pd.DataFrame(list(weights.values()), places, dtype=float)
    means = alphas.groupby(level=[0, 1]).mean().unstack()
    known = [name for name in _ORDER if name in means.index]
    means = means.loc[[*known, *means.index.difference(known)]]
    values = np.stack([means[i] for i in means.columns.levels[0]])
    return values, list(means.index), list(means[0].columns)


@style.styled
def alphas_map(weights: Mapping[str, Sequence], names: Sequence[str]) -> Figure:
    """Heat maps by layer and module type, one per LoRA, with one scale.

    ``weights``: module -> alphas [k], None where a LoRA lacks it; ``names``: of the k LoRAs.
    """
    values, types, layers = grid(weights)
    how = {"columns": len(values), "sharey": True}
    figure, axes = style.panels(1.3 + 0.29 * len(types), "CAT's learned alphas", **how)
    few = len(layers) <= MOST_WRITTEN
    scale = {"cmap": "cividis", "vmin": np.nanmin(values), "vmax": np.nanmax(values)}
    leaves = [name.removesuffix("_proj") for name in types]
    for ax, name, of_lora in zip(axes, names, values, strict=True):
        frame = pd.DataFrame(of_lora, leaves, layers)
        seaborn.heatmap(frame, ax=ax, annot=few, fmt=".2f", annot_kws={"size": 7.5}, cbar=False,
                        xticklabels=1 if few else 5, yticklabels=1, **scale)  # fmt: skip
        ax.tick_params(length=0, rotation=0)
        ax.set(xlabel="layer", title=f"alpha of the {name} LoRA, mean {np.nanmean(of_lora):.2f}")
    figure.colorbar(axes[-1].collections[0], ax=axes, label="alpha", fraction=0.05)
    return figure
