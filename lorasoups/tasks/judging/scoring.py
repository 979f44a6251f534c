"""Verdicts: is what a program returned, or what a text ends in, the target?

The primary rule is PAL's (Gao et al. 2022, ``gsm_eval.py``): ``abs(float(value) - target) < 1e-3``
in float64. Two further views are kept beside it, so that a table can say how much the rule
matters: ``close`` (relative 1e-6, for large targets where 1e-3 means equality) and ``strict``
(PAL's rule, but a bool, a text or a Decimal is no number).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from lorasoups.errors import SoupError
from lorasoups.results import stats
from lorasoups.tasks.judging.last_number import last_number
from lorasoups.tasks.judging.programs import extract_program
from lorasoups.tasks.judging.sandbox import Limits, run_programs

TOLERANCE = 1e-3
RELATIVE = 1e-6

Number = int | float | bool | Decimal | str


@dataclass(frozen=True)
class Verdict:
    """One answer judged.

    Attributes:
        outcome: ``ok`` (right), ``wrong``, or one of the sandbox's other statuses.
        value: what the answer gave, None where it gave nothing.
        program: the program that was run, None for an answer in words.
        detail: one line on what went wrong, "" otherwise.
        close: right by ``math.isclose(value, target, rel_tol=1e-6, abs_tol=1e-3)``.
        strict: right by PAL's rule and returned as a plain int or float.
        coerced: the value was made a number by ``float`` (a bool, a text, a Decimal).
    """

    outcome: str
    value: Number | None = None
    program: str | None = None
    detail: str = ""
    close: bool = False
    strict: bool = False
    coerced: bool = False


def matches(value: Number, target: int | float) -> bool:
    """PAL's rule. Whole numbers (an int or a float without fraction) are compared exactly.

    NaN and infinity match nothing, nor does what ``float`` cannot take.
    """
    if isinstance(value, int) and float(target).is_integer():
        return int(value) == int(target)
    number = _float(value)
    return math.isfinite(number) and abs(number - target) < TOLERANCE


def is_close(value: Number, target: int | float) -> bool:
    """The secondary rule: relative 1e-6, or absolute 1e-3 near zero."""
    number = _float(value)
    return math.isfinite(number) and math.isclose(
        number, target, rel_tol=RELATIVE, abs_tol=TOLERANCE
    )


def _float(value: Number) -> float:
    try:
        return float(value)
    except (OverflowError, ValueError):
        return math.nan


def score(
    texts: Sequence[str],
    targets: Sequence[int | float],
    *,
    limits: Limits | None = None,
    workers: int = 2,
) -> list[Verdict]:
    """Extract, run and judge the program in each text. The targets stay outside the sandbox.

    Args:
        texts: new tokens of each answer, decoded.
        targets: finite numbers, in the texts' order.
        limits, workers: see `sandbox.run_programs`.

    Raises:
        SoupError: as many targets as texts are needed, each a finite number.
    """
    _check(texts, targets)
    programs = [extract_program(text) for text in texts]
    outcomes = run_programs(programs, limits=limits, workers=workers)
    return [
        _judge(outcome.value, target, program)
        if outcome.status == "ok"
        else Verdict(outcome.status, None, program, outcome.detail)
        for outcome, target, program in zip(outcomes, targets, programs, strict=True)
    ]


def score_words(texts: Sequence[str], targets: Sequence[int | float]) -> list[Verdict]:
    """Judge answers in words by the number that each ends in; ``no_solution`` without a number.

    Raises:
        SoupError: as many targets as texts are needed, each a finite number.
    """
    _check(texts, targets)
    values = [last_number(text) for text in texts]
    return [
        Verdict("no_solution", detail="no number in the answer")
        if value is None
        else _judge(value, target, None)
        for value, target in zip(values, targets, strict=True)
    ]


def _judge(value: Number, target: int | float, program: str | None) -> Verdict:
    right = matches(value, target)
    coerced = type(value) not in (int, float)
    return Verdict(
        outcome="ok" if right else "wrong",
        value=value,
        program=program,
        close=is_close(value, target),
        strict=right and not coerced,
        coerced=coerced,
    )


def _check(texts: Sequence[str], targets: Sequence[int | float]) -> None:
    if len(texts) != len(targets):
        raise SoupError(
            f"{len(texts)} answers, but {len(targets)} targets: scoring; give one target per answer"
        )
    for i, target in enumerate(targets):
        number = isinstance(target, int | float) and not isinstance(target, bool)
        if not number or not math.isfinite(_float(target)):
            raise SoupError(
                f"target {target!r} is not a finite number: item {i}; score only tasks with numbers"
            )


def summary(verdicts: Sequence[Verdict], level: float = 0.95) -> dict:
    """Counts of a results row.

    Returns:
        ``n``, ``correct``, ``ci`` (Wilson), ``accuracy``, ``outcomes`` (how often each, sorted),
        and ``extra``: right answers under the two further views, how many verdicts differ from
        the primary rule under each, and how many values were coerced.

    Raises:
        SoupError: no verdicts.
    """
    n = len(verdicts)
    correct = sum(v.outcome == "ok" for v in verdicts)
    return {
        "n": n,
        "correct": correct,
        "ci": list(stats.wilson(correct, n, level)),
        "accuracy": correct / n,
        "outcomes": dict(sorted(Counter(v.outcome for v in verdicts).items())),
        "extra": {
            "close": sum(v.close for v in verdicts),
            "strict": sum(v.strict for v in verdicts),
            "differ_close": sum(v.close != (v.outcome == "ok") for v in verdicts),
            "differ_strict": sum(v.strict != (v.outcome == "ok") for v in verdicts),
            "coerced": sum(v.coerced for v in verdicts),
        },
    }
