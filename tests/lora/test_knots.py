"""KnOTS against a dense version written here, and what it must not depend on."""

import pytest
import torch
from soup_helpers import assert_close, random_lora

from lorasoups.lora.lora import Factors, LoRA
from lorasoups.lora.merging import merge


def dense(loras, weights, density=1.0, lam=1.0):
    """The recipe with the dense SVD of all deltas side by side; dense deltas by module."""
    names = sorted(loras[0].modules)
    parts, rows = {}, [[] for _ in loras]
    for name in names:
        deltas = [lora.delta(name).double() for lora in loras]
        u, s, vh = torch.linalg.svd(torch.cat(deltas, dim=1), full_matrices=False)
        kept = s > 1e-5 * s[0]
        blocks = (s[kept, None] * vh[kept]).chunk(len(loras), dim=1)
        parts[name] = (u[:, kept], blocks)
        for own, block in zip(rows, blocks, strict=True):
            own.append(block.abs().flatten())
    least = []
    for own in rows:
        values = torch.cat(own).sort(descending=True).values
        least.append(values[max(1, int(density * len(values))) - 1] if density < 1 else 0.0)
    found = {}
    for name, (u, blocks) in parts.items():
        cut = torch.stack([b * (b.abs() >= t) for b, t in zip(blocks, least, strict=True)])
        sign = torch.where(cut.sum(0) >= 0, 1.0, -1.0)
        agree = cut.sign() == sign
        w = torch.tensor(weights, dtype=torch.float64).view(-1, 1, 1)
        found[name] = lam * u @ ((w * cut * agree).sum(0) / agree.sum(0).clamp(min=1))
    return found


@pytest.mark.parametrize("options", [{}, {"density": 0.3}, {"density": 0.6, "lam": 0.5}])
@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.7, 0.3]])
def test_it_is_the_dense_recipe(options, weights):
    loras = [random_lora(3, seed=1), random_lora(2, scale=2.0, seed=2)]
    merged = merge(loras, "knots", weights=weights, **options)
    for name, expected in dense(loras, weights, **options).items():
        assert_close(merged.delta(name), expected.float(), f"knots {options}, {name}")


def test_without_a_sign_conflict_it_is_the_mean_of_those_that_hold_an_entry():
    a = random_lora(3, seed=1)
    merged = merge([a, a.scaled(2.0)], "knots", weights=[1.0, 1.0], lam=0.5)
    top, bottom = torch.arange(9)[:, None] < 4, torch.arange(9)[:, None] >= 4
    f, g = a["m.layers.11.down"], random_lora(2, seed=2)["m.layers.11.down"]
    apart = [LoRA({"m": Factors(f.A, f.B * top)}), LoRA({"m": Factors(g.A, g.B * bottom)})]
    for name in a.modules:
        assert_close(merged.delta(name), 0.75 * a.delta(name), "knots, same signs everywhere")
    total = apart[0].delta("m") + apart[1].delta("m")
    found = merge(apart, "knots", weights=[1.0, 1.0]).delta("m")
    assert_close(found, total, "knots of LoRAs on different outputs")


def test_the_rank_is_at_most_the_sum_of_ranks():
    merged = merge([random_lora(3, seed=1), random_lora(2, seed=2)], "knots")
    assert all(f.rank <= 5 for f in merged.modules.values())


def test_it_does_not_depend_on_the_order_or_on_how_a_delta_is_factored():
    a, b = random_lora(3, seed=1), random_lora(2, seed=2)
    Q = torch.randn(3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    back = torch.linalg.inv(Q)
    again = LoRA(
        {
            n: Factors((Q @ f.A.double()).float(), (f.B.double() @ back).float())
            for n, f in a.modules.items()
        }
    )
    expected = merge([a, b], "knots", density=0.5)
    for name, loras in {"order": [b, a], "factors": [again, b]}.items():
        other = merge(loras, "knots", density=0.5)
        for module in expected.modules:
            assert_close(other.delta(module), expected.delta(module), f"knots, other {name}")


def test_equal_loras_average_to_themselves():
    lora = random_lora(3, seed=1)
    merged = merge([lora, lora], "knots", weights=[1.0, 1.0])
    for name in lora.modules:
        assert_close(merged.delta(name), lora.delta(name), "knots of two equal LoRAs")


def zeros_like(lora, without=None):
    return LoRA({n: Factors(f.A, 0 * f.B) for n, f in lora.modules.items() if n != without})


@pytest.mark.parametrize("zero_first", [False, True])
def test_a_zero_lora_and_a_missing_module(zero_first):
    lora = random_lora(3, seed=1)
    zero = zeros_like(random_lora(2, seed=2), without=sorted(lora.modules)[0])
    merged = merge([zero, lora] if zero_first else [lora, zero], "knots", weights=[1.0, 1.0])
    for module in lora.modules:
        assert_close(merged.delta(module), lora.delta(module), "knots with nothing")


@pytest.mark.parametrize("density", [1.0, 0.5])
def test_modules_that_are_zero_everywhere_stay_zero(density):
    zeros = [zeros_like(random_lora(3, seed=seed)) for seed in (1, 2)]
    merged = merge(zeros, "knots", density=density)
    assert all(not factors.delta().any() for factors in merged.modules.values())
