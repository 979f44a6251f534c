"""Costs of a profile on cards that are not here."""

import pytest

from lorasoups import costs
from lorasoups.errors import SoupError
from lorasoups.hardware import find
from lorasoups.profiles import get_profile

PAPER = get_profile("paper")
MEASURED = {
    "device": "NVIDIA H100 80GB HBM3",
    "whole": True,
    "stages": {"skill": {"tokens_per_s": 10_000.0, "flops_per_token": 2.7e10}},
}


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch):
    monkeypatch.delenv("LORASOUPS_HUB_MIRROR", raising=False)


def test_a_small_card_needs_changes_and_a_large_one_does_not():
    large, small = costs.costs(PAPER, ("H100", "RTX 4090"))
    assert large["fits"] and not large["changes"]
    assert small["fits"] and "4-bit base" in small["changes"]
    assert small["peak_bytes"] <= costs.ROOM * find("RTX 4090").memory
    assert small["stages"]["skill"] > large["stages"]["skill"] > large["stages"]["alphas"]
    assert large["source"] == "assumed share of peak"


def test_a_measurement_replaces_the_assumed_share_and_scales_to_other_cards():
    plain = costs.costs(PAPER, ("H100", "A100-80GB"))
    known = costs.costs(PAPER, ("H100", "A100-80GB"), measured=MEASURED)
    assert "measured on NVIDIA H100" in known[0]["source"]
    share = 10_000 * 2.7e10 / find("H100").matmul
    ratio = known[0]["stages"]["skill"] / plain[0]["stages"]["skill"]
    assert ratio == pytest.approx(0.4 / share, rel=0.05)
    assert known[1]["stages"]["skill"] > 2 * known[0]["stages"]["skill"]


@pytest.mark.parametrize("change", [{"whole": False}, {"device": "AMD EPYC"}, {"stages": {}}])
def test_a_part_of_a_model_or_a_cpu_scales_to_nothing(change):
    assert costs.costs(PAPER, ("H100",), measured=MEASURED | change) == costs.costs(
        PAPER, ("H100",)
    )


def test_seeds_multiply_training_and_the_table_is_text():
    one, three = (costs.costs(PAPER, ("H100",), n)[0] for n in (1, 3))
    assert three["stages"]["skill"] == pytest.approx(3 * one["stages"]["skill"])
    assert all(isinstance(cell, str) for row in costs.table([one]) for cell in row.values())


def test_what_nobody_knows_is_refused():
    with pytest.raises(SoupError, match="no data sheet"):
        costs.costs(PAPER, ("Voodoo 3",))
    with pytest.raises(SoupError, match="no known shape"):
        costs.costs(PAPER.override(base="org/unknown"))
