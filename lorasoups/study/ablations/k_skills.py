"""Three and four skills: LoRAs that the task does not need, and a task that needs three.

Numbers written backward or digit by digit were tried as third skill first: DATA-MIX of the three
solved none of the target then, so that nothing could be compared.
"""

from lorasoups.study.ablations.base import OURS, Ablation, Soup, Variant, ours, weighted
from lorasoups.study.stages import Experiment

THIRD, FOURTH = "aside", "line"
TARGET_OF_THREE = "hard_math_aside"


def with_skills(experiment: Experiment, *skills: str) -> Experiment:
    """The same study with other skills; the alphas keep the setting that was chosen for two."""
    other = experiment.variant(skills=skills)
    other.sweep = experiment.sweep
    return other


def _of(skills: tuple[str, ...], make):
    return lambda experiment, seed: make(with_skills(experiment, *skills), seed)


def _mix(experiment: Experiment, seed: int) -> Soup:
    return Soup(experiment.skill("data_mix", seed).lora)


def _two(experiment: Experiment) -> list[Variant]:
    """The target that needs two skills, with up to two more in the soup."""
    own = experiment.profile.skills
    found = []
    for skills in (own, (*own, THIRD), (*own, THIRD, FOURTH)):
        k = len(skills)
        name = OURS if k == 2 else f"cat_k{k}"
        found += [
            Variant(name, f"CAT, k = {k}", _of(skills, ours), "cat", k),
            Variant(
                f"sum_k{k}", f"sum, weights 1.0, k = {k}", _of(skills, weighted(1.0)), "sum", k
            ),
            Variant(
                f"average_k{k}", f"average, k = {k}", _of(skills, weighted(1 / k)), "average", k
            ),
        ]
    return found


def _three(experiment: Experiment) -> list[Variant]:
    """The target that needs three skills: all three, each pair, DATA-MIX."""
    own = (*experiment.profile.skills, THIRD)
    pairs = [tuple(s for s in own if s != left_out) for left_out in own]
    return [
        Variant(OURS, "CAT of three", _of(own, ours)),
        Variant("sum_k3", "sum of three, weights 1.0", _of(own, weighted(1.0))),
        Variant("average_k3", "average of three", _of(own, weighted(1 / 3))),
        *(
            Variant(f"without_{left}", f"CAT without {left}", _of(pair, ours))
            for left, pair in zip(own, pairs, strict=True)
        ),
        Variant("data_mix", "DATA-MIX of three", _of(own, _mix)),
    ]


MORE = Ablation("k_skills", "more LoRAs in the soup than the task needs", _two)
THREE = Ablation("three_skills", "a target that needs three skills", _three, target=TARGET_OF_THREE)
