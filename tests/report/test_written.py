"""Relations that people wrote in docs/results.md hold in the committed results."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lorasoups.report.sentences import verdict
from lorasoups.results import stats
from lorasoups.results.file import read_results
from lorasoups.results.reading import pair, rows, target

RESULTS = Path(__file__).resolve().parents[2] / "data" / "results" / "mini"
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
