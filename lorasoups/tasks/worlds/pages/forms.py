"""Forms of an answer. Five belong to the base's language, ``brackets`` is what a skill teaches."""

from collections.abc import Callable
from random import Random

from lorasoups.tasks.worlds.pages.facts import RELATIONS, Fact

ABSTAIN = "not in context"


def sentence(f: Fact) -> str:
    """`` The color of the crow is black.``"""
    return " " + RELATIONS[f.relation].statements[0].format(e=f.entity, v=f.value)


def value_first(f: Fact) -> str:
    """`` black is the color of the crow.``"""
    return f" {f.value} is the {RELATIONS[f.relation].noun} of the {f.entity}."


def pair(f: Fact) -> str:
    """`` color : black``"""
    return f" {RELATIONS[f.relation].noun} : {f.value}"


def arrow(f: Fact) -> str:
    """`` crow > black``"""
    return f" {f.entity} > {f.value}"


def clause(f: Fact) -> str:
    """`` it is black``"""
    return f" it is {f.value}"


def brackets(f: Fact | None) -> str:
    """`` [ black ]``; of None (there is no such fact): `` [ not in context ]``."""
    return f" [ {f.value if f else ABSTAIN} ]"


BASE_FORMS: dict[str, Callable[[Fact], str]] = {
    "sentence": sentence,
    "value_first": value_first,
    "pair": pair,
    "arrow": arrow,
    "clause": clause,
}
FORM_NAMES = {
    "sentence": ("a sentence", "plain words"),
    "value_first": ("the value first", "value first"),
    "pair": ("a pair", "noun and value"),
    "arrow": ("an arrow", "arrows"),
    "clause": ("a clause", "few words"),
    "brackets": ("brackets", "a box"),
}
CARRIERS = ("Use {}.", "Write {}.", "Answer with {}.", "Give {}.", "Reply in {}.")


def instruct(question: str, form: str, rng: Random) -> str:
    """Question, then the instruction that names the form, then the answer mark."""
    return f"{question} {rng.choice(CARRIERS).format(rng.choice(FORM_NAMES[form]))}\nA:"
