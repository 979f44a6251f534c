"""How the texts of a task are judged, by name; what a judge returns is stored per item."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

from lorasoups.models import generation as evaluation
from lorasoups.tasks.judging import (
    answers,
    programs,
    sandbox,
    scoring,
)
from lorasoups.tasks.judging import (
    last_number as words,
)


def _programs(texts: Sequence[str], targets: Sequence) -> list[dict]:
    return [_line(t, v) for t, v in zip(texts, scoring.score(texts, targets), strict=True)]


def _words(texts: Sequence[str], targets: Sequence) -> list[dict]:
    return [_line(t, v) for t, v in zip(texts, scoring.score_words(texts, targets), strict=True)]


def _line(text: str, verdict: scoring.Verdict) -> dict:
    return {"text": text, "outcome": verdict.outcome, "value": repr(verdict.value)}


def _answers(texts: Sequence[str], targets: Sequence) -> list[dict]:
    return [
        {
            "text": text,
            "outcome": a.outcome,
            "value": a.value,
            "f1": a.f1,
            "right_form": a.right_form,
        }
        for text, a in zip(texts, answers.score_answers(texts, targets), strict=True)
    ]


@dataclass(frozen=True)
class Judge:
    """A way of judging.

    Attributes:
        judge: ``(texts, targets) -> dicts {text, outcome, value, ...}``; ``outcome`` is ``ok``
            where the answer is right; the means of further numbers go into ``extra``.
        code: modules whose source names the artifact.
        inputs: what else names it.
    """

    judge: Callable[[Sequence[str], Sequence], list[dict]]
    code: tuple[ModuleType, ...]
    inputs: dict


_NUMBERS = (evaluation, programs, sandbox, scoring, words)
JUDGES: dict[str, Judge] = {
    "program": Judge(_programs, _NUMBERS, {"words": False}),
    "words": Judge(_words, _NUMBERS, {"words": True}),
    "answer": Judge(_answers, (evaluation, answers), {"judge": "answer"}),
}
