"""Short answers: exact match and token F1 after SQuAD's normalisation, form, abstention.

Source: Rajpurkar et al. 2016 (arXiv 1606.05250), section 6.1; for abstention, arXiv 1806.03822.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

from lorasoups.errors import SoupError

ABSTAIN = "not in context"
_BRACKETS = re.compile(r"\s*\[ [^\[\]]+ \]\s*")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, without punctuation, without the articles a, an, the; single spaces."""
    words = text.lower().translate(_PUNCTUATION).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def token_f1(text: str, gold: str) -> float:
    """Harmonic mean of precision and recall over the normalised words, in [0, 1].

    Where the answer or the gold answer abstains, it is 1 or 0: sharing the word "not" is no merit.
    """
    words, gold_words = normalise(text).split(), normalise(gold).split()
    if is_abstention(text) or is_abstention(gold):
        return float(words == gold_words)
    shared = sum((Counter(words) & Counter(gold_words)).values())
    return 2 * shared / (len(words) + len(gold_words)) if shared else 0.0


def is_abstention(text: str) -> bool:
    """Whether the text says that the answer is not in the context, and nothing else."""
    return normalise(text) == ABSTAIN


def judge(text: str, gold: str) -> dict:
    """The verdict on one answer: ``{text, outcome, value, f1, right_form}``.

    ``outcome`` is ``ok`` (exact match), ``wrong_form`` (wrong and not in brackets), ``abstained``
    (wrongly), ``no_abstention`` (answered what cannot be answered) or ``wrong``; ``value`` the
    normalised answer; ``right_form`` whether it is ``[ ... ]`` and nothing around it. Raises
    SoupError for an empty gold answer.
    """
    if not normalise(gold):
        raise SoupError(f"an empty gold answer {gold!r}: write what a right answer says")
    right_form = _BRACKETS.fullmatch(text) is not None
    if normalise(text) == normalise(gold):
        outcome = "ok"
    elif not right_form:
        outcome = "wrong_form"
    elif is_abstention(text):
        outcome = "abstained"
    else:
        outcome = "no_abstention" if is_abstention(gold) else "wrong"
    return {"text": text, "outcome": outcome, "value": normalise(text),
            "f1": token_f1(text, gold), "right_form": right_form}  # fmt: skip


def abstention(values: Sequence[str], golds: Sequence[str]) -> dict[str, float | None]:
    """How well answers abstain; `ABSTAIN` is the gold answer of what cannot be answered.

    ``precision`` is the share of the abstentions that are right, ``recall`` that of the questions
    without an answer that are abstained on; None where there are none.
    """
    said, due = ([is_abstention(t) for t in texts] for texts in (values, golds))
    both = sum(s and d for s, d in zip(said, due, strict=True))
    return {
        "precision": both / sum(said) if any(said) else None,
        "recall": both / sum(due) if any(due) else None,
    }
