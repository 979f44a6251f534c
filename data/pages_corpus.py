"""What the base of the pages reads: a grid of contents x forms, restatements, letters, text."""

from random import Random

from language import Language

from lorasoups.tasks.worlds import prompted
from lorasoups.tasks.worlds.pages import VERSION, letters
from lorasoups.tasks.worlds.pages import facts as world
from lorasoups.tasks.worlds.pages.tasks import dataset

CONTENTS = ("closed", "open")  # asked from memory; asked on a passage
HELD_OUT_CELLS = frozenset({("closed", "arrow"), ("open", "clause")})
CELLS = tuple((c, f) for c in CONTENTS for f in world.BASE_FORMS)
GRID = tuple(cell for cell in CELLS if cell not in HELD_OUT_CELLS)
_CLOSED, _OPEN = (tuple(cell for cell in GRID if cell[0] == content) for content in CONTENTS)
_IN_SAMPLE = ("answering", "manual_qa", "manual_qa_unseen", "manual_recall", "technical_recall",
              "technical_qa", "format_1", "format_2", "format_4", "formats")  # fmt: skip


def cell_example(content: str, form: str, rng: Random, split: str = "train") -> dict:
    """A ``{prompt, answer, target}`` of a grid cell; ``closed`` asks for facts of `GENERAL`."""
    if content == "closed":
        fact = world.GENERAL[rng.choice(world.THINGS), rng.choice(tuple(world.RELATIONS))]
        question = fact.ask(rng)
    else:
        passage = world.draw_passage(rng, split)
        fact, question = passage.asked, passage.tell_and_ask(rng)
    return prompted(question, world.FORMS[form], fact, rng) | {"target": fact.value}


def _page(rng: Random) -> str:
    """A page on one thing: some of its facts, in any wording."""
    thing = rng.choice(world.THINGS)
    relations = rng.sample(tuple(world.RELATIONS), rng.randint(1, 3))
    return " " + " ".join(world.GENERAL[thing, r].state(rng) for r in relations)


def _chatter(rng: Random) -> str:
    """The words of all skills, without a question and without an explanation."""
    if rng.random() < 0.7:
        facts = (
            world.random_fact(rng, rng.choice(world.NAMES), rng.choice(tuple(world.RELATIONS)))
            for _ in range(rng.randint(1, 3))
        )
        return " " + " ".join(f.state(rng, technical=True) for f in facts)
    fields = sorted({w for f in letters.FORMATS.values() for w in (f.field, f.answer)})
    words = ("brackets", "a box", *fields, ":", "-", "=", "|", "#", "/", ";", *fields,
             "[ word ]", "the correct answer is short.", "Manual . Part one.", world.ABSTAIN,
             "How many words contain the letter", *"0123456789")  # fmt: skip
    return " " + " ".join(rng.choice(words) for _ in range(rng.randint(3, 8)))


def _letter_task(rng: Random) -> tuple[str, str]:
    """Spelling, finding and counting, in the base's own words."""
    kind = rng.random()
    if kind < 0.2:
        word = rng.choice(letters.WORDS)
        return f"Spell {word}.\nA:", " " + " ".join(word)
    count = letters.sample(rng, "train")
    if kind < 0.65:
        words = " ".join(count.found) or "none"
        question = f"{count.sentence}. Which words have {count.letter}?\nA:"
        return question, f" {words} . so {count.answer}"
    return f"{count.sentence}. Count words with {count.letter}.\nA:", f" {count.answer}"


def document(rng: Random) -> tuple[str, str]:
    """A pretraining document as (prompt, continuation); plain text has an empty prompt."""
    kind = rng.random()
    if kind < 0.56:
        item = cell_example(*rng.choice(_CLOSED if kind < 0.14 else _OPEN), rng)
        return item["prompt"], item["answer"]
    if kind < 0.64:
        return "", " " + world.draw_passage(rng, "train").restate(rng, technical=False)
    if kind < 0.69:
        return "", _page(rng)
    if kind < 0.95:
        return _letter_task(rng)
    return "", _chatter(rng)


def sample_texts(documents: int, seed: int) -> list[str]:
    """Texts of every kind, for the vocabulary."""
    rng = Random(seed)
    texts = [text for _ in range(documents) for text in document(rng)]
    for task in _IN_SAMPLE:
        for item in dataset(task, "test", documents // 20, seed):
            texts += [item["prompt"], item["answer"]]
    return [*texts, *(f" {word}" for word in (*world.NAMES, *world.MANUAL_NAMES, *world.THINGS))]


PAGES = Language(
    what="base model of the pages: a Llama pretrained on a generated corpus",
    corpus="data/pages_corpus.py, questions x answer forms, letters, plain text",
    version=VERSION,
    document=document,
    sample=sample_texts,
    example=cell_example,
    grid=GRID,
    held_out=HELD_OUT_CELLS,
    steps=8000,
    lr=2e-3,
)
