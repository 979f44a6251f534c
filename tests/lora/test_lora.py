import math

import pytest
import torch
from soup_helpers import SHAPES, assert_close, random_factors, random_lora

from lorasoups import load_lora, merge, save_lora
from lorasoups.errors import SoupError
from lorasoups.lora import linalg
from lorasoups.lora.lora import Dense, Factors, LoRA, lora_digest, module_names


def test_delta_is_b_times_a_and_scaling_scales_it():
    factors = random_factors(5, 7, 3, scale=2.0)
    assert factors.shape == (5, 7) and factors.rank == 3
    assert torch.equal(factors.delta(), factors.B @ factors.A)
    for weight in (2.5, -1.0, 0.0):
        assert torch.allclose(factors.scaled(weight).delta(), weight * factors.delta())
    halved = factors.scaled(-0.5)
    assert halved.scale == -1.0
    assert torch.allclose(halved.B / halved.scale, factors.B / factors.scale)


@pytest.mark.parametrize(
    "A, B, scale, message",
    [
        (torch.ones(2, 3).half(), torch.ones(4, 2), 1.0, "float32"),
        (torch.ones(2, 3), [[1.0, 2.0]], 1.0, "float32"),
        (torch.ones(2, 3, 1, 1), torch.ones(4, 2), 1.0, "linear layers"),
        (torch.ones(2, 3), torch.ones(4, 5), 1.0, "do not fit"),
        (torch.ones(0, 3), torch.ones(4, 0), 1.0, "do not fit"),
        (torch.full((2, 3), math.nan), torch.ones(4, 2), 1.0, "NaN"),
        (torch.ones(2, 3), torch.full((4, 2), math.inf), 1.0, "infinity"),
        (torch.ones(2, 3), torch.ones(4, 2), 0.0, "scale"),
        (torch.ones(2, 3), torch.ones(4, 2), math.nan, "scale"),
    ],
)
def test_bad_factors_are_refused(A, B, scale, message):
    with pytest.raises(SoupError, match=message):
        Factors(A, B, scale)


def test_a_lora_cannot_be_changed():
    lora = random_lora()
    with pytest.raises(AttributeError):
        lora.base_model = "other"
    with pytest.raises(TypeError):
        lora.modules["new"] = random_factors(2, 2, 1)
    source = dict(lora.modules)
    copy = LoRA(source)
    source.clear()
    assert list(copy.modules) == list(SHAPES)


def test_unknown_module_and_empty_lora_are_refused():
    with pytest.raises(SoupError, match=r"no LoRA on module 'nowhere'.*m\.layers\.0\.up"):
        random_lora().delta("nowhere")
    with pytest.raises(SoupError, match="at least one"):
        LoRA({})


def test_names_are_the_sorted_union_and_repr_is_short():
    one, two = random_lora(shapes={"b": (2, 3)}), random_lora(rank=1, shapes={"a": (2, 2)})
    assert module_names([one, two]) == ["a", "b"]
    assert repr(one) == "LoRA(1 modules, rank 3, base '')"
    assert one.rank("b") == one.max_rank == 3


def test_concatenation_is_the_exact_sum():
    factors = [random_factors(20, 15, r, scale=2.0, seed=r) for r in (2, 4, 7)]
    weights = torch.tensor([0.3, -1.5, 2.0])
    joined = linalg.concatenate(factors, weights)
    dense = sum(w * f.delta().double() for w, f in zip(weights, factors, strict=True))
    assert joined.rank == 13
    assert_close(joined.delta().double(), dense, "concatenation against the dense sum")


@pytest.mark.parametrize("shape", [(9, 14), (14, 9), (6, 6)])
def test_a_dense_delta_is_kept_as_it_is_and_reads_as_factors(shape, tmp_path):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    dense = Dense(matrix)
    assert dense.rank == min(shape) and dense.shape == shape and dense.scale == 1.0
    assert dense.delta() is dense.matrix and torch.equal(dense.B @ dense.A, matrix)
    assert torch.equal(dense.scaled(-2.0).delta(), -2.0 * matrix)
    pair = Factors(dense.A, dense.B)
    assert lora_digest(LoRA({"m": dense})) == lora_digest(LoRA({"m": pair}))
    for rank in (1, 4):
        assert torch.equal(linalg.compress(dense, rank).A, linalg.compress(pair, rank).A)
    joined = linalg.concatenate([dense, pair], torch.tensor([0.5, 2.0]))
    assert_close(joined.delta(), 2.5 * matrix, "concatenation of a dense delta")
    back = load_lora(save_lora(LoRA({"m": dense}), tmp_path / "a"))["m"]
    assert isinstance(back, Dense) and torch.equal(back.delta(), matrix)


@pytest.mark.parametrize("method", ["ties", "dare_linear", "magnitude_prune"])
def test_pruned_soups_make_no_identity(method, monkeypatch):
    """An identity per module would take 29 GB for a pruned soup of a 7B model."""
    monkeypatch.setattr(torch, "eye", lambda *a, **k: pytest.fail("an identity was made"))
    soup = merge([random_lora(seed=1), random_lora(seed=2)], method)
    for name, factors in soup.scaled(2.0).modules.items():
        assert torch.equal(factors.delta(), 2.0 * soup.delta(name))


def test_compression_to_the_true_rank_loses_nothing():
    once = random_factors(40, 30, 5)
    twice = linalg.concatenate([once, once.scaled(2.0)], torch.tensor([1.0, 1.0]))
    small = linalg.compress(twice, 5)
    assert small.rank == 5
    assert_close(small.delta(), 3 * once.delta(), "QR + SVD down to the true rank")
    assert linalg.compress(small, 8) is small


@pytest.mark.parametrize("limit", [linalg.EXACT_CORE_LIMIT, 1])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_compression_is_the_best_approximation(monkeypatch, limit, rank):
    """Both ways (limit 1 forces subspace iteration) against the SVD of the dense matrix."""
    monkeypatch.setattr(linalg, "EXACT_CORE_LIMIT", limit)
    factors = random_factors(60, 50, 20)
    dense = factors.delta()
    U, S, Vh = torch.linalg.svd(dense.double(), full_matrices=False)
    best = ((U[:, :rank] * S[:rank]) @ Vh[:rank]).float()
    assert_close(linalg.compress(factors, rank).delta(), best, f"best rank {rank}, limit {limit}")


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_share_keeps_the_smallest_rank_with_that_much_energy(share):
    noise = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    U, _, Vh = torch.linalg.svd(noise, full_matrices=False)
    S = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5])
    kept = linalg.compress(Factors(Vh[:5].contiguous(), U[:, :5] * S), share).rank
    energy = (S.square().cumsum(0) / S.square().sum()).tolist()
    assert energy[kept - 1] >= share and (kept == 1 or energy[kept - 2] < share)


def test_compression_never_decomposes_a_dense_matrix(monkeypatch):
    widest = 0
    original = torch.linalg.svd

    def watched(matrix, **options):
        nonlocal widest
        widest = max(widest, min(matrix.shape))
        return original(matrix, **options)

    monkeypatch.setattr(torch.linalg, "svd", watched)
    linalg.compress(random_factors(300, 200, 12), 4)
    assert widest == 12
    monkeypatch.setattr(linalg, "EXACT_CORE_LIMIT", 100)
    linalg.compress(Dense(random_factors(300, 200, 12).delta()), 4)
    assert widest <= 20


def test_subspace_iteration_leaves_the_global_generator_alone(monkeypatch):
    monkeypatch.setattr(linalg, "EXACT_CORE_LIMIT", 1)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = linalg.compress(random_factors(60, 50, 20), 2)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(linalg.compress(random_factors(60, 50, 20), 2).A, first.A)


@pytest.mark.parametrize("rank", [0, -1, 2.0, True, None])
def test_bad_ranks_are_refused(rank):
    with pytest.raises(SoupError, match="positive integer"):
        linalg.compress(random_factors(4, 4, 2), rank)
