"""Rank and training length of the skills: what the soup is made of."""

from dataclasses import replace

from lorasoups.study.ablations.base import OURS, Ablation, Soup, Variant, ours, weighted
from lorasoups.study.stages import Experiment

RANKS = (2, 8, 32)
LENGTHS = (0.125, 0.25, 0.5, 1.0)


def with_rank(experiment: Experiment, r: int) -> Experiment:
    """The same study with skills of rank r; lora_alpha is 2 r, so that LoRA's scale stays."""
    training = experiment.profile.training
    ratio = training.lora_alpha // training.r
    return _variant(experiment, training=replace(training, r=r, lora_alpha=ratio * r))


def with_length(experiment: Experiment, share: float) -> Experiment:
    """The same study with a share of the training steps of every skill."""
    p = experiment.profile
    by_skill = {
        name: own | ({"steps": int(own["steps"] * share)} if "steps" in own else {})
        for name, own in p.by_skill.items()
    }
    training = replace(p.training, steps=int(p.training.steps * share))
    return _variant(experiment, training=training, by_skill=by_skill)


def _variant(experiment: Experiment, **changes) -> Experiment:
    """Alphas keep the setting that was chosen at the study's own size."""
    other = experiment.variant(**changes)
    other.sweep = experiment.sweep
    return other


def _points(experiment: Experiment, sized, values: tuple, own: float, word: str) -> list[Variant]:
    def at(value: float, make):
        return lambda e, seed: make(sized(e, value), seed)

    def single(e: Experiment, seed: int) -> Soup:
        return Soup(e.skill(e.profile.skills[-1], seed).lora)

    found = []
    for value in values:
        for curve, label, make in (
            ("cat", "CAT", ours),
            ("sum", "sum, weights 1.0", weighted(1.0)),
            ("skill", f"{experiment.profile.skills[-1]} LoRA alone", single),
        ):
            name = OURS if curve == "cat" and value == own else f"{curve}_{word}{value:g}"
            found.append(
                Variant(name, f"{label}, {word} {value:g}", at(value, make), curve, float(value))
            )
    return found


def _ranks(experiment: Experiment) -> list[Variant]:
    own = experiment.profile.training.r
    values = RANKS if experiment.profile.name != "smoke" else (2, own)
    return _points(experiment, with_rank, values, own, "r")


def _lengths(experiment: Experiment) -> list[Variant]:
    values = LENGTHS if experiment.profile.name != "smoke" else (0.5, 1.0)
    return _points(experiment, with_length, values, 1.0, "steps x ")


RANK = Ablation("rank", "rank of the skill LoRAs", _ranks)
LENGTH = Ablation("length", "training length of the skill LoRAs", _lengths)
