"""Every sentence that code wrote into an executed notebook is what the results give today."""

import json
from functools import cache
from pathlib import Path

import pytest

from lorasoups.report import sentences
from lorasoups.results.file import read_results
from lorasoups.study.ablations import ABLATIONS
from lorasoups.study.profile import STUDIES

ROOT = Path(__file__).resolve().parents[2]
REPORT = "10_report"


@cache
def results(experiment, profile="mini"):
    return read_results(ROOT / "data" / "results" / profile / f"{experiment}.json")


def outdated(notebook, true_today):
    """Sentences that are true today and not in the outputs of a notebook."""
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text("utf-8"))["cells"]
    shown = ""
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        data = output.get("data", {})
        for text in (output.get("text", ""), data.get("text/markdown", data.get("text/plain", ""))):
            shown += "".join(text) + "\n"
    return [text for text in true_today if text and text not in shown]


@pytest.mark.parametrize("study", STUDIES)
def test_sentences_on_a_study(study):
    known = results(study)
    true_today = [*(say(known) for say in sentences.STUDY), *sentences.caveats(known)]
    assert outdated(REPORT, [*true_today, sentences.summary(known)]) == []


def test_sentences_on_the_real_model():
    known = results("reading_form", "small")
    true_today = [*(say(known) for say in sentences.STUDY), *sentences.caveats(known)]
    assert outdated(REPORT, true_today) == []


def test_ablations_with_results_are_those_of_the_registry():
    names = [path.stem for path in (ROOT / "data" / "results" / "mini").glob("*.json")]
    assert {name for name in names if "ablation" in results(name)["config"]} == set(ABLATIONS)


@pytest.mark.parametrize("name", sorted(ABLATIONS.keys() - {"surface"}))
def test_sentences_on_an_ablation(name):
    assert outdated(REPORT, [sentences.against_each(results(name))]) == []


def test_no_study_took_a_day_for_a_seed():
    """Seconds of earlier seeds that are counted twice whenever seeds are joined grow beyond it."""
    for path in (ROOT / "data" / "results").glob("m*/*.json"):
        made = read_results(path)
        assert sum(made["timings"].values()) < 86_400 * len(made["config"]["seeds"]), path.name


def test_a_sentence_that_is_not_true_today_is_noticed():
    true = sentences.summary(results("hard_math"))
    stale = true.replace("CAT", "KAT")
    assert outdated(REPORT, [true, stale]) == [stale]
