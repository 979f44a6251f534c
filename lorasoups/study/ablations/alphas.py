"""What an ablation is, and those of the alphas: start, learning rate, data, random LoRAs, surface.

An ablation compares variants of one study that differ in one thing, on the same items.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

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
SURFACE_FROM, SURFACE_TO, SURFACE_POINTS = 0.0, 1.6, 9


@dataclass(frozen=True)
class Soup:
    """What a variant gives: an adapter (None: its training diverged) and facts about it."""

    lora: LoRA | None
    facts: dict[str, float] = field(default_factory=dict)


Make = Callable[[Stages, int], Soup]
"""Makes a variant's soup from the stages, for a seed."""


@dataclass(frozen=True)
class Variant:
    """One line of an ablation.

    Attributes:
        name: id in the results file.
        label: what figures and tables call it.
        make: makes the soup.
        curve: which line of a figure it belongs to; "" for a single bar.
        x: where on the figure's axis.
    """

    name: str
    label: str
    make: Make
    curve: str = ""
    x: float | None = None


@dataclass(frozen=True)
class Ablation:
    """An experiment of notebook 07.

    Attributes:
        name: of its results file.
        title: one line: what is varied.
        variants: of a study (its profile decides how many points a curve has).
        quick: cheap enough for the notebook itself; the others belong to ``lorasoups ablate``.
        target: another target than the study's.
        items: only so many problems of the target; 0: all.
        seeds: only the first so many seeds; 0: all.
    """

    name: str
    title: str
    variants: Callable[[Stages], Sequence[Variant]]
    quick: bool = False
    target: str = ""
    items: int = 0
    seeds: int = 0


# --- ways to make a soup ------------------------------------------------------------------------


def learned(
    stages: Stages,
    seed: int,
    *,
    loras: Sequence[LoRA] | None = None,
    rows: list[dict] | None = None,
    options: dict | None = None,
) -> Soup:
    """Learn alphas and merge; the facts: held-out loss of the skills, and how far alphas moved.

    What is not given is as in our own setting. A training that diverges gives no adapter: all its
    answers count as wrong.
    """
    loras = stages.loras(seed) if loras is None else loras
    rows = stages.alpha_rows(seed) if rows is None else rows
    options = stages.preset_options("ours") if options is None else options
    try:
        alphas, loss = stages.learn(loras, rows, options, seed)
    except Diverged:
        return Soup(None, {"diverged": 1.0})
    moved = alphas.history[-1]["alpha_moved"] if alphas.history else 0.0
    means = sum(alphas.weights.values()) / len(alphas.weights)
    facts = {"alpha_moved": float(moved), "heldout_loss": loss}
    facts |= {f"alpha_{i + 1}": float(mean) for i, mean in enumerate(means)}
    return Soup(merge(loras, "cat", weights=alphas), facts)


def ours(stages: Stages, seed: int) -> Soup:
    """CAT as in the study's own table."""
    return learned(stages, seed)


def weighted(*weights: float) -> Make:
    """The exact sum with these weights, or with one weight for all LoRAs."""

    def make(stages: Stages, seed: int) -> Soup:
        loras = stages.loras(seed)
        soup = merge(loras, "cat", weights=list(weights) * (len(loras) if len(weights) == 1 else 1))
        return Soup(soup, {"heldout_loss": stages.held_out_loss(soup)})

    return make


OUR_CAT = Variant(CAT, "CAT (ours)", ours)


# --- where alphas start, and how they are learned -----------------------------------------------


def _random(draw: int) -> Make:
    def make(stages: Stages, seed: int) -> Soup:
        loras = stages.loras(seed)
        return Soup(merge(loras, "cat", weights=random_alphas(loras, 1000 * (draw + 1) + seed)))

    return make


def _options(**changes) -> Make:
    """Our setting with some options changed."""
    return lambda stages, seed: learned(
        stages, seed, options=stages.preset_options("ours") | changes
    )


def _released(stages: Stages, seed: int) -> Soup:
    return learned(stages, seed, options=stages.preset_options("released"))


def _best_of(normalise: str) -> Make:
    """The grid's point of one normalisation with the least held-out skill loss."""

    def make(stages: Stages, seed: int) -> Soup:
        points = [entry for entry in stages.grid if entry["normalise"] == normalise]
        best = min(points, key=lambda entry: entry["heldout_loss"])
        options = stages.alpha_options(normalise, best["init"], best["lr"])
        return learned(stages, seed, options=options)

    return make


def _of_alphas(stages: Stages) -> list[Variant]:
    kinds = dict.fromkeys(point[0] for point in stages.profile.alphas.grid)
    return [
        OUR_CAT,
        Variant("uniform", "uniform, 1/k", weighted(1 / len(stages.profile.skills))),
        Variant("ones", "all 1.0 (plain sum)", weighted(1.0)),
        *(Variant(f"random_{d}", f"random, draw {d + 1}", _random(d)) for d in range(DRAWS)),
        Variant("lr0", "lr = 0", _options(lr=0.0)),
        Variant("released", "released schedule", _released),
        *(Variant(f"best_{k}", f"learned, {k}", _best_of(k)) for k in kinds),
        Variant("global", "one per LoRA", _options(granularity="global")),
        Variant("layer", "one per layer and LoRA", _options(granularity="layer")),
    ]


def _of_rates(stages: Stages) -> list[Variant]:
    rates = RATES if stages.profile.name != "smoke" else (1e-4, 1e-1)

    def at(normalise: str, lr: float) -> Make:
        return lambda stages, seed: learned(
            stages, seed, options=stages.alpha_options(normalise, "uniform", lr)
        )

    return [
        OUR_CAT,
        *(
            Variant(f"{n}/{lr:g}", f"{n}, lr {lr:g}", at(n, lr), curve=n, x=lr)
            for n, own in (("none", rates), ("softmax", rates[1:6:2]))
            for lr in own
        ),
    ]


# --- what they are learned on -------------------------------------------------------------------


def _on_data(share: float | None = None, skills: tuple[str, ...] = ()) -> Make:
    """Other data, for always the same number of steps: those of our own setting."""

    def make(stages: Stages, seed: int) -> Soup:
        p = stages.profile
        usual = len(p.skills) * max(1, round(p.alphas.share * p.n_train))
        steps = math.ceil(p.alphas.epochs * usual / p.alphas.batch_size)
        options = stages.preset_options("ours") | {"max_steps": steps}
        return learned(stages, seed, rows=stages.alpha_rows(seed, share, skills), options=options)

    return make


def _of_data(stages: Stages) -> list[Variant]:
    usual = stages.profile.alphas.share
    return [
        replace(OUR_CAT, curve="share", x=usual),
        *(
            Variant(f"share_{s:g}", f"{100 * s:g} % of the data", _on_data(s), curve="share", x=s)
            for s in SHARES
            if s != usual
        ),
        *(
            Variant(f"only_{name}", f"only the data of {name}", _on_data(skills=(name,)))
            for name in stages.profile.skills
        ),
    ]


# --- random LoRAs in place of skills ------------------------------------------------------------


def _replaced(which: Iterable[int], draw: Callable[[LoRA, int], LoRA]) -> Make:
    """Alphas learned as ours, with the LoRAs of some places replaced by random ones."""

    def make(stages: Stages, seed: int) -> Soup:
        loras = [
            draw(lora, 100 * seed + i) if i in which else lora
            for i, lora in enumerate(stages.loras(seed))
        ]
        return learned(stages, seed, loras=loras)

    return make


def _fresh(stages: Stages, seed: int) -> Soup:
    lora = stages.fresh_lora(seed).lora
    return Soup(lora, {"heldout_loss": stages.held_out_loss(lora)})


def _of_random_loras(stages: Stages) -> list[Variant]:
    first, second = stages.profile.skills[:2]
    every = range(len(stages.profile.skills))
    return [
        OUR_CAT,
        Variant("random_both", "both random", _replaced(every, gaussian_like)),
        Variant("random_first", f"{first} random", _replaced((0,), gaussian_like)),
        Variant("random_second", f"{second} random", _replaced((1,), gaussian_like)),
        Variant("permuted_both", "both with A shuffled", _replaced(every, permuted_like)),
        Variant("fresh", "new LoRA on the alpha data", _fresh),
    ]


# --- the plane of one alpha per LoRA ------------------------------------------------------------


def _of_surface(stages: Stages) -> list[Variant]:
    points = SURFACE_POINTS if stages.profile.name != "smoke" else 2
    step = (SURFACE_TO - SURFACE_FROM) / (points - 1)

    def at(first: float, second: float) -> Make:
        def make(stages: Stages, seed: int) -> Soup:
            soup = weighted(first, second)(stages, seed)
            return replace(soup, facts={"alpha_1": first, "alpha_2": second} | soup.facts)

        return make

    axis = [SURFACE_FROM + step * i for i in range(points)]
    return [
        Variant(f"{a:.2f} {b:.2f}", f"alphas {a:.2f} and {b:.2f}", at(a, b))
        for a in axis
        for b in axis
    ]


ALPHAS = Ablation("alphas", "where alphas start and how they are learned", _of_alphas, quick=True)
RANDOM_LORAS = Ablation(
    "random_loras", "random LoRAs in place of skills", _of_random_loras, quick=True
)
LR_SWEEP = Ablation("lr_sweep", "learning rate of the alphas", _of_rates)
ALPHA_DATA = Ablation("alpha_data", "data that the alphas are learned on", _of_data)
SURFACE = Ablation(
    "surface", "loss and solved problems over the two alphas", _of_surface, quick=True, items=100,
    seeds=1,
)  # fmt: skip
