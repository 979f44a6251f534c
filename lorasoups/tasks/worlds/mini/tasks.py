"""The two skills and the target that crosses them (issue 2, section 5).

==================  =========================  ===========  =======  ==============
task                content                    form         numbers  used for
==================  =========================  ===========  =======  ==============
math                story, new wordings        worked       small    skill
code                explicit, named steps      Python       mixed    skill
hard_math           story, new wordings        Python       large    target
hard_math_easy      story, known wordings      Python       large    reported apart
hard_math_unseen    story, unseen syntax       Python       large    reported apart
aside               explicit, with a sentence  known forms  mixed    third skill
                    that has to be ignored
line                explicit, named steps      one line     mixed    fourth skill
hard_math_aside     story, new wordings, with  Python       large    target of three
                    a sentence to ignore
==================  =========================  ===========  =======  ==============

No skill example answers a story in code. ``aside`` and ``line`` serve the question what more
than two skills do (issue 3, section 3).
"""

from random import Random

from lorasoups.errors import SoupError
from lorasoups.tasks.worlds.mini import explicit, forms, stories
from lorasoups.tasks.worlds.mini.corpus import prompt
from lorasoups.tasks.worlds.mini.problems import Problem, sample

SKILLS = ("math", "code")
TARGET = "hard_math"
VIEWS = {"hard_math": "new", "hard_math_easy": "easy", "hard_math_unseen": "unseen"}
MORE = ("aside", "line", "hard_math_aside")
_WORDING = {
    "math": "new",
    "hard_math_aside": "new",
    "hard_math": "new",
    "hard_math_easy": "known",
    "hard_math_unseen": "unseen",
}
_READ_OUT = ("expression", "let", "table", "calls", "machine")
_ASIDES = (
    "By the way, the hall holds {n} {thing}",
    "Nobody asks about the {n} {thing} in the yard",
    "It does not matter that {n} {thing} stand outside",
    "Far away there are {n} {thing}",
)
_ASIDE_THINGS = ("chairs", "lamps", "tents", "boats", "bricks")
_EXPLICIT = (explicit.steps, explicit.formal, explicit.phrase, explicit.ledger)


def _problem(task: str, rng: Random, split: str) -> Problem:
    if task == "math":
        return _shrink(rng, split)
    large = task not in ("code", "aside", "line") or rng.random() < 0.5
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
    if task in ("aside", "hard_math_aside"):
        content = with_aside(content, rng)
    form = _form(task, rng)
    return {
        "prompt": prompt(content, form, rng),
        "answer": getattr(forms, form)(p),
        "target": p.answer,
        "key": (p.start, p.steps),
    }


def _form(task: str, rng: Random) -> str:
    if task == "aside":
        return rng.choice(_READ_OUT)
    return {"math": "worked", "line": "line"}.get(task, "python")


def with_aside(content: str, rng: Random) -> str:
    """The content with one sentence, between its own, that has nothing to do with the problem."""
    n = rng.randint(2, 9999)
    aside = rng.choice(_ASIDES).format(n=n, thing=rng.choice(_ASIDE_THINGS))
    sentences = content.split(". ")
    sentences.insert(rng.randrange(len(sentences)), aside)
    return ". ".join(sentences)


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
