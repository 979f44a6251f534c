"""A sweep: its jobs through submitit's local executor, and what is said of jobs that fail."""

import os

import pytest
from test_small import base, command, mirror, out  # noqa: F401 (fixtures)

from lorasoups.errors import SoupError
from lorasoups.results.file import load_results
from lorasoups.run import cli, sweep
from lorasoups.run.sweep_job import Job

pytest.importorskip("submitit")
METHODS = ["base", "math", "code", "cat", "linear@delta"]


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """Jobs run beside each other; and they must not ask the Hub."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    new = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "LORASOUPS_HUB_MIRROR": ""}
    for name, value in (new | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}).items():
        monkeypatch.setenv(name, value)


def made(folder):
    """When each artifact of a store was made."""
    return {p: p.stat().st_mtime_ns for p in folder.glob("cache/*/*/MANIFEST.json")}


def test_four_jobs_give_the_results_of_one_run_and_are_not_done_twice(
    base, mirror, out, tmp_path, capsys  # noqa: F811
):  # fmt: skip
    given = ["sweep", "--profile", "small", "--base", str(base), "--hub-mirror", str(mirror),
             "--limit", "4", "--out", str(tmp_path), "--jobs", "2"]  # fmt: skip
    given += ["--methods", "linear@delta"]
    assert cli.main(given) == 0
    told = capsys.readouterr().out
    assert told.count("done ") == 4 and "FAILED" not in told
    one, swept = load_results("small", root=out), load_results("small", root=tmp_path)
    assert swept["rows"] == one["rows"] and swept["items"] == one["items"]
    assert swept["alphas"] == one["alphas"]
    before = made(tmp_path)
    assert before and cli.main([*given, "--engine", "debug"]) == 0
    assert made(tmp_path) == before


def test_a_job_that_fails_is_told_with_its_log(tmp_path, capsys):
    nowhere = str(tmp_path / "no-model")
    given = ["sweep", "--profile", "small", "--base", nowhere, "--out", str(tmp_path)]
    assert cli.main(given) == 1
    told = capsys.readouterr()
    assert "FAILED train hard_math seed 0" in told.out and "3/3" not in told.out
    line = told.err.splitlines()[0]
    assert line.startswith("error: train hard_math seed 0: ") and "no base model" in line
    log = line.rpartition("log ")[2]
    assert "no base model" in open(log).read()


def test_a_job_that_was_killed_is_told_with_what_to_do(tmp_path):
    handle = sweep._executors(sweep.Engine(), tmp_path)(0).submit(os._exit, 9)
    handle.wait()
    failure = sweep._failure(Job("train", "smoke", "hard_math", 1), handle)
    assert "memory (lower --jobs)" in failure.why and failure.log.parent == tmp_path


def test_methods_are_dealt_to_jobs_and_none_is_lost():
    rounds = sweep.plan("smoke", ["hard_math", "formats"], 2, jobs=8)
    train, evaluate, assemble = rounds
    assert len(train) == 4 and len(evaluate) == 8 and len(assemble) == 2
    of_one = [job.own for job in evaluate if (job.study, job.seed) == ("formats", 1)]
    names = [name for own in of_one for name in own]
    assert len(of_one) == 2 and len(names) == len(set(names))
    assert {"base", "cat", "format_1", "ties@delta", "xlora"} <= set(names)


def test_chosen_methods_come_with_those_that_comparisons_need():
    (job,) = sweep.plan("smoke", seeds=1, methods=["ties@delta"])[1]
    assert job.own == ("base", "math", "code", "cat", "ties@delta")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"methods": ["tises"]}, "unknown method 'tises'"),
        ({"studies": ["cooking"]}, "unknown study"),
        ({"seeds": 0}, "nothing to run"),
        ({"jobs": 0}, "nothing to run"),
        ({"real": {"base": "x"}}, "--base means nothing here"),
    ],
)
def test_bad_plans_are_refused(wrong, message):
    with pytest.raises(SoupError, match=message):
        sweep.plan("smoke", **wrong)


@pytest.mark.parametrize(
    ("engine", "message"),
    [("ray", "unknown engine"), ("slurm", "no sbatch here")],
)
def test_engines_that_are_not_here_are_refused(engine, message, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SoupError, match=message):
        sweep.execute([[Job("train", "smoke", "hard_math", 1)]], sweep.Engine(engine), tmp_path)


def test_each_local_slot_has_its_own_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,7")
    make = sweep._executors(sweep.Engine(jobs=3, gpus=2), tmp_path)
    assert make(1).parameters["visible_gpus"] == [5, 7]
    with pytest.raises(SoupError, match="fewer"):
        make(2)
