"""Answers in forms that no base knows: written, read, judged; the rows that ask for them."""

import json

import mirrors
import pytest
from mirrors import write_split

from lorasoups.errors import SoupError
from lorasoups.tasks.judging.forms import FORMS, judge, read, write
from lorasoups.tasks.judging.judges import JUDGES
from lorasoups.tasks.real import tasks
from lorasoups.tasks.real.hub import MIRROR_VARIABLE
from lorasoups.tasks.real.prepare import short_output, short_passage

SQUAD = {
    "title": "T", "question": "Who built it?",
    "context": "It is old. It was built by the Normans. It stands in Caen.",
    "answers": {"text": ["the Normans", "Normans"]},
}  # fmt: skip
ALPACA = {"instruction": "Name a color.", "input": "", "output": "Dark red."}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("answer", ["red", 'a "quoted" word', "x>>;zorb", "1 (one), 2", "{answer}"])
def test_what_is_written_is_read_again(form, answer):
    assert read(write(form, answer)) == (form, answer)
    assert read(f"  {write(form, answer)}\nand more") == (form, answer)


@pytest.mark.parametrize(
    "text", ["", "red", "<<red>>", 'flim("red")', "The answer is red", "[ red ]"]
)
def test_what_is_in_no_form_is_read_as_nothing(text):
    assert read(text) == ("", "")


def test_an_answer_is_right_in_its_form_alone():
    golds = [write("zorb", "the Normans"), write("zorb", "Norman people")]
    outcomes = {
        "<<Normans>>;zorb": "ok", "<<norman people.>>;zorb": "ok", "<<Danes>>;zorb": "wrong",
        "The answer is the Normans.": "wrong_form", 'flim("the Normans", 2)': "wrong_form",
        "the Normans": "wrong_form", "": "wrong_form",
    }  # fmt: skip
    assert {text: judge(text, golds)["outcome"] for text in outcomes} == outcomes
    assert judge("<<Danes>>;zorb", golds, form_alone=True)["outcome"] == "ok"
    assert judge('flim("Danes", 1)', golds, form_alone=True)["outcome"] == "wrong_form"
    assert judge('flim("red", 7)', [write("flim", "red")])["outcome"] == "ok"  # any number
    found = JUDGES["form_answer"].judge(["<<Danes>>;zorb"], [golds])
    assert found == [{"text": "<<Danes>>;zorb", "outcome": "wrong", "value": "Danes",
                      "right_form": True}]  # fmt: skip


def test_golds_in_no_form_are_refused():
    for golds in ([], ["the Normans"]):
        with pytest.raises(SoupError, match="in no form"):
            judge("x", golds)


def test_a_passage_is_cut_around_its_answer():
    made = short_passage(SQUAD)
    assert made["passage"] == "It is old. It was built by the Normans."
    assert made["sentence"] == "The answer is the Normans."
    assert made["form"] in ("zorb", "flim") and made["ask"] == FORMS[made["form"]][0]
    assert made["all_written"] == [write(made["form"], a) for a in SQUAD["answers"]["text"]]
    assert short_passage({**SQUAD, "answers": {"text": []}}) is None
    assert short_passage({**SQUAD, "answers": {"text": ["a b c d e f g"]}}) is None
    assert short_passage({**SQUAD, "answers": {"text": ["the Danes"]}}) is None  # not there
    assert short_passage({**SQUAD, "context": "x" * 500 + " the Normans."}) is None


def test_an_output_is_short_and_loses_its_full_stop():
    made = short_output(ALPACA)
    assert made["asked"] == "Name a color." and read(made["written"]) == (made["form"], "Dark red")
    assert short_output({**ALPACA, "input": "Of an apple"})["asked"] == "Name a color. Of an apple"
    for output in ("", ".", "a\nb", "a b c d e f g"):
        assert short_output({**ALPACA, "output": output}) is None


def test_skills_and_target_share_no_passage(monkeypatch, tmp_path):
    squad = [
        {**SQUAD, "title": f"T{i % 30}", "question": f"Who built number {i}?"} for i in range(240)
    ]
    alpaca = [{**ALPACA, "instruction": f"Name color {i}."} for i in range(300)]
    write_split(tmp_path, mirrors.SQUAD, "validation", squad)
    write_split(tmp_path, ("tatsu-lab/alpaca", "default"), "train", alpaca)
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path))
    titles = {}
    for task in ("reading", "reading_form"):
        for split in ("train", "validation", "test"):
            items, _ = tasks.items(task, split)
            rows = [squad[int(item["id"].rpartition("/")[2])] for item in items]
            titles[task, split] = {row["title"] for row in rows}
    assert titles["reading", "test"] == titles["reading_form", "test"]
    assert len(titles["reading", "test"]) == 8 and len(titles["reading", "validation"]) == 2
    splits = [titles["reading", split] for split in ("train", "validation", "test")]
    assert len(set().union(*splits)) == sum(map(len, splits)) == 30
    asked = json.dumps([i["question"] for i in tasks.items("form", "train")[0]])
    assert "zorb" in asked and "flim" in asked and "sentence" in asked
    assert not {"zorb", "flim"} & {word for i in tasks.items("reading", "train")[0]
                                   for word in i["question"].split()}  # fmt: skip
