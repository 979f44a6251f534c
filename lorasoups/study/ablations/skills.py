"""Ablations of the skills: their training length, their rank, and how many go into the soup.

Numbers written backward or digit by digit were tried as third skill first: DATA-MIX of the three
solved none of the target then, so that nothing could be compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from lorasoups.study.ablations.alphas import CAT, Ablation, Make, Soup, Variant, ours, weighted
from lorasoups.study.stages import Stages

RANKS = (2, 8, 32)
LENGTHS = (0.125, 0.25, 0.5, 1.0)
THIRD, FOURTH = "aside", "line"
TARGET_OF_THREE = "hard_math_aside"


def same_alphas(stages: Stages, **changes) -> Stages:
    """A variant of the study whose alphas keep the setting that was chosen for the study itself."""
    other = stages.variant(**changes)
    other.grid = stages.grid
    return other


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


def _sized(
    skill: str, resize: Callable[[Stages, float], Stages], values: Sequence[float], usual, word: str
) -> list[Variant]:
    """CAT, plain sum and one skill alone at each value of a size."""

    def at(value: float, make: Make) -> Make:
        return lambda stages, seed: make(resize(stages, value), seed)

    def single(stages: Stages, seed: int) -> Soup:
        return Soup(stages.skill(skill, seed).lora)

    ways = (
        ("cat", "CAT", ours),
        ("sum", "sum, weights 1.0", weighted(1.0)),
        ("skill", f"{skill} LoRA alone", single),
    )
    return [
        Variant(
            CAT if curve == "cat" and value == usual else f"{curve}_{word}{value:g}",
            f"{label}, {word} {value:g}",
            at(value, make),
            curve,
            float(value),
        )
        for value in values
        for curve, label, make in ways
    ]


def _of_ranks(stages: Stages) -> list[Variant]:
    usual = stages.profile.training.r
    ranks = RANKS if stages.profile.name != "smoke" else (2, usual)
    return _sized(stages.profile.skills[-1], with_rank, ranks, usual, "r")


def _of_lengths(stages: Stages) -> list[Variant]:
    shares = LENGTHS if stages.profile.name != "smoke" else (0.5, 1.0)
    return _sized(stages.profile.skills[-1], with_length, shares, 1.0, "steps x ")


def _of_skills(skills: tuple[str, ...], make: Make) -> Make:
    return lambda stages, seed: make(same_alphas(stages, skills=skills), seed)


def _of_more(stages: Stages) -> list[Variant]:
    """The target that needs two skills, with up to two more in the soup."""
    two, variants = stages.profile.skills, []
    for skills in (two, (*two, THIRD), (*two, THIRD, FOURTH)):
        k = len(skills)
        for curve, name, label, make in (
            ("cat", CAT if k == 2 else f"cat_k{k}", "CAT", ours),
            ("sum", f"sum_k{k}", "sum, weights 1.0", weighted(1.0)),
            ("average", f"average_k{k}", "average", weighted(1 / k)),
        ):
            made = _of_skills(skills, make)
            variants.append(Variant(name, f"{label}, k = {k}", made, curve, k))
    return variants


def _of_three(stages: Stages) -> list[Variant]:
    """The target that needs three skills: all three, each pair, DATA-MIX."""
    three = (*stages.profile.skills, THIRD)
    pairs = {left_out: tuple(s for s in three if s != left_out) for left_out in three}
    return [
        Variant(CAT, "CAT of three", _of_skills(three, ours)),
        Variant("sum_k3", "sum of three, weights 1.0", _of_skills(three, weighted(1.0))),
        Variant("average_k3", "average of three", _of_skills(three, weighted(1 / 3))),
        *(
            Variant(f"without_{left_out}", f"CAT without {left_out}", _of_skills(pair, ours))
            for left_out, pair in pairs.items()
        ),
        Variant("data_mix", "DATA-MIX of three", _of_skills(three, _mix)),
    ]


def _mix(stages: Stages, seed: int) -> Soup:
    return Soup(stages.data_mix("data_mix", seed).lora)


LENGTH = Ablation("length", "training length of the skill LoRAs", _of_lengths)
RANK = Ablation("rank", "rank of the skill LoRAs", _of_ranks)
MORE = Ablation("k_skills", "more LoRAs in the soup than the task needs", _of_more)
THREE = Ablation(
    "three_skills", "a target that needs three skills", _of_three, target=TARGET_OF_THREE
)
