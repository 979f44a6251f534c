"""Chunks of plain text: no word lost, none too long, cut where a reader would pause."""

import random

import pytest

from lorasoups.tasks.real.tasks import chunks

TEXT = "One two. Three four five.\n\nSix.\n \nSeven eight nine ten eleven."


@pytest.mark.parametrize("most", [1, 2, 3, 5, 6, 11, 100])
def test_no_word_is_lost_and_no_chunk_too_long(most):
    found = chunks(TEXT, most)
    assert " ".join(found).split() == TEXT.split()
    assert max(len(chunk.split()) for chunk in found) <= most


def test_any_text_survives():
    rng = random.Random(0)
    for _ in range(200):
        text = "".join(rng.choice("ab. \n!") for _ in range(rng.randrange(80)))
        found = chunks(text, rng.randrange(1, 6))
        assert " ".join(found).split() == text.split()


def test_paragraphs_stay_together_then_sentences():
    assert chunks(TEXT, 6) == ["One two. Three four five.\n\nSix.", "Seven eight nine ten eleven."]
    assert chunks(TEXT, 3)[:2] == ["One two.", "Three four five."]


def test_an_empty_text_has_none():
    assert chunks(" \n\n ", 5) == []
