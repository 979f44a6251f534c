"""Skills and targets of the pages: manual QA, reading comprehension, prompt formats.

====================  ==============================================  ============  ============
task                  content                                         answer        used for
====================  ==============================================  ============  ============
answering             a question on general facts                     brackets      skill
manual                pages of a fictional device's manual, and an    plain text,   skill
                      FAQ on some of its parts                        base forms
manual_qa             closed-book question on parts without FAQ       brackets      target
manual_qa_unseen      the same in unseen paraphrases                  brackets      apart
manual_recall         the same in the base's own form                 a sentence    manual's test
reading               passage and question, known wordings            brackets      skill
technical             technical passages, then the same in plain,     plain text,   skill
                      or a review question                            base forms
technical_qa          technical passage and question                  brackets      target
technical_recall      the same, answerable, in the base's own form    a sentence    its test
format_<i>            count words with a letter, prompt format i      a sentence    skills 1, 2, 4
formats               the same in formats 3, 7, 8, 10                 a sentence    target
====================  ==============================================  ============  ============

A third of the questions of ``reading`` and ``technical_qa`` has no answer in its passage (the
paper's set has none of these). No skill example asks about a part of the manual that is tested,
answers a technical passage in brackets, or shows a test format.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from random import Random

from lorasoups.errors import SoupError
from lorasoups.tasks.worlds.pages import corpus, letters, passages
from lorasoups.tasks.worlds.pages.facts import (
    FAQ_NAMES,
    GENERAL,
    MANUAL_NAMES,
    RELATIONS,
    TECHNICAL,
    THINGS,
    Fact,
    random_fact,
    split_of,
)
from lorasoups.tasks.worlds.pages.forms import ABSTAIN, BASE_FORMS, brackets, instruct

UNANSWERABLE = 1 / 3
FAQ, REVIEW = 0.25, 0.6  # shares of questions in the manual and in the technical text


def _manual() -> tuple[Fact, ...]:
    rng = Random("the manual")
    return tuple(random_fact(rng, name, r) for name in MANUAL_NAMES for r in RELATIONS)


MANUAL: tuple[Fact, ...] = _manual()
"""What the fictional manual says: every relation of every part."""


def answering(rng: Random, split: str) -> dict:
    """A general fact of the split, asked in known words, answered in brackets."""
    while True:
        fact = GENERAL[rng.choice(THINGS), rng.choice(tuple(RELATIONS))]
        if split_of(fact) == split:
            return _item(instruct(fact.ask(rng), "brackets", rng), fact, (fact,))


def manual(rng: Random, split: str) -> dict:
    """A page of the manual: three facts of one part in any order and wording, as plain text.

    One in four is a question and answer on a part of `FAQ_NAMES` in one of the base's own forms.
    """
    if rng.random() < FAQ:
        return _faq(rng, split)
    while True:
        name = rng.choice(MANUAL_NAMES)
        own = [f for f in MANUAL if f.entity == name]
        text = " ".join(f.state(rng) for f in rng.sample(own, 3))
        if split_of(text) == split:
            return {"prompt": "", "answer": f" {text}", "target": "", "key": ("page", text)}


def _faq(rng: Random, split: str) -> dict:
    while True:
        fact = rng.choice([f for f in MANUAL if f.entity in FAQ_NAMES])
        form = rng.choice(tuple(BASE_FORMS))
        prompt = instruct(fact.ask(rng), form, rng)
        if split_of(prompt) == split:
            return _in_base_form(prompt, fact, form, ("faq", prompt))


def technical(rng: Random, split: str) -> dict:
    """A technical passage restated in plain words (plain text), or with a review question.

    Three in five have a question that the passage answers, in one of the base's own forms.
    """
    if rng.random() < REVIEW:
        passage = passages.sample(rng, split, relations=TECHNICAL)
        content = f"{passage.tell(rng, True)} {passage.question(rng)}"
        form = rng.choice(tuple(BASE_FORMS))
        return _in_base_form(instruct(content, form, rng), passage.asked, form, passage)
    passage = passages.sample(rng, split, relations=TECHNICAL)
    text = corpus.restated(passage, rng, technical=True)
    return {"prompt": "", "answer": text, "target": "", "key": passage}


def _in_base_form(prompt: str, fact: Fact, form: str, key) -> dict:
    answer = BASE_FORMS[form](fact)
    return {"prompt": prompt, "answer": answer, "target": answer.strip(), "key": key}


def _on_passage(rng: Random, split: str, is_technical: bool) -> dict:
    relations = TECHNICAL if is_technical else tuple(RELATIONS)
    answerable = rng.random() >= UNANSWERABLE
    passage = passages.sample(rng, split, answerable, relations)
    content = f"{passage.tell(rng, is_technical)} {passage.question(rng)}"
    prompt = instruct(content, "brackets", rng)
    return _item(prompt, passage.asked, passage)


def _technical_recall(rng: Random, split: str) -> dict:
    passage = passages.sample(rng, split, relations=TECHNICAL)
    content = f"{passage.tell(rng, True)} {passage.question(rng)}"
    prompt = instruct(content, "sentence", rng)
    return _in_base_form(prompt, passage.asked, "sentence", passage)


def _count(rng: Random, split: str, number: int) -> dict:
    return _counted(letters.sample(rng, split), number)


def _counted(count: letters.Count, number: int) -> dict:
    return {
        "prompt": letters.FORMATS[number].prompt(count),
        "answer": letters.reply(count),
        "target": count.answer,
        "key": count,
        "view": f"format {number}",
    }


def _item(prompt: str, fact: Fact | None, key) -> dict:
    return {
        "prompt": prompt,
        "answer": brackets(fact),
        "target": fact.value if fact else ABSTAIN,
        "key": key,
        "view": "answerable" if fact else "unanswerable",
    }


DRAWN: dict[str, Callable[[Random, str], dict]] = {
    "answering": answering,
    "manual": manual,
    "technical": technical,
    "reading": lambda rng, split: _on_passage(rng, split, False),
    "technical_qa": lambda rng, split: _on_passage(rng, split, True),
    "technical_recall": _technical_recall,
    **{f"format_{i}": lambda rng, split, i=i: _count(rng, split, i) for i in letters.TRAIN_FORMATS},
}


def _on_manual(task: str, rng: Random) -> Iterator[dict]:
    """Every fact on a part outside the FAQ once, in an order that the seed decides."""
    facts = [f for f in MANUAL if f.entity not in FAQ_NAMES]
    for fact in rng.sample(facts, len(facts)):
        question = fact.ask(rng, unseen=task == "manual_qa_unseen")
        if task == "manual_recall":
            prompt = instruct(question, "sentence", rng)
            yield _in_base_form(prompt, fact, "sentence", (fact,))
        else:
            item = _item(instruct(question, "brackets", rng), fact, ("manual", fact))
            yield {k: v for k, v in item.items() if k != "view"}


def _in_formats(rng: Random, split: str) -> Iterator[dict]:
    """Each sentence in all four test formats, so that formats are compared on the same ones."""
    while True:
        count = letters.sample(rng, split)
        for number in letters.TEST_FORMATS:
            yield _counted(count, number)


def _draws(task: str, rng: Random, split: str) -> Iterator[dict]:
    while True:
        yield DRAWN[task](rng, split)


def stream(task: str, split: str, seed: int) -> Iterator[dict]:
    """Examples of a task, endless except for questions on the manual (one per fact).

    Raises:
        SoupError: unknown task; a split that questions on the manual do not have.
    """
    rng = Random(f"{task}/{split}/{seed}")
    if task in DRAWN:
        return _draws(task, rng, split)
    if task == "formats":
        return _in_formats(rng, split)
    if task in ("manual_qa", "manual_qa_unseen", "manual_recall"):
        if split != "test":
            raise SoupError(f"{task} has only a test split, not {split!r}: nothing trains on it")
        return _on_manual(task, rng)
    known = ", ".join((*DRAWN, "formats", "manual_qa", "manual_qa_unseen", "manual_recall"))
    raise SoupError(f"unknown task {task!r}: choose one of {known}")


def dataset(task: str, split: str, n: int, seed: int) -> list[dict]:
    """The first ``n`` examples with distinct texts (fewer where there are no more).

    Returns:
        dicts with ``prompt``, ``answer``, ``target`` (what is scored), ``key`` (what the item *is*;
        it decides the split) and, where a test is told apart by parts, ``view``.
    """
    items: dict[str, dict] = {}
    tries = islice(stream(task, split, seed), 50 * n + 1000)
    for item in tries:
        items.setdefault(item["prompt"] + item["answer"], item)
        if len(items) == n:
            break
    return list(items.values())
