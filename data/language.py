"""What the pretraining of an embedded base needs to know of its language."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Language:
    """A generated language to pretrain a base on (see `pretrain`)."""

    what: str  # one line for the card
    corpus: str  # for the card: the generator's module and what it writes
    version: int  # of the generator
    document: Callable[[Random], tuple[str, str]]  # (prompt, continuation); plain text: ("", text)
    sample: Callable[[int, int], list[str]]  # (documents, seed) -> texts with every word in them
    example: Callable[..., dict]  # (content, form, rng, split) -> prompt, answer, target
    grid: tuple[tuple[str, str], ...]  # the cells (content, form) that the corpus shows,
    held_out: frozenset[tuple[str, str]]  # and those it never shows
    steps: int  # of the committed base
    lr: float
