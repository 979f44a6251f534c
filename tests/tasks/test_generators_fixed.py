"""The generators' texts never change: the committed bases were pretrained on them."""

import hashlib
from random import Random

import pytest
from pretrain import LANGUAGES

from lorasoups.tasks.worlds import SPLITS
from lorasoups.tasks.worlds.mini import tasks as mini
from lorasoups.tasks.worlds.pages import tasks as pages

WORLDS = {"mini": mini, "pages": pages}
# the first 200 items of each task: train, validation, test (questions on the manual: test)
ITEMS = {
    "mini/math": "3ad9d00f b6253d23 8fc1c529",
    "mini/code": "75a39403 77442525 4c6b89da",
    "mini/hard_math": "5576959a 52175f40 262626ed",
    "mini/hard_math_easy": "00e5fe2f a5746220 d18878c5",
    "mini/hard_math_unseen": "3a79f1e2 f9c5e897 f6842595",
    "mini/hard_math_shown": "2d35dbea a4e0a1d2 cd7eb904",
    "mini/math_forms": "e43fe1b6 d2f93616 7fac15e6",
    "mini/code_forms": "be6de7ca 11919b43 5d7abe00",
    "mini/aside": "aaa66cbd beb03951 f2c9d09b",
    "mini/line": "f506d8cf 2e756c68 6a492f82",
    "mini/hard_math_aside": "d125eba3 bbb97177 ccbf8ee2",
    "pages/answering": "364950df 4afecff4 d0aab6e1",
    "pages/manual": "5ee4baec 08b9a704 3b3b01e0",
    "pages/technical": "403f7194 90476619 543e4165",
    "pages/reading": "bbeb48ce 7617613c 907f28ac",
    "pages/technical_qa": "a2b5d713 cf1ebb12 0f990d13",
    "pages/technical_recall": "2298d122 7c8b586e f6a4983c",
    "pages/format_1": "82948463 047e4c7a 43036e7e",
    "pages/format_2": "e3dc3fc9 fe7a6563 3006f0a6",
    "pages/format_4": "b880ecb6 4c9dc7cf cb38b5e6",
    "pages/formats": "e04f3f84 158cacdd 721dedfd",
    "pages/manual_qa": "cec91dc2",
    "pages/manual_qa_unseen": "da74089d",
    "pages/manual_recall": "21a07667",
}
# the first 200,000 characters
CORPORA = {"mini": "b8fa1f3ee7b6e249", "pages": "222e27960fe009ff", "shots": "a07889a9d47e4147"}


def digest(texts):
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def test_every_task_is_recorded():
    assert set(ITEMS) == {
        f"{name}/{task}" for name, world in WORLDS.items() for task in world.TASKS
    }


@pytest.mark.parametrize("name", ITEMS)
def test_items_are_as_recorded(name):
    world, task = name.split("/")
    digests = ITEMS[name].split()
    for split, recorded in zip(SPLITS[-len(digests) :], digests, strict=True):
        items = WORLDS[world].dataset(task, split, 200, 0)
        fields = ("prompt", "answer", "target", "key", "view")
        texts = [repr([item.get(field) for field in fields]) for item in items]
        assert digest(texts)[:8] == recorded, split


@pytest.mark.parametrize("name", CORPORA)
def test_corpora_are_as_recorded(name):
    rng, text = Random("corpus"), ""
    while len(text) < 200_000:
        made = LANGUAGES[name].document(rng)
        text += "".join(map("".join, made if isinstance(made, list) else [made]))
    assert digest([text[:200_000]])[:16] == CORPORA[name]
