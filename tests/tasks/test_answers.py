"""Short answers: SQuAD's normalisation, form, abstention."""

import pytest

from lorasoups.errors import SoupError
from lorasoups.tasks.judging.answers import (
    abstention,
    judge,
    normalise,
    token_f1,
)
from lorasoups.tasks.judging.judges import JUDGES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" [ red ]", "red"), ("The Red.", "red"), ("a  red\tlamp!", "red lamp"), ("", ""),
        ("an apple", "apple"), ("theory", "theory"), ("it's", "its"),
    ],
)  # fmt: skip
def test_normalise(text, expected):
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        ("red", "red", 1.0), ("red lamp", "lamp", 2 / 3), ("blue", "red", 0.0),
        ("red red", "red", 2 / 3), ("the color of it is red", "red", 1 / 3),
        ("not in context", "not in context", 1.0), ("not red", "not in context", 0.0),
        ("not in context", "context", 0.0),
    ],
)  # fmt: skip
def test_token_f1(text, gold, expected):
    assert token_f1(text, gold) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "gold", "outcome"),
    [
        (" [ red ]", "red", "ok"), ("red", "red", "ok"), (" [ blue ]", "red", "wrong"),
        (" it is red", "red", "wrong_form"), ("", "red", "wrong_form"),
        (" [ not in context ]", "red", "abstained"),
        (" [ not in context ]", "not in context", "ok"),
        (" [ red ]", "not in context", "no_abstention"), (" [ red ] ]", "blue", "wrong_form"),
    ],
)  # fmt: skip
def test_outcomes(text, gold, outcome):
    assert judge(text, gold)["outcome"] == outcome


def test_form_and_substance_are_two_things():
    forms = [judge(text, "red")["right_form"] for text in ("red", " [ blue ]", " [ red ] .")]
    assert forms == [False, True, False]


def test_abstention_precision_and_recall():
    golds = ["not in context", "not in context", "red", "blue"]
    said = ["not in context", "red", "not in context", "not in context"]
    assert abstention(said, golds) == {"precision": 1 / 3, "recall": 1 / 2}
    assert abstention(["red"], ["red"]) == {"precision": None, "recall": None}


def test_bad_targets_are_refused():
    with pytest.raises(SoupError, match="2 answers, but 1"):
        JUDGES["answer"].judge(["a", "b"], ["a"])
    with pytest.raises(SoupError, match="empty gold"):
        JUDGES["answer"].judge(["a"], ["the"])


def test_judges_say_ok_only_where_it_is_right():
    program = JUDGES["program"].judge(["def solution():\n    return 3"] * 2, [3, 4])
    words = JUDGES["words"].judge([" the answer is 3"] * 2, [3, 4])
    answers = JUDGES["answer"].judge([" [ red ]"] * 2, ["red", "blue"])
    for lines in (program, words, answers):
        assert [line["outcome"] == "ok" for line in lines] == [True, False]
        assert all({"text", "outcome", "value"} <= line.keys() for line in lines)
