"""Skills and targets of the pages. A task is one entry of `TASKS`, at the end.

A third of the questions of ``reading`` and ``technical_qa`` has no answer in its passage (the
paper's set has none of these). No skill example asks about a tested part of the manual, answers a
technical passage in brackets, or shows a test format.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from random import Random

from lorasoups.errors import SoupError
from lorasoups.tasks.worlds import prompted, split_of
from lorasoups.tasks.worlds.pages import facts as world
from lorasoups.tasks.worlds.pages import letters
from lorasoups.tasks.worlds.pages.facts import FORMS, MANUAL, Fact, draw_passage

UNANSWERABLE = 1 / 3
FAQ, REVIEW = 0.25, 0.6  # shares of questions in the manual and in the technical text


def _in_base_form(content: str, fact: Fact, form: str, rng: Random, key) -> dict:
    """An item whose whole answer is scored."""
    item = prompted(content, FORMS[form], fact, rng)
    return item | {"target": item["answer"].strip(), "key": key}


def _in_brackets(content: str, fact: Fact | None, rng: Random, key) -> dict:
    """An item whose value is scored; None: it has no answer."""
    item = prompted(content, FORMS["brackets"], fact, rng)
    target, view = (fact.value, "answerable") if fact else (world.ABSTAIN, "unanswerable")
    return item | {"target": target, "key": key, "view": view}


def _plain_text(text: str, key) -> dict:
    return {"prompt": "", "answer": f" {text}", "target": "", "key": key}


def _answering(rng: Random, split: str) -> dict:
    """A question on a general fact."""
    while True:
        fact = world.GENERAL[rng.choice(world.THINGS), rng.choice(tuple(world.RELATIONS))]
        if split_of(fact) == split:
            return _in_brackets(fact.ask(rng), fact, rng, (fact,))


def _manual(rng: Random, split: str) -> dict:
    """A page of the manual (three facts of one part), or one of its questions and answers."""
    if rng.random() < FAQ:
        return _faq(rng, split)
    while True:
        name = rng.choice(world.MANUAL_NAMES)
        facts = [f for f in MANUAL if f.entity == name]
        text = " ".join(f.state(rng) for f in rng.sample(facts, 3))
        if split_of(text) == split:
            return _plain_text(text, ("page", text))


def _faq(rng: Random, split: str) -> dict:
    while True:
        fact = rng.choice([f for f in MANUAL if f.entity in world.FAQ_NAMES])
        form = rng.choice(world.BASE_FORMS)
        item = _in_base_form(fact.ask(rng), fact, form, rng, None)
        if split_of(item["prompt"]) == split:
            return item | {"key": ("faq", item["prompt"])}


def _technical(rng: Random, split: str) -> dict:
    """A technical passage restated in plain words, or with a review question."""
    if rng.random() < REVIEW:
        return _recall(rng, split)
    passage = draw_passage(rng, split, relations=world.TECHNICAL)
    return _plain_text(passage.restate(rng, technical=True), passage)


def _recall(rng: Random, split: str, form: str = "") -> dict:
    """A technical passage with a question that it answers, in a base form (default: any)."""
    passage = draw_passage(rng, split, relations=world.TECHNICAL)
    content = passage.tell_and_ask(rng, technical=True)
    return _in_base_form(content, passage.asked, form or rng.choice(world.BASE_FORMS), rng, passage)


def _reading(rng: Random, split: str, technical: bool = False) -> dict:
    """A passage with a question that it answers, two times in three."""
    answerable = rng.random() >= UNANSWERABLE
    relations = world.TECHNICAL if technical else tuple(world.RELATIONS)
    passage = draw_passage(rng, split, answerable, relations)
    return _in_brackets(passage.tell_and_ask(rng, technical), passage.asked, rng, passage)


def _endless(draw: Callable[..., dict], *args, **options) -> Callable[..., Iterator[dict]]:
    """The stream of a task whose items are drawn one by one."""

    def stream(rng: Random, split: str) -> Iterator[dict]:
        while True:
            yield draw(rng, split, *args, **options)

    return stream


def _in_formats(rng: Random, split: str, numbers: Sequence[int]) -> Iterator[dict]:
    """Each sentence in all of these formats, so that formats are compared on the same ones."""
    while True:
        count = letters.sample(rng, split)
        for number in numbers:
            yield letters.in_format(count, number)


def _on_manual(rng: Random, split: str, unseen: bool = False, form: str = "brackets"):
    """Every fact on a part outside the FAQ once, in random order."""
    if split != "test":
        raise SoupError(f"questions on the manual have only a test split, not {split!r}")
    facts = [f for f in MANUAL if f.entity not in world.FAQ_NAMES]
    for fact in rng.sample(facts, len(facts)):
        question = fact.ask(rng, unseen)
        if form == "brackets":
            item = _in_brackets(question, fact, rng, ("manual", fact))
            del item["view"]
            yield item | {"kind": fact.relation}
        else:
            yield _in_base_form(question, fact, form, rng, (fact,))


TASKS: dict[str, Callable[[Random, str], Iterator[dict]]] = {
    # skills
    "answering": _endless(_answering),  # in brackets
    "manual": _endless(_manual),  # plain text, FAQ in base forms
    "reading": _endless(_reading),  # in brackets
    "technical": _endless(_technical),  # plain text, review questions in base forms
    **{f"format_{i}": partial(_in_formats, numbers=(i,)) for i in letters.TRAIN_FORMATS},
    # targets
    "manual_qa": _on_manual,  # closed book, in brackets
    "manual_qa_unseen": partial(_on_manual, unseen=True),  # in paraphrases
    "technical_qa": _endless(_reading, technical=True),  # in brackets
    "formats": partial(_in_formats, numbers=letters.TEST_FORMATS),
    # tests of the skills alone
    "manual_recall": partial(_on_manual, form="sentence"),
    "technical_recall": _endless(_recall, "sentence"),
}


def dataset(task: str, split: str, n: int, seed: int) -> list[dict]:
    """The first ``n`` examples with distinct texts (fewer where there are no more).

    They are dicts with ``prompt``, ``answer``, ``target`` (what is scored), ``key`` (what the item
    *is*; it decides the split) and, where a test has parts that are reported apart, ``view``; the
    questions on the manual also ``kind``, the relation that is asked for. Raises SoupError for an
    unknown task, or one that has no such split.
    """
    if task not in TASKS:
        raise SoupError(f"unknown task {task!r}: choose one of {', '.join(TASKS)}")
    stream = TASKS[task](Random(f"{task}/{split}/{seed}"), split)
    items: dict[str, dict] = {}
    for item in islice(stream, 50 * n + 1000):
        items.setdefault(item["prompt"] + item["answer"], item)
        if len(items) == n:
            break
    return list(items.values())
