"""Frozen studies: their settings are those of data/protocol.md, which is older than any result."""

import json
import subprocess
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from lorasoups.results.file import odd_settings, read_results
from lorasoups.study.profile import load_profile, study_names

ROOT = Path(__file__).resolve().parents[2]
PROTOCOL = ROOT / "data" / "protocol.md"
MAP = [name for name in study_names("mini") if name.startswith("map_")]
FROZEN = [
    *(("small", name) for name in study_names("small") if name.startswith("reading_form")),
    *(("mini", name) for name in ("composed", "composed_more", *MAP)),
]
MADE = [(p, s) for p, s in FROZEN if (ROOT / f"data/results/{p}/{s}.json").exists()]


def results(profile: str, study: str) -> dict:
    return read_results(ROOT / "data" / "results" / profile / f"{study}.json")


@pytest.mark.parametrize(("profile", "study"), MADE)
def test_results_were_made_with_the_settings_that_the_study_has_today(profile, study):
    today = json.loads(json.dumps(asdict(load_profile(profile, study))))
    config = results(profile, study)["config"]
    odd = odd_settings(today, {k: config.get(k) for k in today})
    assert set(odd) <= {"base", "adapters"}  # paths


@pytest.mark.parametrize(("profile", "study"), MADE)
def test_the_protocol_is_older_than_the_results(profile, study):
    git = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=False)
    if git(["git", "rev-parse", "--is-shallow-repository"]).stdout.strip() != "false":
        pytest.skip("no git history here")
    named = study.partition("_")[0] if profile == "mini" else study
    log = git(["git", "log", "--format=%aI", f"-S`{named}", "--", str(PROTOCOL)])
    frozen = datetime.fromisoformat(log.stdout.split()[-1])
    assert frozen < datetime.fromisoformat(results(profile, study)["created"])


def test_the_settings_are_those_of_the_protocol():
    form, composed, cell = (
        load_profile(*which)
        for which in (("small", "reading_form"), ("mini", "composed"), ("mini", "map_k3"))
    )
    for p, lora, batch, lr, steps, other in (
        (form, (16, 32), 16, 5e-4, 75, {"form": {"steps": 62}}),
        (composed, (8, 16), 32, 2e-3, 400, {"code_forms": {"steps": 600}}),
    ):
        t = p.training
        assert ((t.r, t.lora_alpha), t.batch_size, t.lr, t.steps) == (lora, batch, lr, steps)
        assert dict(p.by_skill) == other and p.density == 0.75 and p.redraw
    assert form.alphas.grid == (("none", "ones", 0.03),) and form.alphas.epochs == 16
    assert composed.alphas.grid == (("none", "ones", 0.1),) and composed.alphas.epochs == 3
    assert (form.n_test["reading_form"], form.max_new_tokens, form.demonstrations) == (500, 32, 0)
    assert composed.n_test["hard_math"] == 1000 and cell.n_test["hard_math"] == 500
    assert (composed.max_new_tokens, composed.demonstrations) == (90, 2)
    text = PROTOCOL.read_text(encoding="utf-8")
    for cell in MAP:
        word = cell.split("_")[1]  # a family of cells, such as imbalance, is named once
        assert word in text or load_profile("mini", cell).rescale, cell
