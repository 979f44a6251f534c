"""encode_all: the usual rows, and labels on the prompt where an item asks for them."""

import pytest

from lorasoups.learning.skills import encode
from lorasoups.models.encoding import EVERYTHING, encode_all
from lorasoups.tasks.worlds.mini.tokenizer import build, vocabulary

ITEMS = [{"prompt": "a b c", "answer": "d e"}, {"prompt": "", "answer": "a d"}]


@pytest.fixture(scope="module")
def tokenizer():
    return build(vocabulary(["a b c d e"]))


@pytest.mark.parametrize("most", [4, 512])
def test_without_a_wish_it_is_what_training_encodes(tokenizer, most):
    assert encode_all(tokenizer, ITEMS, most) == encode(tokenizer, ITEMS, most)


def test_loss_on_everything_changes_labels_only(tokenizer):
    usual = encode(tokenizer, ITEMS)
    mixed = encode_all(tokenizer, [{**ITEMS[0], "train_on": EVERYTHING}, ITEMS[1]])
    assert [row["input_ids"] for row in mixed] == [row["input_ids"] for row in usual]
    assert mixed[0]["labels"] == mixed[0]["input_ids"] and -100 in usual[0]["labels"]
    assert mixed[1] == usual[1]
