"""Templates over a row's columns: ``{column}`` or ``{column|filter}``.

Values are put in as they are: braces in a row's text are text.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lorasoups.tasks.real.gsm_hard import gsm8k_answer

FIELD = re.compile(r"\{(\w+)(?:\|(\w+))?\}")
NOTHING = ("", "<noinput>", "no input")  # what "there is no input" looks like in the Alpaca sets
_CALCULATOR = re.compile(r"<<[^<>]*>>")
_QUOTED = re.compile(r"'(.*)'\. How many", re.DOTALL)


def worked_answer(answer: str) -> str:
    """A GSM8K answer without calculator marks, ending in ``The answer is N.``."""
    steps, _, number = _CALCULATOR.sub("", answer).rpartition("####")
    return f"{steps.strip()}\nThe answer is {number.strip()}."


def _first(answers: Mapping) -> str:
    """SQuAD's first answer; "" where the passage has none."""
    return answers["text"][0] if answers["text"] else ""


def _answerable(answers: Mapping) -> str:
    return "answerable" if answers["text"] else "unanswerable"


def _number(answer: str) -> int:
    """3, of ``answer3``."""
    return int(re.search(r"-?\d+", answer)[0])


def _quoted(instruction: str) -> str:
    """The sentence that task161 asks about."""
    found = _QUOTED.search(instruction)
    return found[1] if found else instruction


FILTERS: dict[str, Callable[[Any], Any]] = {
    "worked": worked_answer,
    "gsm8k_number": gsm8k_answer,
    "first": _first,
    "answerable": _answerable,
    "number": _number,
    "quoted": _quoted,
}
"""What a template may do to a column before it is put in."""


def fields(template: str) -> list[tuple[str, str]]:
    """Columns and filters ("" for none) of a template, in order."""
    return FIELD.findall(template)


def value(row: Mapping, column: str, name: str = "") -> Any:
    """A column of a row, through a filter. A value of another type than the filter takes fails
    with what Python raises; `fill` is told the row only."""
    return FILTERS[name](row[column]) if name else row[column]


def fill(
    templates: str | Sequence[str], row: Mapping, phrases: Mapping[str, str], strip: bool = True
) -> Any:
    """Fill in a row.

    Args:
        templates: one template, or several: the first whose columns all say something (are not
            empty, nor a way of writing "no input"), else the last.
        row: by column.
        phrases: texts that templates may name like a column; they always say something.
        strip: texts lose the blanks at their ends before they are put in.

    Returns:
        Text; or the very value (e.g. a number) where the template is one field and nothing else.
    """
    templates = [templates] if isinstance(templates, str) else list(templates)

    def look_up(column: str, name: str) -> Any:
        found = phrases[column] if column in phrases else value(row, column, name)
        return found.strip() if strip and isinstance(found, str) else found

    for template in templates[:-1]:
        if all(_says_something(look_up(*field)) for field in fields(template)):
            break
    else:
        template = templates[-1]
    if whole := FIELD.fullmatch(template):
        return look_up(whole[1], whole[2] or "")
    return FIELD.sub(lambda found: str(look_up(found[1], found[2] or "")), template)


def _says_something(found: Any) -> bool:
    return not isinstance(found, str) or found.strip().lower() not in NOTHING
