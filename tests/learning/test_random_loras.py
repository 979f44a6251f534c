"""Random LoRAs: shapes and norms of the real ones, nothing else of them."""

import pytest
import torch
from soup_helpers import random_lora

from lorasoups.learning.random_loras import gaussian_like, permuted_like


@pytest.mark.parametrize("draw", [gaussian_like, permuted_like])
def test_every_module_keeps_shape_rank_and_norm_but_not_direction(draw):
    real = random_lora(4, scale=2.0, seed=1)
    other, again, different = draw(real, 3), draw(real, 3), draw(real, 4)
    for name in real.modules:
        mine, theirs = other.delta(name), real.delta(name)
        assert mine.shape == theirs.shape and other[name].rank == real[name].rank
        assert mine.norm() == pytest.approx(float(theirs.norm()), rel=1e-4)
        assert not torch.allclose(mine, theirs)
        assert torch.equal(mine, again.delta(name))
    assert any(not torch.equal(other.delta(n), different.delta(n)) for n in real.modules)


def test_the_global_generator_is_not_touched():
    torch.manual_seed(0)
    expected = torch.randn(1)
    torch.manual_seed(0)
    gaussian_like(random_lora(2), 1)
    permuted_like(random_lora(2), 1)
    assert torch.equal(torch.randn(1), expected)
