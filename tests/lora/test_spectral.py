"""tsv, iso_c and core_space against dense float64 versions written here, and their edge cases."""

import math

import pytest
import torch
from soup_helpers import SHAPES, assert_close, random_lora

from lorasoups.errors import SoupError
from lorasoups.lora.adapters import load_lora, save_lora
from lorasoups.lora.lora import Factors, LoRA
from lorasoups.lora.merging import merge
from lorasoups.lora.serving import uniform_rank

SPECTRAL = ["tsv", "iso_c", "core_space"]
WHITENED = ["tsv", "core_space"]
WIDE = {"m.a": (40, 31), "m.b": (24, 50)}  # larger than the sum of ranks


def svd(matrix):
    """The SVD of a dense matrix [out, in] up to its rank."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    rank = int((s > 1e-5 * s[:1]).sum())
    return u[:, :rank], s[:rank], vh[:rank]


def inverse_root(gram):
    """``gram^(-1/2)`` of a symmetric matrix, 0 where an eigenvalue is."""
    values, vectors = torch.linalg.eigh(gram)
    kept = values > 1e-9
    return (vectors[:, kept] / values[kept].sqrt()) @ vectors[:, kept].T


def dense(method, loras, weights, name):
    """By dense SVDs and explicit whitening; float64 [out, in]."""
    having = [(w, lora) for w, lora in zip(weights, loras, strict=True) if name in lora.modules]
    deltas = [w * lora[name].B.double() @ lora[name].A.double() for w, lora in having]
    if method == "iso_c":
        u, s, vh = svd(sum(deltas))
        return s.mean() * u @ vh
    us, ss, vhs = [], [], []
    for u, s, vh in map(svd, deltas):
        keep = math.ceil(len(s) / len(loras)) if method == "tsv" else len(s)
        us.append(u[:, :keep])
        ss.append(s[:keep])
        vhs.append(vh[:keep])
    U, V = torch.cat(us, dim=1), torch.cat(vhs).T
    U, V = U @ inverse_root(U.T @ U), V @ inverse_root(V.T @ V)
    return U @ torch.diag(torch.cat(ss)) @ V.T


def assert_dense(method, loras, weights, what):
    merged = merge(loras, method, weights=weights)
    for name, factors in merged.modules.items():
        found = factors.B.double() @ factors.A.double()
        assert_close(found, dense(method, loras, weights, name), f"{method}, {what}, {name}")
    return merged


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.7, 0.3, -1.2]])
@pytest.mark.parametrize("shapes", [WIDE, SHAPES], ids=["wide", "narrow"])
@pytest.mark.parametrize("method", SPECTRAL)
def test_it_is_the_dense_recipe(method, shapes, weights):
    """Also where the ranks differ, sum to more than a side (SHAPES: 11 > 9), a module is absent."""
    loras = [random_lora(r, 0.5 * r, seed=r, shapes=shapes) for r in (5, 2, 4)]
    loras[1] = LoRA({name: f for name, f in loras[1].modules.items() if name != list(shapes)[0]})
    merged = assert_dense(method, loras, weights, "three ranks")
    last = list(shapes)[-1]
    expected = {"tsv": 2 + 1 + 2, "iso_c": min(11, *shapes[last]), "core_space": 11}
    assert merged.rank(last) == expected[method]


@pytest.mark.parametrize("method", SPECTRAL)
def test_where_no_deviation_applies_it_is_the_official_recipe(method):
    """Plain SVDs without ranks: tsv and iso_c of full-rank deltas, core_space of equal ranks."""
    rank = 3 if method == "core_space" else 8
    loras = [random_lora(rank, seed=seed, shapes={"m": (12, 8)}) for seed in (1, 2)]
    deltas = [lora["m"].B.double() @ lora["m"].A.double() for lora in loras]
    left, right = torch.eye(12, dtype=torch.float64), torch.eye(8, dtype=torch.float64)
    if method == "core_space":
        left = torch.linalg.svd(torch.cat([x["m"].B.double() for x in loras], 1), False)[0]
        right = torch.linalg.svd(torch.cat([x["m"].A.double() for x in loras]), False)[2]
    cores = [left.T @ delta @ right.T for delta in deltas]
    if method == "iso_c":
        u, s, vh = torch.linalg.svd(sum(cores), full_matrices=False)
        merged = s.mean() * u @ vh
    else:
        split = [torch.linalg.svd(core, full_matrices=False) for core in cores]
        half = len(split[0][1]) // 2
        U, S = (torch.cat([parts[i][..., :half] for parts in split], -1) for i in (0, 1))
        p, _, q = torch.linalg.svd(U, full_matrices=False)
        x, _, y = torch.linalg.svd(torch.cat([parts[2][:half] for parts in split]), False)
        merged = p @ q @ torch.diag(S) @ x @ y
    found = merge(loras, method, weights=[1.0, 1.0])["m"]
    expected = left @ merged @ right
    assert_close(found.B.double() @ found.A.double(), expected, f"{method} as official")


@pytest.mark.parametrize("method", SPECTRAL)
def test_one_weight_for_all_only_scales(method):
    loras = [random_lora(3, seed=1), random_lora(2, seed=2)]
    ones, scaled = (merge(loras, method, weights=[w, w]) for w in (1.0, -0.3))
    for name in SHAPES:
        assert_close(scaled.delta(name), -0.3 * ones.delta(name), f"{method}, one weight")


@pytest.mark.parametrize("method", SPECTRAL)
def test_it_depends_on_the_deltas_alone(method):
    """Not on the order, the basis within a LoRA, its size on A or B, or a padded rank."""
    a, b = random_lora(3, seed=1), random_lora(2, seed=2)
    Q = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    turned = a.each(lambda f: Factors(100 * Q @ f.A, f.B @ Q.T / 100))
    mixed = LoRA({"extra": random_lora(6).modules["m.layers.0.up"]} | dict(b.modules))
    padded = LoRA({n: f for n, f in uniform_rank(mixed).modules.items() if n != "extra"})
    expected = merge([a, b], method)
    for what, loras in {"order": [b, a], "basis": [turned, b], "rank": [a, padded]}.items():
        other = merge(loras, method)
        for name in SHAPES:
            assert_close(other.delta(name), expected.delta(name), f"{method}, other {what}")


@pytest.mark.parametrize("method", WHITENED)
def test_orthogonal_loras_add_up_and_equal_ones_count_once(method):
    """Whitening changes nothing that is apart; of n equal LoRAs at weight 1 it makes one."""
    lora = random_lora(3, seed=1, shapes={"m": (12, 9)})
    A = torch.linalg.qr(torch.randn(9, 6, generator=torch.Generator().manual_seed(1))).Q.T
    B = torch.linalg.qr(torch.randn(12, 6, generator=torch.Generator().manual_seed(2))).Q
    size = torch.tensor([1.0, 2.0, 3.0])
    apart = [LoRA({"m": Factors(A[i], B[:, i] * size)}) for i in (slice(0, 3), slice(3, 6))]
    keep = size >= 2 if method == "tsv" else size > 0
    total = sum((lora["m"].B * keep) @ lora["m"].A for lora in apart)
    assert_close(merge(apart, method, weights=[1, 1]).delta("m"), total, f"{method}, orthogonal")
    for n in (2, 3):
        equal = merge([lora] * n, method, weights=[1.0] * n).delta("m")
        u, s, vh = svd(lora.delta("m").double())
        keep = math.ceil(3 / n) if method == "tsv" else 3
        once = ((u[:, :keep] * s[:keep]) @ vh[:keep]).float()
        assert_close(equal, once, f"{method}, {n} equal LoRAs")


def test_all_singular_values_of_iso_c_are_the_mean_of_the_sums():
    loras = [random_lora(3, seed=1, shapes=WIDE), random_lora(2, seed=2, shapes=WIDE)]
    exact = merge(loras, "cat", weights=[1.0, 0.5])
    for rank in (None, 2):
        merged = merge(loras, "iso_c", weights=[1.0, 0.5], rank=rank)
        for name in WIDE:
            u, s, vh = svd(exact.delta(name).double())
            expected = s[:rank].mean() * u[:, :rank] @ vh[:rank]
            assert_close(merged.delta(name), expected.float(), f"iso_c, rank {rank}")
            assert merged.rank(name) == (rank or 5)


def test_one_lora_is_flattened_by_the_method_but_not_by_merge():
    lora = random_lora(3, seed=1)
    assert_close(merge([lora], "iso_c").delta("m.layers.0.up"), lora.delta("m.layers.0.up"), "k=1")
    zero = lora.each(lambda f: Factors(f.A, 0 * f.B))
    merged = assert_dense("iso_c", [lora, zero], [1.0, 1.0], "one and nothing")
    assert not torch.allclose(merged.delta("m.layers.0.up"), lora.delta("m.layers.0.up"))


@pytest.mark.parametrize("method", SPECTRAL)
@pytest.mark.parametrize("nothing", ["zero", "weight 0", "both zero"])
def test_zero_adapters_do_not_take_part(method, nothing):
    lora, other = random_lora(3, seed=1), random_lora(2, seed=2)
    zero = other.each(lambda f: Factors(f.A, 0 * f.B))
    if nothing == "both zero":
        merged = merge([zero, zero], method)
        assert all(not f.delta().any() and f.rank == 2 for f in merged.modules.values())
        return
    merged = merge([lora, zero if nothing == "zero" else other], method, weights=[1.0, 0.0])
    for name in SHAPES:
        expected = dense(method, [lora, zero], [1.0, 1.0], name).float()
        assert_close(merged.delta(name), expected, f"{method}, {nothing}")
        if method == "core_space":
            assert_close(merged.delta(name), lora.delta(name), f"{method}, {nothing}")


@pytest.mark.parametrize("method", SPECTRAL)
def test_adapters_stored_in_half_precision_merge_in_double(method, tmp_path):
    """Files in float16 are read as float32; factors in float16 are refused, as everywhere."""
    loras = [random_lora(r, seed=r, shapes=WIDE, base="b") for r in (3, 2)]
    folders = [save_lora(x, tmp_path / str(i), dtype=torch.float16) for i, x in enumerate(loras)]
    read = [load_lora(folder) for folder in folders]
    assert_dense(method, read, [1.0, 1.0], "float16 files")
    with pytest.raises(SoupError, match="float32"):
        Factors(torch.ones(1, 2).half(), torch.ones(2, 1).half())
