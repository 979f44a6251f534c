"""The results file: what its check lets through, and reading from it."""

import copy
import json
import subprocess

import numpy as np
import pytest
from results_example import example_results

from lorasoups.errors import SoupError
from lorasoups.results import file as R
from lorasoups.results.file import FORM


def row(method="cat", seed=0, correct=3, n=4, **more):
    return {
        "task": "hard_math",
        "view": "all",
        "method": method,
        "on": "delta",
        "weights": "1/k",
        "seed": seed,
        "n": n,
        "correct": correct,
        "accuracy": correct / n,
        "ci": [0.0, 1.0],
        "outcomes": {"ok": correct, "wrong": n - correct},
        "extra": {},
    } | more


@pytest.fixture
def good():
    return {
        "schema": 1,
        "profile": "smoke",
        "created": "2025-01-01T00:00:00Z",
        "complete": True,
        "provenance": R.provenance(
            device="cpu", cpu="made up", base_sha256="00", world_version=1, wall_s=1.5
        ),
        "config": {"rank": 8},
        "rows": [row(), row(seed=1, correct=1), row("base", correct=0)],
        "items": {"hard_math": {"cat": {"0": R.pack_verdicts([1, 0, 1, 1])}}},
        "alphas": [
            {"seed": 0, "preset": "ours", "normalise": "none", "module": "m", "values": [0.5, 0.5]}
        ],
        "curves": [
            {
                "seed": 0,
                "preset": "ours",
                "step": 1,
                "loss": 0.5,
                "alpha_mean": [0.5, 0.5],
                "alpha_moved": 0.0,
            }
        ],
        "sweep": [
            {
                "seed": 0,
                "normalise": "none",
                "init": "uniform",
                "lr": 0.01,
                "heldout_loss": 0.5,
                "chosen": True,
            }
        ],
        "skills": [
            {
                "seed": 0,
                "name": "math",
                "steps": 10,
                "loss": 0.5,
                "seconds": 1.0,
                "tokens_per_s": 100.0,
            }
        ],
        "timings": {"train": 1.0},
    }


def fields(value, path=()):
    """Paths of every mapping key, in lists the first element's, within the schema's own levels."""
    for name, item in value.items():
        yield (*path, name)
        if name == "provenance":
            yield from ((*path, name, inner) for inner in FORM["provenance"])
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            yield from ((*path, name, 0, inner) for inner in item[0])


def test_good_file_survives_writing_and_reading(good, tmp_path):
    path = R.results_path("smoke", root=tmp_path)
    R.write_results(path, good)
    assert R.load_results("smoke", root=tmp_path) == good
    assert path == tmp_path / "data" / "results" / "smoke" / "hard_math.json"


def test_every_missing_field_is_named(good):
    paths = list(fields(good))
    assert len(paths) > 50
    for path in paths:
        broken = copy.deepcopy(good)
        holder = broken
        for step in path[:-1]:
            holder = holder[step]
        del holder[path[-1]]
        name = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in path)[1:]
        with pytest.raises(SoupError, match="missing field") as caught:
            R.validate(broken, "smoke.json")
        assert f"smoke.json, field {name};" in str(caught.value)


@pytest.mark.parametrize(
    "change, field",
    [
        ({"accuracy": 0.7}, "accuracy"),
        ({"correct": 5}, "correct"),
        ({"n": 0}, "correct"),
        ({"n": "4"}, "n"),
        ({"n": True}, "n"),
        ({"accuracy": float("nan")}, "accuracy"),
        ({"ci": [0.8, 0.9]}, "ci"),
        ({"ci": [0.5]}, "ci"),
        ({"ci": [None, None]}, "ci"),
        ({"outcomes": {"ok": 3}}, "outcomes"),
        ({"task": None}, "task"),
        ({"extra": {"f1": "high"}}, "extra.f1"),
        ({"extra": {"f1": float("nan")}}, "extra.f1"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(good, change, field):
    good["rows"][0] |= change
    with pytest.raises(SoupError, match=rf"field rows\[0\]\.{field}"):
        R.validate(good)


@pytest.mark.parametrize(
    "text, what",
    [
        (R.pack_verdicts([1, 1, 1, 1]), "4 verdicts, 3 correct"),
        (R.pack_verdicts([1] * 3 + [0] * 6), "2 bytes of verdicts for 4 problems"),
        ("zz", "no hex string"),
        (7, "no hex string"),
    ],
)
def test_verdicts_must_agree_with_their_row(good, text, what):
    good["items"]["hard_math"]["cat"]["0"] = text
    with pytest.raises(SoupError, match=f"{what}.*items.hard_math.cat.0"):
        R.validate(good)


def test_verdicts_without_a_row_are_refused(good):
    good["items"]["hard_math"]["ties"] = {"0": "00"}
    with pytest.raises(SoupError, match="items.hard_math.ties.0"):
        R.validate(good)


def test_later_fields_may_be_absent_but_not_wrong(good):
    later = {
        "experiment": "rank",
        "artifacts": {"cat": {"0": "0123abcd"}},
        "views": {"hard_math": {"easy": "80"}},
    }
    assert not later.keys() & good.keys() and R.validate(good)
    assert R.validate(good | later)
    for name in later:
        with pytest.raises(SoupError, match=f"field {name};"):
            R.validate(good | later | {name: 5})


def test_items_of_a_wrong_shape_are_refused(good):
    with pytest.raises(SoupError, match=r"list instead of a JSON object.*items\.hard_math\.cat"):
        R.validate(good | {"items": {"hard_math": {"cat": ["80"]}}})
    with pytest.raises(SoupError, match=r"list instead of a JSON object.*items\.hard_math;"):
        R.validate(good | {"items": {"hard_math": ["80"]}})


def test_experiments_have_files_of_their_own(good, tmp_path):
    R.write_results(R.results_path("smoke", "rank", tmp_path), good | {"experiment": "rank"})
    assert R.load_results("smoke", "rank", tmp_path)["experiment"] == "rank"
    with pytest.raises(SoupError, match=r"missing file.*smoke.hard_math\.json"):
        R.load_results("smoke", root=tmp_path)


def test_other_schema_and_empty_complete_file_are_refused(good):
    with pytest.raises(SoupError, match="schema 2, this version reads 1"):
        R.validate(good | {"schema": 2})
    with pytest.raises(SoupError, match="complete without rows"):
        R.validate(good | {"rows": [], "items": {}})


def test_incomplete_file_can_be_read_but_not_loaded(good, tmp_path):
    path = R.results_path("smoke", root=tmp_path)
    R.write_results(path, good | {"complete": False, "rows": [], "items": {}})
    assert R.read_results(path)["rows"] == []
    with pytest.raises(SoupError, match="not complete.*--profile smoke"):
        R.load_results("smoke", root=tmp_path)


def test_missing_and_unreadable_files_are_told_with_the_way_out(tmp_path):
    with pytest.raises(SoupError, match="missing file.*reproduce --profile smoke"):
        R.load_results("smoke", root=tmp_path)
    path = R.results_path("smoke", root=tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text('{"schema": 1, "prof')
    with pytest.raises(SoupError, match="not valid JSON.*reproduce --profile smoke"):
        R.load_results("smoke", root=tmp_path)
    path.write_text("[]")
    with pytest.raises(SoupError, match="not a JSON object"):
        R.load_results("smoke", root=tmp_path)


def test_bad_results_do_not_replace_good_ones(good, tmp_path):
    path = R.results_path("smoke", root=tmp_path)
    R.write_results(path, good)
    before = path.read_bytes()
    with pytest.raises(SoupError, match="not representable in JSON"):
        R.write_results(path, good | {"config": {"lr": float("nan")}})
    with pytest.raises(SoupError, match="missing field"):
        R.write_results(path, {"schema": 1})
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_seed_that_is_run_again_replaces_the_earlier_one():
    old = example_results(2, ("base", "math", "code", "cat"), n=20) | {"artifacts": {}}
    again = old | {"config": old["config"] | {"seeds": [1]}}
    for name in ("rows", "alphas", "curves", "sweep", "skills"):
        again[name] = [entry for entry in old[name] if entry["seed"] == 1]
    both = R.with_earlier_seeds(again, old, "a.json")

    def of(results):
        return sorted((row["task"], row["method"], row["seed"]) for row in results["rows"])

    assert of(both) == of(old) and both["config"]["seeds"] == [0, 1]


def test_find_filters_by_value_and_by_one_of_several():
    rows = [row("cat", 0), row("cat", 1), row("base", 0), row("ties@delta", None)]
    assert R.find(rows, method="cat", seed=1) == [rows[1]]
    assert R.find(rows, seed=None) == [rows[3]]
    assert R.find([], method="cat") == []
    with pytest.raises(SoupError, match="unknown field: 'methode'"):
        R.find(rows, methode="cat")


@pytest.mark.parametrize("n", [1, 7, 8, 9, 500])
def test_verdicts_survive_packing(n):
    verdicts = np.random.default_rng(n).random(n) < 0.5
    text = R.pack_verdicts(verdicts)
    assert len(text) == 2 * ((n + 7) // 8)
    assert (R.unpack_verdicts(text, n) == verdicts).all()


def test_first_verdict_is_the_highest_bit():
    assert R.pack_verdicts([True, False, False, False, False, False, False, True, True]) == "8180"


def test_provenance_names_no_path_user_or_host(good):
    import getpass
    import os
    import platform
    from pathlib import Path

    text = json.dumps(good["provenance"])
    assert {"torch", "transformers", "peft", "python"} <= good["provenance"]["versions"].keys()
    assert os.getcwd() not in text and str(Path.home()) + "/" not in text
    words = {word.strip('",:') for word in text.split()}
    assert getpass.getuser() not in words and platform.node() not in words


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.invalid", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_git_state_is_dirty_by_code_but_not_by_what_a_run_writes(tmp_path):
    assert R.git_state(tmp_path) is None
    (tmp_path / "notebooks").mkdir()
    for name in ("code.py", "notebooks/a.ipynb"):
        (tmp_path / name).write_text("1")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    assert R.git_state(tmp_path)["dirty"] is False
    (tmp_path / "notebooks" / "a.ipynb").write_text("2")
    assert R.git_state(tmp_path)["dirty"] is False
    (tmp_path / "code.py").write_text("2")
    state = R.git_state(tmp_path)
    assert state["dirty"] is True and len(state["commit"]) == 40
