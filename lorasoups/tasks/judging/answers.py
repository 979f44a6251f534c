"""Scoring short answers: exact match and token F1 after SQuAD's normalisation, form, abstention.

Source: Rajpurkar et al. 2016 (arXiv 1606.05250), section 6.1, and 2018 (arXiv 1806.03822) for
questions that have no answer; issue 3, section 1.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lorasoups.errors import SoupError

ABSTAIN = "not in context"
BRACKETS = re.compile(r"\s*\[ [^\[\]]+ \]\s*")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, without punctuation, without the articles a, an, the; single spaces."""
    words = text.lower().translate(_PUNCTUATION).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def exact_match(text: str, gold: str) -> bool:
    """Whether both are the same after `normalise`."""
    return normalise(text) == normalise(gold)


def token_f1(text: str, gold: str) -> float:
    """Harmonic mean of precision and recall over the normalised words, in [0, 1].

    Where the answer or the gold answer abstains, it is 1 or 0: sharing the word "not" is no merit.
    """
    if is_abstention(text) or is_abstention(gold):
        return float(exact_match(text, gold))
    ours, theirs = normalise(text).split(), normalise(gold).split()
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def is_abstention(text: str) -> bool:
    """Whether the text says that the answer is not in the context, and nothing else."""
    return normalise(text) == ABSTAIN


def in_brackets(text: str) -> bool:
    """Whether the answer has the fixed short form: ``[ ... ]`` and nothing around it."""
    return BRACKETS.fullmatch(text) is not None


@dataclass(frozen=True)
class Answer:
    """One answer judged.

    Attributes:
        outcome: ``ok`` (exact match), ``wrong_form`` (wrong, and not in brackets), ``abstained``
            (wrongly), ``no_abstention`` (answered what cannot be answered), ``wrong``.
        value: the normalised answer.
        f1: token F1.
        right_form: in brackets.
    """

    outcome: str
    value: str
    f1: float
    right_form: bool


def judge(text: str, gold: str) -> Answer:
    """Judge one answer against its gold text. The gold answer is text, never empty."""
    right_form = in_brackets(text)
    if exact_match(text, gold):
        outcome = "ok"
    elif not right_form:
        outcome = "wrong_form"
    elif is_abstention(text):
        outcome = "abstained"
    else:
        outcome = "no_abstention" if is_abstention(gold) else "wrong"
    return Answer(outcome, normalise(text), token_f1(text, gold), right_form)


def score_answers(texts: Sequence[str], golds: Sequence[str]) -> list[Answer]:
    """Judge answers in order.

    Raises:
        SoupError: not as many golds as texts, or an empty gold.
    """
    if len(texts) != len(golds):
        raise SoupError(f"{len(texts)} answers, but {len(golds)} targets: give one per answer")
    if not all(normalise(gold) for gold in golds):
        raise SoupError("an empty gold answer: scoring; write what a right answer says")
    return [judge(text, gold) for text, gold in zip(texts, golds, strict=True)]


def abstention(values: Sequence[str], golds: Sequence[str]) -> dict[str, float | None]:
    """Precision and recall of abstaining.

    Args:
        values: answers (as text, or normalised).
        golds: gold answers; `ABSTAIN` where there is none.

    Returns:
        ``precision`` (of the abstentions, how many were right; None without any), ``recall`` (of
        the questions without an answer, how many were abstained on; None without any).
    """
    said, due = ([is_abstention(t) for t in ts] for ts in (values, golds))
    both = sum(s and d for s, d in zip(said, due, strict=True))
    return {
        "precision": both / sum(said) if any(said) else None,
        "recall": both / sum(due) if any(due) else None,
    }
