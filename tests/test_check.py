"""``lorasoups check`` must notice what is no longer true."""

import copy
import json

import pytest
from results_example import example_results

from lorasoups.check import check, derived, report
from lorasoups.errors import SoupError
from lorasoups.results import write_results

GOOD = example_results(3, ("base", "math", "code", "cat", "data_mix"), n=80)
CLAIM = {"id": "cat-code", "where": "README.md", "text": "CAT beats the code LoRA",
         "experiment": "hard_math", "a": "cat", "b": "code", "says": "above"}  # fmt: skip


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "README.md").write_text("In short, CAT beats\nthe code LoRA here.\n")
    put(tmp_path, GOOD)
    claims(tmp_path, CLAIM)
    return tmp_path


def put(root, results, profile="mini"):
    write_results(root / "data/results" / profile / "hard_math.json", results)


def claims(root, *entries):
    (root / "data" / "claims.json").write_text(json.dumps(entries))


def failed(root):
    return [str(f) for f in check("mini", root) if not f.ok and "generated" not in f.what]


def test_a_true_file_and_a_true_sentence_hold(project):
    assert failed(project) == []
    told = [str(f) for f in check("mini", project) if f.ok]
    assert any("CAT (learned alphas) > code LoRA on hard_math in 3 of 3 seeds" in t for t in told)


def test_changed_comparisons_are_noticed():
    for field, value in (("diff", 0.9), ("lo", -1.0), ("p_holm", 0.5), ("wins", 0)):
        changed = copy.deepcopy(GOOD)
        changed["comparisons"][0][field] = value
        assert any(not f.ok and "comparisons" in f.what for f in derived("x", changed)), field


def test_changed_super_linearity_is_noticed():
    changed = copy.deepcopy(GOOD)
    changed["superlinearity"]["diff"] += 0.1
    assert any(not f.ok and "super-linearity" in f.what for f in derived("x", changed))


def test_a_changed_verdict_makes_the_file_unreadable(project):
    path = project / "data/results/mini/hard_math.json"
    results = json.loads(path.read_text())
    bits = results["items"]["hard_math"]["cat"]["0"]
    results["items"]["hard_math"]["cat"]["0"] = ("0" if bits[0] != "0" else "f") + bits[1:]
    path.write_text(json.dumps(results))
    assert any("can be read" in text and "verdicts" in text for text in failed(project))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"says": "below"}, "CAT (learned alphas) > code LoRA"),
        ({"text": "CAT is magic"}, "the sentence is not there"),
        ({"b": "ties@delta"}, "was not evaluated"),
        ({"experiment": "rank"}, "no results of rank"),
        ({"where": "LIES.md"}, "cannot be read"),
    ],
)
def test_sentences_that_do_not_hold_are_named(project, change, expected):
    claims(project, CLAIM | change)
    (text,) = failed(project)
    assert text.startswith("FAIL cat-code") and expected in text


def test_the_exit_code_says_it(project, capsys):
    claims(project, CLAIM | {"says": "open"})
    assert report("mini", project) == 1
    assert "FAIL cat-code" in capsys.readouterr().out


def test_nothing_to_check_and_broken_claims_are_errors(project, tmp_path):
    with pytest.raises(SoupError, match="no results"):
        list(check("smoke", project))
    (project / "data/claims.json").write_text("{")
    with pytest.raises(SoupError, match="claims cannot be read"):
        list(check("mini", project))


def test_the_committed_results_and_sentences_hold():
    """The project's own claims (comparisons of all files take a minute: the command checks them)."""
    from lorasoups.check import _generated, _written
    from lorasoups.paths import Folders
    from lorasoups.results import read_results

    folders = Folders()
    known = {p.stem: read_results(p) for p in (folders.results / "mini").glob("*.json")}
    bad = [str(f) for f in (*_generated(folders, known), *_written(folders, known)) if not f.ok]
    assert bad == []
