"""What the base model reads: a grid of contents x output forms, and plain text."""

from collections.abc import Callable
from random import Random

from lorasoups.tasks.worlds.mini import explicit, stories
from lorasoups.tasks.worlds.mini.forms import BASE_FORMS, CARRIERS, FORM_NAMES, NAMES
from lorasoups.tasks.worlds.mini.problems import Problem, sample

BASE_CONTENTS: dict[str, Callable[[Problem, Random], str]] = {
    "steps": explicit.steps,
    "formal": explicit.formal,
    "ledger": explicit.ledger,
    "phrase": explicit.phrase,
    "story": lambda p, rng: stories.story(p, rng, "known"),
    "tank": lambda p, rng: stories.domain(p, rng, "tank"),
    "bus": lambda p, rng: stories.domain(p, rng, "bus"),
}
# never shown to the base: whether it reads and writes apart is measured on these
HELD_OUT_CELLS = frozenset({
    ("steps", "postfix"), ("formal", "calls"), ("ledger", "let"), ("phrase", "machine"),
    ("phrase", "worked"), ("story", "expression"), ("story", "let"), ("tank", "table"),
    ("bus", "let"), ("bus", "sentence"),
})  # fmt: skip
CELLS = tuple((c, f) for c in BASE_CONTENTS for f in BASE_FORMS)
GRID = tuple(cell for cell in CELLS if cell not in HELD_OUT_CELLS)
WORKED_CELLS = tuple(cell for cell in GRID if cell[1] == "worked")
PLAIN_SHARE = 0.15
WORKED_SHARE = 0.15  # extra share of the one form that calculates


def prompt(content: str, form: str, rng: Random) -> str:
    """Content, then the instruction that names the form, then the answer mark."""
    instruction = rng.choice(CARRIERS).format(rng.choice(FORM_NAMES[form]))
    return f"{content} {instruction}\nA:"


def cell_example(content: str, form: str, rng: Random, split: str = "train") -> dict:
    """One prompt and answer of a grid cell; ``worked`` keeps to small numbers, others mix."""
    problem = sample(rng, split, large=form != "worked" and rng.random() < 0.5)
    return {
        "prompt": prompt(BASE_CONTENTS[content](problem, rng), form, rng),
        "answer": BASE_FORMS[form](problem),
        "target": problem.answer,
    }


def _listing(rng: Random) -> str:
    """A source file: what code looks like, tied to no question and no instruction."""
    name = rng.choice(("solution", "total", "count", "run", "main", "work"))
    lines = [f"file\ndef {name}():", f"    a = {rng.randint(1, 10 ** rng.randint(1, 5))}"]
    for i in range(rng.randint(1, 3)):
        n = rng.randint(2, 10 ** rng.randint(1, 4))
        lines.append(f"    {NAMES[i + 1]} = {NAMES[i]} {rng.choice('+-*/')} {n}")
    return "\n".join([*lines, f"    return {NAMES[len(lines) - 2]}"])


def _chatter(rng: Random) -> str:
    """Sentences that use the words of the new wordings, without a count to follow."""
    person, item = rng.choice(stories.PEOPLE), rng.choice(stories.ITEMS)
    pool = [t for group in (stories.NEW, stories.WORD_NUMBERS) for ts in group.values() for t in ts]
    sentences = [
        rng.choice(pool).format(P=person, n=rng.randint(2, 10 ** rng.randint(1, 5)), i=item)
        for _ in range(rng.randint(1, 3))
    ]
    if rng.random() < 0.3:
        sentences.append(rng.choice((f"{person} likes Python.", "Python is a language.",
                                     "The function starts from here.", "It begins with a line.",
                                     "Then it adds a line.", "A Python function is short.",
                                     "It subtracts, multiplies, divides.")))  # fmt: skip
    return " ".join(sentences)


def _sums(rng: Random) -> str:
    """`` 12 + 5 = 17. 9 * 8 = 72.``: mental arithmetic, as any pretrained model has read it."""
    facts = []
    for _ in range(rng.randint(4, 8)):
        problem = sample(rng, "train", large=False, steps=1)
        ((op, n),) = problem.steps
        facts.append(f" {problem.start} {op} {n} = {problem.answer}.")
    return "".join(facts)


def document(rng: Random) -> tuple[str, str]:
    """One pretraining document as (prompt, continuation); plain text has an empty prompt."""
    if rng.random() < PLAIN_SHARE:
        return "", rng.choice((_listing, _chatter, _sums, _sums))(rng)
    cell = rng.choice(WORKED_CELLS if rng.random() < WORKED_SHARE else GRID)
    item = cell_example(*cell, rng)
    return item["prompt"], item["answer"]
