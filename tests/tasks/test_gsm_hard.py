"""GSM-Hard's views: the rule behind the flags, the shipped flags, and the reference programs."""

import numpy as np
import pytest
from mirrors import GSM8K, HARD, real_mirror

from lorasoups.tasks.judging.judges import score
from lorasoups.tasks.real import gsm_hard
from lorasoups.tasks.real.gsm_hard import (
    compute_flags,
    digest,
    gsm8k_answer,
    masks,
    shipped_flags,
)
from lorasoups.tasks.real.hub import load_split


def hard(question, original, *lines, target=0.0):
    code = f'def solution():\n    """{original}"""\n' + "".join(f"    {x}\n" for x in lines)
    return {"input": question, "code": code, "target": target}


def test_the_rule_on_small_cases():
    names = ("Ann", "Bob", "Cid", "Dot", "Eve", "Fay")
    q = [f"{name} has 3 boxes of {n} pens and 3 lamps. Pens?" for n, name in enumerate(names, 4)]
    tests = [{"question": q[i], "answer": f"so\n#### {3 * (4 + i)}"} for i in range(len(q))]
    rows = [
        hard(q[0], q[0], "return 3 * 4", target=12.0),  # unchanged
        hard(q[1].replace("5", "9,000"), q[1], "return 3 * 9000"),  # sound
        hard(q[2].replace("3", "70"), q[2], "a = 70", "b = 3", "return a * 6"),  # repeated
        hard(q[3].replace("7", "7.80"), q[3], "# 7.80", "return 3 * 7"),  # lost
        hard(q[4].replace("3", "40"), q[4], "return 41 * 8"),  # repeated no, lost yes
        hard(q[5], q[5], "return 1", target=1.0),  # same question, another answer: not unchanged
    ]
    found = compute_flags(rows, tests)
    assert found == {
        "questions_sha256": digest([row["input"] for row in rows]),
        "rows": 6,
        "unchanged": [0],
        "repeated": [2],
        "lost": [3, 4],
    }


def test_gsm8k_answers():
    assert gsm8k_answer("16 - 3 = <<16-3=13>>13\n#### 13,000") == 13000
    assert gsm8k_answer("#### -2.5") == -2.5


@pytest.fixture
def known(monkeypatch):
    """Eight questions for which flags are shipped."""
    questions = [f"question {i}" for i in range(8)]
    found = {"unchanged": [0, 1], "repeated": [2], "lost": [7]}
    flags = {"questions_sha256": digest(questions), **found}
    monkeypatch.setattr(gsm_hard, "shipped_flags", lambda: flags)
    return questions


def test_three_views(known):
    found = masks(known)
    assert {name: np.flatnonzero(mask).tolist() for name, mask in found.items()} == {
        "all": list(range(8)), "changed": [2, 3, 4, 5, 6, 7], "changed_unflagged": [3, 4, 5, 6],
    }  # fmt: skip


def test_views_of_the_first_problems_leave_out_empty_ones(known):
    assert {name: mask.tolist() for name, mask in masks(known, 3).items()} == {
        "all": [True] * 3, "changed": [False, False, True],
    }  # fmt: skip


def test_flags_are_not_laid_on_other_questions(known):
    assert list(masks(known[::-1])) == list(masks(["?"])) == ["all"]


def test_the_shipped_flags_are_row_numbers_of_1319_problems():
    flags = shipped_flags()
    assert flags["rows"] == 1319
    counts = {name: len(flags[name]) for name in ("unchanged", "repeated", "lost")}
    assert counts == {"unchanged": 328, "repeated": 98, "lost": 72}
    assert len({*flags["repeated"], *flags["lost"]}) == 160
    assert not {*flags["repeated"], *flags["lost"]} & {*flags["unchanged"]}
    assert all(0 <= i < 1319 for name in counts for i in flags[name])


def test_the_shipped_flags_are_what_the_rule_gives_on_the_data():
    real_mirror()
    rows = load_split(*HARD, "train")[0]
    found = compute_flags(rows, load_split(*GSM8K, "test")[0])
    assert {"dataset": HARD[0], **found} == shipped_flags()
    sizes = {name: int(mask.sum()) for name, mask in masks([row["input"] for row in rows]).items()}
    assert sizes == {"all": 1319, "changed": 991, "changed_unflagged": 831}


def test_all_reference_programs_run_and_are_right():
    real_mirror()
    rows = load_split(*HARD, "train")[0]
    verdicts = score([row["code"] for row in rows], [row["target"] for row in rows])
    assert [v.status for v in verdicts] == ["ok"] * 1319
