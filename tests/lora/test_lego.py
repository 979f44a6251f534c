"""LoRA-LEGO: units, clusters, reweighting, and what is known to be arbitrary in it."""

import pytest
import torch
from soup_helpers import assert_close, random_lora

from lorasoups.lora.lora import Factors, LoRA
from lorasoups.lora.merging import merge
from lorasoups.lora.methods.lego import cluster, units


def one(A, B, scale=1.0):
    return LoRA({"m": Factors(torch.tensor(A), torch.tensor(B).T.contiguous(), scale)})


def test_far_apart_units_stay_and_near_ones_become_one():
    a = one([[1.0, 0.0, 0.0], [0.0, 10.0, 0.0]], [[2.0, 0.0], [0.0, 3.0]])
    b = one([[1.2, 0.0, 0.0], [0.0, 0.0, -20.0]], [[2.0, 0.0], [0.0, 5.0]])
    merged = merge([a, b], "lego", weights=[1.0, 1.0], clusters=3)
    # near units: mean a = 1.1, mean b = 2; both largest entries are 2: nothing to reweight
    shrink = (2 / 3) ** 0.5  # output reweighting sqrt(r / clusters)
    expected = torch.zeros(2, 3)
    expected[0, 0], expected[1, 1], expected[1, 2] = 1.1 * 2.0, 30.0, -100.0
    assert_close(merged.delta("m"), expected * shrink, "lego by hand")


def test_a_centroid_is_as_large_as_its_members():
    a, b = one([[3.0, 0.0]], [[1.0]]), one([[0.0, 3.0]], [[1.0]])
    merged = merge([a, b], "lego", weights=[1.0, 1.0], clusters=1)
    # mean unit (1.5, 1.5 | 1) has largest entry 1.5, its members 3: doubled
    assert_close(merged.delta("m"), torch.tensor([[6.0, 6.0]]), "parameter reweighting")


def test_enough_ranks_give_the_exact_sum_with_scales_weights_and_signs():
    loras = [random_lora(3, scale=2.0, seed=1), random_lora(2, scale=0.5, seed=2)]
    merged = merge(loras, "lego", weights=[0.7, -0.3], clusters=5)
    for name in merged.modules:
        expected = 0.7 * loras[0].delta(name) - 0.3 * loras[1].delta(name)
        assert_close(merged.delta(name), expected, "lego without clustering")


def test_without_the_option_nothing_is_shrunk_where_a_module_has_smaller_rank():
    """Largest rank 2: two clusters of m's three units, and sqrt(2 / 2) = 1 for m of rank 1, too."""
    wide = random_lora(2, seed=9).modules["m.layers.0.up"]
    loras = [
        LoRA({"m": Factors(torch.tensor([a]), torch.ones(1, 1)), "wide": wide})
        for a in ([1.0, 0.0], [1.0, 0.0], [0.0, 9.0])
    ]
    merged = merge(loras, "lego", weights=[1.0] * 3)
    assert_close(merged.delta("m"), torch.tensor([[1.0, 9.0]]), "lego, smaller rank")


@pytest.mark.filterwarnings("error")
def test_equal_units_can_be_fewer_than_clusters():
    lora = random_lora(3, seed=1)
    merged = merge([lora] * 3, "lego", weights=[1.0] * 3, clusters=5)
    for name in lora.modules:  # three groups of three; output reweighting sqrt(3 / 5)
        assert_close(merged.delta(name), 0.6**0.5 * lora.delta(name), "lego, equal units")


def test_a_negative_scale_is_a_negative_weight():
    a, b = random_lora(3, seed=1), random_lora(3, seed=2)
    scaled = merge([a.scaled(-2.0), b], "lego", weights=[1.0, 1.0])
    weighted = merge([a, b], "lego", weights=[-2.0, 1.0])
    for name in a.modules:
        assert_close(scaled.delta(name), weighted.delta(name), "lego, sign and size of w s")


def test_modules_that_are_zero_everywhere_stay_zero():
    zeros = [
        LoRA({n: Factors(f.A, 0 * f.B) for n, f in random_lora(3, seed=seed).modules.items()})
        for seed in (1, 2)
    ]
    merged = merge(zeros, "lego")
    assert all(not factors.delta().any() for factors in merged.modules.values())


def test_the_seed_decides_and_the_rank_is_kept():
    loras = [random_lora(3, seed=1), random_lora(3, seed=2)]
    one_way, again = (merge(loras, "lego", seed=4) for _ in range(2))
    for name, factors in one_way.modules.items():
        assert torch.equal(factors.A, again.modules[name].A)
        assert factors.rank <= 3


def test_how_a_delta_is_factored_matters_as_the_docstring_says():
    a, b = random_lora(3, seed=1), random_lora(3, seed=2)
    other = LoRA({n: Factors(5 * f.A, f.B / 5, f.scale) for n, f in a.modules.items()})
    name = sorted(a.modules)[0]
    assert torch.allclose(other.delta(name), a.delta(name), rtol=1e-4, atol=1e-5)
    first, second = (merge([x, b], "lego").delta(name) for x in (a, other))
    assert (first - second).abs().max() > 0.1 * first.abs().max()


def test_units_multiply_to_the_weighted_sum():
    factors = random_lora(3, scale=2.0, seed=1).modules["m.layers.0.up"]
    points, width = units([factors], torch.tensor([-0.5]))
    assert_close((points[:, width:].T @ points[:, :width]).float(), -0.5 * factors.delta(), "units")


@pytest.mark.parametrize("k", [1, 4])
def test_clusters_hold_every_unit_once(k):
    points = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    members = torch.cat(cluster(points, k, seed=0)).sort().values
    assert members.tolist() == list(range(9))
