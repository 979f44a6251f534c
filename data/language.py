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
    # (prompt, continuation), several of them, or plain text: ("", text)
    document: Callable[[Random], tuple[str, str] | list[tuple[str, str]]]
    sample: Callable[[int, int], list[str]]  # (documents, seed) -> texts with every word in them
    example: Callable[..., dict]  # (content, form, rng, split) -> prompt, answer, target
    grid: tuple[tuple[str, str], ...]  # the cells (content, form) that the corpus shows,
    held_out: frozenset[tuple[str, str]]  # and those it never shows
    steps: int  # of the committed base
    lr: float
    context: int = 256  # tokens of the longest text
    batch: int = 80  # documents of a step
    shown_example: Callable[..., dict] | None = None  # as `example`, after two others of its form
