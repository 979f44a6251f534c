"""GSM-Hard in three views: all, really changed, changed minus flagged (issue 2, section 6).

GSM-Hard (Gao et al. 2022, PAL) was made by putting a large number into a GSM8K test question and
into its reference program; the target is what that program returns. Two things follow, and this
module finds both by rule:

- *unchanged*: the question stands word for word in GSM8K's test set, with the same answer.
- *flagged*: candidates for a question that does not say what its program computes. A *substituted*
  number is one that occurs in the question but not in the GSM8K question that it was made from.
  ``repeated``: some substituted number stands at least twice in the question and exactly once in
  the program (several numbers were replaced in the text, one in the program). ``lost``: some
  substituted number does not occur in the program at all (the text is damaged, as in
  "$1.3299286"). A heuristic: a flag is no proof.

The flags are shipped as indices (``gsm_hard_flags.json``); ``python -m lorasoups.tasks.real.gsm_hard``
computes them again from the two datasets.
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

FLAGS_FILE = Path(__file__).with_name("gsm_hard_flags.json")
VIEWS = ("all", "changed", "changed_unflagged")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+")
_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)


def masks(questions: Sequence[str], n: int | None = None) -> dict[str, np.ndarray]:
    """The views of the first ``n`` problems (default all) as bool masks of that length.

    Args:
        questions: the ``input`` column, whole: the shipped flags hold for exactly GSM-Hard's 1,319
            questions in their order. For anything else ``all`` is the only view.
        n: how many of them are used.

    Returns:
        Masks by name; a view without a problem among the first ``n`` is left out.
    """
    flags = shipped_flags()
    everything = np.ones(len(questions), dtype=bool)
    if digest(questions) != flags["questions_sha256"]:
        return {"all": everything[:n]}
    changed = ~_mask(len(questions), flags["unchanged"])
    clean = changed & ~_mask(len(questions), flags["repeated"] + flags["lost"])
    views = dict(zip(VIEWS, (everything, changed, clean), strict=True))
    return {name: mask[:n] for name, mask in views.items() if mask[:n].any()}


@cache
def shipped_flags() -> dict:
    """The flags that come with the package: lists of row numbers, from 0."""
    return json.loads(FLAGS_FILE.read_text(encoding="utf-8"))


def compute_flags(hard: Sequence[dict], gsm8k_test: Sequence[dict]) -> dict:
    """Find the flags by the rules above.

    Args:
        hard: rows of GSM-Hard (``input``, ``code``, ``target``).
        gsm8k_test: rows of GSM8K's test split (``question``, ``answer``).

    Returns:
        ``{questions_sha256, rows, unchanged, repeated, lost}``, the last three as row numbers.
    """
    answers = {_plain(row["question"]): gsm8k_answer(row["answer"]) for row in gsm8k_test}
    found: dict[str, list[int]] = {"unchanged": [], "repeated": [], "lost": []}
    for i, row in enumerate(hard):
        same = answers.get(_plain(row["input"]))
        if same is not None:
            if abs(same - row["target"]) < 1e-3:
                found["unchanged"].append(i)
            continue
        asked, original = _numbers(row["input"]), _numbers(_original(row["code"]))
        program = _literals(row["code"])
        substituted = [number for number in asked if number not in original]
        if any(asked[number] > 1 and program[number] == 1 for number in substituted):
            found["repeated"].append(i)
        if any(program[number] == 0 for number in substituted):
            found["lost"].append(i)
    questions = [row["input"] for row in hard]
    return {"questions_sha256": digest(questions), "rows": len(hard), **found}


def gsm8k_answer(answer: str) -> int | float:
    """The number after ``####`` in a GSM8K answer."""
    number = float(answer.rpartition("####")[2].strip().replace(",", ""))
    return int(number) if number.is_integer() else number


def digest(questions: Sequence[str]) -> str:
    """sha256 of the questions in their order."""
    return hashlib.sha256(json.dumps(list(questions)).encode()).hexdigest()


def _original(code: str) -> str:
    """The GSM8K question: it is still the docstring of the program (one program has none)."""
    found = _DOCSTRING.search(code)
    return found[1] if found else ""


def _plain(text: str) -> str:
    return " ".join(text.split())


def _numbers(text: str) -> Counter[float]:
    return Counter(float(number.replace(",", "")) for number in _NUMBER.findall(text))


def _literals(code: str) -> Counter[float]:
    """The numbers that a program is written with; its texts and comments do not count."""
    nodes = (node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant))
    return Counter(float(value) for value in nodes if type(value) in (int, float))


def _mask(n: int, indices: Sequence[int]) -> np.ndarray:
    mask = np.zeros(n, dtype=bool)
    mask[list(indices)] = True
    return mask


def main() -> None:
    """Compute the shipped file again, from a mirror or from the Hub."""
    from lorasoups.files import write_json_atomic
    from lorasoups.tasks.real.hub import load_split

    hard = load_split("reasoning-machines/gsm-hard", "default", "train")
    flags = compute_flags(hard, load_split("openai/gsm8k", "main", "test"))
    write_json_atomic(FLAGS_FILE, {"dataset": "reasoning-machines/gsm-hard", **flags}, indent=None)
    print({name: len(value) for name, value in flags.items() if isinstance(value, list)})


if __name__ == "__main__":
    main()
