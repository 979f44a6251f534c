"""Several processes: the numbers of one, written once, and told once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import together
import torch
from accelerate.commands.config.config_args import load_config_from_file
from test_real_runs import base, command, mirror, out  # noqa: F401 (fixtures)

import lorasoups
from lorasoups.errors import SoupError
from lorasoups.models import processes as distributed
from lorasoups.results.file import load_results
from lorasoups.run import cli
from lorasoups.study.store import Store

CONFIG = Path(lorasoups.__file__).parent / "run" / "accelerate" / "ddp.yaml"
ROOT = Path(__file__).resolve().parent.parent.parent


def launch(*arguments, processes=2):
    """``accelerate launch``, with our config (on CPUs it means gloo); its output."""
    paths = os.pathsep.join(
        [str(ROOT), str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")]
    )
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file",
         str(CONFIG), "--num_processes", str(processes),
         "--main_process_port", "0", *map(str, arguments)],
        env={**os.environ, **quiet, "PYTHONPATH": paths}, cwd=ROOT, timeout=900,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    together.main(folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    launch(ROOT / "tests" / "helpers" / "together.py", folder)
    return folder


def seen(folder, stage, rank):
    return json.loads((folder / f"{stage} seen by process {rank}.json").read_text())


@pytest.mark.parametrize(
    ("stage", "what", "tolerance"),
    [("alphas", "weights", 1e-5), ("skill", "deltas", 1e-4), ("xlora", "gate", 1e-4)],
)
def test_training_on_two_processes_is_training_on_one(alone, two, stage, what, tolerance):
    one, both = seen(alone, stage, 0)[what], seen(two, stage, 0)[what]
    assert one.keys() == both.keys() and one
    for name in one:
        expected, actual = torch.tensor(one[name]), torch.tensor(both[name])
        torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("stage", ["alphas", "skill"])
def test_every_step_has_the_loss_of_one_process(alone, two, stage):
    one, both = seen(alone, stage, 0)["losses"], seen(two, stage, 0)["losses"]
    assert both == pytest.approx(one, abs=1e-5) and len(set(one)) > 5


def test_generated_texts_are_those_of_one_process(alone, two):
    texts = seen(two, "evaluate", 1)["texts"]
    assert texts == seen(alone, "evaluate", 0)["texts"]
    assert len(set(texts)) > 3  # else any order would do


def test_an_artifact_is_written_once_and_seen_by_all(two):
    for stage in together.STAGES:
        assert len([p for p in (two / "store" / stage).iterdir() if p.is_dir()]) == 1
        assert seen(two, stage, 0) == seen(two, stage, 1)
        assert seen(two, stage, 1)["by"] == "process 0"


def test_what_cannot_be_shared_out_is_made_by_one(two):
    assert (two / "merge by process 0").exists() and not (two / "merge by process 1").exists()
    assert (two / "alphas by process 1").exists()


# The fixture `out` is the same command in this process.
def test_reproduce_on_two_processes_gives_the_results_of_one(base, mirror, out, tmp_path):  # noqa: F811
    done = launch("-m", "lorasoups", *command(base, mirror, tmp_path))
    one, both = load_results("small", root=out), load_results("small", root=tmp_path)
    assert both["rows"] == one["rows"] and both["items"] == one["items"]
    for expected, found in zip(one["alphas"], both["alphas"], strict=True):
        assert found["values"] == pytest.approx(expected["values"], abs=1e-5)
    assert done.stdout.count("written: ") == 1


# --- who we are --------------------------------------------------------------------------------


@pytest.fixture
def launched(monkeypatch):
    """As if a launcher had started two of us; nobody else is there."""
    told = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_one_process_needs_nothing(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")  # alone it means nothing
    assert (distributed.size(), distributed.rank()) == (1, 0) and distributed.is_main()
    assert distributed.gather("x") == ["x"] and distributed.broadcast("y") == "y"
    assert distributed.join() is None


def test_numbers_that_no_launcher_writes_are_refused(launched):
    launched.setenv("RANK", "2")
    with pytest.raises(SoupError, match="RANK=2"):
        distributed.size()


def test_notebooks_are_refused_on_several_processes(launched, capsys):
    assert cli.main(["reproduce", "--profile", "smoke"]) == 2
    told = capsys.readouterr().err
    assert "notebooks run in one process; use --profile small" in told


def test_other_commands_are_refused_too(launched, capsys):
    assert cli.main(["check"]) == 2
    assert "this command runs in one process" in capsys.readouterr().err


def test_processes_that_mean_different_artifacts_stop(launched, tmp_path):
    launched.setattr(distributed, "gather", lambda name: [name, "another"])
    with pytest.raises(SoupError, match="processes 0 and 1 mean different artifacts of alphas"):
        Store(tmp_path).build("alphas", {}, print)


# --- the config -----------------------------------------------------------------------------------


def test_accelerate_reads_the_config():
    config = load_config_from_file(str(CONFIG))  # refuses what it does not know
    assert config.num_processes == 8 and not config.use_cpu
