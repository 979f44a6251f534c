"""The four composed tasks on real data: disjoint parts, stand-ins, templates."""

import datasets
import pytest
from mirrors import FORMATS, SQUAD, write_split, write_whole_mirror
from pretrain import word_tokenizer

from lorasoups.errors import SoupError
from lorasoups.tasks.real.hub import MIRROR_VARIABLE
from lorasoups.tasks.real.sets import SPLITS, catalogue
from lorasoups.tasks.real.source import RealTasks
from lorasoups.tasks.real.tasks import USE_PYTHON, items, render


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_whole_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.fixture
def mirror(whole, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, str(whole))
    return whole


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer(["### Instruction: Response Cell lives grows ends It"])


def questions(task, split):
    return [item["question"] for item in items(task, split)[0]]


def test_a_mirror_serves_every_task_of_every_study(mirror):
    for name, task in catalogue().tasks.items():
        for split in task.splits:
            found, files = items(name, split)
            assert found and files, (name, split)
            assert all({"question", "answer", "target", "id"} <= set(item) for item in found)
            assert len({item["id"] for item in found}) == len(found)
            if task.judge and split == "test":
                assert all(item["target"] not in (None, "") for item in found)
            if split != "test":
                assert all(item["answer"] for item in found)


def test_programs_are_asked_for_and_the_question_is_kept(mirror):
    for task in ("gsm8k_program", "mawps", "gsm_hard"):
        item = items(task, "test")[0][1]
        assert item["question"] == f"{item['source_question'].strip()}\n\n{USE_PYTHON}"
        assert item["answer"] == "" and isinstance(item["target"], int | float)


# --- prompt formats -----------------------------------------------------------------------------


def sentences(found):
    return {item["question"].split("'")[1] for item in found}


def test_formats_share_no_sentence_between_training_and_any_test(mirror):
    parts = {split: sentences(items("format_1", split)[0]) for split in SPLITS}
    target = sentences(items("formats", "test")[0])
    assert target == {"bird 5 isn", "bird 200 isn", "bird 201 isn"}
    assert len(set.union(*parts.values(), target)) == sum(map(len, parts.values())) + len(target)
    assert sum(map(len, parts.values())) == 99  # sentence 5 is the test's


def test_a_sentence_is_in_the_same_part_in_every_format(mirror):
    for split in SPLITS:
        own = [sentences(items(f"format_{i}", split)[0]) for i in (1, 2, 4)]
        assert own[0] == own[1] == own[2]


def test_blanks_belong_to_a_format(mirror):
    item = items("formats", "test")[0][0]
    assert item["question"].endswith("Answer \n\n") and item["target"] == 1
    assert item["compare"] == "bird 5 isn't here"
    assert [len(m) and m.sum() for m in RealTasks(None, 1).views("formats", 12).values()] == [
        12, 3, 3, 3, 3,
    ]  # fmt: skip


# --- reading ------------------------------------------------------------------------------------


def test_the_released_example_is_not_in_the_test(mirror):
    assert [item["id"] for item in items("bioasq", "test")[0]] == [
        f"bioasq-rc/test/{i}" for i in (1, 2, 3)
    ]


def test_squad_abstains_where_there_is_no_answer(mirror):
    for item in items("squad", "train")[0]:
        answerable = int(item["id"].rpartition("/")[2]) % 3 != 0
        assert item["view"] == ("answerable" if answerable else "unanswerable")
        assert (item["answer"] == "Not in context") != answerable
        assert item["target"] == item["answer"]


def titles(split):
    return {int(item["id"].rpartition("/")[2]) % 30 for item in items("squad", split)[0]}


def test_a_squad_without_training_file_is_its_validation_split_by_title(mirror):
    parts = [titles(split) for split in SPLITS]
    assert all(parts) and sum(map(len, parts)) == len(set.union(*parts)) == 30
    info = items("squad", "train")[1][0]
    assert (info["split"], info["stand_in_for"]) == ("validation", SQUAD[0])


def test_a_mirror_with_both_files_needs_no_stand_in(tmp_path, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, str(write_whole_mirror(tmp_path)))
    row = {"context": "C", "answers": {"text": ["x"]}}
    rows = [{**row, "title": f"T{i}", "question": f"{i}?"} for i in range(40)]
    leak = {**row, "title": "Title 3", "question": "of the test?"}
    write_split(tmp_path, SQUAD, "train", [*rows, leak])
    found, files = items("squad", "train")
    assert [info["stand_in_for"] for info in files] == [None, None]
    assert len(found) + len(items("squad", "validation")[0]) == 40  # the leak is left out
    assert len(items("squad", "test")[0]) == 240


# --- stand-ins ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "served", "instead_of"),
    [
        ("metamath", "openai/gsm8k", "meta-math/MetaMathQA"),
        ("alpaca", "tatsu-lab/alpaca", "yahma/alpaca-cleaned"),
        ("code", "sahil2801/CodeAlpaca-20k", "sahil2801/CodeAlpaca-20k"),
        ("math", "openai/gsm8k", None),
    ],
)
def test_every_stand_in_is_recorded(mirror, tokenizer, task, served, instead_of):
    tasks = RealTasks(tokenizer, 10_000)
    tasks.items(task, "train", 3)
    assert {(d["repo"], d["stand_in_for"]) for d in tasks.data()} == {(served, instead_of)}


def test_a_set_and_its_stand_in_may_both_be_used(mirror, tokenizer):
    tasks = RealTasks(tokenizer, 10_000)
    tasks.items("math", "train", 3), tasks.items("metamath", "train", 3)
    assert len(tasks.data()) == 4  # two files, each in two roles


def test_the_hub_s_own_set_is_asked_for_without_a_mirror(monkeypatch):
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    asked = []

    def load(repo, config, split):
        asked.append((repo, config, split))
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(SoupError, match="unreachable"):
        items("alpaca", "train")
    assert asked == [("yahma/alpaca-cleaned", "default", "train")]
    with pytest.raises(SoupError, match="not on the Hub, only in a mirror: local/bioasq-rc"):
        items("bioasq", "test")


# --- templates ----------------------------------------------------------------------------------


def test_the_released_template_differs_in_training_and_trains_on_everything(mirror, tokenizer):
    tasks = RealTasks(tokenizer, 10_000, template="released")
    trained, tested = (tasks.items("math", split, 1)[0] for split in ("train", "test"))
    assert trained["train_on"] == "everything"
    assert "\n                ### Response:\n" in trained["prompt"]
    assert "\n### Response:\n" in tested["prompt"] and trained["question"] in trained["prompt"]
    usual = RealTasks(tokenizer, 10_000).items("math", "train", 1)[0]
    assert "train_on" not in usual and usual["answer"] == trained["answer"]


def test_an_unknown_template_is_refused(tokenizer):
    with pytest.raises(SoupError, match="no such template: 'mine'"):
        RealTasks(tokenizer, 10, template="mine")
    assert render(tokenizer, "") == ""


def test_the_report_covers_what_is_used(mirror, tokenizer):
    tasks = RealTasks(tokenizer, 10_000)
    found = tasks.decontamination({"math": 50, "code": 20}, {"gsm_hard": 6})
    assert [(p["train"], p["train_rows"], p["test_items"]) for p in found["pairs"]] == [
        ("math", 50, 6), ("code", 20, 6),
    ]  # fmt: skip


def test_missing_files_of_a_set_without_stand_in_are_named(tmp_path, monkeypatch):
    write_split(tmp_path, FORMATS, "train", [{"format": 1}])
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path))
    with pytest.raises(SoupError, match="column 'instruction' is missing"):
        items("format_1", "train")
    with pytest.raises(SoupError, match="the mirror has no local/biology-qa"):
        items("biology_qa", "test")
