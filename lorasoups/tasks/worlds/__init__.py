"""Generated worlds: the texts two small bases are pretrained on, and skills and targets in them.

A prompt is *content* followed by an instruction that names the *form* of the answer. The base
reads a grid of contents x forms with some cells held out. One skill teaches new content, another a
new form; the target asks for both at once.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

SPLITS = ("train", "validation", "test")
Form = tuple[Callable[..., str], tuple[str, str]]
"""How an answer is written, and what instructions call that."""
_CARRIERS = ("Use {}.", "Write {}.", "Answer with {}.", "Give {}.", "Reply in {}.")


def split_of(*parts: object) -> str:
    """``train``, ``validation`` or ``test`` (8 : 1 : 1) by the hash of what an item *is*.

    The split depends on no seed, wording, form or task, so no test item leaks into training.
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()[0] % 10
    return "train" if digest < 8 else SPLITS[digest - 7]


def prompted(content: str, form: Form, subject: object, rng: Random) -> dict[str, str]:
    """``prompt`` (content, an instruction that names the form, ``A:``) and ``answer``."""
    write, names = form
    prompt = f"{content} {rng.choice(_CARRIERS).format(rng.choice(names))}\nA:"
    return {"prompt": prompt, "answer": write(subject)}


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
