"""Forms of an answer that no base knows, and whether an answer is written in one.

A skill can be a *form*: the answer X as ``<<X>>;zorb`` or ``flim("X", number of its words)``. A
sentence, "The answer is X.", is the ordinary form beside them.
"""

import re
from collections.abc import Sequence

from lorasoups.errors import SoupError
from lorasoups.tasks.judging.answers import normalise

FORMS = {
    "sentence": ("Answer in a sentence.", "The answer is {answer}."),
    "zorb": ("Answer as a zorb record.", "<<{answer}>>;zorb"),
    "flim": ("Answer as a flim call.", 'flim("{answer}", {words})'),
}
"""Form -> how it is asked for, and its layout."""
_PATTERNS = {
    form: re.escape(layout).replace(r"\{answer\}", "(.*)").replace(r"\{words\}", r"\d+")
    for form, (_, layout) in FORMS.items()
}


def write(form: str, answer: str) -> str:
    """The answer in a form."""
    words = str(len(answer.split()))
    return FORMS[form][1].replace("{answer}", answer).replace("{words}", words)


def read(text: str) -> tuple[str, str]:
    """Form and answer of a text's first line; two empty texts if it is in none of the forms.

    The number in ``flim`` belongs to the layout: any will do.
    """
    line = text.strip().partition("\n")[0].strip()
    matches = ((form, re.fullmatch(pattern, line)) for form, pattern in _PATTERNS.items())
    return next(((form, match[1]) for form, match in matches if match), ("", ""))


def judge(text: str, golds: Sequence[str], form_alone: bool = False) -> dict:
    """The verdict on one answer: ``{text, outcome, value, right_form}``.

    ``golds`` are right answers, each in the form that was asked for. ``outcome`` is ``wrong_form``
    (another form than theirs), ``wrong`` or ``ok``: equal to one of them after SQuAD's
    normalisation, or with ``form_alone`` in their form. SoupError for golds that are in no form.
    """
    asked = [read(gold) for gold in golds]
    if not asked or not all(form for form, _ in asked):
        raise SoupError(f"gold answers {golds!r} are in no form: write them with forms.write")
    form, value = read(text)
    right_form = form == asked[0][0]
    right = form_alone or normalise(value) in {normalise(answer) for _, answer in asked}
    outcome = "wrong_form" if not right_form else "ok" if right else "wrong"
    return {"text": text, "outcome": outcome, "value": value, "right_form": right_form}
