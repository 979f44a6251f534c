"""One environment, told in three files: pyproject's ranges, the constraints, environment.yml."""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent.parent
APART = {"all", "four_bit", "openvino", "site"}
"""Extras that `all` leaves out: bitsandbytes prints a warning wherever transformers is imported,
OpenVINO takes 300 MB, and the site is for those who build it."""


def exact(lines):
    """Canonical name -> version of lines ``name==version``."""
    pins = {}
    for line in lines:
        name, version = re.fullmatch(r"([A-Za-z0-9_.-]+)==([^\s+;]+)", line).groups()
        pins[canonicalize_name(name)] = version
    return pins


@pytest.fixture(scope="module")
def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return exact(line for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def requirements(project):
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [
        line for name, group in extras.items() if name not in APART for line in group
    ]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


@pytest.fixture(scope="module")
def conda():
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def test_constraints_admit_every_range_of_pyproject(constraints, requirements):
    for name, requirement in requirements.items():
        assert requirement.specifier.contains(constraints[name]), requirement


def test_extra_all_holds_every_other_extra(project):
    extras = project["optional-dependencies"]
    [everything] = map(Requirement, extras["all"])
    assert everything.name == project["name"]
    assert everything.extras == extras.keys() - APART


def test_conda_environment_has_the_direct_dependencies_in_the_same_versions(
    conda, constraints, requirements
):
    [pip] = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    pins = exact(line for line in pip if not line.startswith("-"))
    assert pins == {name: constraints[name] for name in requirements}
    assert pip[-2:] == ["-c constraints.txt", "-e .[all]"]


def test_conda_python_is_admitted(conda, project):
    [version] = [
        entry.removeprefix("python=") for entry in conda if str(entry).startswith("python=")
    ]
    assert Requirement(f"python{project['requires-python']}").specifier.contains(version)


@pytest.mark.skipif(sys.platform != "linux", reason="the constraints were frozen on Linux")
def test_constraints_hold_the_whole_closure(constraints, requirements):
    """Every installed package that the direct dependencies need, here and now, is pinned."""
    waiting = [(name, frozenset(r.extras)) for name, r in requirements.items()]
    seen, missing = set(), set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name not in constraints:
            missing.add(name)
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            wanted = needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in (extras or {""}) | {""}
            )
            # the CUDA builds of torch bring these; the CPU build, which was frozen, does not
            if wanted and not re.match(r"nvidia-|triton|cuda-", needed.name):
                waiting.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    assert not missing
    assert len(seen) > 50


def test_torch_is_pinned_without_the_suffix_of_one_build(constraints):
    assert "+" not in (ROOT / "constraints.txt").read_text().split("torch==")[1].split()[0]
    assert constraints["torch"]
