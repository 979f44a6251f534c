"""Ablations of the skills: their training length, their rank, and how many go into the soup.

Numbers written backward or digit by digit were tried as third skill first: DATA-MIX of the three
solved none of the target then, so that nothing could be compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from lorasoups.study.ablations.alphas import CAT, Ablation, Soup, Variant, learned, weighted
from lorasoups.study.stages import Stages

RANKS = (2, 8, 32)
LENGTHS = (0.125, 0.25, 0.5, 1.0)
THIRD, FOURTH = "aside", "line"
SUM = partial(weighted, weight=1.0)


def same_alphas(stages: Stages, **changes) -> Stages:
    """A variant of the study whose alphas keep the setting that was chosen for the study itself."""
    other = stages.variant(**changes)
    other.grid = stages.grid
    return other


def with_skills(stages: Stages, skills: tuple[str, ...]) -> Stages:
    """The same study with other skills."""
    return same_alphas(stages, skills=skills)


def with_rank(stages: Stages, r: int) -> Stages:
    """The same study with skills of rank r; lora_alpha grows with it, so that the scale stays."""
    training = stages.profile.training
    lora_alpha = training.lora_alpha // training.r * r
    return same_alphas(stages, training=replace(training, r=r, lora_alpha=lora_alpha))


def with_length(stages: Stages, share: float) -> Stages:
    """The same study with a share of the training steps of every skill."""
    p = stages.profile
    by_skill = {
        skill: changes | ({"steps": int(changes["steps"] * share)} if "steps" in changes else {})
        for skill, changes in p.by_skill.items()
    }
    training = replace(p.training, steps=int(p.training.steps * share))
    return same_alphas(stages, training=training, by_skill=by_skill)


def _in(change: Callable[[Stages, object], Stages], value, make) -> Callable[[Stages, int], Soup]:
    """The soup that ``make`` gives in a changed study."""
    return lambda stages, seed: make(change(stages, value), seed)


def _sized(stages: Stages, change, values: Sequence[float], usual: float, word: str):
    """CAT, plain sum and one skill alone at each value of a size."""
    skill = stages.profile.skills[-1]

    def alone(stages: Stages, seed: int) -> Soup:
        return Soup(stages.skill(skill, seed).lora)

    lines = {"cat": ("CAT", learned), "sum": ("sum, weights 1.0", SUM)}
    lines["skill"] = (f"{skill} LoRA alone", alone)
    variants = []
    for value in values:
        for curve, (label, make) in lines.items():
            ours = curve == "cat" and value == usual
            name = CAT if ours else f"{curve}_{word}{value:g}"
            made = _in(change, value, make)
            variants.append(Variant(name, f"{label}, {word} {value:g}", made, curve, float(value)))
    return variants


def _of_ranks(stages: Stages) -> list[Variant]:
    usual = stages.profile.training.r
    ranks = RANKS if stages.profile.name != "smoke" else (2, usual)
    return _sized(stages, with_rank, ranks, usual, "r")


def _of_lengths(stages: Stages) -> list[Variant]:
    shares = LENGTHS if stages.profile.name != "smoke" else (0.5, 1.0)
    return _sized(stages, with_length, shares, 1.0, "steps x ")


def _of_more(stages: Stages) -> list[Variant]:
    """The target that needs two skills, with up to two more in the soup."""
    two, variants = stages.profile.skills, []
    for skills in (two, (*two, THIRD), (*two, THIRD, FOURTH)):
        k = len(skills)
        for curve, name, label, make in (
            ("cat", CAT if k == 2 else f"cat_k{k}", "CAT", learned),
            ("sum", f"sum_k{k}", "sum, weights 1.0", SUM),
            ("average", f"average_k{k}", "average", partial(weighted, weight=1 / k)),
        ):
            made = _in(with_skills, skills, make)
            variants.append(Variant(name, f"{label}, k = {k}", made, curve, k))
    return variants


def _of_three(stages: Stages) -> list[Variant]:
    """The target that needs three skills: all three, each pair, DATA-MIX."""

    def mix(stages: Stages, seed: int) -> Soup:
        return Soup(stages.data_mix("data_mix", seed).lora)

    three = (*stages.profile.skills, THIRD)
    lines = [
        (CAT, "CAT of three", learned),
        ("sum_k3", "sum of three, weights 1.0", SUM),
        ("average_k3", "average of three", partial(weighted, weight=1 / 3)),
        ("data_mix", "DATA-MIX of three", mix),
    ]
    variants = [Variant(name, label, _in(with_skills, three, make)) for name, label, make in lines]
    for left in three:
        pair = _in(with_skills, tuple(s for s in three if s != left), learned)
        variants.insert(-1, Variant(f"without_{left}", f"CAT without {left}", pair))
    return variants


LENGTH = Ablation("length", "training length of the skill LoRAs", _of_lengths)
RANK = Ablation("rank", "rank of the skill LoRAs", _of_ranks)
MORE = Ablation("k_skills", "more LoRAs in the soup than the task needs", _of_more)
_THREE = "a target that needs three skills"
THREE = Ablation("three_skills", _THREE, _of_three, target="hard_math_aside")
