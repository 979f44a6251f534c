"""Do two seeds learn the same alphas? Rank correlation over modules, and means by place."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from lorasoups.report.figures import style
from lorasoups.results import reading


def by_seed(results: Mapping[str, Any], preset: str = "ours") -> dict[int, np.ndarray]:
    """Seed -> alphas [modules, k], modules in the order of their names."""
    found: dict[int, dict[str, list]] = {}
    for e in results["alphas"]:
        if e["preset"] == preset:
            found.setdefault(e["seed"], {})[e["module"]] = e["values"]
    return {seed: np.array([own[m] for m in sorted(own)]) for seed, own in found.items()}


def correlations(results: Mapping[str, Any], preset: str = "ours") -> list[list[float]]:
    """Per LoRA Spearman's rank correlation over modules, for every pair of seeds."""
    seeds = by_seed(results, preset)
    k = next(iter(seeds.values())).shape[1]
    return [
        [float(spearmanr(a[:, i], b[:, i]).statistic) for a, b in combinations(seeds.values(), 2)]
        for i in range(k)
    ]


@style.styled
def draw(results: Mapping[str, Any], preset: str = "ours") -> Figure:
    """Alphas of every module and seed, modules in rising order of their mean; a panel per LoRA."""
    values = np.stack(list(by_seed(results, preset).values()))  # [seeds, modules, k]
    pairs = correlations(results, preset)
    figure = style.new_figure(2.8)
    axes = figure.subplots(1, values.shape[2], sharey=True, squeeze=False)[0]
    for i, (ax, skill) in enumerate(zip(axes, reading.skills(results), strict=True)):
        order = np.argsort(values[:, :, i].mean(0))
        for own in values[:, :, i]:
            ax.plot(own[order], "o", ms=3, mfc="none", mec=style.BLUE, mew=0.7)
        ax.plot(values[:, order, i].mean(0), color=style.BLACK, lw=1.2)
        mean = f", mean rank correlation {np.mean(pairs[i]):+.2f}" if pairs[i] else ""
        ax.set_title(f"{skill} LoRA{mean}")
        ax.set_xlabel("modules, by mean alpha")
        ax.grid(axis="y")
    axes[0].set_ylabel("alpha (circle: a seed)")
    style.title(figure, "Do the seeds agree on where a LoRA is used?")
    return figure
