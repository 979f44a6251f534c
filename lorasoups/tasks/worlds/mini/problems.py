"""What a problem *is*, before it is told: a number and a chain of operations on it."""

import hashlib
from dataclasses import dataclass
from random import Random

OPS = ("+", "-", "*", "/")
SPLITS = ("train", "validation", "test")
SMALL_LIMIT = 100  # small problems are mental arithmetic: two digits at most


@dataclass(frozen=True)
class Problem:
    """A chain ``start op n op n ...`` that never goes below zero and divides without remainder.

    Attributes:
        start: the number the chain begins with.
        steps: one to three pairs (operation, number).
    """

    start: int
    steps: tuple[tuple[str, int], ...]

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
        """``train`` / ``validation`` / ``test``, decided by the numbers and operations alone.

        The split is a property of the problem, not of a list, so that no wording, form, skill or
        pretraining document can carry a test problem into training (8 : 1 : 1).
        """
        digest = hashlib.sha256(repr((self.start, self.steps)).encode()).digest()[0] % 10
        return "train" if digest < 8 else SPLITS[digest - 7]


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


def sample(rng: Random, split: str, large: bool, ops: str = "+-*/", steps: int | None = None):
    """Draw one problem of a split.

    Args:
        rng: source of randomness; the only one.
        split: one of `SPLITS`.
        large: numbers of three to five digits instead of one or two (issue 2: "large numbers").
        ops: operations to draw from.
        steps: number of steps; drawn from 1..3 when None.

    Returns:
        A `Problem`; small ones stay below `SMALL_LIMIT` in every running value.
    """
    while True:
        value = start = _magnitude(rng, 3, 5) if large else rng.randint(3, 90)
        chain = []
        for _ in range(steps or rng.choice((1, 2, 2, 3))):
            op = rng.choice(ops)
            n = _step(rng, value, op, large)
            if n is None:
                break
            value = apply(op, value, n)
            chain.append((op, n))
        else:
            problem = Problem(start, tuple(chain))
            if (large or max(problem.values()) < SMALL_LIMIT) and problem.split == split:
                return problem
