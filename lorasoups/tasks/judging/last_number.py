"""The number that an answer in words ends in."""

import re

_LONGEST = 300  # characters; float64 ends near 1.8e308
_MINUS = str.maketrans({"\u2212": "-", "\u2013": "-", "\ufe63": "-", "\uff0d": "-"})
_BLANK = re.compile("[\u00a0\u2007\u2009\u202f]")
_MARK = re.compile(r"(?:\banswer\s+is\b\s*:?|\banswer\s*:|####)", re.IGNORECASE)
_SENTENCE = re.compile(r"(?:[^.\n]|\.(?=[0-9]))*")
_TITLE = "problem|question|exercise|example"
_RUN_ON = re.compile(rf"(?im)^\s*(?:Q:|###\s)|\b(?:{_TITLE})\s*#?[0-9]*\s*:")
_LABEL = re.compile(rf"\b(?:step|{_TITLE}|line)\s*#?[0-9]+", re.IGNORECASE)
_PROGRAM = re.compile(r"\bdef[ \t]+\w+[ \t]*\(")
_GROUPED = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?:\.[0-9]{3}){2,}|[0-9]{1,3}(?: [0-9]{3}){2,}"
_PLAIN = r"[0-9]+(?:_[0-9]+)*"
_WHOLE = rf"(?:{_GROUPED}|{_PLAIN})(?![0-9])"
_NUMBER = re.compile(
    # a sign counts unless something stands right before it, as in "5-3" or "a-3"
    rf"(?P<sign>(?<![0-9A-Za-z_)\]])[-+])?[$\u20ac\u00a3]?(?P<inner>(?<=[$\u20ac\u00a3])-)?"
    rf"(?:(?P<top>{_PLAIN})/(?P<bottom>{_PLAIN})(?![0-9/])"
    rf"|(?P<whole>{_WHOLE})(?P<part>\.[0-9]+)?(?P<power>[eE][-+]?[0-9]+)?"
    rf"|(?P<only>(?<![0-9])\.[0-9]+)(?P<power2>[eE][-+]?[0-9]+)?)"
)


def last_number(text: str) -> float | int | None:
    """The number that a worked answer ends in.

    After an announcement ("The answer is 18", "#### 18") it is the first number ("The answer is
    2 * 9 = 18": the first after the last equals sign), else the last number before the text runs
    on into another problem. Thousands separators, unicode minus, scientific notation, simple
    fractions and a leading dot are understood; ``5-3`` ends in 3; a percent sign is ignored (GSM8K
    writes 25 for 25 %); labels such as "Step 2" and non-ASCII digits do not count.

    Returns an int where the number is whole and written without exponent, else a float; None
    without a number, or where the text holds a program: its last literal is no answer.
    """
    if _PROGRAM.search(text):
        return None
    text = _BLANK.sub(" ", text.translate(_MINUS))
    if mark := _MARK.search(text):
        sentence = _SENTENCE.match(text, mark.end())
        equals = text.rfind("=", mark.end(), sentence.end())
        if number := _NUMBER.search(text, max(mark.end(), equals + 1)):
            return _value(number)
    run_on = _RUN_ON.search(text)
    text = text[: run_on.start() or None] if run_on else text
    numbers = list(_NUMBER.finditer(_LABEL.sub(" ", text)))
    return _value(numbers[-1]) if numbers else None


def _value(number: re.Match) -> float | int | None:
    negative = (number["sign"] or "").startswith("-") or number["inner"]
    if len(number[0]) > _LONGEST:
        return None
    if number["top"]:
        bottom = int(number["bottom"])
        value = int(number["top"]) / bottom if bottom else None
    elif number["only"]:
        value = float(number["only"] + (number["power2"] or ""))
    else:
        whole = re.sub(r"[,._ ]", "", number["whole"])
        rest = (number["part"] or "") + (number["power"] or "")
        value = float(whole + rest) if rest else int(whole)
    return -value if negative and value is not None else value
