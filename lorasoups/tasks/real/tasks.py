"""The tasks on real data: items of each, disjoint parts, and how a question becomes a prompt.

Which sets there are and what is asked of them is declared in ``real_sets.toml``. The headline's:

========  =======================  ====================  ====================================
task      dataset                  answer                used for
========  =======================  ====================  ====================================
math      openai/gsm8k             worked steps, words   skill; its test is GSM8K's own test
code      CodeAlpaca-20k           as in the dataset     skill; has no test that could be run
gsm_hard  reasoning-machines/...   a Python program      target: test only, never trained on
========  =======================  ====================  ====================================

No skill example answers a word problem with a program. Prompts of training and evaluation come
from one template (`render`), unless the released choice is asked for.
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from lorasoups.errors import SoupError
from lorasoups.tasks.real.chunks import chunks
from lorasoups.tasks.real.hub import Rows
from lorasoups.tasks.real.rows import read, served
from lorasoups.tasks.real.sets import SPLITS, DataSet, Task, catalogue
from lorasoups.tasks.real.templates import fill

USE_PYTHON = catalogue().phrases["use_python"]
TASKS = tuple(catalogue().tasks)
SAME = "same"
_SHARE = 20  # every 20th question is for validation; without a file for the test another for it


def items(
    task: str, split: str, manual: str | Path | None = None, max_words: int | None = None
) -> tuple[list[dict], list[dict]]:
    """All items of a task's split, and where they come from.

    ``train``, ``validation`` and ``test`` are disjoint by question (or by what the task declares as
    its key, e.g. the article). Which of them a question of a training file belongs to depends on
    its hash alone; such items come in the order of the question's hash (as good as shuffled), the
    items of a file for the test in the file's own order.

    Args:
        task: one of `TASKS`.
        split: ``train``, ``validation`` or ``test``; a target has ``test`` alone.
        manual: the user's own text file, for the task ``manual``.
        max_words: words of a chunk of plain text, if fewer than declared.

    Returns:
        Items ``{question, answer, target, id}``, and the `hub.Rows.info` of every file read.
        ``question`` is what the user says (not yet a prompt: see `render`), "" for plain text;
        ``target`` is a number or a text, or None where there is nothing to compare with; ``id``
        names the row. Items that are asked for a program have ``source_question`` too: the
        question without the request for Python. Some have a ``view``, the part of the test that
        they belong to, or ``compare``, their content without its form (see `decontamination`).

    Raises:
        SoupError: unknown task or split, a target asked for training, or data not to be had.
    """
    found = catalogue()
    if task not in found.tasks or split not in SPLITS:
        raise SoupError(
            f"no such data: task {task!r}, split {split!r}; "
            f"choose one of {', '.join(found.tasks)} and of {', '.join(SPLITS)}"
        )
    own = found.tasks[task]
    if split not in own.splits:
        what = "for the test alone" if own.splits == ("test",) else f"without a {split} part"
        raise SoupError(f"{task} is {what}: split {split!r}; use {' or '.join(own.splits)}")
    own, stand_in_for = served(own, found, manual)
    where = found.sets[own.set]

    def load(name: str) -> Rows:
        return read(where, name, manual, stand_in_for)

    if split == "test" and "test" in where.splits and not own.test_part:
        rows = load("test")
        return [item for _, item in _made(own, where, rows, "test", max_words)], [rows.info]
    rows = load("train")
    made = list(_made(own, where, rows, "train", max_words))
    if "test" not in where.splits:
        return _part(own, made, split, set()), [rows.info]
    test = load("test")
    known = {_hash(_key(own, row)) for row in test}
    return _part(own, made, split, known), [rows.info, test.info]


def render(tokenizer, question: str, template: str = SAME, split: str = "test") -> str:
    """The prompt for a question, up to where the answer begins.

    The tokenizer's chat template if it has one (a single user turn), else a plain template. A begin
    token that the tokenizer will add itself is not written twice.

    Args:
        tokenizer: of the base.
        question: what the user says; plain text ("") has an empty prompt.
        template: a name of ``[templates]`` in ``real_sets.toml``; ``released`` uses neither of the
            two above, but its own for training and for the test.
        split: train, validation or test; of no concern to the default.

    Raises:
        SoupError: no such template.
    """
    if template not in catalogue().templates:
        known = ", ".join(catalogue().templates)
        raise SoupError(f"no such template: {template!r}; choose one of {known}")
    if not question:
        return ""
    declared = catalogue().templates[template]
    if text := declared.test if split == "test" else declared.train:
        return text.replace("{question}", question)
    if not getattr(tokenizer, "chat_template", None):
        return f"### Instruction:\n{question}\n\n### Response:\n"
    turns = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    begin = tokenizer.bos_token
    if begin and text.startswith(begin):
        ids = tokenizer(text).input_ids
        if ids[:2] == [tokenizer.bos_token_id] * 2:
            return text.removeprefix(begin)
    return text


def judge_of(task: str) -> str:
    """The name of a task's judge (`judges.JUDGES`); "" where nothing can be judged."""
    return catalogue().tasks[task].judge


# --- from rows to items -------------------------------------------------------------------------


def _made(
    task: Task, where: DataSet, rows: Rows, split: str, max_words: int | None
) -> Iterator[tuple[str, dict]]:
    """Key and item of every row that the task uses, in the file's order."""
    begin = where.repo.rpartition("/")[2] or where.name
    names = task.id or f"{begin}/{where.splits.get(split, split)}/{{row}}"
    for i, row in enumerate(rows):
        if split == "test" and i in where.drop_rows:
            continue
        if any(row[column] not in wanted for column, wanted in task.where.items()):
            continue
        name = names.replace("{row}", str(i))
        yield from _texts(task, row, name, max_words) if task.text else _question(task, row, name)


def _texts(task: Task, row: dict, name: str, max_words: int | None) -> Iterator[tuple[str, dict]]:
    words = min(task.chunk_words, max_words or task.chunk_words)
    for j, text in enumerate(chunks(_fill(task, "text", row), words)):
        yield text, {"question": "", "answer": text, "target": None, "id": f"{name}/{j}"}


def _question(task: Task, row: dict, name: str) -> Iterator[tuple[str, dict]]:
    question, answer = _fill(task, "question", row), _fill(task, "answer", row)
    if not question or (task.answer and not answer):
        return
    item = {
        "question": question,
        "answer": answer,
        "target": _fill(task, "target", row) if task.target else None,
        "id": name,
    }
    item |= {new: row[column] for new, column in task.keep.items()}
    item |= {"view": _fill(task, "view", row)} if task.view else {}
    item |= {"compare": _fill(task, "compare", row)} if task.compare else {}
    yield _key(task, row), item


def _fill(task: Task, what: str, row: dict):
    return fill(getattr(task, what), row, catalogue().phrases, strip=not task.verbatim)


def _key(task: Task, row: dict) -> str:
    return _fill(task, "key" if task.key else "question", row)


# --- disjoint parts -----------------------------------------------------------------------------


def _part(task: Task, made: list[tuple[str, dict]], split: str, known: set[int]) -> list[dict]:
    """The items of a training file that belong to a split; a key in ``known`` to none."""
    has_part = "test" in task.splits and (task.test_part or not known)
    wanted = {"validation": {0}, "test": {1}}.get(split, set(range(2 if has_part else 1, _SHARE)))
    slots = _slots({_hash(key) for key, _ in made}, task.ranked or bool(task.text))
    kept = [item for key, item in made if _hash(key) not in known and slots[_hash(key)] in wanted]
    return _ordered(kept)


def _slots(hashes: set[int], ranked: bool) -> dict[int, int]:
    """0 .. 19 for each key: by its hash alone, or (few keys) by its place among all hashes."""
    if ranked:
        return {own: place % _SHARE for place, own in enumerate(sorted(hashes))}
    return {own: own % _SHARE for own in hashes}


@cache
def _hash(text: str) -> int:
    plain = " ".join(text.lower().split())
    return int.from_bytes(hashlib.sha256(plain.encode()).digest()[:8], "big")


def _ordered(kept: list[dict]) -> list[dict]:
    """By hash of the question (of plain text: the text), each once."""
    first: dict[int, dict] = {}
    for item in kept:
        first.setdefault(_hash(item["question"] or item["answer"]), item)
    return [first[key] for key in sorted(first)]
