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
STUDY_NOTEBOOKS = {
    "03_hard_math": "hard_math", "04_manual_qa": "manual_qa", "05_reading": "reading",
    "06_prompt_formats": "formats", "09_report": "hard_math",
}  # fmt: skip


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


@pytest.mark.parametrize("notebook", STUDY_NOTEBOOKS)
def test_sentences_on_a_study(notebook):
    known = results(STUDY_NOTEBOOKS[notebook])
    true_today = [*(say(known) for say in sentences.STUDY), *sentences.caveats(known)]
    if notebook == "09_report":
        true_today += [sentences.summary(results(name)) for name in STUDIES]
    assert outdated(notebook, true_today) == []


def test_ablations_with_results_are_those_of_the_registry():
    names = [path.stem for path in (ROOT / "data" / "results" / "mini").glob("*.json")]
    assert {name for name in names if "ablation" in results(name)["config"]} == set(ABLATIONS)


@pytest.mark.parametrize("name", ABLATIONS)
def test_sentences_on_an_ablation(name):
    true_today = [sentences.against_each(results(name))] if name != "surface" else []
    assert outdated("07_alphas", true_today) == []


def test_a_sentence_that_is_not_true_today_is_noticed():
    true = sentences.summary(results("hard_math"))
    stale = true.replace("CAT", "KAT")
    assert outdated("03_hard_math", [true, stale]) == [stale]
