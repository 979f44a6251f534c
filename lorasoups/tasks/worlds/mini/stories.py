"""How a problem is told: as named operations, or as a story whose verbs hide them."""

from random import Random

from lorasoups.tasks.worlds.mini import WORDS
from lorasoups.tasks.worlds.mini.problems import Problem

PEOPLE, ITEMS = WORDS["people"].split(), WORDS["items"].split()
NUMBER_WORDS = WORDS["new"]["number_words"]
STORIES = ("known", "new", "unseen")
EXPLICIT = ("steps", "formal", "phrase", "ledger")


def tell(p: Problem, rng: Random, wording: str) -> str:
    """Tell a problem and ask its question, in one line.

    ``wording`` is of `STORIES` (``known`` to the base, ``new``: taught by the math skill,
    ``unseen`` in training), of `EXPLICIT` (``Start with 12. Add 5.``), ``tank`` or ``bus``.
    """
    words = WORDS[wording]
    names = {"P": rng.choice(PEOPLE), "i": rng.choice(ITEMS)} if wording in STORIES else {}
    parts = [_pick(words["openings"], rng).format(n=p.start, **names)]
    for op, n in p.steps:
        in_words = words.get("number_words", {}).get(f"{op} {n}")
        parts.append(_pick(in_words or words[op], rng).format(n=n, **names))
    question = _pick(words.get("questions", ""), rng).format(**names)
    if wording == "phrase":  # What is 12 plus 5, then times 3?
        return f"{parts[0]} {', then '.join(parts[1:])}{question}"
    return " ".join([*parts, question]).rstrip()


def _pick(options: str | list[str], rng: Random) -> str:
    return options if isinstance(options, str) else rng.choice(options)
