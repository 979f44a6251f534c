"""Verdicts on numbers: PAL's rule, programs, numbers in words."""

import math
from decimal import Decimal

import pytest

from lorasoups.errors import SoupError
from lorasoups.tasks.judging.judges import matches, score, score_words
from lorasoups.tasks.judging.last_number import last_number

# value, target, right
RULES = [
    (3, 3.0, True),
    (3.0009, 3.0, True),
    (3.0011, 3.0, False),
    (3, 3.0004, True),
    (-3, 3.0, False),
    (2**53 + 1, float(2**53), False),  # float64 alone would not see the difference
    (9_867_630.0005, 9_867_630.0, True),
    (9_867_630.5, 9_867_630.0, False),
    (10**9 + 1, 1e9, False),
    (0, 2.0107e-06, True),
    (math.nan, 3.0, False),
    (math.inf, 3.0, False),
    (10**400, 3.0, False),
    (10**400, 0.5, False),
    (True, 1.0, True),
    ("42", 42.0, True),
    (" 42.0 ", 42.0, True),
    ("nan", 42.0, False),
    (Decimal("0.1"), 0.1, True),
    (17, 17, True),
    (17.0, 17, True),
]


@pytest.mark.parametrize(("value", "target", "right"), RULES)
def test_rules(value, target, right):
    assert matches(value, target) is right


def program(expression):
    return f"def solution():\n    return {expression}\n"


def test_score_runs_extracts_and_compares():
    texts = [program(text) for text in ("2 + 3", "2 + 4", "1 / 0", "[5]", "(", "'5'", "5.1")]
    texts += ["five", "import numpy\n" + program("5")]
    verdicts = score(texts, [5.0] * len(texts))
    assert [v.status for v in verdicts] == [
        "ok", "wrong", "exception", "bad_type", "syntax", "ok", "wrong", "no_solution", "refused",
    ]  # fmt: skip
    assert [v.value for v in verdicts[:3]] == [5, 6, None] and verdicts[5].value == "5"
    assert "division" in verdicts[2].detail and verdicts[0].detail == ""


def test_scoring_in_another_order_changes_no_verdict():
    texts = [program(str(i)) for i in range(40)]
    targets = [float(i - i % 3 % 2) for i in range(40)]
    forward = score(texts, targets)
    backward = score(texts[::-1], targets[::-1])
    assert forward == backward[::-1]


@pytest.mark.parametrize("target", [None, math.nan, math.inf, "5", True])
def test_a_target_that_is_no_number_is_refused(target):
    with pytest.raises(SoupError, match="item 1"):
        score([program("5")] * 2, [5.0, target])


def test_as_many_targets_as_answers():
    with pytest.raises(SoupError, match="2 answers, but 1 targets"):
        score_words(["5", "6"], [5.0])


NUMBERS = [
    ("The answer is 51.", 51),
    (" 12 + 5 = 17. 17 * 3 = 51. The answer is 51.", 51),
    ("The answer is -51.", -51),
    ("The answer is: $1,234.50", 1234.5),
    ("The answer is 2 * 9 = 18 dollars. Then 7.", 18),
    ("The answer is 3.5 = 3.5. Next", 3.5),
    ("#### 1,234", 1234),
    ("so 17", 17),
    ("5-3", 3),
    ("1e6.", 1e6),
    ("3.2e+07", 3.2e7),
    ("1.5e-3", 1.5e-3),
    ("2.0107e-06", 2.0107e-06),
    ("3/4", 0.75),
    ("3/0", None),
    (".5", 0.5),
    ("costs $.05", 0.05),
    ("\u22125", -5),
    ("-$5", -5),
    ("$-5", -5),
    ("x = -3", -3),
    ("10 - 3", 3),
    ("1.000.000", 1_000_000),
    ("1.5.", 1.5),
    ("1 234 567", 1_234_567),
    ("12\u202f345\u202f678", 12_345_678),
    ("1_000", 1000),
    ("1,234,567.25", 1_234_567.25),
    ("1,2,3", 3),
    ("10 minutes. (Step 2)", 10),
    ("18. Problem 7: Tom has 20", 18),
    ("The answer is 18. Problem 7: ... The answer is 20.", 18),
    ("18\n\nQ: Tom has 20", 18),
    ("18\n### Instruction:\n20", 18),
    ("25%", 25),
    ("\u0661\u0662", None),
    ("18</s>", 18),
    ("no number", None),
    ("", None),
    ("The answer is unknown", None),
    ("def solution():\n    return 20", None),
    ("9" * 5000, None),
    ("1/" + "9" * 5000, None),
]


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_last_number(text, number):
    found = last_number(text)
    assert found == number
    assert type(found) is type(number)


def test_score_words():
    texts = ["The answer is 17.", "The answer is 18.", "no idea", program("17")]
    verdicts = score_words(texts, [17] * 4)
    assert [v.status for v in verdicts] == ["ok", "wrong", "no_solution", "no_solution"]
    assert [v.value for v in verdicts] == [17, 18, None, None]
