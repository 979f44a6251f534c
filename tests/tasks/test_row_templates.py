"""Templates: columns put in as they are, the first that says something, typed values."""

import pytest

from lorasoups.tasks.real.sets import FILTERS, fill

TEMPLATES = ("{instruction}\n\nInput:\n{input}", "{instruction}")


@pytest.mark.parametrize("nothing", ["", "  ", "<noinput>", "No input"])
def test_an_input_that_says_nothing_is_left_out(nothing):
    row = {"instruction": " Sort. ", "input": nothing}
    assert fill(TEMPLATES, row, {}) == "Sort."
    assert fill(TEMPLATES, {**row, "input": "3 1"}, {}) == "Sort.\n\nInput:\n3 1"


def test_braces_of_a_row_are_text():
    row = {"instruction": "Print {input}.", "input": "{instruction}"}
    assert fill(TEMPLATES, row, {}) == "Print {input}.\n\nInput:\n{instruction}"


def test_a_single_field_keeps_its_type_and_blanks_may_stay():
    assert fill(("{x}",), {"x": 2.5}, {}) == 2.5
    assert fill(("{x}.",), {"x": " a "}, {}, strip=False) == " a ."


def test_phrases_count_as_saying_something():
    row = {"answers": {"text": []}}
    assert fill(("{answers|first}", "{abstain}"), row, {"abstain": "none"}) == "none"
    assert fill(("{answers|first}", "{abstain}"), {"answers": {"text": ["x", "y"]}}, {}) == "x"


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("number", "answer3", 3),
        ("gsm8k_number", "so\n#### 1,200", 1200),
        ("worked", "1+1=<<1+1=2>>2\n#### 2", "1+1=2\nThe answer is 2."),
        ("quoted", "Say: 'a man's\n dog'. How many words contain 'e'.", "a man's\n dog"),
        ("quoted", "no sentence", "no sentence"),
        ("answerable", {"text": []}, "unanswerable"),
    ],
)
def test_filters(name, given, expected):
    assert FILTERS[name](given) == expected
