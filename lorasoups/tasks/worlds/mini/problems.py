"""A problem - a number and a chain of operations on it - how it is told, as named operations or as
a story whose verbs hide them, and the forms its answer can take."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from lorasoups.tasks.worlds import Form, split_of
from lorasoups.tasks.worlds.mini import WORDS

OPS, VARIABLES = "+-*/", "abcd"
PEOPLE, ITEMS = WORDS["people"].split(), WORDS["items"].split()
NUMBER_WORDS = WORDS["new"]["number_words"]
STORIES = ("known", "new", "unseen")
EXPLICIT = ("steps", "formal", "phrase", "ledger")
SMALL_LIMIT = 100  # small problems are mental arithmetic: two digits at most


@dataclass(frozen=True)
class Problem:
    """A chain ``start op n op n ...`` that never goes below zero and divides without remainder."""

    start: int
    steps: tuple[tuple[str, int], ...]  # one to three pairs (operation, number)

    def values(self) -> list[int]:
        """Running values: the start, then the value after each step."""
        values = [self.start]
        for op, n in self.steps:
            values.append(apply(op, values[-1], n))
        return values

    @property
    def answer(self) -> int:
        """The value after the last step."""
        return self.values()[-1]

    @property
    def split(self) -> str:
        """Decided by the numbers and operations alone (see `split_of`)."""
        return split_of(self.start, self.steps)


def apply(op: str, a: int, b: int) -> int:
    """``a op b`` in whole numbers; ``/`` is exact by construction."""
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[op]


def _magnitude(rng: Random, low_digits: int, high_digits: int) -> int:
    """A number whose count of digits is uniform."""
    digits = rng.randint(low_digits, high_digits)
    return rng.randint(10 ** (digits - 1), 10**digits - 1)


def _step(rng: Random, value: int, op: str, large: bool) -> int | None:
    """A number for ``op`` that keeps the chain legal, or None where there is none."""
    if op == "+":
        return _magnitude(rng, 3, 5) if large else rng.randint(2, 40)
    if op == "-":
        top = min(value - 1, 99_999 if large else 60)
        low = 100 if large else 2
        return rng.randint(low, top) if top >= low else None
    if op == "*":
        big = large and rng.random() < 0.75
        return rng.randint(11, 999) if big else rng.randint(2, 3 if large else 9)
    choices = [n for n in range(2, 100 if large else 10) if value % n == 0 and value > n]
    return rng.choice(choices) if choices else None


def sample(rng: Random, split: str, large: bool, steps: int | None = None) -> Problem:
    """Draw a problem of a split with so many ``steps`` (default: one to three).

    ``large``: numbers of three to five digits; else every running value is below `SMALL_LIMIT`.
    """
    while True:
        value = start = _magnitude(rng, 3, 5) if large else rng.randint(3, 90)
        chain = []
        for _ in range(steps or rng.choice((1, 2, 2, 3))):
            op = rng.choice(OPS)
            n = _step(rng, value, op, large)
            if n is None:
                break
            value = apply(op, value, n)
            chain.append((op, n))
        else:
            problem = Problem(start, tuple(chain))
            if (large or max(problem.values()) < SMALL_LIMIT) and problem.split == split:
                return problem


def _expression(p: Problem) -> str:
    """`` ( 12 + 5 ) * 3`` with brackets around every step but the last."""
    text = f" {p.start}"
    for i, (op, n) in enumerate(p.steps):
        text = f" ({text} )" if i else text
        text += f" {op} {n}"
    return text


def _calls(p: Problem) -> str:
    """`` mul( add( 12, 5 ), 3 )``"""
    text = f" {p.start}"
    for op, n in p.steps:
        text = f" {WORDS['operations']['code'][op]}({text}, {n} )"
    return text


def _chain(start: str = "", step: str = "", end: str = "") -> Callable[[Problem], str]:
    """A form of three templates: for the start, for each step, for the end."""

    def write(p: Problem) -> str:
        values, text = p.values(), start.format(start=p.start)
        for i, (op, n) in enumerate(p.steps):
            names = {name: words[op] for name, words in WORDS["operations"].items()}
            names |= {"old": VARIABLES[i], "new": VARIABLES[i + 1]}
            text += step.format(op=op, n=n, left=values[i], right=values[i + 1], **names)
        return text + end.format(last=VARIABLES[len(p.steps)], answer=p.answer)

    return write


def _form(name: str, names: list[str], **templates: str) -> Form:
    writers = {"expression": _expression, "calls": _calls}
    return writers.get(name) or _chain(**templates), names


FORMS: dict[str, Form] = {name: _form(name, **words) for name, words in WORDS["forms"].items()}
BASE_FORMS = tuple(name for name in FORMS if name not in ("python", "line"))


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
