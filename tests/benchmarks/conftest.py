"""Collects the figures of a run of ``pytest tests/benchmarks`` into one file per machine."""

import os
from importlib import metadata

import pytest
import torch

from lorasoups import speed
from lorasoups.devices import device_name

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
def figure():
    """``figure(name, value, low=, high=, note=, **numbers)`` keeps one figure and prints it."""

    def keep(name: str, value: float, **more) -> None:
        FIGURES[name] = {"value": value} | more
        goal = speed.GOALS[name]
        met = "met" if goal.met(value, DEVICE == "cpu") else "MISSED"
        print(f"\n{name}: {value:.4g} (goal {goal.bound(DEVICE == 'cpu')}, {met}) {more}")

    return keep


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    if not FIGURES or session.config.getoption("--quick"):
        return
    out = session.config.getoption("--speed-out")
    found = {
        "device": device_name(DEVICE),
        "on_cpu": DEVICE == "cpu",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "versions": {n: metadata.version(n) for n in ("torch", "transformers", "peft")},
        "command": "pytest tests/benchmarks",
        "figures": _merged(out),
    }
    print(f"\nwritten: {speed.save(found, out)}")


def _merged(out: str) -> dict[str, dict]:
    """Figures of an earlier run on this machine that this one did not measure stay."""
    import json

    path = speed.speed_path(device_name(DEVICE), out)
    before = json.loads(path.read_text())["figures"] if path.is_file() else {}
    return {name: (before | FIGURES)[name] for name in speed.GOALS if name in before | FIGURES}
