"""A sweep: its jobs through submitit's local executor, and what is said of jobs that fail."""

import os
from pathlib import Path

import pytest
from test_real_runs import base, mirror, out  # noqa: F401 (fixtures)

from lorasoups.errors import SoupError
from lorasoups.results.file import load_results
from lorasoups.study import sweep as sweep_module
from lorasoups.study.sweep import sweep
from lorasoups.tasks.real.hub import MIRROR_VARIABLE

pytest.importorskip("submitit")
REAL = {"limit": 4, "methods": "linear@delta"}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Jobs run beside each other; and they must not ask the Hub."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    for name, value in {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": path,
        "CUDA_VISIBLE_DEVICES": "",
    }.items():
        monkeypatch.setenv(name, value)


def made(folder):
    """When each artifact of a store was made."""
    return {p: p.stat().st_mtime_ns for p in folder.glob("cache/*/*/MANIFEST.json")}


def test_jobs_give_the_results_of_one_run_and_are_not_done_twice(
    base, mirror, out, tmp_path, capsys, monkeypatch  # noqa: F811
):  # fmt: skip
    monkeypatch.setenv(MIRROR_VARIABLE, str(mirror))
    options = {"base": str(base), "out": tmp_path, **REAL}
    assert sweep("small", seeds=2, jobs=2, **options) == []
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines] == [
        "done hard_math seed 0", "done hard_math seed 1", "done hard_math results",
    ]  # fmt: skip
    one, both = load_results("small", root=out), load_results("small", root=tmp_path)
    first = [row for row in both["rows"] if row["seed"] == 0]
    assert first == one["rows"] and len(both["rows"]) == 2 * len(first)
    before = made(tmp_path)
    assert before and sweep("small", seeds=2, engine="debug", **options) == []
    assert made(tmp_path) == before


def test_a_job_that_fails_is_told_with_its_log(tmp_path, capsys):
    nowhere = str(tmp_path / "no-model")
    (failure,) = sweep("small", base=nowhere, out=tmp_path)
    assert failure.job.name == "hard_math seed 0" and "no base model" in failure.why
    assert "\n" not in failure.why and "no base model" in failure.log.read_text()
    printed = capsys.readouterr().out
    assert "FAILED hard_math seed 0" in printed and "results" not in printed


def test_a_job_that_was_killed_is_told_with_what_to_do(tmp_path):
    executor = sweep_module._executor("local", 5, 0, 1, None, tmp_path)
    assert "memory (lower --jobs)" in sweep_module._error(executor.submit(os._exit, 9))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"methods": "tises"}, "unknown method 'tises'"),
        ({"studies": ["cooking"]}, "unknown study"),
        ({"seeds": 0}, "nothing to run"),
        ({"jobs": 0}, "nothing to run"),
        ({"eval_batch": 3}, "--eval-batch means nothing here"),
        ({"engine": "ray"}, "unknown engine"),
        ({"engine": "slurm"}, "no sbatch here"),
        ({"gpus": 1}, "only Slurm gives out GPUs: --gpus 1"),
    ],
)
def test_bad_sweeps_are_refused_before_anything_runs(wrong, message, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SoupError, match=message):
        sweep("smoke", out=tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []
