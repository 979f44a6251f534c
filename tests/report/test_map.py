"""The map and its hypotheses, on made-up cells whose answer is known."""

import numpy as np
import pytest
from results_example import SKILLS, _row, example_results

from lorasoups.report import map as module
from lorasoups.report.map import ANCHORED, MIX, cells, foreseen, foretold, hypotheses, known_before
from lorasoups.results.file import pack_verdicts
from lorasoups.results.reading import SUM, TUNED

OTHERS = (SUM, TUNED, MIX, ANCHORED)


def cell(cat=0.6, plain=0.3, tuned=0.6, mix=0.6, kept=(0.9, 0.3), excess=0.3, seeds=6):
    """Results in which methods solve these shares; CAT and the sum keep ``kept`` of each skill."""
    chances = {"cat": cat, SUM: plain, TUNED: tuned, MIX: mix, ANCHORED: 0.5}
    methods = ("base", *SKILLS, "cat", "ties@factors/w1", "linear@delta", *OTHERS)
    results = example_results(seeds, methods, 400, chances)
    rng = np.random.default_rng(1)
    results["rows"] = [row for row in results["rows"] if row["task"] not in SKILLS]
    for task in SKILLS:
        for method in (*SKILLS, "cat", *OTHERS):
            share = 0.95 if method in SKILLS else kept[1] if method == SUM else kept[0]
            right = rng.random((seeds, 400)) < share
            for seed, own in enumerate(right):
                row = _row(task, method, seed, own, rng)
                row["extra"] = {"loss": 0.1 + (excess if method == SUM else 0.0)}
                results["rows"].append(row)
            packed = {str(seed): pack_verdicts(own) for seed, own in enumerate(right)}
            results["items"][task][method] = packed
    for row in results["rows"]:
        if row["method"] == "cat" and row["task"] == "hard_math":
            row["extra"] = {"cosine": 0.1, "norm_ratio": 1.0, "loudest": 0.5}
    results["config"]["rescale"] = {}
    return results


@pytest.fixture(scope="module")
def known():
    worlds = {
        "composed": cell(plain=0.6, mix=0.75, excess=0.0),
        "map_imbalance_5": cell(), "map_imbalance_20": cell(mix=0.3),
        "map_k3": cell(tuned=0.3), "map_k4": cell(tuned=0.3),
    }  # fmt: skip
    steps = {f"map_{i}": cell(plain=0.65 - 0.1 * i, excess=0.1 * i - 0.05) for i in range(5)}
    return worlds | steps


def verdicts(known):
    frame = hypotheses(known)
    return dict(zip(frame[""], frame["verdict"], strict=True))


def test_what_was_planted_is_held(known):
    found = verdicts(known)
    assert set(found) == {f"H{i}" for i in range(1, 8)} | {"E1"}
    assert {found[name] for name in ("H1", "H3", "H4", "H6", "H7", "E1")} == {module.HELD}
    assert found["H2"] in (module.HELD, module.OPEN)


@pytest.mark.parametrize(
    ("name", "worlds"),
    [
        ("H1", {"composed": cell(cat=0.1)}),
        ("H2", {"composed": cell(tuned=0.3)}),
        ("H3", {"composed": cell(cat=0.3, plain=0.6)}),
        ("H3", {"composed": cell(plain=0.6, kept=(0.3, 0.9))}),
        ("H4", {"map_imbalance_20": cell(mix=0.9)}),
        ("H6", {"map_k4": cell(tuned=0.9)}),
        ("E1", {f"map_{i}": cell(plain=0.9) for i in range(5)}),
    ],
)
def test_the_contrary_refutes(known, name, worlds):
    assert verdicts(known | worlds)[name] == module.REFUTED


def test_a_verdict_is_one_so_far_while_seeds_are_missing(known):
    early, whole = (set(hypotheses(known, planned=n)["verdict"]) for n in (7, 6))
    assert all(verdict.endswith(" so far") for verdict in early)
    assert not any("so far" in verdict for verdict in whole)


def test_e1_counts_only_seeds_that_it_was_not_found_on(known):
    """On those the plain sum is planted far above CAT, whatever its loss: they must not count."""

    wrong = cell(plain=0.95, excess=0.3)

    def mixed(name, results):
        seen = module.SEEN.get(name, {2})
        items = {
            task: {
                method: of | {str(seed): wrong["items"][task][method][str(seed)] for seed in seen}
                for method, of in methods.items()
            }
            for task, methods in results["items"].items()
        }
        rows = [row for row in wrong["rows"] if row["seed"] in seen]
        rows += [row for row in results["rows"] if row["seed"] not in seen]
        return results | {"rows": rows, "items": items}

    changed = {name: mixed(name, results) for name, results in known.items()}
    assert verdicts(changed)["E1"] == module.HELD
    found, fresh = module.found_and_fresh(known)
    for kept, seeds, of_first in ((found, {2}, {0, 1, 2}), (fresh, {0, 1, 3, 4, 5}, {3, 4, 5})):
        there = {name: {row["seed"] for row in r["rows"]} for name, r in kept.items()}
        assert there == dict.fromkeys(known, seeds) | {"composed": of_first}
    alone = {name: r | {"config": r["config"] | {"seeds": [2]}} for name, r in known.items()}
    assert module.found_and_fresh(alone)[1] == {}


def test_a_cell_tells_its_better_rival_and_what_is_kept(known):
    frame = cells(known).set_index("cell")
    assert list(frame.index)[:2] == ["composed", "imbalance 5"]
    told = frame.loc["imbalance 20", f"CAT minus {module.RIVAL}"]  # the tuned sum, as good as CAT
    assert abs(float(told.split()[0])) < 2
    frame = known_before(known).set_index("cell")
    assert frame.loc["3", "excess loss"] == "0.250"
    assert frame.loc["3", "form ratio"] == f"{np.log(3.5):.3f}"
    assert frame.loc["composed", "cross-activation"] == "0.500"


def test_cells_of_a_strength_stand_last_and_in_its_order():
    names = [module.title(*cell) for cell in module.known_cells().items()]
    strengths = (("half", "0.50"), ("less", "0.71"), ("more", "1.41"), ("double", "2.00"))
    assert names[0] == "composed" and "rank 2" in names
    assert names[-4:] == [f"{name} (code_forms x {factor})" for name, factor in strengths]


def test_a_predictor_that_knows_is_told_from_one_that_does_not():
    known = {str(i): cell(cat=0.3 + 0.1 * i, tuned=0.5, mix=0.1, seeds=3) for i in range(5)}
    frame = foretold(known, {"knows": [0, 1, 2, 3, 4], "noise": [3, 0, 4, 1, 2]})
    assert list(frame["CAT minus"]) == [module.RIVAL] * 2 + ["the plain sum"] * 2
    told = dict(zip(frame["predictor"], map(float, frame["explained, left out"]), strict=True))
    assert told["knows"] > 0.9 > 0.0 > told["noise"]


def setting(tuned, plain, alphas, shown=0):
    """Results of a setting beside the first: what the rivals solve, and CAT's (reading, form)."""
    results = cell(tuned=tuned, plain=plain, seeds=3)
    results["config"]["demonstrations"] = shown
    for entry in results["alphas"]:
        entry["values"] = list(alphas)
    return results


@pytest.mark.parametrize(
    ("other", "verdicts"),
    [
        (setting(0.6, 0.6, (1.2, 0.8)), ["held", "held", "held", "held"]),
        (setting(0.05, 0.05, (0.8, 1.2)), ["refuted", "held", "refuted", "refuted"]),
        (setting(0.6, 0.6, (1.2, 0.8), shown=2), ["held", "held"]),
        (setting(0.05, 0.6, (1.2, 0.8), shown=2), ["held", "refuted"]),
    ],
)
def test_predictions_for_a_setting_beside_the_first(other, verdicts):
    first = setting(0.05, 0.0, (0.8, 1.2))
    for results in (other, first):  # every answer is in form but the base's and the sum's failures
        for row in results["rows"]:
            row["outcomes"] = {"ok": row["correct"], "wrong": row["n"] - row["correct"]}
    assert list(foreseen(other, first)["verdict"]) == verdicts
    one = other | {k: [e for e in other[k] if e["seed"] in (0, None)] for k in ("alphas", "rows")}
    assert list(foreseen(one, first)["verdict"]) == [f"{word} so far" for word in verdicts]
