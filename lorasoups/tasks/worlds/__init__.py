"""Generated worlds: the texts two small bases are pretrained on, and skills and targets in them.

A prompt is *content* followed by an instruction that names the *form* of the answer. The base
reads a grid of contents x forms with some cells held out. One skill teaches new content, another a
new form; the target asks for both at once.
"""

import hashlib
from collections.abc import Callable
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
