"""Controls and ablations of notebook 07: variants of one study that differ in one thing.

All variants are tested on the same items; every ablation writes one results file.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product

from tqdm import tqdm

from lorasoups.errors import Diverged, SoupError
from lorasoups.learning.random_loras import gaussian_like, permuted_like
from lorasoups.lora.lora import LoRA
from lorasoups.lora.merging import merge
from lorasoups.study.collect import CAT, Collector
from lorasoups.study.methods import random_alphas
from lorasoups.study.stages import Stages

DRAWS = 3
RATES = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 1.0)
SHARES = (0.001, 0.01, 0.05, 0.25, 1.0)
SURFACE_TO, SURFACE_POINTS = 1.6, 9
RANKS, LENGTHS = (2, 8, 32), (0.125, 0.25, 0.5, 1.0)
THIRD, FOURTH = "aside", "line"  # with a harder third skill DATA-MIX solves nothing to compare


@dataclass(frozen=True)
class Soup:
    """What a variant gives: an adapter (None: its training diverged) and facts about it."""

    lora: LoRA | None
    facts: dict[str, float] = field(default_factory=dict)


Make = Callable[[Stages, int], Soup]  # of the stages and a seed


@dataclass(frozen=True)
class Variant:
    """One line of an ablation, with its ``name`` in the results file."""

    name: str
    label: str
    make: Make
    curve: str = ""  # which line of a figure it belongs to; "" for a single bar
    x: float | None = None  # where on the figure's axis


@dataclass(frozen=True)
class Ablation:
    """What is varied, for the results file ``name``."""

    name: str
    title: str
    variants: Callable[[Stages], Sequence[Variant]]
    target: str = ""  # another target than the study's
    items: int = 0  # only so many problems of every test; 0: all


def run_ablation(stages: Stages, name: str, progress: bool = True) -> dict:
    """Evaluate one of `ABLATIONS` on hard math; write ``data/results/<profile>/<name>.json``.

    ``progress`` shows a bar on stderr. Raises SoupError for an unknown name.
    """
    if name not in ABLATIONS:
        raise SoupError(f"unknown ablation {name!r}: choose from {', '.join(ABLATIONS)}")
    ablation, p = ABLATIONS[name], stages.profile
    task = ablation.target or p.target
    tests = (p.n_test | {task: p.n_test[p.target]}).items()
    n_test = {test: min(n, ablation.items or n) for test, n in tests}
    if (task, n_test) != (p.target, p.n_test):
        stages = same_alphas(stages, target=task, n_test=n_test)
    variants, collector = ablation.variants(stages), Collector(stages, name)
    jobs = [(seed, v) for seed in stages.seeds for v in variants]
    for seed, variant in tqdm(jobs, desc=name, disable=not progress, mininterval=10):
        soup = variant.make(stages, seed)
        verdicts = [{"outcome": "diverged"}] * len(stages.items(task))
        if soup.lora is not None:
            verdicts = stages.answers(task, *stages.changed(soup.lora))
        collector.add(task, variant.name, seed, verdicts, label=variant.label, extra=soup.facts)
    places = {v.name: {"curve": v.curve, "x": v.x} for v in variants if v.curve}
    config = {"ablation": ablation.title, "places": places}
    return collector.write(config=config, floors={})


def learned(
    stages: Stages, seed: int, *, options: dict | None = None,
    change_loras: Callable[[list[LoRA], int], list[LoRA]] = lambda loras, seed: loras,
    share: float = 0.0, skills: Sequence[str] = (), **changes,
) -> Soup:  # fmt: skip
    """Learn alphas and merge; what is not given is as in our own setting.

    ``changes`` replace options of `learn_alphas`; ``share`` and ``skills`` are those of
    `Stages.alpha_rows`. A training that diverges gives no adapter: all answers count as wrong.
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


def measured(stages: Stages, lora: LoRA, **facts: float) -> Soup:
    """An adapter with its held-out loss."""
    return Soup(lora, facts | {"heldout_loss": stages.held_out_loss(lora)})


def weighted(stages: Stages, seed: int, *, weight: float) -> Soup:
    """The exact sum with one weight for all LoRAs."""
    loras = stages.loras(seed)
    return measured(stages, merge(loras, "cat", weights=[weight] * len(loras)))


OUR_CAT = Variant(CAT, "CAT (ours)", learned)  # that all others are compared with
SUM = partial(weighted, weight=1.0)


def _random(stages: Stages, seed: int, draw: int) -> Soup:
    loras = stages.loras(seed)
    return Soup(merge(loras, "cat", weights=random_alphas(loras, 1000 * (draw + 1) + seed)))


def _best_of(stages: Stages, seed: int, normalise: str) -> Soup:
    """The grid's point of one normalisation with the least held-out skill loss."""
    points = [entry for entry in stages.grid if entry["normalise"] == normalise]
    best = min(points, key=lambda entry: entry["heldout_loss"])
    return learned(stages, seed, options=stages.alpha_options(best))


def _of_alphas(stages: Stages) -> list[Variant]:
    kinds = dict.fromkeys(point[0] for point in stages.profile.alphas.grid)
    average, draws = partial(weighted, weight=1 / len(stages.profile.skills)), range(DRAWS)
    return [
        OUR_CAT,
        Variant("uniform", "uniform, 1/k", average),
        Variant("ones", "all 1.0 (plain sum)", SUM),
        *(Variant(f"random_{d}", f"random, draw {d + 1}", partial(_random, draw=d)) for d in draws),
        Variant("lr0", "lr = 0", partial(learned, lr=0.0)),
        Variant("released", "released schedule", partial(learned, options={"preset": "released"})),
        *(Variant(f"best_{k}", f"learned, {k}", partial(_best_of, normalise=k)) for k in kinds),
        Variant("global", "one per LoRA", partial(learned, granularity="global")),
        Variant("layer", "one per layer and LoRA", partial(learned, granularity="layer")),
    ]


def _of_rates(stages: Stages) -> list[Variant]:
    rates = RATES if stages.profile.name != "smoke" else (1e-4, 1e-1)
    variants = [OUR_CAT]
    for kind, lr in [("none", lr) for lr in rates] + [("softmax", lr) for lr in rates[1:6:2]]:
        options = stages.alpha_options({"normalise": kind, "init": "uniform", "lr": lr})
        make = partial(learned, options=options)
        variants.append(Variant(f"{kind}/{lr:g}", f"{kind}, lr {lr:g}", make, kind, lr))
    return variants


def _of_data(stages: Stages) -> list[Variant]:
    """Other data, for always the same number of steps: those of our own setting."""
    p, usual = stages.profile, stages.profile.alphas.share
    rows = len(p.skills) * max(1, round(usual * p.n_train))
    data = partial(learned, max_steps=math.ceil(p.alphas.epochs * rows / p.alphas.batch_size))
    return [
        replace(OUR_CAT, curve="share", x=usual),
        *(Variant(f"share_{s:g}", f"{100 * s:g} % of the data", partial(data, share=s), "share", s)
          for s in SHARES if s != usual),
        *(Variant(f"only_{skill}", f"only the data of {skill}", partial(data, skills=(skill,)))
          for skill in p.skills),
    ]  # fmt: skip


def _replaced(draw: Callable[[LoRA, int], LoRA], places: Iterable[int]) -> Make:
    """CAT over LoRAs of which some are replaced by random ones."""

    def change(loras: list[LoRA], seed: int) -> list[LoRA]:
        return [draw(x, 100 * seed + i) if i in places else x for i, x in enumerate(loras)]

    return partial(learned, change_loras=change)


def _of_random_loras(stages: Stages) -> list[Variant]:
    skills, every = stages.profile.skills, range(len(stages.profile.skills))
    return [
        OUR_CAT,
        Variant("random_both", "both random", _replaced(gaussian_like, every)),
        Variant("random_first", f"{skills[0]} random", _replaced(gaussian_like, [0])),
        Variant("random_second", f"{skills[1]} random", _replaced(gaussian_like, [1])),
        Variant("permuted_both", "both with A shuffled", _replaced(permuted_like, every)),
        Variant("fresh", "new LoRA on the alpha data",
                lambda s, n: measured(s, s.fresh_lora(n).lora)),
    ]  # fmt: skip


def _at(stages: Stages, seed: int, alphas: tuple[float, float]) -> Soup:
    soup, p = merge(stages.loras(seed), "cat", weights=list(alphas)), stages.profile
    facts = {skill: stages.solved(soup, p.test_of(skill)) for skill in p.skills}
    return measured(stages, soup, alpha_1=alphas[0], alpha_2=alphas[1], **facts)


def _of_surface(stages: Stages) -> list[Variant]:
    """The plane of one alpha per LoRA: what each soup solves of the target and of every skill."""
    points = SURFACE_POINTS if stages.profile.name != "smoke" else 2
    axis = [SURFACE_TO * i / (points - 1) for i in range(points)]
    return [
        Variant(f"{a:.2f} {b:.2f}", f"alphas {a:.2f} and {b:.2f}", partial(_at, alphas=(a, b)))
        for a, b in product(axis, repeat=2)
    ]


def same_alphas(stages: Stages, **changes) -> Stages:
    """A variant of the study whose alphas keep the setting that was chosen for the study itself."""
    other = stages.variant(**changes)
    other.grid = stages.grid
    return other


def with_rank(stages: Stages, size: int) -> Stages:
    """The same study with skills of that rank; lora_alpha grows with it: the scale stays."""
    training = stages.profile.training
    lora_alpha = training.lora_alpha // training.r * size
    return same_alphas(stages, training=replace(training, r=size, lora_alpha=lora_alpha))


def with_length(stages: Stages, size: float) -> Stages:
    """The same study with a share of the training steps of every skill."""
    p = stages.profile
    steps = {skill: int(p.training_of(skill).steps * size) for skill in p.by_skill}
    by_skill = {skill: changes | {"steps": steps[skill]} for skill, changes in p.by_skill.items()}
    training = replace(p.training, steps=int(p.training.steps * size))
    return same_alphas(stages, training=training, by_skill=by_skill)


def _sized(stages: Stages, change: Callable[..., Stages], usual: float, values, word: str):
    """CAT, plain sum and one skill alone at each value of a size."""
    skill = stages.profile.skills[-1]
    lines = (
        ("cat", "CAT", learned),
        ("sum", "sum, weights 1.0", SUM),
        ("skill", f"{skill} LoRA alone", lambda s, seed: Soup(s.skill(skill, seed).lora)),
    )
    variants = []
    for value, (curve, label, make) in product(values, lines):
        name = CAT if curve == "cat" and value == usual else f"{curve}_{word}{value:g}"
        made = _in(partial(change, size=value), make)
        variants.append(Variant(name, f"{label}, {word} {value:g}", made, curve, float(value)))
    return variants


def _in(change: Callable[[Stages], Stages], make: Make) -> Make:
    """The soup that ``make`` gives in a changed study."""
    return lambda stages, seed: make(change(stages), seed)


def _of_ranks(stages: Stages) -> list[Variant]:
    usual = stages.profile.training.r
    ranks = RANKS if stages.profile.name != "smoke" else (2, usual)
    return _sized(stages, with_rank, usual, ranks, "r")


def _of_lengths(stages: Stages) -> list[Variant]:
    shares = LENGTHS if stages.profile.name != "smoke" else (0.5, 1.0)
    return _sized(stages, with_length, 1.0, shares, "steps x ")


def _of_more(stages: Stages) -> list[Variant]:
    """The target that needs two skills, with up to two more in the soup."""
    two, variants = stages.profile.skills, []
    for skills in (two, (*two, THIRD), (*two, THIRD, FOURTH)):
        k, change = len(skills), partial(same_alphas, skills=skills)
        average = partial(weighted, weight=1 / k)
        lines = (("cat", "CAT", learned), ("sum", "sum, weights 1.0", SUM))
        for curve, label, make in (*lines, ("average", "average", average)):
            name = CAT if curve == "cat" and k == 2 else f"{curve}_k{k}"
            variants.append(Variant(name, f"{label}, k = {k}", _in(change, make), curve, k))
    return variants


def _of_three(stages: Stages) -> list[Variant]:
    """The target that needs three skills: all three, each pair, DATA-MIX."""
    three = (*stages.profile.skills, THIRD)
    pairs = {left: tuple(skill for skill in three if skill != left) for left in three}
    lines = [
        (CAT, "CAT of three", three, learned),
        ("sum_k3", "sum of three, weights 1.0", three, SUM),
        ("average_k3", "average of three", three, partial(weighted, weight=1 / 3)),
        *((f"without_{left}", f"CAT without {left}", pairs[left], learned) for left in three),
        ("data_mix", "DATA-MIX of three", three, lambda s, n: Soup(s.data_mix("data_mix", n).lora)),
    ]
    return [
        Variant(name, label, _in(partial(same_alphas, skills=skills), make))
        for name, label, skills, make in lines
    ]


ABLATIONS = {ablation.name: ablation for ablation in (
    Ablation("alphas", "where alphas start and how they are learned", _of_alphas),
    Ablation("random_loras", "random LoRAs in place of skills", _of_random_loras),
    Ablation("lr_sweep", "learning rate of the alphas", _of_rates),
    Ablation("alpha_data", "data that the alphas are learned on", _of_data),
    Ablation("length", "training length of the skill LoRAs", _of_lengths),
    Ablation("rank", "rank of the skill LoRAs", _of_ranks),
    Ablation("k_skills", "more LoRAs in the soup than the task needs", _of_more),
    Ablation("three_skills", "a target that needs three skills", _of_three, "hard_math_aside"),
    Ablation("surface", "loss and solved problems over the two alphas", _of_surface, "", 100),
)}  # fmt: skip
