"""What the shots base reads: the mini world's grid, one to three examples of one form in a row.

So demonstrations work: two solved examples say in which form the third is answered, also where no
instruction does.
"""

from random import Random

import mini_corpus
from language import Language

VERSION = 1  # of this corpus; raise it when a text changes
EXAMPLES = (1, 1, 2, 3, 3)  # how many are in a row; one is drawn
SILENT_SHARE = 0.3  # of the documents with several examples: no instruction names the form


def document(rng: Random) -> list[tuple[str, str]]:
    """Pairs (prompt, answer) whose forms are the same; plain text has an empty prompt."""
    n = rng.choice(EXAMPLES)
    if n == 1:
        return [mini_corpus.document(rng)]
    cells = mini_corpus.WORKED_CELLS if rng.random() < mini_corpus.WORKED_SHARE else GRID
    form = rng.choice(cells)[1]
    contents = [content for content, of in cells if of == form]
    return shown(contents, form, rng, n, rng.random() < SILENT_SHARE)


def shown(
    contents: list[str], form: str, rng: Random, n: int, silent: bool, split: str = "train"
) -> list[tuple[str, str]]:
    """``n`` examples of a form; ``silent``: no instruction names it."""
    items = (mini_corpus.cell_example(rng.choice(contents), form, rng, split, silent)
             for _ in range(n))  # fmt: skip
    return [(item["prompt"], item["answer"]) for item in items]


def silent_example(content: str, form: str, rng: Random, split: str) -> dict:
    """An example after two of other contents in the same form; no instruction names it."""
    others = [other for other, of in GRID if of == form and other != content]
    pairs = shown(others, form, rng, 2, True, split)
    ((prompt, answer),) = shown([content], form, rng, 1, True, split)
    before = "".join(f"{asked}{solved}\n\n" for asked, solved in pairs)
    return {"prompt": before + prompt, "answer": answer}


GRID = mini_corpus.GRID
SHOTS = Language(
    what="base model of the mini world that can be shown examples",
    corpus="data/shots_corpus.py, one to three examples of a grid of contents x forms, plain text",
    version=VERSION,
    document=document,
    sample=mini_corpus.sample_texts,
    example=mini_corpus.cell_example,
    shown_example=silent_example,
    grid=GRID,
    held_out=mini_corpus.HELD_OUT_CELLS,
    steps=4500,
    lr=2e-3,
    context=512,
    batch=48,
)
