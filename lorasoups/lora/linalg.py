"""Exact sums and rank reduction on LoRA factors.

The SVD of ``B @ A`` follows from two thin QR decompositions and the SVD of a small core:
``B = Qb Rb``, ``A^T = Qa Ra``, ``B A = Qb (Rb Ra^T) Qa^T``; no dense ``[out, in]`` matrix is
decomposed. Decompositions run in float64, results are float32.
"""

import math

import torch
from torch import Tensor

from lorasoups.errors import SoupError
from lorasoups.lora.lora import Dense, Factors

EXACT_CORE_LIMIT = 1024  # the largest core whose SVD is taken; above it, subspace iteration ...
EXTRA = 16  # ... with so many directions more than the rank


def concatenate(factors: list[Factors], weights: Tensor) -> Factors:
    """``sum_i weights[i] * delta_i``, exactly, as factors of rank sum r_i; weights: float [k]."""
    A = torch.cat([f.A for f in factors], dim=0)
    B = torch.cat([f.B * float(w) for f, w in zip(factors, weights, strict=True)], dim=1)
    return Factors(A, B)


def energy_share(rank: int | float) -> float:
    """``rank`` as a share of energy; 0.0 for a positive integer. SoupError for anything else."""
    share = rank if isinstance(rank, float) and 0 < rank < 1 else 0.0
    if not share and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
        raise SoupError(f"rank is {rank!r}; give a positive integer, or a share of energy below 1")
    return share


def compress(factors: Factors, rank: int | float) -> Factors:
    """The best approximation of rank <= ``rank`` in the Frobenius norm (Eckart-Young).

    A float in (0, 1) is a share of the energy: the smallest rank whose squared singular values sum
    to it. Factors of a lower rank come back unchanged; singular values are split evenly.
    Above EXACT_CORE_LIMIT (a full-rank delta of a wide layer) it is near-best: subspace iteration
    (`torch.svd_lowrank`; Halko et al. 2011, arXiv 0909.4061). Raises as `energy_share`.
    """
    share = energy_share(rank)
    if not share and factors.rank <= rank:
        return factors
    if share or min(factors.rank, *factors.shape) <= EXACT_CORE_LIMIT:
        left, of_b = torch.linalg.qr(factors.B.double())
        right, of_a = torch.linalg.qr(factors.A.double().T)
        core, right = of_b @ of_a.T, right.T  # left @ core @ right = the delta, exactly
    else:  # of the leading directions alone
        width = min(rank + EXTRA, *factors.shape)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            left, S, right = torch.svd_lowrank(factors.delta().double(), width, niter=6)
        core, right = S.diag(), right.T
    U, S, Vh = torch.linalg.svd(core, full_matrices=False)
    if share:
        energy = S.square().cumsum(0) / S.square().sum().clamp(min=1e-300)
        rank = min(int((energy < share).sum()) + 1, len(S))
    root = S[:rank].sqrt()
    A, B = root[:, None] * (Vh[:rank] @ right), (left @ U[:, :rank]) * root
    return Factors(A.float().contiguous(), B.float().contiguous())


def frobenius(factors: Factors) -> float:
    """The Frobenius norm of a delta weight, of factors without making the matrix."""
    if isinstance(factors, Dense):
        return float(factors.delta().double().norm())
    A, B = factors.A.double(), factors.B.double()
    return math.sqrt(max(0.0, float(((B.T @ B) * (A @ A.T)).sum())))


def distance(one: Factors, other: Factors) -> float:
    """The Frobenius norm of the difference of two delta weights."""
    if isinstance(one, Dense) or isinstance(other, Dense):
        return float((one.delta().double() - other.delta().double()).norm())
    return frobenius(concatenate([one, other], torch.tensor([1.0, -1.0])))
