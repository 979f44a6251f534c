"""Relations that people wrote in docs/results.md hold in the committed results."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lorasoups.report.map import MIX, SEEN, form_ratio, known_cells, minus, without
from lorasoups.report.sentences import verdict
from lorasoups.results import stats
from lorasoups.results.file import read_results
from lorasoups.results.reading import SUM, TUNED, pair, rows, target

ROOT = Path(__file__).resolve().parents[2]
RESULTS, DOCS = ROOT / "data" / "results" / "mini", ROOT / "docs"
WRITTEN = json.loads(Path(__file__).with_name("written.json").read_text(encoding="utf-8"))
SAYS = {"above": "above", "below": "below", "open": "not told apart from"}


@cache
def results(experiment):
    return read_results(RESULTS / f"{experiment}.json")


@pytest.mark.parametrize("entry", WRITTEN, ids=[entry["id"] for entry in WRITTEN])
def test_what_people_wrote_holds(entry):
    known = results(entry["experiment"])
    if "says" in entry:
        paired = stats.paired(*pair(known, target(known), entry["a"], entry["b"]))
        assert verdict(paired) == SAYS[entry["says"]], paired
    else:
        values = [row[entry["metric"]] for row in rows(known, method=entry["method"])]
        assert entry.get("min", -np.inf) <= np.mean(values) <= entry["max"]


STRENGTH = ("map_half", "map_less", "map_more", "map_double")


def counts(runs):
    """How many runs, in how many the form ratio names the better one, and "always the sum"."""
    gains = [minus(one, SUM).diff for _, _, one in runs]
    right = np.sign([form_ratio(one) for _, _, one in runs]) == np.sign(gains)
    return len(runs), right.sum(), sum(gain < 0 for gain in gains)


def test_counts_over_the_runs_of_the_map_are_those_of_the_files():
    runs = []
    for name, known in known_cells().items():
        seeds = known["config"]["seeds"]
        runs += [(name, seed, without(known, {*seeds} - {seed})) for seed in seeds]
    fresh = [run for run in runs if run[1] not in SEEN.get(run[0], {2})]
    weak = [run for run in runs if run[0] in STRENGTH]
    others = [run for run in runs if run[0] not in STRENGTH]
    (n, hits, sums), (every, all_hits, all_sums) = counts(fresh), counts(runs)
    (n_weak, weak_hits, weak_sums), (n_other, other_hits, other_sums) = counts(weak), counts(others)
    (new_weak, new_hits, new_sums), (rest, rest_hits, rest_sums) = (
        counts([run for run in fresh if run in of]) for of in (weak, others)
    )
    behind = sum(minus(one, MIX).diff < 0 for _, _, one in runs)
    above = sum(minus(one, TUNED).diff > 0 for _, _, one in runs)
    page, own = (" ".join((DOCS / name).read_text("utf-8").split())
                 for name in ("results.md", "howto/own.md"))  # fmt: skip
    for said in (
        f"with one seed: {every}.", f"CAT is behind data mixing in {behind} runs",
        f"CAT is above the tuned sum in {above} runs",
        f"on new seeds {hits} of {n} (always the sum: {sums})",
        f"on all {all_hits} of {every} ({all_sums})",
        f"in the cells of strength {weak_hits} of {n_weak} ({weak_sums}), in the others "
        f"{other_hits} of {n_other} ({other_sums})",
    ):  # fmt: skip
        assert said in page, said
    for said in (
        f"On {n} runs that this rule was not found on",
        f"more of the target in {hits}; always the sum, in {sums}.",
        f"in {new_weak} runs in which that LoRA was made weaker or stronger ({new_hits}; the sum "
        f"{new_sums}); in the other {rest} it is {rest_hits} against {rest_sums}.",
    ):
        assert said in own, said
