"""GSM-Hard's views: the rule behind the flags, the shipped flags, and the reference programs."""

import ast
import re
from collections import Counter

import numpy as np
import pytest
from mirrors import GSM8K, HARD, real_mirror

from lorasoups.tasks.judging.judges import score
from lorasoups.tasks.real import gsm_hard
from lorasoups.tasks.real.gsm_hard import digest, masks, shipped_flags
from lorasoups.tasks.real.hub import load_split
from lorasoups.tasks.real.sets import FILTERS

NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+")
gsm8k_answer = FILTERS["gsm8k_number"]


def compute_flags(hard, gsm8k_test):
    """Apply the rules of `gsm_hard` to the rows of GSM-Hard and of GSM8K's test split.

    Returns:
        ``{questions_sha256, rows, unchanged, repeated, lost}``, the last three as row numbers.
    """
    answers = {plain(row["question"]): gsm8k_answer(row["answer"]) for row in gsm8k_test}
    flags = {"unchanged": [], "repeated": [], "lost": []}
    for i, row in enumerate(hard):
        answer = answers.get(plain(row["input"]))
        if answer is not None:
            if abs(answer - row["target"]) < 1e-3:
                flags["unchanged"].append(i)
            continue
        # the GSM8K question; one program has none
        docstring = re.search(r'"""(.*?)"""', row["code"], re.DOTALL)
        original = numbers_in(docstring[1] if docstring else "")
        question, program = numbers_in(row["input"]), literals(row["code"])
        substituted = [number for number in question if number not in original]
        if any(question[number] > 1 and program[number] == 1 for number in substituted):
            flags["repeated"].append(i)
        if any(program[number] == 0 for number in substituted):
            flags["lost"].append(i)
    questions = [row["input"] for row in hard]
    return {"questions_sha256": digest(questions), "rows": len(hard), **flags}


def plain(text):
    return " ".join(text.split())


def numbers_in(text):
    return Counter(float(number.replace(",", "")) for number in NUMBER.findall(text))


def literals(code):
    """The numbers that a program is written with, without those in its texts and comments."""
    nodes = (node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant))
    return Counter(float(value) for value in nodes if type(value) in (int, float))


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
