"""Controls of the alphas: where they start, whether and how they are learned, how fine they are."""

from lorasoups.lora.merging import merge
from lorasoups.study.ablations.base import (
    OUR_CAT,
    Ablation,
    Soup,
    Variant,
    learned,
    weighted,
)
from lorasoups.study.soups import random_alphas
from lorasoups.study.stages import Experiment

DRAWS = 3


def _random(draw: int):
    def make(experiment: Experiment, seed: int) -> Soup:
        loras = experiment.pair(seed)
        return Soup(merge(loras, "cat", weights=random_alphas(loras, 1000 * (draw + 1) + seed)))

    return make


def _options(**changes):
    """Our setting with some options changed (``None`` takes one away)."""

    def make(experiment: Experiment, seed: int) -> Soup:
        options = experiment.alpha_options("ours") | changes
        rows = experiment.alpha_rows(seed)
        return learned(experiment, seed, experiment.pair(seed), rows, options)

    return make


def _released(experiment: Experiment, seed: int) -> Soup:
    rows = experiment.alpha_rows(seed)
    return learned(experiment, seed, experiment.pair(seed), rows, {"preset": "released"})


def _best_of(normalise: str):
    """The grid's point of one normalisation with the least held-out skill loss."""

    def make(experiment: Experiment, seed: int) -> Soup:
        own = [e for e in experiment.sweep if e["normalise"] == normalise]
        best = min(own, key=lambda e: e["heldout_loss"])
        options = experiment.options(normalise, best["init"], best["lr"])
        rows = experiment.alpha_rows(seed)
        return learned(experiment, seed, experiment.pair(seed), rows, options)

    return make


def _variants(experiment: Experiment) -> list[Variant]:
    kinds = dict.fromkeys(entry[0] for entry in experiment.profile.alphas.grid)
    return [
        OUR_CAT,
        Variant("uniform", "uniform, 1/k", weighted(1 / len(experiment.profile.skills))),
        Variant("ones", "all 1.0 (plain sum)", weighted(1.0)),
        *(Variant(f"random_{d}", f"random, draw {d + 1}", _random(d)) for d in range(DRAWS)),
        Variant("lr0", "lr = 0", _options(lr=0.0)),
        Variant("released", "released schedule", _released),
        *(Variant(f"best_{k}", f"learned, {k}", _best_of(k)) for k in kinds),
        Variant("global", "one per LoRA", _options(granularity="global")),
        Variant("layer", "one per layer and LoRA", _options(granularity="layer")),
    ]


ABLATION = Ablation("alphas", "where alphas start and how they are learned", _variants, quick=True)
