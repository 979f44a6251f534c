"""Numbers are the recorded ones. A meant change: raise the stage's version, record again."""

import json

import pytest

from tests.golden.record import VALUES, differences, plain
from tests.golden.subjects import SUBJECTS, TOLERANCE


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
