"""The headline's tasks on real data: GSM8K and CodeAlpaca as skills, GSM-Hard as target.

========  =======================  ====================  ====================================
task      dataset                  answer                used for
========  =======================  ====================  ====================================
math      openai/gsm8k             worked steps, words   skill; its test is GSM8K's own test
code      CodeAlpaca-20k           as in the dataset     skill; has no test that could be run
gsm_hard  reasoning-machines/...   a Python program      target: test only, never trained on
========  =======================  ====================  ====================================

No skill example answers a word problem with a program. Prompts of training and evaluation come
from one template (`render`).
"""

import hashlib
import re
from functools import cache

from lorasoups.errors import SoupError
from lorasoups.gsm_hard import gsm8k_answer
from lorasoups.hub import Rows, load_split

SPLITS = ("train", "validation", "test")
TASKS = ("math", "code", "gsm_hard")
USE_PYTHON = (
    "Use Python: answer with a function that begins with `def solution():` and returns the answer "
    "as a number."
)
_CALCULATOR = re.compile(r"<<[^<>]*>>")
_SHARE = 20  # every 20th question is for validation, of CodeAlpaca another 20th for test


def items(task: str, split: str) -> tuple[list[dict], list[dict]]:
    """All items of a task's split, and where they come from.

    ``train``, ``validation`` and ``test`` are disjoint by question. Which of them a question of a
    training file belongs to depends on the question's hash alone; skills come in the order of that
    hash (as good as shuffled), GSM-Hard in the file's own order.

    Args:
        task: ``math``, ``code`` or ``gsm_hard``.
        split: ``train``, ``validation`` or ``test``; ``gsm_hard`` has ``test`` alone.

    Returns:
        Items ``{question, answer, target, id}``, and the `hub.Rows.info` of every file read.
        ``question`` is what the user says (not yet a prompt: see `render`), ``target`` a number, or
        None where there is nothing to compare with (``code``), ``id`` names the row. GSM-Hard's
        have ``source_question`` too: the question without the request for Python.

    Raises:
        SoupError: unknown task or split, the target asked for training, or data not to be had.
    """
    if task not in TASKS or split not in SPLITS:
        raise SoupError(
            f"no such data: task {task!r}, split {split!r}; "
            f"choose one of {', '.join(TASKS)} and of {', '.join(SPLITS)}"
        )
    if task == "gsm_hard" and split != "test":
        raise SoupError(f"GSM-Hard is for the test alone: split {split!r}; train on the skills")
    return {"math": _math, "code": _code, "gsm_hard": _gsm_hard}[task](split)


def render(tokenizer, question: str) -> str:
    """The prompt for a question, up to where the answer begins.

    The tokenizer's chat template if it has one (a single user turn), else a plain template. A begin
    token that the tokenizer will add itself is not written twice.
    """
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


def worked_answer(answer: str) -> str:
    """A GSM8K answer without calculator marks, ending in ``The answer is N.``."""
    steps, _, number = _CALCULATOR.sub("", answer).rpartition("####")
    return f"{steps.strip()}\nThe answer is {number.strip()}."


def _math(split: str) -> tuple[list[dict], list[dict]]:
    test = load_split("openai/gsm8k", "main", "test")
    if split == "test":
        return _math_items(test), [test.info]
    train = load_split("openai/gsm8k", "main", "train")
    known = {_hash(row["question"]) for row in test}
    kept = [
        item
        for item in _math_items(train)
        if _hash(item["question"]) not in known and (_slot(item) == 0) == (split == "validation")
    ]
    return _ordered(kept), [train.info, test.info]


def _math_items(rows: Rows) -> list[dict]:
    return [
        {
            "question": row["question"].strip(),
            "answer": worked_answer(row["answer"]),
            "target": gsm8k_answer(row["answer"]),
            "id": f"gsm8k/{rows.info['split']}/{i}",
        }
        for i, row in enumerate(rows)
    ]


def _code(split: str) -> tuple[list[dict], list[dict]]:
    rows = load_split("sahil2801/CodeAlpaca-20k", "default", "train")
    wanted = {"validation": {0}, "test": {1}}.get(split, set(range(2, _SHARE)))
    kept = []
    for i, row in enumerate(rows):
        given = row["input"].strip()
        has_input = given and given.lower() not in ("<noinput>", "no input")
        item = {
            "question": row["instruction"].strip() + (f"\n\nInput:\n{given}" if has_input else ""),
            "answer": row["output"].strip(),
            "target": None,
            "id": f"CodeAlpaca-20k/train/{i}",
        }
        if item["answer"] and _slot(item) in wanted:
            kept.append(item)
    return _ordered(kept), [rows.info]


def _gsm_hard(split: str) -> tuple[list[dict], list[dict]]:
    rows = load_split("reasoning-machines/gsm-hard", "default", "train")  # its only split
    found = [
        {
            "question": f"{row['input'].strip()}\n\n{USE_PYTHON}",
            "answer": "",  # the reference program is not handed out
            "target": row["target"],
            "id": f"gsm-hard/{i}",
            "source_question": row["input"],
        }
        for i, row in enumerate(rows)
    ]
    return found, [rows.info]


@cache
def _hash(question: str) -> int:
    plain = " ".join(question.lower().split())
    return int.from_bytes(hashlib.sha256(plain.encode()).digest()[:8], "big")


def _slot(item: dict) -> int:
    """0 .. 19, by the question alone: the same question is always in the same split."""
    return _hash(item["question"]) % _SHARE


def _ordered(kept: list[dict]) -> list[dict]:
    """By hash, each question once."""
    first: dict[int, dict] = {}
    for item in kept:
        first.setdefault(_hash(item["question"]), item)
    return [first[key] for key in sorted(first)]
