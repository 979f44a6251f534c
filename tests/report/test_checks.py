"""Exercises: every check fails on the stub and on two plausible wrong answers, each with a reason
of its own, and passes on the solution that the notebook hides."""

import re
import subprocess
import sys
from pathlib import Path

import checks
import exercises as course
import nbformat
import pytest
from wrong_answers import WRONG

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"


def exercises():
    """Number -> (notebook, text, cell with the stub, code of the solution)."""
    found = {}
    for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for number, at, solution in course.exercises(notebook):
            assert number not in found, (path.name, number)
            text, stub = (notebook.cells[i].source for i in (at - 1, at))
            found[number] = (path.stem, text, stub, solution)
    return found


EXERCISES = exercises()
each = pytest.mark.parametrize("number", sorted(EXERCISES))


def run(code):
    """The verdict that is the last line of a cell which stands for itself."""
    *lines, last = code.strip().splitlines()
    names = {}
    exec("import checks\n" + "\n".join(lines), names)
    return eval(last, names)


def test_every_check_has_an_exercise_and_two_wrong_answers():
    known = {int(name[3:]) for name in dir(checks) if re.fullmatch(r"ex_\d+", name)}
    assert known == set(EXERCISES) == set(WRONG)
    assert all(len(answers) >= 2 for answers in WRONG.values())


@each
def test_the_text_tells_difficulty_and_minutes_and_hides_a_hint(number):
    text = EXERCISES[number][1]
    assert re.match(rf"### Exercise {number}: .+ \(o{{1,4}}, \d+ min\)\n", text), text[:60]
    assert "<summary>Hint</summary>" in text


@each
def test_a_stub_does_not_pass(number):
    verdict = run(EXERCISES[number][2])
    assert not verdict.passed and "Nothing here yet" in verdict.said


@each
def test_the_solution_passes(number):
    verdict = run(EXERCISES[number][3])
    assert verdict.passed, verdict.said


@each
def test_wrong_answers_are_told_why(number):
    said = set()
    for code in WRONG[number]:
        verdict = run(code)
        assert not verdict.passed and "raises" not in verdict.said, verdict.said
        said.add(verdict.said)
    assert len(said) == len(WRONG[number])


@pytest.mark.parametrize("solved", [True, False])
def test_versions_for_a_class(solved):
    for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        known = list(course.exercises(notebook))
        made = course.version(notebook, solved)
        nbformat.validate(made)
        text = "\n".join(cell.source for cell in made.cells)
        assert "<summary>Solution" not in text and not any(c.get("outputs") for c in made.cells)
        assert all((solution in text) == solved for _, _, solution in known)


def test_versions_for_a_class_stand_alone_and_spare_the_source(tmp_path):
    def make(out):
        command = [sys.executable, course.__file__, "students", str(out)]
        return subprocess.run(command, capture_output=True, text=True)

    done = make(course.FOLDER)
    assert done.returncode == 1 and "the source itself" in done.stderr
    assert make(tmp_path).returncode == 0 and (tmp_path / "checks.py").is_file()
    assert len(list(tmp_path.glob("*.ipynb"))) == 11
