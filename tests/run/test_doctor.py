"""The doctor: what is counted, what is measured, and what it advises."""

import json
from types import SimpleNamespace

import pytest

from lorasoups.errors import SoupError
from lorasoups.learning.fitted import HALVINGS
from lorasoups.run import cli, doctor
from lorasoups.study.methods import WEIGHTS
from lorasoups.study.profile import load_profile
from lorasoups.study.run import jobs_of, open_experiment


def tiny(**changes):
    p = load_profile("smoke")
    alphas = {"batch_size": 2} | changes.pop("alphas", {})
    training = {"batch_size": 2, "r": 2} | changes.pop("training", {})
    return p.override(
        training=p.training.__class__(**training), alphas=p.alphas.__class__(**alphas),
        eval_batch=2, max_new_tokens=3, **changes,
    )  # fmt: skip


def test_work_of_a_profile_by_hand(tmp_path):
    experiment = open_experiment(
        "smoke", "hard_math", 2, tmp_path, methods="data_mix,fresh,linear@delta"
    )
    p = experiment.profile
    # 2 skills of 12 steps, DATA-MIX takes both; 16 + 16 rows of alpha data in batches of 8
    assert (p.training.steps, p.n_train, p.alphas.share) == (12, 160, 0.1)
    work = doctor.work(experiment)
    assert work["skill step"] == 2 * (12 + 12 + 24 + 4)
    assert work["alpha step"] == (2 * 32 + 32) / 8  # CAT of two seeds, one more point of the grid
    assert work["held-out row"] == (2 + 1) * 8 * 2
    # base, two skills, CAT, DATA-MIX and linear on all five tests, the new LoRA too
    main = [m for m in ("base", "math", "code", "cat", "data_mix", "fresh", "linear@delta")]
    assert work["problem"] == 2 * len(main) * 5 * 8


def test_work_of_rivals_by_hand(tmp_path):
    rivals = open_experiment("smoke", "hard_math", 2, tmp_path, methods="xlora,lorahub@delta")
    work = doctor.work(rivals)
    assert work["alpha step"] == (2 * 2 * 32 + 32) / 8  # CAT and a gate
    assert work["held-out row"] == 5 * 8 * 2 + 2 * rivals.profile.budget * 32


def test_work_of_every_method_is_declared(tmp_path):
    """Rows that see the target, RegMean, anchored alphas and the sum chosen by accuracy too."""
    newer = "oracle_sum,oracle_cat,regmean,anchored,sum_by_accuracy"
    experiment = open_experiment("smoke", "hard_math", 2, tmp_path, methods=newer)
    experiment.profile = experiment.profile.override(ceiling=True, n_loss=3)
    work, n_jobs = doctor.work(experiment), len(jobs_of(experiment.profile))
    assert work["alpha step"] == (2 * 2 * 32 + 32) / 8  # CAT and the oracle
    passes = 12 + 1 + (HALVINGS + 2)  # the oracle's weight, RegMean, anchored
    assert work["held-out row"] == 5 * 8 * 2 + 2 * (passes * 32 + 3 * n_jobs)
    assert work["problem"] == 2 * (8 * n_jobs + 8 * len(WEIGHTS))


def test_epochs_count_the_rows_that_there_are(monkeypatch):
    p = load_profile("paper")
    experiment = SimpleNamespace(profile=p, seeds=(0,))
    work = doctor.work(experiment)
    per_skill = [p.epochs * n / p.training.batch_size for n in (395_000, 20_022)]
    # each skill once, both DATA-MIX runs
    assert work["skill step"] == pytest.approx(3 * sum(per_skill), rel=0.01)


def test_layers_of_a_model_that_does_not_fit_are_extrapolated():
    p = tiny(max_length=12)
    config = doctor.LlamaConfig(**doctor.SHAPES["tiny"] | {"num_hidden_layers": 6})
    rows = doctor.random_rows(8, 12, config.vocab_size)
    whole = doctor.measure(doctor.random_base(config, "cpu", "float32"), p, rows, "cpu")
    few = doctor._on_random(config, p, rows, "cpu", "float32")
    assert few.keys() == whole.keys()
    assert few["skill step"]["flops"] == pytest.approx(whole["skill step"]["flops"], rel=1e-6)


@pytest.fixture
def measured(monkeypatch):
    """Numbers in place of measurements."""
    one = {"seconds": 0.5, "bytes": 10**9}
    stages = ("skill step", "alpha step", "held-out row", "static merges", "problem")
    numbers = {stage: dict(one) for stage in stages}
    numbers["skill step"]["flops"] = 1e9
    monkeypatch.setattr(doctor, "measure", lambda *_: numbers)
    return numbers


def test_a_run_that_fits(measured, capsys):
    assert cli.main(["doctor", "--profile", "smoke", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["fits"] and report["base"]["here"] and report["base"]["parameters"] == 1_570_400
    skill = report["stages"][0]
    assert skill["seconds"] == 0.5 * skill["times"] and skill["fits"]
    assert report["seconds"] == sum(stage["seconds"] for stage in report["stages"])


def test_a_run_that_does_not_fit_says_what_to_do(measured, capsys):
    measured["problem"]["bytes"] = 10**15
    assert cli.main(["doctor", "--profile", "smoke"]) == 1
    shown = capsys.readouterr().out
    assert "problem: needs 1000000.0 GB; try --eval-batch" in shown and "NO" in shown


def test_a_base_that_is_not_here_is_measured_by_its_shape(measured, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "base_place", lambda *_: None)
    monkeypatch.setattr(doctor, "random_base", lambda *_: SimpleNamespace())
    assert cli.main(["doctor", "--profile", "small"]) == 0
    shown = capsys.readouterr().out
    assert "135M parameters" in shown and "not here" in shown and "comes from the Hub" in shown
    assert "NOTE: CPU run, cut down" in shown
    with pytest.raises(SoupError, match="neither here nor of a known shape: base no/such"):
        doctor.examine("small", base="no/such")
