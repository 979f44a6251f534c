"""The two skills and the target that crosses them (issue 2, section 5).

==================  =========================  ===========  =======  ==============
task                content                    form         numbers  used for
==================  =========================  ===========  =======  ==============
math                story, new wordings        worked       small    skill
code                explicit, named steps      Python       mixed    skill
hard_math           story, new wordings        Python       large    target
hard_math_easy      story, known wordings      Python       large    reported apart
hard_math_unseen    story, unseen syntax       Python       large    reported apart
==================  =========================  ===========  =======  ==============

No skill example answers a story in code.
"""

from random import Random

from lorasoups.errors import SoupError
from lorasoups.world import explicit, forms, stories
from lorasoups.world.corpus import prompt
from lorasoups.world.problems import Problem, sample

SKILLS = ("math", "code")
TARGET = "hard_math"
VIEWS = {"hard_math": "new", "hard_math_easy": "easy", "hard_math_unseen": "unseen"}
_WORDING = {
    "math": "new",
    "hard_math": "new",
    "hard_math_easy": "known",
    "hard_math_unseen": "unseen",
}
_EXPLICIT = (explicit.steps, explicit.formal, explicit.phrase, explicit.ledger)


def _problem(task: str, rng: Random, split: str) -> Problem:
    if task == "math":
        return _shrink(rng, split)
    return sample(rng, split, large=task != "code" or rng.random() < 0.5)


def _shrink(rng: Random, split: str) -> Problem:
    """A small problem in which doubling, tripling and halving are common (they have own words)."""
    while True:
        p = sample(rng, split, large=False)
        plain = all(step not in stories.WORD_NUMBERS for step in p.steps)
        if not plain or rng.random() < 0.7:
            return p


def example(task: str, rng: Random, split: str) -> dict:
    """Draw one example.

    Returns:
        dict with ``prompt`` and ``answer`` (text), ``target`` (int: what the program must return
        or the words must end in) and ``key`` (the problem, which decides the split).

    Raises:
        SoupError: for an unknown task.
    """
    if task not in (*SKILLS, *VIEWS):
        raise SoupError(f"unknown task {task!r}: choose one of {', '.join((*SKILLS, *VIEWS))}")
    p = _problem(task, rng, split)
    if task == "code":
        content = rng.choice(_EXPLICIT)(p, rng)
    else:
        content = stories.story(p, rng, _WORDING[task])
    form = "worked" if task == "math" else "python"
    return {
        "prompt": prompt(content, form, rng),
        "answer": getattr(forms, form)(p),
        "target": p.answer,
        "key": (p.start, p.steps),
    }


def dataset(task: str, split: str, n: int, seed: int) -> list[dict]:
    """``n`` examples with distinct prompts.

    Train, validation and test are disjoint as *problems* (`problems.Problem.split`), whatever the
    seed, wording or task.
    """
    rng = Random(f"{task}/{split}/{seed}")
    items: dict[str, dict] = {}
    while len(items) < n:
        item = example(task, rng, split)
        items.setdefault(item["prompt"], item)
    return list(items.values())
