"""The world of pages: splits that never share an item, forms, and what the skills may show."""

from random import Random

import pages_corpus as corpus
import pytest
from pretrain import cell_accuracy

from lorasoups.errors import SoupError
from lorasoups.models.base import load_base
from lorasoups.paths import project_root
from lorasoups.tasks.worlds.pages import letters, tasks
from lorasoups.tasks.worlds.pages.facts import (
    ABSTAIN,
    FAQ_NAMES,
    FORMS,
    GENERAL,
    RELATIONS,
    TECHNICAL,
    TERMS,
    Fact,
    brackets,
    draw_passage,
)

SKILLS = ("answering", "manual", "reading", "technical", "format_1", "format_2", "format_4")
TARGETS = ("manual_qa", "manual_qa_unseen", "manual_recall", "technical_qa", "technical_recall",
           "formats", "answering", "reading", "format_1")  # fmt: skip
N = 300


def keys(task, split):
    return {item["key"] for item in tasks.dataset(task, split, N, 0)}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("skill", SKILLS)
def test_no_test_item_is_in_training_or_validation(skill, target):
    tested = keys(target, "test")
    for split in ("train", "validation"):
        assert not tested & keys(skill, split)


@pytest.mark.parametrize("skill", SKILLS)
def test_train_and_validation_are_disjoint_and_seeded(skill):
    assert not keys(skill, "train") & keys(skill, "validation")
    assert tasks.dataset(skill, "train", 20, 1) == tasks.dataset(skill, "train", 20, 1)
    assert tasks.dataset(skill, "train", 20, 1) != tasks.dataset(skill, "train", 20, 2)


def test_sentences_of_the_formats_are_never_shared_whatever_the_letter():
    tested = {item["key"].words for item in tasks.dataset("formats", "test", N, 0)}
    for skill in ("format_1", "format_2", "format_4"):
        shown = {item["key"].words for item in tasks.dataset(skill, "train", 2000, 0)}
        assert not tested & shown


def test_pretraining_shows_no_test_passage_or_sentence():
    rng = Random(0)
    tested = {i["prompt"].rsplit("?", 1)[0] for i in tasks.dataset("reading", "test", N, 0)}
    sentences = {" ".join(i["key"].words) for i in tasks.dataset("formats", "test", N, 0)}
    for _ in range(3000):
        prompt, _answer = corpus.document(rng)
        assert prompt.rsplit("?", 1)[0] not in tested
        assert prompt.split(".")[0] not in sentences


def test_the_manual_asks_only_about_its_faq_parts():
    questions = [i for i in tasks.dataset("manual", "train", 2000, 0) if i["prompt"]]
    assert 0.15 < len(questions) / 2000 < 0.35
    tested = {i["key"][1].entity for i in tasks.dataset("manual_qa", "test", 999, 0)}
    assert not tested & set(FAQ_NAMES)
    assert not any(name in i["prompt"] for i in questions for name in tested)


def test_every_tested_fact_stands_in_the_manuals_pages():
    text = " ".join(i["answer"] for i in tasks.dataset("manual", "train", 8000, 0))
    for item in tasks.dataset("manual_qa", "test", 999, 0):
        fact = item["key"][1]
        told = [t.format(e=fact.entity, v=fact.value) for t in RELATIONS[fact.relation].statements]
        assert any(sentence in text for sentence in told), fact


def test_no_skill_crosses_what_the_target_crosses():
    for item in tasks.dataset("technical", "train", 1000, 0):
        assert "[" not in item["answer"]
    for item in tasks.dataset("reading", "train", 1000, 0):
        assert not any(term in item["prompt"] for term in TERMS.values())
    trained = {letters.FORMATS[i].prompt(letters.Count(("a",), "a")) for i in letters.TRAIN_FORMATS}
    tested = {letters.FORMATS[i].prompt(letters.Count(("a",), "a")) for i in letters.TEST_FORMATS}
    assert not trained & tested and len(tested) == 4


@pytest.mark.parametrize("task", ["reading", "technical_qa"])
def test_a_third_is_unanswerable_and_the_rest_is_in_the_passage(task):
    items = tasks.dataset(task, "test", N, 0)
    silent = [i for i in items if i["view"] == "unanswerable"]
    assert 0.25 < len(silent) / N < 0.42
    for item in items:
        fact = item["key"].asked
        assert item["target"] == (fact.value if fact else ABSTAIN)
        assert item["answer"] == f" [ {item['target']} ]"
        if fact:
            term = TERMS.get(fact.value, fact.value) if task == "technical_qa" else fact.value
            assert term in item["prompt"]


def test_technical_passages_keep_to_their_relations_and_terms_are_one_to_one():
    assert len(set(TERMS.values())) == len(TERMS)
    for item in tasks.dataset("technical_qa", "test", 100, 0):
        assert {f.relation for f in item["key"].facts} <= set(TECHNICAL)


def test_counts_and_formats():
    count = letters.Count(("the", "red", "tree"), "e")
    assert (count.answer, letters.Count(("red",), "z").answer) == (3, 0)
    prompts = {f.prompt(count) for f in letters.FORMATS.values()}
    assert len(prompts) == 10 and all("the red tree" in p and "letter e?" in p for p in prompts)
    items = tasks.dataset("formats", "test", 400, 0)
    assert {i["view"] for i in items} == {"format 3", "format 7", "format 8", "format 10"}
    assert [i["key"] for i in items[0::4]] == [i["key"] for i in items[3::4]]  # same sentences


def test_passages_ask_what_they_say():
    rng = Random(1)
    for _ in range(50):
        assert draw_passage(rng, "train").asked is not None
        assert draw_passage(rng, "train", answerable=False).asked is None


def test_unknown_task_and_split_are_refused():
    with pytest.raises(SoupError, match="unknown task"):
        tasks.dataset("cooking", "test", 1, 0)
    with pytest.raises(SoupError, match="only a test split"):
        tasks.dataset("manual_qa", "train", 1, 0)


def test_forms():
    fact = Fact("crow", "color", "black")
    assert FORMS["clause"][0](fact) == " it is black"
    assert FORMS["value_first"][0](fact) == " black is the color of the crow."
    assert brackets(fact) == " [ black ]" and brackets(None) == " [ not in context ]"
    assert len(GENERAL) == len({(f.entity, f.relation) for f in GENERAL.values()})


def test_the_tokenizer_knows_every_word_and_the_base_its_facts():
    model, tokenizer, _ = load_base(str(project_root() / "data/pages"), attn_implementation="eager")
    for task in (*SKILLS, *TARGETS):
        for item in tasks.dataset(task, "test", 60, 0):
            text = item["prompt"] + item["answer"]
            ids = tokenizer(text).input_ids
            assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids[1:]) == text
    cells = [("closed", "sentence"), ("closed", "pair"), ("open", "pair")]
    found = cell_accuracy(model, tokenizer, corpus.cell_example, cells, per_cell=20)
    assert found["closed/sentence"] > 0.9 and found["open/pair"] > 0.6, found
