"""Three merges of singular vectors, computed in small cores: Core Space, TSV-M, Iso-C.

Per module ``w_i B_i A_i = L M_i R`` exactly; L [out, p] and R [q, in] are orthonormal bases of all
B's and all A's, by QR, and the cores M_i [p, q], p, q <= sum r_i, are what is merged: bases alter
cost, not results. Vectors without a singular value are left out everywhere.

- Core Space: TSV on the cores, the paper's best for a language model (section 5, table 2), with all
  directions, as the official code (apanariello4/core-space-merging) for equal ranks: 1/k of k r.
- TSV-M keeps 1/k of each LoRA's own rank; the official code (AntoAndGar/task_singular_vectors) 1/k
  of min(out, in), which cuts no small LoRA.
- Iso-C: all singular values of the exact sum become their mean, over its rank; the official code
  (danielm1405/iso-merging) over min(out, in) values. ``rank`` cuts the sum first.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lorasoups.lora.lora import Factors, LoRA, module_names
from lorasoups.lora.methods.base import RANK, Method, Option, Weights, present
from lorasoups.lora.methods.knots import CUT

Core = tuple[Tensor, Tensor, Tensor]
"""u [p, n], s [n] >= 0, v [q, n] of a core ``u diag(s) v^T``, float64; n = 0 if the core is 0."""
Rule = Callable[[list[Tensor]], Core]


def in_core(loras: list[LoRA], weights: Weights, rule: Rule) -> dict[str, Factors]:
    """Per module, what ``rule`` makes of the weighted cores [p, q], with rank n."""
    merged = {}
    for name in module_names(loras):
        factors, w = present(loras, weights, name)
        left, r_out = torch.linalg.qr(torch.cat([f.B.double() for f in factors], dim=1))
        right, r_in = torch.linalg.qr(torch.cat([f.A.double() for f in factors]).T)
        parts = [r.split([f.rank for f in factors], dim=1) for r in (r_out, r_in)]
        u, s, v = rule([x * b @ a.T for x, b, a in zip(w.tolist(), *parts, strict=True)])
        A, B = s.sqrt()[:, None] * (right @ v).T, left @ u * s.sqrt()
        if not len(s):
            A, B = factors[0].A, torch.zeros_like(factors[0].B)
        merged[name] = Factors(A.float(), B.float())
    return merged


def directions(core: Tensor, parts: int = 1) -> Core:
    """The first n / parts (rounded up) of the n singular values above CUT, with their vectors."""
    u, s, vh = torch.linalg.svd(core, full_matrices=False)
    n = -(-int((s > CUT * s[:1]).sum()) // parts)
    return u[:, :n], s[:n], vh[:n].T


def decorrelated(cores: list[Tensor], parts: int = 1) -> Core:
    """TSV: directions side by side, u's and v's whitened: ``P D Q^T`` to ``P Q^T`` of its rank."""
    us, ss, vs = zip(*(directions(core, parts) for core in cores), strict=True)
    (p_u, _, q_u), (p_v, _, q_v) = (directions(torch.cat(vectors, dim=1)) for vectors in (us, vs))
    return p_u @ q_u.T, torch.cat(ss), p_v @ q_v.T


def core_space(loras: list[LoRA], weights: Weights, *, on: str) -> dict[str, Factors]:
    """TSV with all directions of every LoRA."""
    return in_core(loras, weights, decorrelated)


def tsv(loras: list[LoRA], weights: Weights, *, on: str) -> dict[str, Factors]:
    """The first 1/k (rounded up) of each LoRA's directions, whitened and summed, per module."""
    return in_core(loras, weights, lambda cores: decorrelated(cores, parts=len(loras)))


def iso_c(loras: list[LoRA], weights: Weights, *, on: str, rank: int | None) -> dict[str, Factors]:
    """The weighted sum's first ``rank`` directions, all at their mean singular value."""

    def flat(cores: list[Tensor]) -> Core:
        u, s, v = (part[..., :rank] for part in directions(sum(cores)))
        return u, s.mean().expand_as(s), v

    return in_core(loras, weights, flat)


# fmt: off
TSV = Method(
    "tsv", tsv, on=("delta",),
    summary="1/k of each LoRA's singular vectors, whitened against each other, summed",
    paper="TSV-M (Gargiulo et al. 2024, arXiv 2412.00081)")
ISO_C = Method(
    "iso_c", iso_c, on=("delta",),
    options={"rank": Option(None, RANK.allowed, "a positive integer, or None for the whole sum")},
    summary="exact weighted sum (cut to rank), all singular values replaced by their mean",
    paper="Iso-C (Marczak et al. 2025, arXiv 2502.04959)")
CORE_SPACE = Method(
    "core_space", core_space, on=("delta",),
    summary="all of each LoRA's singular vectors, whitened in a common core, summed",
    paper="Core Space (Panariello et al. 2025, arXiv 2509.17786)")
# fmt: on
