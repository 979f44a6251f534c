"""What the mini base reads: a grid of contents x forms, and plain text."""

from random import Random

from language import Language

from lorasoups.tasks.worlds import prompted
from lorasoups.tasks.worlds.mini import VERSION, WORDS, problems, tasks
from lorasoups.tasks.worlds.mini.problems import BASE_FORMS, FORMS, OPS, VARIABLES, sample, tell

BASE_CONTENTS = {"steps": "steps", "formal": "formal", "ledger": "ledger", "phrase": "phrase",
                 "story": "known", "tank": "tank", "bus": "bus"}  # fmt: skip
"""Name of a content -> its wording."""
HELD_OUT_CELLS = frozenset(tuple(cell.split("/")) for cell in WORDS["held_out"].split())
CELLS = tuple((c, f) for c in BASE_CONTENTS for f in BASE_FORMS)
GRID = tuple(cell for cell in CELLS if cell not in HELD_OUT_CELLS)
WORKED_CELLS = tuple(cell for cell in GRID if cell[1] == "worked")
PLAIN_SHARE, WORKED_SHARE = 0.15, 0.15  # worked: extra share of the one form that calculates
_NEW_GROUPS = (*(WORDS["new"][op] for op in OPS), *problems.NUMBER_WORDS.values())
_NEW = [template for group in _NEW_GROUPS for template in group]


def cell_example(
    content: str, form: str, rng: Random, split: str = "train", silent: bool = False
) -> dict:
    """A ``{prompt, answer, target}`` of a grid cell; numbers are mixed, in ``worked`` small.

    ``silent``: no instruction names the form.
    """
    problem = sample(rng, split, large=form != "worked" and rng.random() < 0.5)
    told = tell(problem, rng, BASE_CONTENTS[content])
    if silent:
        item = {"prompt": f"{told}\nA:", "answer": FORMS[form][0](problem)}
    else:
        item = prompted(told, FORMS[form], problem, rng)
    return item | {"target": problem.answer}


def _listing(rng: Random) -> str:
    """A source file that answers no question, so that the base has read Python's tokens."""
    name = rng.choice(("solution", "total", "count", "run", "main", "work"))
    lines = [f"file\ndef {name}():", f"    a = {rng.randint(1, 10 ** rng.randint(1, 5))}"]
    for i in range(rng.randint(1, 3)):
        n = rng.randint(2, 10 ** rng.randint(1, 4))
        lines.append(f"    {VARIABLES[i + 1]} = {VARIABLES[i]} {rng.choice('+-*/')} {n}")
    return "\n".join([*lines, f"    return {VARIABLES[len(lines) - 2]}"])


def _chatter(rng: Random) -> str:
    """Sentences in the new wordings, without a question."""
    person, item = rng.choice(problems.PEOPLE), rng.choice(problems.ITEMS)
    sentences = [
        rng.choice(_NEW).format(P=person, n=rng.randint(2, 10 ** rng.randint(1, 5)), i=item)
        for _ in range(rng.randint(1, 3))
    ]
    if rng.random() < 0.3:
        sentences.append(rng.choice(WORDS["chatter"]).format(P=person))
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
    """A pretraining document as (prompt, continuation); plain text has an empty prompt."""
    if rng.random() < PLAIN_SHARE:
        return "", rng.choice((_listing, _chatter, _sums, _sums))(rng)
    cell = rng.choice(WORKED_CELLS if rng.random() < WORKED_SHARE else GRID)
    item = cell_example(*cell, rng)
    return item["prompt"], item["answer"]


def sample_texts(documents: int, seed: int) -> list[str]:
    """Texts of every kind, for the vocabulary."""
    rng = Random(seed)
    texts = [text for _ in range(documents) for text in document(rng)]
    for task in ("math", "code", "hard_math", "hard_math_easy", "hard_math_unseen"):
        for _ in range(documents // 20):
            item = tasks.example(task, rng, "train")
            texts += [item["prompt"], item["answer"]]
    return texts


MINI = Language(
    what="base model of the mini world: a Llama pretrained on a generated corpus",
    corpus="data/mini_corpus.py, a grid of contents x output forms, plus plain text",
    version=VERSION,
    document=document,
    sample=sample_texts,
    example=cell_example,
    grid=GRID,
    held_out=HELD_OUT_CELLS,
    steps=6000,
    lr=2e-3,
)
