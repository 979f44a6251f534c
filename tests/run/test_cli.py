"""The command line: exit codes, one-line errors, and what reaches the functions behind it."""

import os
import re
import subprocess
import sys

import pytest

import lorasoups
from lorasoups.errors import SoupError
from lorasoups.run import cli


@pytest.fixture
def reproduced(monkeypatch):
    """Calls of the notebooks' runner, which does not run."""
    from lorasoups.run import notebooks

    calls = []
    monkeypatch.setattr(notebooks, "reproduce", lambda *a, **k: calls.append((a, k)))
    return calls


@pytest.fixture
def studied(monkeypatch):
    """Calls of studies on a real model, which do not run."""
    from lorasoups.study import run

    calls = []
    monkeypatch.setattr(run, "reproduce_real", lambda *a, **k: calls.append((a, k)))
    return calls


def python(*arguments, **options):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, *arguments], env=env, capture_output=True, text=True, **options
    )


def test_every_command_has_help(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    commands = "reproduce merge methods push sweep ablate check doctor"
    for command in commands.split():
        assert re.search(rf"^  {command}  ", shown, re.MULTILINE), command
        assert cli.main([command, "--help"]) == 0
        assert "--help" in capsys.readouterr().out


def test_help_comes_without_the_heavy_libraries():
    program = """
import sys
from lorasoups.run.cli import main
assert main(["--help"]) == 0
heavy = {"torch", "transformers", "papermill", "matplotlib", "rich", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    done = python("-c", program)
    assert done.returncode == 0, done.stderr


def test_defaults_of_reproduce(reproduced):
    assert cli.main(["reproduce"]) == 0
    [(positional, named)] = reproduced
    assert positional == ("mini", 1, None, None, False, "runs/local")
    assert named == {"parameters": {}, "train": True}


def test_options_reach_the_runner(reproduced, monkeypatch):
    monkeypatch.setenv("LORASOUPS_HUB_MIRROR", "before")
    line = "reproduce --profile smoke --seeds 5 --from 02 --force --out o --hub-mirror m"
    cli.main([*line.split(), "-p", "n=100", "-p", "name=a b", "-p", "lrs=[1e-3]"])
    [(positional, named)] = reproduced
    assert positional == ("smoke", 5, None, "02", True, "o")
    assert named["parameters"] == {"n": 100, "name": "a b", "lrs": [1e-3]}
    assert os.environ["LORASOUPS_HUB_MIRROR"] == os.path.abspath("m") and named["train"]
    cli.main(["reproduce", "--shipped", "--out", "."])
    positional, named = reproduced[-1]
    assert positional[-1] == "." and not named["train"]


@pytest.mark.parametrize(
    "line, told",
    [
        ("reproduce --profile tiny", "tiny"),
        ("reproduce --profile smoke --seeds 0", "bad number of seeds"),
        ("reproduce --profile mini --limit 3", "--limit means nothing here: profile mini"),
        ("reproduce --profile smoke --base x", "--base means nothing here: profile smoke"),
        ("reproduce --profile small --from 02", "--from means nothing here: profile small"),
        ("reproduce --profile small --only 02", "--only means nothing here: profile small"),
        ("reproduce --study reading", "--study means nothing here: profile mini"),
        ("reproduce --four-bit", "--four-bit means nothing here: profile mini"),
        ("reproduce --device cuda", "--device means nothing here: profile mini"),
        ("sweep --seeds 0", "--seeds 0"),
        ("ablate --seeds 0", "--seeds 0"),
        ("reproduce --parameter n", "not of the form NAME=VALUE"),
        ("reproduce --parameter 1n=2", "not of the form NAME=VALUE"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(line, told, capsys):
    assert cli.main(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and told in printed.err
    assert printed.err.count("\n") == 1 and printed.out == ""


def test_errors_outside_a_clone_come_out_of_the_process(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    done = python("-m", "lorasoups", "reproduce", "--profile", "smoke", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no notebooks") and done.stderr.count("\n") == 1
    for words in (["reproduc"], [], ["check", "--nothing"], ["merge", "--rank", "x"], ["push"]):
        done = python("-m", "lorasoups", *words)
        assert done.returncode == 2 and "Traceback" not in done.stderr
    assert python("-m", "lorasoups", "--version").stdout.strip() == lorasoups.__version__


def test_interruption_is_exit_code_130(monkeypatch, reproduced, capsys):
    from lorasoups.run import notebooks

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(notebooks, "reproduce", interrupted)
    assert cli.main(["reproduce"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_errors_that_are_no_bad_input_keep_their_traceback(monkeypatch):
    from lorasoups.run import notebooks

    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(notebooks, "reproduce", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["reproduce"])


def test_a_real_model_runs_without_notebooks(studied, reproduced, tmp_path, monkeypatch):
    monkeypatch.setenv("LORASOUPS_HUB_MIRROR", "before")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.chdir(tmp_path)
    line = "reproduce --profile small --base model --limit 20 --hub-mirror mirror --seeds 2"
    assert cli.main([*line.split(), "--four-bit", "--device", "cpu"]) == 0
    [(positional, options)] = studied
    assert positional == ("small", "hard_math", 2, "runs/local", False)
    assert {name: v for name, v in options.items() if v} == {
        "base": "model", "limit": 20, "four_bit": True,
    }  # fmt: skip
    assert os.environ["LORASOUPS_HUB_MIRROR"] == str(tmp_path / "mirror")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert reproduced == []


def test_options_of_a_sweep(monkeypatch, tmp_path, capsys):
    from lorasoups.study import sweep as jobs

    calls, failed = [], jobs.Failure(jobs.Job("mini", "reading", 1), "no memory", "log")
    monkeypatch.setattr(jobs, "sweep", lambda *a, **k: calls.append((a, k)) or [failed])
    monkeypatch.chdir(tmp_path)
    line = "sweep --studies hard_math reading --methods cat linear@delta --jobs 2 --out o --time 9"
    assert cli.main(line.split()) == 1
    [(positional, options)] = calls
    studies = ["hard_math", "reading"]
    out = str(tmp_path / "o")
    assert positional == ("mini", studies, 1, "local", 2, 0, 9, None, out)
    assert options["methods"] == "cat,linear@delta" and options["base"] is None
    assert "error: reading results: no memory; log log" in capsys.readouterr().err


def test_missing_notebook_packages_are_told_with_the_command(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "papermill", None)
    monkeypatch.delitem(sys.modules, "lorasoups.run.notebooks", raising=False)
    monkeypatch.delattr("lorasoups.run.notebooks", raising=False)
    assert cli.main(["reproduce"]) == 2
    assert "package papermill is missing" in capsys.readouterr().err


def test_error_type_of_the_package_is_caught_wherever_it_comes_from(monkeypatch, capsys):
    from lorasoups.run import notebooks

    def refuse(*_, **__):
        raise SoupError("density is 2: --density; give a number in (0, 1]")

    monkeypatch.setattr(notebooks, "reproduce", refuse)
    assert cli.main(["reproduce"]) == 2
    assert capsys.readouterr().err == "error: density is 2: --density; give a number in (0, 1]\n"
