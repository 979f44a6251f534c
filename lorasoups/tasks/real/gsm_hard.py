"""GSM-Hard in three views: all, really changed, changed and not flagged.

GSM-Hard (Gao et al. 2022, arXiv 2211.10435) puts a large number into each GSM8K test question and
its reference program, whose result is the target. *Unchanged* rows are in GSM8K's test set word for
word, with the same answer. *Flagged* rows may not ask for what their program computes: a number
that is not in the GSM8K question is at least twice in the new question but once in the program
(``repeated``), or not in the program (``lost``: the text is damaged, as in "$1.3299286"). A flag
is a hint, not a proof. ``gsm_hard_flags.json`` lists the row numbers; tests/tasks/test_gsm_hard.py
holds the rules and checks the file against the two data sets.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

FLAGS_FILE = Path(__file__).with_name("gsm_hard_flags.json")


def masks(questions: Sequence[str], n: int | None = None) -> dict[str, np.ndarray]:
    """The views of the first ``n`` problems (default: all), as bool masks [n] by name.

    ``questions`` is the whole ``input`` column. The shipped flags hold for GSM-Hard's 1,319
    questions in their order; anything else has the view ``all`` alone. A view without a problem
    among the first ``n`` is left out.
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


def digest(questions: Sequence[str]) -> str:
    """sha256 of the questions in their order."""
    return hashlib.sha256(json.dumps(list(questions)).encode()).hexdigest()
