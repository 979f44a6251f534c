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


def test_every_cell_changes_one_thing():
    quick, slow = ({"code_forms": {"steps": n}} for n in (150, 1800))
    two, balanced = ("math_forms", "code_forms"), ("balanced",)
    changed = {
        "zero_shot": {"demonstrations": 0},
        "one_form": {"skills": ("math", "code"), "tests": {}, "by_skill": {"code": {"steps": 600}}},
        "dose_quarter": {"training": {"steps": 100}, "by_skill": quick},
        "dose_3": {"training": {"steps": 1200}, "by_skill": slow},
        "half": {"rescale": {"code_forms": 0.5}}, "less": {"rescale": {"code_forms": 0.7071}},
        "more": {"rescale": {"code_forms": 1.4142}}, "double": {"rescale": {"code_forms": 2.0}},
        "imbalance_5": {"share": {"code_forms": 0.2}, "methods": balanced},
        "imbalance_20": {"share": {"code_forms": 0.05}, "methods": balanced},
        "k3": {"skills": (*two, "aside")}, "k4": {"skills": (*two, "aside", "line")},
        "rank_2": {"training": {"r": 2, "lora_alpha": 4}},
        "rank_32": {"training": {"r": 32, "lora_alpha": 64}},
    }  # fmt: skip
    usual = asdict(load_profile("mini", "map"))
    for cell, wanted in changed.items():
        own = asdict(load_profile("mini", f"map_{cell}"))
        found = {k: v for k, v in own.items() if v != usual[k] and k != "study"}
        if "training" in found:
            of = usual["training"].items()
            found["training"] = {k: own["training"][k] for k, v in of if own["training"][k] != v}
        if "methods" in found:
            found["methods"] = found["methods"][len(usual["methods"]) :]
        assert found == wanted, cell
    assert {f"map_{cell}" for cell in changed} == set(MAP)
