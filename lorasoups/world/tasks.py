"""The two skills and the target that crosses them (issue 2, section 5).

==================  =========================  ===========  =======  ==============
task                content                    form         numbers  used for
==================  =========================  ===========  =======  ==============
math                story, new wordings        worked       small    skill
code                explicit, named steps      Python       mixed    skill
hard_math           story, new wordings        Python       large    target
hard_math_easy      story, known wordings      Python       large    reported apart
hard_math_unseen    story, unseen syntax       Python       large    reported apart
backward            explicit, numbers written  known forms  mixed    third skill
                    backward, digit by digit
line                explicit, named steps      one line     mixed    fourth skill
hard_math_backward  story, new wordings,       Python       large    target of three
                    numbers written backward
==================  =========================  ===========  =======  ==============

No skill example answers a story in code. ``backward`` and ``line`` serve the question what more
than two skills do (issue 3, section 3).
"""

import re
from random import Random

from lorasoups.errors import SoupError
from lorasoups.world import explicit, forms, stories
from lorasoups.world.corpus import prompt
from lorasoups.world.problems import Problem, sample

SKILLS = ("math", "code")
TARGET = "hard_math"
VIEWS = {"hard_math": "new", "hard_math_easy": "easy", "hard_math_unseen": "unseen"}
MORE = ("backward", "line", "hard_math_backward")
_WORDING = {
    "math": "new",
    "hard_math_backward": "new",
    "hard_math": "new",
    "hard_math_easy": "known",
    "hard_math_unseen": "unseen",
}
_READ_OUT = ("expression", "let", "table", "calls", "machine")
_EXPLICIT = (explicit.steps, explicit.formal, explicit.phrase, explicit.ledger)


def _problem(task: str, rng: Random, split: str) -> Problem:
    if task == "math":
        return _shrink(rng, split)
    large = task not in ("code", "backward", "line") or rng.random() < 0.5
    return sample(rng, split, large=large)


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
    known = (*SKILLS, *VIEWS, *MORE)
    if task not in known:
        raise SoupError(f"unknown task {task!r}: choose one of {', '.join(known)}")
    p = _problem(task, rng, split)
    if task in _WORDING:
        content = stories.story(p, rng, _WORDING[task])
    else:
        content = rng.choice(_EXPLICIT)(p, rng)
    if task in ("backward", "hard_math_backward"):
        content = backward(content)
    form = _form(task, rng)
    return {
        "prompt": prompt(content, form, rng),
        "answer": getattr(forms, form)(p),
        "target": p.answer,
        "key": (p.start, p.steps),
    }


def _form(task: str, rng: Random) -> str:
    if task == "backward":
        return rng.choice(_READ_OUT)
    return {"math": "worked", "line": "line"}.get(task, "python")


def backward(text: str) -> str:
    """Every number digit by digit from its end: ``352`` becomes ``2 5 3``."""
    return re.sub(r"\d+", lambda found: " ".join(reversed(found[0])), text)


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
