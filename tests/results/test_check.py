"""``lorasoups check`` must notice what does not follow from the verdicts."""

import copy
import json

import numpy as np
import pytest
from results_example import example_results

from lorasoups.errors import SoupError
from lorasoups.paths import Folders
from lorasoups.results.check import check, derived, report
from lorasoups.results.file import pack_verdicts, validate, write_results
from lorasoups.results.reading import against, matrix

GOOD = example_results(3, ("base", "math", "code", "cat", "data_mix"), n=80) | {"profile": "mini"}
PATH = "data/results/mini/hard_math.json"


@pytest.fixture
def project(tmp_path):
    write_results(tmp_path / PATH, GOOD)
    return tmp_path


def failed(root):
    return [str(f) for f in check("mini", root) if not f.ok]


def changed(project, change):
    """Change the stored results behind the back of their writer."""
    results = json.loads((project / PATH).read_text())
    change(results)
    (project / PATH).write_text(json.dumps(results))


def wrong(results):
    return [str(f) for f in derived("x", results) if not f.ok]


def test_everything_holds_of_a_true_project(project, capsys):
    assert report("mini", project) == 0
    shown = capsys.readouterr().out
    assert "OK   hard_math: 39 rows recomputed" in shown
    assert shown.endswith(" hold, 0 do not\n")


def test_a_changed_verdict_is_noticed(project):
    def flip(results):
        bits = results["items"]["hard_math"]["cat"]["0"]
        results["items"]["hard_math"]["cat"]["0"] = ("0" if bits[0] != "0" else "f") + bits[1:]

    changed(project, flip)
    assert any("of the schema" in text and "verdicts" in text for text in failed(project))


def test_a_changed_accuracy_is_noticed(project):
    changed(project, lambda r: r["rows"][0].update(accuracy=0.99))
    assert any("accuracy 0.99 is not" in text for text in failed(project))


@pytest.mark.parametrize("field", ["accuracy", "lo", "hi"])
def test_a_row_that_is_off_by_little_is_noticed(field):
    off = copy.deepcopy(GOOD)
    row = off["rows"][3]
    if field == "accuracy":
        row["accuracy"] += 1e-7
    else:
        row["ci"][field == "hi"] += 0.01 if field == "hi" else -0.01
    (text,) = wrong(validate(off))
    assert f"{row['method']} on hard_math (all), seed {row['seed']}: {field} is" in text


def test_a_row_without_verdicts_is_noticed():
    bare = copy.deepcopy(GOOD)
    del bare["items"]["math"]["cat"]
    assert any("no verdicts: cat on math" in text for text in wrong(validate(bare)))


def test_seeds_are_taken_in_the_order_of_their_numbers():
    results = {"items": {"t": {"m": {str(s): pack_verdicts([s == 10]) for s in (10, 2, 0)}}},
               "rows": [{"task": "t", "method": "m", "view": "all", "n": 1}]}  # fmt: skip
    assert matrix(results, "t", "m").tolist() == [[False], [False], [True]]


def test_a_view_is_recomputed_where_the_file_lists_its_items():
    chosen = np.arange(80) % 2 == 0
    results = copy.deepcopy(GOOD) | {"views": {"hard_math": {"even": pack_verdicts(chosen)}}}
    table = matrix(results, "hard_math", "cat", "even")
    assert (table == matrix(GOOD, "hard_math", "cat")[:, chosen]).all()
    correct = int(table[0].sum())
    row = next(r for r in GOOD["rows"] if r["method"] == "cat") | {
        "view": "even", "n": 40, "correct": correct - 1, "accuracy": (correct - 1) / 40,
        "outcomes": {}, "ci": [0.0, 1.0],
    }  # fmt: skip
    results["rows"].append(row)
    assert any(
        f"{correct - 1} of 40, the verdicts say {correct} of 40" in t for t in wrong(results)
    )
    with pytest.raises(SoupError, match="items not listed: view 'odd'"):
        matrix(results, "hard_math", "cat", "odd")


def test_unreadable_unended_and_misplaced_files_are_noticed(project):
    (project / PATH).with_name("rank.json").write_text('{"schema": 1, "prof')
    write_results((project / PATH).with_name("length.json"), GOOD | {"experiment": "rank"})
    changed(project, lambda r: r.update(complete=False))
    told = "\n".join(failed(project))
    assert "FAIL rank: complete, and of the schema: not valid JSON" in told
    assert "FAIL length: complete, and of the schema: it says that it is rank" in told
    assert "FAIL hard_math: complete, and of the schema: a run that has not ended" in told


def test_nothing_to_check_is_an_error(project):
    with pytest.raises(SoupError, match="no results"):
        list(check("smoke", project))


def test_the_exit_code_says_it(project, capsys):
    changed(project, lambda r: r["rows"][0].update(accuracy=0.99))
    assert report("mini", project) == 1
    assert "FAIL hard_math" in capsys.readouterr().out


def test_the_committed_results_of_a_real_model_follow_from_their_verdicts():
    found = list(check("small", Folders().project))
    assert len(found) >= 2
    assert [str(f) for f in found if not f.ok] == []


def test_a_method_is_compared_with_those_that_took_a_test():
    found = against(GOOD, task="math")
    assert set(found) == {"base", "math", "code"}
    rates = {m: matrix(GOOD, "math", m).mean() for m in ("cat", "math")}
    assert found["math"].diff == pytest.approx(rates["cat"] - rates["math"])
    assert against(GOOD, task="mowps") == {} and against(GOOD, ["math", "ties@delta"]).keys() == {
        "math"
    }


def test_methods_of_different_seeds_are_not_compared():
    off = copy.deepcopy(GOOD)
    own = off["items"]["hard_math"]["base"]
    own["7"] = own.pop("2")
    with pytest.raises(SoupError, match="different seeds: cat and base"):
        against(off)
