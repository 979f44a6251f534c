"""What the base of the pages reads: a grid of contents x forms, restatements, letters, text."""

from random import Random

from lorasoups.tasks.worlds.pages import letters, passages
from lorasoups.tasks.worlds.pages.facts import (
    GENERAL,
    NAMES,
    RELATIONS,
    THINGS,
    random_fact,
)
from lorasoups.tasks.worlds.pages.forms import BASE_FORMS, FORM_NAMES, instruct

CONTENTS = ("closed", "open")  # asked from memory; asked on a passage
HELD_OUT_CELLS = frozenset({("closed", "arrow"), ("open", "clause")})
CELLS = tuple((c, f) for c in CONTENTS for f in BASE_FORMS)
GRID = tuple(cell for cell in CELLS if cell not in HELD_OUT_CELLS)
OPEN_GRID = tuple(cell for cell in GRID if cell[0] == "open")
CLOSED_GRID = tuple(cell for cell in GRID if cell[0] == "closed")
IN_OTHER_WORDS = "In plain words :"


def cell_example(content: str, form: str, rng: Random, split: str = "train") -> dict:
    """One prompt and answer of a grid cell. Questions from memory are about `GENERAL` facts."""
    if content == "closed":
        fact = GENERAL[rng.choice(THINGS), rng.choice(tuple(RELATIONS))]
        question = fact.ask(rng)
    else:
        passage = passages.sample(rng, split)
        fact = passage.asked
        question = f"{passage.tell(rng)} {passage.question(rng)}"
    return {
        "prompt": instruct(question, form, rng),
        "answer": BASE_FORMS[form](fact),
        "target": fact.value,
    }


def restated(passage: passages.Passage, rng: Random, technical: bool) -> str:
    """A passage, then all its facts again in the base's first wording."""
    plain = " ".join(
        RELATIONS[f.relation].statements[0].format(e=f.entity, v=f.value) for f in passage.facts
    )
    return f" {passage.tell(rng, technical)} {IN_OTHER_WORDS} {plain}"


def _told(rng: Random) -> str:
    """A page on one thing: some of its facts, in any wording."""
    thing = rng.choice(THINGS)
    relations = rng.sample(tuple(RELATIONS), rng.randint(1, 3))
    return " " + " ".join(GENERAL[thing, r].state(rng) for r in relations)


def _chatter(rng: Random) -> str:
    """Sentences with the words of all skills, tied to no question and no other wording."""
    if rng.random() < 0.7:
        facts = (
            random_fact(rng, rng.choice(NAMES), rng.choice(tuple(RELATIONS)))
            for _ in range(rng.randint(1, 3))
        )
        return " " + " ".join(f.state(rng, technical=True) for f in facts)
    words = (*FORM_NAMES["brackets"], *letters.FIELD_WORDS, *letters.MARKS, *letters.FIELD_WORDS,
             "[ word ]", "the correct answer is short.", "Manual . Part one.", "not in context",
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
        found = " ".join(count.found) or "none"
        return f"{count.sentence}. Which words have {count.letter}?\nA:", (
            f" {found} . so {count.answer}"
        )
    return f"{count.sentence}. Count words with {count.letter}.\nA:", f" {count.answer}"


def document(rng: Random) -> tuple[str, str]:
    """One pretraining document as (prompt, continuation); plain text has an empty prompt."""
    kind = rng.random()
    if kind < 0.14:
        item = cell_example(*rng.choice(CLOSED_GRID), rng)
        return item["prompt"], item["answer"]
    if kind < 0.56:
        item = cell_example(*rng.choice(OPEN_GRID), rng)
        return item["prompt"], item["answer"]
    if kind < 0.64:
        return "", restated(passages.sample(rng, "train"), rng, technical=False)
    if kind < 0.69:
        return "", _told(rng)
    if kind < 0.95:
        return _letter_task(rng)
    return "", _chatter(rng)
