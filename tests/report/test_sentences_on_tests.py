"""Sentences about a real model's results say what its verdicts say."""

import copy

import numpy as np
import pytest
from results_example import example_results

from lorasoups.errors import SoupError
from lorasoups.report import sentences
from lorasoups.results.file import pack_verdicts

METHODS = ("base", "math", "code", "cat", "data_mix")


def results_with(**solved: int) -> dict:
    """A further test ``easy`` of 40 items, three seeds: so many solved, the first ones."""
    results = copy.deepcopy(example_results(3, METHODS, n=40))
    row = next(r for r in results["rows"] if r["task"] == results["config"]["target"])
    results["items"]["easy"] = {}
    for method in METHODS:
        right = np.arange(40) < solved[method]
        packed = pack_verdicts(right)
        results["items"]["easy"][method] = {str(seed): packed for seed in range(3)}
        for seed in range(3):
            results["rows"].append(row | {
                "task": "easy", "method": method, "seed": seed, "n": 40,
                "correct": solved[method], "accuracy": solved[method] / 40,
            })  # fmt: skip
    return results


def test_above_below_and_open_are_told_apart():
    results = results_with(base=2, math=0, code=10, cat=20, data_mix=36)
    said = sentences.on_test(results, "easy")
    assert "CAT solves 50.0 %" in said and "of 40 problems" in said
    assert "above base (+45.0), math LoRA (+50.0), code LoRA (+25.0)" in said
    assert "below DATA-MIX (rank r) (-40.0)" in said
    said = sentences.on_test(results_with(base=2, math=0, code=10, cat=20, data_mix=20), "easy")
    assert "not told apart from DATA-MIX (rank r) (+0.0)" in said


def test_gains_are_compared_with_the_sum_of_the_skills_gains():
    more = sentences.gains(results_with(base=4, math=4, code=8, cat=20, data_mix=0), "easy")
    assert "+40.0 points over the base, its skills alone +10.0 together: more than" in more
    less = sentences.gains(results_with(base=0, math=16, code=20, cat=20, data_mix=0), "easy")
    assert "less than their sum (-40.0" in less
    three = results_with(base=0, math=0, code=0, cat=9, data_mix=0)
    three["config"]["skills"] = ["math", "code", "data_mix"]
    with pytest.raises(SoupError, match="3 skills"):
        sentences.gains(three, "easy")


def test_a_test_on_which_a_skill_does_as_well_is_not_called_legible():
    target = example_results(3, METHODS, n=40)["config"]["target"]
    clear = results_with(base=2, math=0, code=10, cat=30, data_mix=36)
    clear["items"] = {"easy": clear["items"]["easy"]}
    assert sentences.legible(clear) == "The soup is above the base and every single skill on easy."
    unclear = results_with(base=2, math=0, code=30, cat=30, data_mix=36)
    unclear["items"] = {"easy": unclear["items"]["easy"]}
    assert sentences.legible(unclear) == ("That the soup is above its skills is not shown on easy.")
    assert sentences.composed_tests(results_with(base=0, math=0, code=0, cat=0, data_mix=0)) == [
        target, "easy"
    ]  # fmt: skip
