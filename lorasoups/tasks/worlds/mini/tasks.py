"""Skills and targets of the mini world. A task is one entry of `TASKS`.

No skill answers a story in Python: only the targets do. ``aside`` and ``line`` are there for soups
of more than two skills.
"""

from dataclasses import dataclass, replace
from random import Random

from lorasoups.errors import SoupError
from lorasoups.tasks.worlds import prompted
from lorasoups.tasks.worlds.mini import WORDS, problems
from lorasoups.tasks.worlds.mini.problems import FORMS, Problem, sample, tell


@dataclass(frozen=True)
class Task:
    wording: str  # of the story (see `tell`), or "explicit": the operations are named
    numbers: str  # "small", "large", or "mixed": half and half
    forms: tuple[str, ...]  # of the answer; one is drawn
    aside: bool = False  # whether the content has a sentence that must be ignored
    shown: bool = False  # whether up to two solved examples of its form may stand before a problem


_READ_OUT = ("expression", "let", "table", "calls", "machine")
TASKS = {
    # skills
    "math": Task("new", "small", ("worked",)),
    "code": Task("explicit", "mixed", ("python",)),
    # the same in three forms each, five times of seven the first, some after solved examples
    "math_forms": Task("new", "small", (*["worked"] * 5, "calls", "table"), shown=True),
    "code_forms": Task("explicit", "mixed", (*["python"] * 5, "let", "machine"), shown=True),
    "aside": Task("explicit", "mixed", _READ_OUT, aside=True),  # the third skill
    "line": Task("explicit", "mixed", ("line",)),  # the fourth skill
    # targets
    "hard_math": Task("new", "large", ("python",)),
    "hard_math_shown": Task("new", "large", ("python",), shown=True),  # to train a ceiling on
    "hard_math_easy": Task("known", "large", ("python",)),
    "hard_math_unseen": Task("unseen", "large", ("python",)),
    "hard_math_aside": Task("new", "large", ("python",), aside=True),
}


def example(name: str, rng: Random, split: str) -> dict:
    """Draw one example of a task: a dict with ``prompt`` and ``answer`` (text), ``target`` (int:
    what the program must return or the words must end in) and ``key`` (the problem, which decides
    the split). Raises SoupError for an unknown task."""
    if name not in TASKS:
        raise SoupError(f"unknown task {name!r}: choose one of {', '.join(TASKS)}")
    task = TASKS[name]
    item, form = _asked(task, rng, split)
    for _ in range(rng.choice((0, 0, 1, 2)) if task.shown else 0):
        solved, _ = _asked(replace(task, forms=(form,)), rng, split)
        item["prompt"] = f"{solved['prompt']}{solved['answer']}\n\n{item['prompt']}"
    return item


def _asked(task: Task, rng: Random, split: str) -> tuple[dict, str]:
    """A problem with its answer, and the form of that."""
    p = _problem(task, rng, split)
    explicit = task.wording == "explicit"
    content = tell(p, rng, rng.choice(problems.EXPLICIT) if explicit else task.wording)
    if task.aside:
        content = _with_aside(content, rng)
    form = rng.choice(task.forms) if len(task.forms) > 1 else task.forms[0]
    item = prompted(content, FORMS[form], p, rng)
    return item | {"target": p.answer, "key": (p.start, p.steps)}, form


def _problem(task: Task, rng: Random, split: str) -> Problem:
    """A problem of the task; small ones often double, triple or halve, which has its own words."""
    if task.numbers != "small":
        return sample(rng, split, large=task.numbers == "large" or rng.random() < 0.5)
    while True:
        p = sample(rng, split, large=False)
        if any(f"{op} {n}" in problems.NUMBER_WORDS for op, n in p.steps) or rng.random() < 0.7:
            return p


def _with_aside(content: str, rng: Random) -> str:
    """The content with an irrelevant sentence among its own."""
    n = rng.randint(2, 9999)
    words = WORDS["aside"]
    aside = rng.choice(words["sentences"]).format(n=n, thing=rng.choice(words["things"].split()))
    sentences = content.split(". ")
    sentences.insert(rng.randrange(len(sentences)), aside)
    return ". ".join(sentences)


def dataset(task: str, split: str, n: int, seed: int) -> list[dict]:
    """``n`` examples with distinct prompts (see `example`); splits share no problem."""
    rng = Random(f"{task}/{split}/{seed}")
    items: dict[str, dict] = {}
    while len(items) < n:
        item = example(task, rng, split)
        items.setdefault(item["prompt"], item)
    return list(items.values())
