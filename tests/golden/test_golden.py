"""Numbers are the recorded ones. A meant change: raise the stage's version, record again."""

import json

import pytest

from lorasoups.study.store import VERSIONS
from tests.golden.record import VALUES, differences, plain
from tests.golden.subjects import STAGES, SUBJECTS, TOLERANCE


@pytest.mark.parametrize("name", SUBJECTS)
def test_numbers_are_the_recorded_ones(name):
    recorded = json.loads((VALUES / f"{name}.json").read_text())["values"]
    bound = TOLERANCE.get(name, 1e-6)
    found = [
        (where, size)
        for where, size in differences(recorded, plain(SUBJECTS[name]()))
        if size is None or not size <= bound
    ]
    assert not found, (
        f"{len(found)} values of {name!r} differ, first {found[:3]}; if this is meant, raise the "
        f"stage's version in study/store.py and run python -m tests.golden.record {name}"
    )


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_whose_numbers_change_gets_another_version(name):
    recorded = json.loads((VALUES / f"{name}.json").read_text())["version"]
    assert recorded == VERSIONS[STAGES[name]], (
        f"{name!r} is recorded for version {recorded} of stage {STAGES[name]!r}; raise its number "
        "in VERSIONS (study/store.py) and record together"
    )


def test_every_stage_has_recorded_numbers():
    assert set(STAGES.values()) == set(VERSIONS)
