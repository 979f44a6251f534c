"""Decontamination: finds what is shared, with numbers and without, and does not cry wolf."""

import json
import time

from mirrors import real_mirror

from lorasoups.tasks.real import decontamination
from lorasoups.tasks.real import tasks as real_tasks
from lorasoups.tasks.real.decontamination import report, words
from lorasoups.tasks.real.hub import MIRROR_VARIABLE

STORY = "Ann the baker sold 48 loaves to her friends in April and half as many in May."


def item(question, answer="", name="x", **more):
    return {"question": question, "answer": answer, "id": name, **more}


def one(train, test):
    return report({"a": train}, {"b": test})["pairs"][0]


def test_words_are_lower_case_without_punctuation():
    text = "Don\u2019t pay $1,200.50 -- or twenty five (25%)!"
    assert words(text) == ["dont", "pay", "1200.50", "or", "twenty", "five", "25"]
    assert words(text, True) == ["dont", "pay", "#", "or", "#"]


def test_a_shared_passage_is_found_in_question_and_answer():
    test = [item("No. " + STORY, name="t0"), item("Something else that nobody has ever asked.")]
    for row in (item(STORY.upper(), name="r"), item("?", STORY, name="r")):
        found = one([item("Nothing."), row], test)["as_it_is"]
        assert (found["items"], found["share"], found["specific"]) == (1, 0.5, 1)
        assert found["near"] == 1


def test_other_numbers_are_found_by_masking_alone():
    pair = one([item(STORY)], [item("Ann the baker sold 4,933,828 loaves to her friends in June.")])
    assert pair["as_it_is"]["items"] == 0 and pair["numbers_masked"]["items"] == 1
    same = one([item(STORY)], [item(STORY.replace("48", "ninety"))])
    assert (same["as_it_is"]["same_question"], same["numbers_masked"]["same_question"]) == (0, 1)


def test_a_small_part_in_common_is_not_near():
    test = STORY + " Then the whole town came to eat them all before the summer was over again."
    found = one([item(" ".join(STORY.split()[:9]))], [item(test)])["as_it_is"]
    assert (found["items"], found["near"]) == (1, 0)


def test_seven_shared_words_are_not_eight(monkeypatch):
    seven = " ".join(STORY.split()[:7])
    assert one([item(seven + " now")], [item(seven + " then")])["as_it_is"]["items"] == 0
    monkeypatch.setattr(decontamination, "N", 7)
    assert one([item(seven + " now")], [item(seven + " then")])["as_it_is"]["items"] == 1


def test_no_passage_runs_from_question_into_answer(monkeypatch):
    monkeypatch.setattr(decontamination, "N", 12)
    head, tail = STORY.split(" in ", 1)
    assert one([item(head, "in " + tail)], [item(STORY)])["as_it_is"]["items"] == 0
    assert one([item(head + " in " + tail)], [item(STORY)])["as_it_is"]["items"] == 1


def test_the_request_for_a_program_is_not_compared():
    asked = item(f"Short. {real_tasks.USE_PYTHON}", source_question="Short.")
    pair = one([item(real_tasks.USE_PYTHON)], [asked])
    assert pair["as_it_is"]["items"] == 0 and pair["too_short"] == 1


def test_the_content_of_an_item_is_compared_where_it_has_a_form_around():
    asked = item(f"Count the words that have an e in '{STORY}'.", compare="Ann sells.")
    pair = one([item(asked["question"])], [asked])
    assert pair["as_it_is"]["items"] == 0


def test_a_formula_of_the_test_is_counted_apart():
    formula = "Please count the words in the sentence that follows:"
    test = [item(f"{formula} bird {i}", name=str(i)) for i in range(8)] + [item(STORY, name="s")]
    found = one([item(f"{formula} fish"), item(STORY)], test)["as_it_is"]
    assert found["items"] == 9 and found["specific"] == 1 and found["formulas"] == 3


def test_whole_questions_are_compared_even_if_short():
    pair = one([item("Who is Ann?")], [item("who is  Ann")])
    assert pair["as_it_is"]["same_question"] == 1 and pair["as_it_is"]["items"] == 0


def test_the_report_is_plain_and_covers_every_pair():
    sets = {name: [item(STORY, name=name)] for name in ("a", "b")}
    found = report(sets, {"t": [item(STORY)], "u": [item("Why?")]})
    assert [(p["train"], p["test"]) for p in found["pairs"]] == [
        ("a", "t"), ("b", "t"), ("a", "u"), ("b", "u"),
    ]  # fmt: skip
    assert json.loads(json.dumps(found)) == found


# --- the real data, where a mirror is -----------------------------------------------------------


def test_gsm_hard_is_gsm8k_s_test_and_not_its_training_data(monkeypatch):
    """What is known of GSM-Hard (328 questions are GSM8K's own test questions) is found again."""
    monkeypatch.setenv(MIRROR_VARIABLE, str(real_mirror()))
    hard = real_tasks.items("gsm_hard", "test")[0]
    tested, trained = (real_tasks.items("math", split)[0] for split in ("test", "train"))
    started = time.perf_counter()
    found = report({"test": tested, "train": trained}, {"hard": hard})["pairs"]
    assert time.perf_counter() - started < 15
    assert found[0]["as_it_is"]["same_question"] >= 328
    assert found[0]["numbers_masked"]["share"] > 0.95
    assert found[1]["as_it_is"]["same_question"] == 0
    assert found[1]["numbers_masked"]["share"] < 0.2
