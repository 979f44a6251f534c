"""Collects the figures of a run of ``pytest tests/benchmarks`` into one file per machine."""

import json
import os
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import goals as speed
import pytest
import torch
from harness import OtherWork

from lorasoups.models.devices import cpu_name, device_name
from lorasoups.paths import project_root
from lorasoups.results.file import git_state

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FIGURES: dict[str, dict] = {}


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="toy sizes: proves that it runs")
    parser.addoption("--speed-out", default="", metavar="DIR", help="write the figures here")


@pytest.fixture
def quick(request) -> bool:
    """Toy sizes."""
    return request.config.getoption("--quick")


@pytest.fixture
def device() -> str:
    return DEVICE


@pytest.fixture
def missed():
    """``missed(name, value)``: a figure is worse than its goal, so that a profile is due."""
    return lambda name, value: not speed.GOALS[name].met(value, DEVICE == "cpu")


@pytest.fixture
def figure(request):
    """``figure(name, value, low=, high=, note=, **numbers)`` keeps one figure and prints it.

    With it goes how it was made, as a later run may replace some figures of a machine alone: when,
    the command, how busy other processes kept the machine, the commit.
    """
    others = OtherWork()

    def keep(name: str, value: float, **more) -> None:
        goal = speed.GOALS[name]
        met = goal.met(value, DEVICE == "cpu")
        made = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": f"pytest {request.node.nodeid}",
            "other_work_cores": others.cores(),
            "git": git_state(project_root()),
        }
        bound, label = goal.bound(DEVICE == "cpu"), f"{goal.label}, {goal.unit}"
        FIGURES[name] = {"label": label, "value": value, "goal": bound, "met": met} | more
        FIGURES[name]["made"] = made
        told = json.dumps(more | {"other_work_cores": made["other_work_cores"]})
        print(f"\n{name}: {value:.4g} (goal {bound}, {'met' if met else 'MISSED'}) {told}")

    return keep


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    if not FIGURES or session.config.getoption("--quick"):
        return
    out = session.config.getoption("--speed-out")
    found = {
        "device": device_name(DEVICE),
        "on_cpu": DEVICE == "cpu",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        "versions": {n: metadata.version(n) for n in ("torch", "transformers", "peft")},
        "command": "pytest tests/benchmarks",
        "figures": _merged(out),
    }
    print(f"\nwritten: {_shown(speed.save(found, out))}")


def _merged(out: str) -> dict[str, dict]:
    """Figures of an earlier run on this machine that this one did not measure stay."""
    path = speed.speed_path(device_name(DEVICE), out)
    before = json.loads(path.read_text())["figures"] if path.is_file() else {}
    return {name: (before | FIGURES)[name] for name in speed.GOALS if name in before | FIGURES}


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
