"""LoraHub for causal LMs: the search, its objective, and the base untouched."""

import pytest
import torch
from soup_helpers import llama_pair as pair
from soup_helpers import tiny_llama

from lorasoups.batching import heldout_loss
from lorasoups.errors import SoupError
from lorasoups.evaluation import folded
from lorasoups.lorahub import combine, lorahub
from lorasoups.merging import merge

ROWS = [{"input_ids": [1, 5, 9, 7, 3], "labels": [-100, -100, 9, 7, 3]}] * 4


def test_the_search_lowers_its_objective_and_keeps_its_bounds():
    found = lorahub(tiny_llama(), pair(), ROWS, budget=30, seed=1)
    first, best = found.history[0], min(e["objective"] for e in found.history)
    assert first["weights"] == [0.0, 0.0]
    assert best < first["objective"]
    assert all(abs(w) <= 1.5 for e in found.history for w in e["weights"])
    chosen = next(e for e in found.history if e["weights"] == found.weights)
    assert chosen["objective"] == best


def test_the_objective_is_loss_plus_penalty_of_the_merged_adapter():
    model = tiny_llama()
    found = lorahub(model, pair(), ROWS, budget=5, seed=0)
    for entry in found.history:
        with folded(model, combine(pair(), entry["weights"], "delta")):
            loss = heldout_loss(model, ROWS)
        assert entry["loss"] == pytest.approx(loss, rel=1e-6)
        penalty = 0.05 * sum(abs(w) for w in entry["weights"]) / 2
        assert entry["objective"] == pytest.approx(loss + penalty)


def test_the_seed_decides_and_the_base_comes_back():
    model = tiny_llama()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    one, two = (lorahub(model, pair(), ROWS, budget=8, seed=3) for _ in range(2))
    assert one.weights == two.weights
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_delta_is_the_exact_sum_and_factors_have_cross_terms():
    loras = pair(equal_ranks=True)
    name = sorted(loras[0].modules)[0]
    a, b = (lora.modules[name] for lora in loras)
    exact = combine(loras, [0.5, -1.0], "delta").delta(name)
    assert torch.allclose(exact, merge(loras, "cat", weights=[0.5, -1.0]).delta(name))
    mixed = combine(loras, [0.5, -1.0], "factors").delta(name)
    assert torch.allclose(mixed, (0.5 * a.B - b.B) @ (0.5 * a.A - b.A), atol=1e-6)
    alone = combine(loras[:1], [-1.0], "factors").delta(name)
    assert torch.allclose(alone, a.delta(), atol=1e-6)  # the sign is lost: w enters squared


def test_bad_input():
    with pytest.raises(SoupError, match="nothing to search"):
        lorahub(tiny_llama(), pair(), [])
    with pytest.raises(SoupError, match="unknown on"):
        combine(pair(), [1, 1], "weights")
    with pytest.raises(SoupError, match="ranks differ"):
        combine(pair(), [1, 1], "factors")
