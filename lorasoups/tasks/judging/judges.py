"""The judges by name, and whether the number that an answer gives is the target.

Numbers follow PAL's rule (Gao et al. 2022, arXiv 2211.10435, ``gsm_eval.py``):
``abs(float(value) - target) < 1e-3`` in float64.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lorasoups.errors import SoupError
from lorasoups.tasks.judging import answers, forms
from lorasoups.tasks.judging.last_number import last_number
from lorasoups.tasks.judging.programs import extract_program
from lorasoups.tasks.judging.sandbox import Number, Outcome, run_programs

TOLERANCE = 1e-3
Verdicts = Callable[[Sequence[str], Sequence], list[dict]]


def matches(value: Number, target: int | float) -> bool:
    """PAL's rule, but an int is compared exactly with a whole target.

    NaN and infinity match nothing, nor does what ``float`` cannot take.
    """
    if isinstance(value, int) and float(target).is_integer():
        return int(value) == int(target)
    try:
        return abs(float(value) - target) < TOLERANCE
    except (OverflowError, ValueError):
        return False


def score(texts: Sequence[str], targets: Sequence[int | float]) -> list[Outcome]:
    """Run the program in each text (new tokens, decoded) and compare what it returns.

    The outcomes are the sandbox's, which never sees the targets, but ``wrong`` for another number.
    Raises SoupError for not as many targets as texts, or one that is no finite number.
    """
    _check(texts, targets)
    return _compared(run_programs([extract_program(text) for text in texts]), targets)


def score_words(texts: Sequence[str], targets: Sequence[int | float]) -> list[Outcome]:
    """Judge each text by its last number; ``no_solution`` without one. Raises as `score`."""
    _check(texts, targets)
    values = [last_number(text) for text in texts]
    return _compared([Outcome("no_solution" if v is None else "ok", v) for v in values], targets)


def _compared(outcomes: list[Outcome], targets: Sequence[int | float]) -> list[Outcome]:
    return [
        replace(outcome, status="wrong")
        if outcome.status == "ok" and not matches(outcome.value, target)
        else outcome
        for outcome, target in zip(outcomes, targets, strict=True)
    ]


def _check(texts: Sequence[str], targets: Sequence[int | float]) -> None:
    _same_length(texts, targets)
    for i, target in enumerate(targets):
        number = isinstance(target, int | float) and not isinstance(target, bool)
        if not number or not abs(target) <= sys.float_info.max:  # nor is NaN
            raise SoupError(f"target {target!r} of item {i} is not a finite number: mend its task")


def _same_length(texts: Sequence[str], targets: Sequence) -> None:
    if len(texts) != len(targets):
        raise SoupError(f"{len(texts)} answers, but {len(targets)} targets: give one per answer")


def _numbers(score: Callable) -> Verdicts:
    return lambda texts, targets: [
        {"text": text, "outcome": outcome.status, "value": repr(outcome.value)}
        for text, outcome in zip(texts, score(texts, targets), strict=True)
    ]


def _each(judge: Callable[..., dict], **options) -> Verdicts:
    def judged(texts: Sequence[str], golds: Sequence) -> list[dict]:
        _same_length(texts, golds)
        return [judge(text, gold, **options) for text, gold in zip(texts, golds, strict=True)]

    return judged


@dataclass(frozen=True)
class Judge:
    """A way of judging.

    ``judge(texts, targets)`` returns a dict per item: ``text``, ``outcome`` (``ok`` where it is
    right), ``value``, and numbers whose means go into a result's ``extra``.
    """

    judge: Verdicts
    inputs: dict  # what identifies it in the key of a stored evaluation


JUDGES = {
    "program": Judge(_numbers(score), {"words": False}),
    "words": Judge(_numbers(score_words), {"words": True}),
    "answer": Judge(_each(answers.judge), {"judge": "answer"}),
    "form": Judge(_each(forms.judge, form_alone=True), {"judge": "form"}),
    "form_answer": Judge(_each(forms.judge), {"judge": "form_answer"}),
}
