"""GSM-Hard in three views: all, really changed, changed and not flagged.

GSM-Hard (Gao et al. 2022, arXiv 2211.10435) puts a large number into each GSM8K test question and
its reference program, whose result is the target. *Unchanged* rows are in GSM8K's test set word for
word, with the same answer. *Flagged* rows may not ask for what their program computes: a number
that is not in the GSM8K question is at least twice in the new question but once in the program
(``repeated``), or not in the program (``lost``: the text is damaged, as in "$1.3299286"). A flag
is a hint, not a proof. ``gsm_hard_flags.json`` lists the row numbers;
``python -m lorasoups.tasks.real.gsm_hard`` computes it again from the two data sets.
"""

import ast
import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from lorasoups.files import write_json_atomic
from lorasoups.tasks.real.hub import load_split

FLAGS_FILE = Path(__file__).with_name("gsm_hard_flags.json")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+")
_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)


def masks(questions: Sequence[str], n: int | None = None) -> dict[str, np.ndarray]:
    """The views of the first ``n`` problems (default: all), as bool masks [n] by name.

    Args:
        questions: the whole ``input`` column. The shipped flags hold for GSM-Hard's 1,319
            questions in their order; anything else has the view ``all`` alone.
        n: how many of them are used. A view without a problem among them is left out.
    """
    flags, rows = shipped_flags(), np.arange(len(questions))
    if digest(questions) != flags["questions_sha256"]:
        return {"all": np.ones(len(questions), dtype=bool)[:n]}
    changed = ~np.isin(rows, flags["unchanged"])
    clean = changed & ~np.isin(rows, flags["repeated"] + flags["lost"])
    views = {"all": rows >= 0, "changed": changed, "changed_unflagged": clean}
    return {name: mask[:n] for name, mask in views.items() if mask[:n].any()}


@cache
def shipped_flags() -> dict:
    """The flags that come with the package: lists of row numbers, from 0."""
    return json.loads(FLAGS_FILE.read_text(encoding="utf-8"))


def compute_flags(hard: Sequence[dict], gsm8k_test: Sequence[dict]) -> dict:
    """Apply the rules above to the rows of GSM-Hard and of GSM8K's test split.

    Returns:
        ``{questions_sha256, rows, unchanged, repeated, lost}``, the last three as row numbers.
    """
    answers = {_plain(row["question"]): gsm8k_answer(row["answer"]) for row in gsm8k_test}
    flags: dict[str, list[int]] = {"unchanged": [], "repeated": [], "lost": []}
    for i, row in enumerate(hard):
        answer = answers.get(_plain(row["input"]))
        if answer is not None:
            if abs(answer - row["target"]) < 1e-3:
                flags["unchanged"].append(i)
            continue
        docstring = _DOCSTRING.search(row["code"])  # the GSM8K question; one program has none
        original = _numbers(docstring[1] if docstring else "")
        question, program = _numbers(row["input"]), _literals(row["code"])
        substituted = [number for number in question if number not in original]
        if any(question[number] > 1 and program[number] == 1 for number in substituted):
            flags["repeated"].append(i)
        if any(program[number] == 0 for number in substituted):
            flags["lost"].append(i)
    questions = [row["input"] for row in hard]
    return {"questions_sha256": digest(questions), "rows": len(hard), **flags}


def gsm8k_answer(answer: str) -> int | float:
    """The number after ``####`` in a GSM8K answer."""
    number = float(answer.rpartition("####")[2].strip().replace(",", ""))
    return int(number) if number.is_integer() else number


def digest(questions: Sequence[str]) -> str:
    """sha256 of the questions in their order."""
    return hashlib.sha256(json.dumps(list(questions)).encode()).hexdigest()


def _plain(text: str) -> str:
    return " ".join(text.split())


def _numbers(text: str) -> Counter[float]:
    return Counter(float(number.replace(",", "")) for number in _NUMBER.findall(text))


def _literals(code: str) -> Counter[float]:
    """The numbers that a program is written with, without those in its texts and comments."""
    nodes = (node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant))
    return Counter(float(value) for value in nodes if type(value) in (int, float))


if __name__ == "__main__":
    problems, _ = load_split("reasoning-machines/gsm-hard", "default", "train")
    computed = compute_flags(problems, load_split("openai/gsm8k", "main", "test")[0])
    dataset = {"dataset": "reasoning-machines/gsm-hard"}
    write_json_atomic(FLAGS_FILE, dataset | computed, indent=None)
