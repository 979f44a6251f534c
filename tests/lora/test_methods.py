import json

import pytest
import torch
from soup_helpers import SHAPES, assert_close, random_lora

from lorasoups import METHODS, merge
from lorasoups.lora.lora import Factors, LoRA, module_names
from lorasoups.lora.methods.sparse import drop_and_rescale, keep_largest

EVERY_WAY = [(name, on) for name, method in METHODS.items() for on in method.on]
PRUNING = [way for way in EVERY_WAY if "density" in METHODS[way[0]].options]
UNEVEN = [way for way in EVERY_WAY if way[0] != "iso_c"]  # all its singular values are equal


def dense_sum(loras, weights, name):
    parts = [(w, lora) for w, lora in zip(weights, loras, strict=True) if name in lora.modules]
    return sum(w * lora.delta(name).double() for w, lora in parts).float()


def assert_same_deltas(one, two, what):
    assert module_names([one]) == module_names([two])
    for name in one.modules:
        assert_close(one.delta(name), two.delta(name), what)


@pytest.mark.parametrize("name, on", EVERY_WAY)
def test_one_lora_at_weight_one_is_itself(name, on):
    lora = random_lora(scale=2.0)
    assert_same_deltas(merge([lora], name, weights=[1.0], on=on), lora, f"identity {name}@{on}")
    assert_same_deltas(merge([lora], name, on=on), lora, f"identity {name}@{on}, default weights")


@pytest.mark.parametrize("name, on", UNEVEN)
def test_the_method_itself_keeps_a_single_lora(name, on):
    """Not by the rule for k = 1 in ``merge``: the method's own arithmetic, nothing pruned."""
    lora = random_lora(scale=0.5)
    method = METHODS[name]
    given = {"density": 1} if "density" in method.options else {}
    weights = {module: torch.ones(1, dtype=torch.float64) for module in lora.modules}
    modules = method.fn([lora], weights, on=on, **method.complete(given))
    assert_same_deltas(LoRA(modules), lora, f"own arithmetic {name}@{on}")


@pytest.mark.parametrize("name, on", PRUNING)
def test_a_single_lora_is_never_pruned(name, on):
    lora = random_lora()
    half = merge([lora], name, weights=[-0.5], on=on, density=0.1)
    assert_same_deltas(half, lora.scaled(-0.5), f"k = 1 at density 0.1, {name}@{on}")


@pytest.mark.parametrize("name, on", EVERY_WAY)
def test_a_module_absent_from_one_lora_counts_as_zero(name, on):
    shapes = dict(list(SHAPES.items())[:1])
    whole, part = random_lora(seed=1), random_lora(seed=2, shapes=shapes)
    zeros = {n: Factors(torch.zeros(3, s[1]), torch.zeros(s[0], 3)) for n, s in SHAPES.items()}
    padded = LoRA(zeros | dict(part.modules))
    # DARE draws masks for padded zeros too, so only masks that keep everything can be compared
    given = {"density": 1} if "density" in METHODS[name].options else {}
    soup = merge([whole, part], name, weights=[0.7, 1.1], on=on, **given)
    same = merge([whole, padded], name, weights=[0.7, 1.1], on=on, **given)
    assert_same_deltas(soup, same, f"absent module {name}@{on}")


@pytest.mark.parametrize("name", ["cat", "linear"])
def test_exact_sum_of_different_ranks_scales_and_weights(name):
    loras = [random_lora(2, 2.0, 1), random_lora(5, 0.25, 2), random_lora(3, 1.0, 3)]
    weights = [0.3, -1.2, 2.0]
    soup = merge(loras, name, weights=weights)
    for module in SHAPES:
        assert_close(soup.delta(module), dense_sum(loras, weights, module), f"{name} dense sum")
        assert soup.rank(module) == 10


def test_default_weights_are_one_over_k():
    loras = [random_lora(seed=seed) for seed in range(4)]
    explicit = merge(loras, "cat", weights=[0.25] * 4)
    assert_same_deltas(merge(loras), explicit, "default weights")


def test_cat_takes_weights_per_module_also_from_an_object_with_weights():
    class Alphas:
        weights = {
            name: torch.tensor([0.1 * i, 1 - 2.0 * i], requires_grad=True)
            for i, name in enumerate(SHAPES)
        }

    loras = [random_lora(2, 2.0, 1), random_lora(4, 1.0, 2)]
    soup = merge(loras, "cat", weights=Alphas())
    as_mapping = {name: row.tolist() for name, row in Alphas.weights.items()}
    for name in SHAPES:
        expected = dense_sum(loras, as_mapping[name], name)
        assert_close(soup.delta(name), expected, "cat, per-module weights")
        same = merge(loras, "cat", weights=as_mapping).delta(name)
        assert torch.equal(soup.delta(name), same)
    assert json.loads(json.dumps(soup.provenance))["weights"] == as_mapping


@pytest.mark.parametrize("name, on", UNEVEN)
def test_rank_cuts_every_method_to_the_best_of_that_rank(name, on):
    loras = [random_lora(seed=1), random_lora(seed=2)]
    whole = merge(loras, name, on=on, **({"rank": 99} if name == "svd" else {}))
    soup = merge(loras, name, on=on, rank=2)
    for module in SHAPES:
        U, S, Vh = torch.linalg.svd(whole.delta(module), full_matrices=False)
        assert soup.rank(module) == 2
        assert_close(soup.delta(module), (U[:, :2] * S[:2]) @ Vh[:2], f"rank=2, {name}@{on}")


def test_svd_defaults_to_the_largest_rank_and_can_keep_all():
    loras = [random_lora(2, seed=1), random_lora(4, seed=2)]
    assert merge(loras, "svd").max_rank == 4
    full = merge(loras, "svd", rank=6)
    assert_same_deltas(full, merge(loras, "cat"), "svd at full rank against cat")


def test_results_on_the_delta_are_exact_loras_of_full_rank():
    soup = merge([random_lora(seed=1), random_lora(seed=2)], "ties", density=0.5)
    assert {soup.rank(name) for name in SHAPES} == {9}


def test_ties_by_hand():
    """Two 1 x 4 deltas: trimmed, signs elected without weights, mean over those that agree."""
    one = LoRA({"m": Factors(torch.tensor([[4.0, -3.0, 2.0, 0.1]]), torch.ones(1, 1))})
    two = LoRA({"m": Factors(torch.tensor([[2.0, 5.0, 0.1, -6.0]]), torch.ones(1, 1))})
    soup = merge([one, two], "ties", weights=[1.0, 2.0], density=0.75)
    assert soup.delta("m").tolist() == [[4.0, 10.0, 2.0, -12.0]]


def test_frequency_counts_signs_where_total_adds_values():
    rows = [[3.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]]
    factors = [Factors(torch.tensor([row]), torch.ones(1, 1)) for row in rows]
    loras = [LoRA({"m": f}) for f in factors]
    total = merge(loras, "ties", weights=[1.0] * 3, density=1)
    counted = merge(loras, "ties", weights=[1.0] * 3, density=1, majority_sign_method="frequency")
    assert total.delta("m").tolist() == [[3.0, 1.0]]
    assert counted.delta("m").tolist() == [[-1.0, 1.0]]


def test_keep_largest_keeps_the_stated_fraction():
    tensor = torch.randn(30, 40, generator=torch.Generator().manual_seed(0))
    kept = keep_largest(tensor.clone(), 0.25)
    assert (kept != 0).sum() == 300
    assert kept[kept != 0].abs().min() > tensor[kept == 0].abs().max()
    assert torch.equal(kept[kept != 0], tensor[kept != 0])


@pytest.mark.parametrize("density", [0.0, 0.3, 0.75, 1 - 1e-6])
@pytest.mark.parametrize("levels", [1, 50, None])
def test_of_equal_magnitudes_the_first_ones_stay(density, levels):
    """Against a stable sort, on several blocks; few levels, hence many ties, zeros among them."""
    tensor = torch.randn(1500, 1500, generator=torch.Generator().manual_seed(0))
    if levels:
        tensor = (tensor * levels / 4).round() / 7
    count = int(density * tensor.numel())
    first = tensor.abs().flatten().sort(descending=True, stable=True).indices[:count]
    expected = torch.zeros(tensor.numel()).index_copy(0, first, tensor.flatten()[first])
    if levels is None:
        assert len(expected.nonzero()) == count
    assert torch.equal(keep_largest(tensor.clone(), density).flatten(), expected)


def test_the_masks_are_those_of_bernoulli():
    """As PEFT draws them: whole, one tensor after the other."""
    ours, theirs = (torch.Generator().manual_seed(3) for _ in range(2))
    for shape, density in [((1500, 1500), 0.3), ((2, 3), 0.75), ((1, 300_000), 0.999)]:
        mask = torch.bernoulli(torch.full(shape, density), generator=theirs)
        dropped = drop_and_rescale(torch.ones(shape), density, ours)
        assert torch.equal(dropped, mask / density)


def test_drop_and_rescale_is_unbiased():
    dropped = drop_and_rescale(torch.ones(400, 500), 0.2, torch.Generator().manual_seed(0))
    assert sorted(dropped.unique().tolist()) == [0.0, 5.0]
    assert abs(dropped.mean().item() - 1) < 0.02


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("on", ["delta", "factors"])
def test_dare_is_seeded_and_leaves_the_global_generator_alone(name, on):
    loras = [random_lora(seed=1), random_lora(seed=2)]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = merge(loras, name, on=on, density=0.5, seed=7)
    assert torch.equal(torch.rand(3), expected)
    again = merge(loras, name, on=on, density=0.5, seed=7)
    other = merge(loras, name, on=on, density=0.5, seed=8)
    for module in SHAPES:
        assert torch.equal(first.delta(module), again.delta(module))
        assert not torch.allclose(first.delta(module), other.delta(module))


def test_dare_does_not_depend_on_the_order_of_modules():
    loras = [random_lora(seed=1), random_lora(seed=2)]
    turned = [LoRA(dict(reversed(lora.modules.items()))) for lora in loras]
    one, two = merge(loras, "dare_linear", seed=3), merge(turned, "dare_linear", seed=3)
    for module in SHAPES:
        assert torch.equal(one.delta(module), two.delta(module))


@pytest.mark.parametrize("name, on", EVERY_WAY)
def test_the_inputs_stay_as_they_were(name, on):
    loras = [random_lora(scale=2.0, seed=1), random_lora(seed=2)]
    before = [(f.A.clone(), f.B.clone()) for lora in loras for f in lora.modules.values()]
    merge(loras, name, on=on)
    after = [(f.A, f.B) for lora in loras for f in lora.modules.values()]
    for (A, B), (A_after, B_after) in zip(before, after, strict=True):
        assert torch.equal(A, A_after) and torch.equal(B, B_after)


def test_provenance_tells_how_the_soup_was_made():
    one = LoRA(random_lora().modules, "base", {"source": "math"})
    soup = merge([one, random_lora(seed=2)], "ties", weights=[1, 0.5], density=0.5)
    assert soup.base_model == "base"
    assert soup.provenance == {
        "method": "ties",
        "on": "delta",
        "rank": None,
        "options": {"density": 0.5, "majority_sign_method": "total"},
        "weights": [1.0, 0.5],
        "sources": [{"source": "math"}, {}],
    }


@pytest.mark.parametrize("name", METHODS)
def test_every_method_tells_what_it_is(name):
    method = METHODS[name]
    assert method.name == name and method.fn.__doc__
    assert method.summary and "\n" not in method.summary and method.paper
    assert method.complete({}) == {k: o.default for k, o in method.options.items()}
    assert all(option.allowed(option.default) for option in method.options.values())
