"""Generated worlds: the texts two small bases are pretrained on, and skills and targets in them.

A prompt is *content* followed by an instruction that names the *form* of the answer. The base
reads a grid of contents x forms with some cells held out. One skill teaches new content, another a
new form; the target asks for both at once.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

SPLITS = ("train", "validation", "test")
_CARRIERS = ("Use {}.", "Write {}.", "Answer with {}.", "Give {}.", "Reply in {}.")


def split_of(*parts: object) -> str:
    """``train``, ``validation`` or ``test`` (8 : 1 : 1) by the hash of what an item *is*.

    The split depends on no seed, wording, form or task, so no test item leaks into training.
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()[0] % 10
    return "train" if digest < 8 else SPLITS[digest - 7]


def instruct(content: str, names: Sequence[str], rng: Random) -> str:
    """The prompt: content, an instruction that calls the form by one of its names, ``A:``."""
    return f"{content} {rng.choice(_CARRIERS).format(rng.choice(names))}\nA:"


@dataclass(frozen=True)
class Language:
    """A generated language to pretrain a base on (see `pretrain`).

    Attributes:
        what: one line for the card.
        corpus: the module of the generator and what it writes, for the card.
        version: of the generator.
        document: ``rng -> (prompt, continuation)``; plain text has an empty prompt.
        sample: ``(documents, seed) -> texts`` that hold every word of the language.
        example: ``(content, form, rng, split) -> {prompt, answer, target}`` of one grid cell.
        grid, held_out: the cells (content, form) that the corpus shows, and those it never shows.
        steps, lr: of the committed base.
    """

    what: str
    corpus: str
    version: int
    document: Callable[[Random], tuple[str, str]]
    sample: Callable[[int, int], list[str]]
    example: Callable[..., dict]
    grid: tuple[tuple[str, str], ...]
    held_out: frozenset[tuple[str, str]]
    steps: int
    lr: float
