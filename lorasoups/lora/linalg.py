"""Exact sums and rank reduction on LoRA factors.

A sum of low-rank matrices is the product of the concatenated factors, and the SVD of a product
``B @ A`` follows from two thin QR decompositions and the SVD of a small core:
``B = Qb Rb``, ``A^T = Qa Ra``, ``B A = Qb (Rb Ra^T) Qa^T``. Nothing here takes the SVD of a dense
``[out, in]`` matrix. Decompositions run in float64, results are float32.
"""

import torch
from torch import Tensor

from lorasoups.errors import SoupError
from lorasoups.lora.lora import Factors

EXACT_CORE_LIMIT = 1024
"""Largest core whose SVD is taken directly; above it, subspace iteration is used."""


def concatenate(factors: list[Factors], weights: Tensor) -> Factors:
    """The exact weighted sum of k delta weights, as one pair of factors of rank sum r_i.

    weights: float ``[k]``; they go to the B side. Up to rounding,
    ``result.delta() == sum_i weights[i] * factors[i].delta()``.
    """
    A = torch.cat([f.A for f in factors], dim=0)
    B = torch.cat([f.B * float(w) for f, w in zip(factors, weights, strict=True)], dim=1)
    return Factors(A, B)


def from_delta(delta: Tensor) -> Factors:
    """A dense float32 ``[out, in]`` matrix as exact factors of rank min(out, in).

    One factor is the identity, so no digit is lost and nothing is decomposed.
    """
    out_features, in_features = delta.shape
    eye = torch.eye(min(out_features, in_features), dtype=delta.dtype, device=delta.device)
    return Factors(delta, eye) if out_features <= in_features else Factors(eye, delta)


def compress(factors: Factors, rank: int) -> Factors:
    """The best approximation of rank <= ``rank`` in the Frobenius norm (Eckart-Young).

    Factors that already have that rank come back unchanged, and nothing is lost as long as ``rank``
    is at least the true rank of the delta. Singular values are split evenly between A and B. When
    the narrowest side of both factors exceeds EXACT_CORE_LIMIT (a full-rank delta of a wide layer),
    the top directions come from block subspace iteration (Halko et al. 2011, arXiv 0909.4061,
    algorithm 4.4) from a fixed start: still deterministic, near-best rather than best.

    Raises SoupError if ``rank`` is not a positive integer.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise SoupError(f"rank is {rank!r}; give a positive integer")
    if factors.rank <= rank:
        return factors
    A, B = factors.A.double(), factors.B.double()
    if min(factors.rank, *factors.shape) <= EXACT_CORE_LIMIT:
        Qb, Rb = torch.linalg.qr(B)
        Qa, Ra = torch.linalg.qr(A.T)
        left, core, right = Qb, Rb @ Ra.T, Qa.T
    else:
        left = _top_directions(A, B, rank)
        Qa, Ra = torch.linalg.qr(A.T @ (B.T @ left))
        core, right = Ra.T, Qa.T
    U, S, Vh = torch.linalg.svd(core, full_matrices=False)
    root = S[:rank].sqrt()
    new_A = (root[:, None] * (Vh[:rank] @ right)).float().contiguous()
    new_B = ((left @ U[:, :rank]) * root).float().contiguous()
    return Factors(new_A, new_B)


def _top_directions(A: Tensor, B: Tensor, rank: int, extra: int = 16, rounds: int = 6) -> Tensor:
    """An orthonormal basis ``[out, rank + extra]`` of the leading left directions of ``B @ A``."""
    generator = torch.Generator().manual_seed(0)
    width = min(rank + extra, A.shape[0])
    start = torch.randn(A.shape[1], width, generator=generator, dtype=A.dtype).to(A.device)
    left = torch.linalg.qr(B @ (A @ start))[0]
    for _ in range(rounds):
        right = torch.linalg.qr(A.T @ (B.T @ left))[0]
        left = torch.linalg.qr(B @ (A @ right))[0]
    return left
