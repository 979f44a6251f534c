"""The learned alphas by layer and module type, one map per LoRA."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lorasoups.report.figures import style
from lorasoups.results import reading

_ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MOST_WRITTEN = 12  # layers up to which the numbers stand in the cells


def grid(
    results: Mapping[str, Any], preset: str = "ours"
) -> tuple[np.ndarray, list[str], list[int]]:
    """Mean alphas over seeds [k, module types, layers] (NaN where none), the types, the layers."""
    entries = [e for e in results["alphas"] if e["preset"] == preset]
    places = {e["module"]: _place(e["module"]) for e in entries}
    types = sorted({t for t, _ in places.values()}, key=_rank)
    layers = sorted({layer for _, layer in places.values()})
    k = len(entries[0]["values"])
    found: dict[tuple[int, int], list] = {}
    for e in entries:
        module_type, layer = places[e["module"]]
        found.setdefault((types.index(module_type), layers.index(layer)), []).append(e["values"])
    values = np.full((k, len(types), len(layers)), np.nan)
    for (row, column), members in found.items():
        values[:, row, column] = np.mean(members, axis=0)
    return values, types, layers


def _place(module: str) -> tuple[str, int]:
    layer = re.search(r"\.(\d+)\.", module)
    return module.rpartition(".")[2], int(layer[1]) if layer else 0


def _rank(module_type: str) -> tuple[int, str]:
    known = module_type in _ORDER
    return (_ORDER.index(module_type) if known else len(_ORDER)), module_type


@style.styled
def draw(results: Mapping[str, Any], preset: str = "ours") -> Figure:
    """Heat maps with one scale: dark is small, light is large, in colour and in grey."""
    values, types, layers = grid(results, preset)
    figure = style.new_figure(1.3 + 0.29 * len(types))
    axes = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    low, high = np.nanmin(values), np.nanmax(values)
    for ax, name, own in zip(axes, reading.skills(results), values, strict=True):
        image = ax.imshow(own, cmap="cividis", vmin=low, vmax=high, aspect="auto")
        step = 1 if len(layers) <= MOST_WRITTEN else 5
        ax.set_xticks(range(0, len(layers), step), layers[::step])
        ax.set_yticks(range(len(types)), [t.removesuffix("_proj") for t in types])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("layer")
        ax.set_title(f"alpha of the {name} LoRA, mean {np.nanmean(own):.2f}")
        if len(layers) <= MOST_WRITTEN:
            _write(ax, own, (low + high) / 2)
    figure.colorbar(image, ax=axes, label="alpha", fraction=0.05)
    seeds = len({e["seed"] for e in results["alphas"] if e["preset"] == preset})
    seeds = "one seed" if seeds == 1 else f"mean of {seeds} seeds"
    style.title(figure, f"CAT's learned alphas, {seeds}")
    return figure


def _write(ax, values: np.ndarray, middle: float) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = style.WHITE if value < middle else style.BLACK
            ax.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=color
            )
