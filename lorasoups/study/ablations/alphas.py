"""What an ablation is, and those of the alphas: start, learning rate, data, random LoRAs, surface.

An ablation compares variants of one study that differ in one thing, on the same items.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from lorasoups.errors import Diverged
from lorasoups.learning.random_loras import gaussian_like, permuted_like
from lorasoups.lora.lora import LoRA
from lorasoups.lora.merging import merge
from lorasoups.study.methods.merges import random_alphas
from lorasoups.study.stages import Stages

CAT = "cat"  # the variant that all others are compared with: our own setting
DRAWS = 3
RATES = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 1.0)
SHARES = (0.001, 0.01, 0.05, 0.25, 1.0)
SURFACE_TO, SURFACE_POINTS = 1.6, 9


@dataclass(frozen=True)
class Soup:
    """What a variant gives: an adapter (None: its training diverged) and facts about it."""

    lora: LoRA | None
    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """One line of an ablation, with its ``name`` in the results file."""

    name: str
    label: str
    make: Callable[[Stages, int], Soup]  # of the stages and a seed
    curve: str = ""  # which line of a figure it belongs to; "" for a single bar
    x: float | None = None  # where on the figure's axis


@dataclass(frozen=True)
class Ablation:
    """An experiment of notebook 07, with its ``name`` of the results file and what is varied."""

    name: str
    title: str
    variants: Callable[[Stages], Sequence[Variant]]
    target: str = ""  # another target than the study's
    items: int = 0  # only so many problems of the target; 0: all
    seeds: int = 0  # only the first so many seeds; 0: all


# --- ways to make a soup ------------------------------------------------------------------------


def learned(
    stages: Stages,
    seed: int,
    *,
    options: dict | None = None,
    change_loras: Callable[[list[LoRA], int], list[LoRA]] = lambda loras, seed: loras,
    share: float | None = None,
    skills: Sequence[str] = (),
    **changes,
) -> Soup:
    """Learn alphas and merge; what is not given is as in our own setting.

    The facts are the held-out loss of the skills, the mean alphas and how far they moved. A
    training that diverges gives no adapter: all its answers count as wrong. ``changes`` replace
    options of `learn_alphas`; ``share`` and ``skills`` are those of `Stages.alpha_rows`.
    """
    loras, rows = change_loras(stages.loras(seed), seed), stages.alpha_rows(seed, share, skills)
    options = (stages.preset_options("ours") if options is None else options) | changes
    try:
        alphas, loss = stages.learn(loras, rows, options, seed)
    except Diverged:
        return Soup(None, {"diverged": 1.0})
    moved = alphas.history[-1]["alpha_moved"] if alphas.history else 0.0
    means = sum(alphas.weights.values()) / len(alphas.weights)
    facts = {f"alpha_{i + 1}": float(mean) for i, mean in enumerate(means)}
    facts |= {"alpha_moved": float(moved), "heldout_loss": loss}
    return Soup(merge(loras, "cat", weights=alphas), facts)


def weighted(stages: Stages, seed: int, *, weight: float) -> Soup:
    """The exact sum with one weight for all LoRAs."""
    loras = stages.loras(seed)
    soup = merge(loras, "cat", weights=[weight] * len(loras))
    return Soup(soup, {"heldout_loss": stages.held_out_loss(soup)})


OUR_CAT = Variant(CAT, "CAT (ours)", learned)


# --- where alphas start, and how they are learned -----------------------------------------------


def _random(stages: Stages, seed: int, draw: int) -> Soup:
    loras = stages.loras(seed)
    return Soup(merge(loras, "cat", weights=random_alphas(loras, 1000 * (draw + 1) + seed)))


def _best_of(stages: Stages, seed: int, normalise: str) -> Soup:
    """The grid's point of one normalisation with the least held-out skill loss."""
    points = [entry for entry in stages.grid if entry["normalise"] == normalise]
    best = min(points, key=lambda entry: entry["heldout_loss"])
    options = stages.alpha_options(normalise, best["init"], best["lr"])
    return learned(stages, seed, options=options)


def _of_alphas(stages: Stages) -> list[Variant]:
    kinds = dict.fromkeys(point[0] for point in stages.profile.alphas.grid)
    average = partial(weighted, weight=1 / len(stages.profile.skills))
    draws = [
        (f"random_{d}", f"random, draw {d + 1}", partial(_random, draw=d)) for d in range(DRAWS)
    ]
    return [
        OUR_CAT,
        Variant("uniform", "uniform, 1/k", average),
        Variant("ones", "all 1.0 (plain sum)", partial(weighted, weight=1.0)),
        *(Variant(*draw) for draw in draws),
        Variant("lr0", "lr = 0", partial(learned, lr=0.0)),
        Variant("released", "released schedule", partial(learned, options={"preset": "released"})),
        *(Variant(f"best_{k}", f"learned, {k}", partial(_best_of, normalise=k)) for k in kinds),
        Variant("global", "one per LoRA", partial(learned, granularity="global")),
        Variant("layer", "one per layer and LoRA", partial(learned, granularity="layer")),
    ]


def _of_rates(stages: Stages) -> list[Variant]:
    rates = RATES if stages.profile.name != "smoke" else (1e-4, 1e-1)
    points = [("none", lr) for lr in rates] + [("softmax", lr) for lr in rates[1:6:2]]
    makes = [partial(learned, options=stages.alpha_options(n, "uniform", lr)) for n, lr in points]
    return [
        OUR_CAT,
        *(
            Variant(f"{normalise}/{lr:g}", f"{normalise}, lr {lr:g}", make, normalise, lr)
            for (normalise, lr), make in zip(points, makes, strict=True)
        ),
    ]


# --- what they are learned on, and over ---------------------------------------------------------


def _of_data(stages: Stages) -> list[Variant]:
    """Other data, for always the same number of steps: those of our own setting."""
    p, usual = stages.profile, stages.profile.alphas.share
    rows = len(p.skills) * max(1, round(usual * p.n_train))
    data = partial(learned, max_steps=math.ceil(p.alphas.epochs * rows / p.alphas.batch_size))
    return [
        replace(OUR_CAT, curve="share", x=usual),
        *(
            Variant(
                f"share_{s:g}", f"{100 * s:g} % of the data", partial(data, share=s), "share", s
            )
            for s in SHARES
            if s != usual
        ),
        *(
            Variant(f"only_{name}", f"only the data of {name}", partial(data, skills=(name,)))
            for name in p.skills
        ),
    ]


def _replaced(draw: Callable[[LoRA, int], LoRA], places: Iterable[int]) -> partial:
    """CAT over LoRAs of which some are replaced by random ones."""

    def change(loras: list[LoRA], seed: int) -> list[LoRA]:
        return [draw(x, 100 * seed + i) if i in places else x for i, x in enumerate(loras)]

    return partial(learned, change_loras=change)


def _fresh(stages: Stages, seed: int) -> Soup:
    lora = stages.fresh_lora(seed).lora
    return Soup(lora, {"heldout_loss": stages.held_out_loss(lora)})


def _of_random_loras(stages: Stages) -> list[Variant]:
    first, second = stages.profile.skills[:2]
    every = range(len(stages.profile.skills))
    return [
        OUR_CAT,
        Variant("random_both", "both random", _replaced(gaussian_like, every)),
        Variant("random_first", f"{first} random", _replaced(gaussian_like, [0])),
        Variant("random_second", f"{second} random", _replaced(gaussian_like, [1])),
        Variant("permuted_both", "both with A shuffled", _replaced(permuted_like, every)),
        Variant("fresh", "new LoRA on the alpha data", _fresh),
    ]


def _at(stages: Stages, seed: int, first: float, second: float) -> Soup:
    soup = merge(stages.loras(seed), "cat", weights=[first, second])
    loss = stages.held_out_loss(soup)
    return Soup(soup, {"alpha_1": first, "alpha_2": second, "heldout_loss": loss})


def _of_surface(stages: Stages) -> list[Variant]:
    """The plane of one alpha per LoRA."""
    points = SURFACE_POINTS if stages.profile.name != "smoke" else 2
    axis = [SURFACE_TO * i / (points - 1) for i in range(points)]
    return [
        Variant(f"{a:.2f} {b:.2f}", f"alphas {a:.2f} and {b:.2f}", partial(_at, first=a, second=b))
        for a in axis
        for b in axis
    ]


ALPHAS = Ablation("alphas", "where alphas start and how they are learned", _of_alphas)
RANDOM_LORAS = Ablation("random_loras", "random LoRAs in place of skills", _of_random_loras)
LR_SWEEP = Ablation("lr_sweep", "learning rate of the alphas", _of_rates)
ALPHA_DATA = Ablation("alpha_data", "data that the alphas are learned on", _of_data)
_SURFACE = "loss and solved problems over the two alphas"
SURFACE = Ablation("surface", _SURFACE, _of_surface, items=100, seeds=1)
