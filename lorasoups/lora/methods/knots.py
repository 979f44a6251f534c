"""KnOTS: align the LoRAs by one SVD of all their deltas side by side, then merge by signs (TIES).

After the official code (KnOTS baa35e8, ``task_merger.py``, ``masking_ops.py``), per module:
``[D_1 .. D_k] = U diag(S) [V_1 .. V_k]``, ``T_i = diag(S) V_i``. Each LoRA's T_i of all modules
together are trimmed to the top ``density`` by magnitude (official for Llama: 100 %, our default),
signs are elected by the sum, agreeing entries are averaged over their number and multiplied by
``lam`` (ours: 1, so that one LoRA comes back as itself; official for Llama-3-8B: 0.5); the result
is ``U T``. Deviations: singular values up to 1e-5 of the largest are dropped (official: 1e-5
absolute); the deltas contain LoRA's scale; weights multiply the kept entries after the election;
entries of T_i up to 1e-12 of the largest singular value count as 0, since "agreeing" rounding
errors would halve what another LoRA holds alone.
"""

import torch
from torch import Tensor

from lorasoups.lora.lora import Factors, LoRA, module_names
from lorasoups.lora.methods.base import DENSITY, Method, Option, Weights, is_number, present
from lorasoups.lora.methods.sparse import elect_and_average

CUT, ROUNDING = 1e-5, 1e-12  # of the largest singular value: rows dropped, entries set to 0
LAM = Option(1.0, lambda value: is_number(value) and value > 0, "a number above 0")
KEEP = Option(1.0, DENSITY.allowed, DENSITY.expects)


def align(factors: list[Factors]) -> tuple[Tensor, list[Tensor]]:
    """``U`` [out, p] and ``T_i`` [p, in] with ``B_i A_i = U T_i``, float64, 1 <= p <= sum r_i.

    Unique but for rotations among equal singular values and for signs of columns, which matter only
    where votes cancel to 0 (a LoRA and its negative). If all deltas are 0, so is every T_i's row.
    """
    q_out, r_out = torch.linalg.qr(torch.cat([f.B.double() for f in factors], dim=1))
    halves = [torch.linalg.qr(f.A.double().T) for f in factors]
    middle = r_out @ torch.block_diag(*(r.T for _, r in halves))
    u, s, vh = torch.linalg.svd(middle, full_matrices=False)
    kept = s > CUT * s[0]
    kept[0] = True
    u, rows = u[:, kept], s[kept, None] * vh[kept]
    columns = rows.split([r.shape[1] for _, r in halves], dim=1)
    blocks = [block @ q.T for block, (q, _) in zip(columns, halves, strict=True)]
    return q_out @ u, [block.where(block.abs() > ROUNDING * s[0], 0.0) for block in blocks]


def knots(
    loras: list[LoRA], weights: Weights, *, on: str, density: float, lam: float
) -> dict[str, Factors]:
    """Align, trim over all modules, elect signs, average, per module ``U T``."""
    names = module_names(loras)
    having = {name: [i for i, x in enumerate(loras) if name in x.modules] for name in names}
    aligned = {name: align(present(loras, weights, name)[0]) for name in names}
    blocks = {name: dict(zip(having[name], aligned[name][1], strict=True)) for name in names}
    k = len(loras)
    least = [_threshold([b[i] for b in blocks.values() if i in b], density) for i in range(k)]
    merged = {}
    for name, (u, _) in aligned.items():
        trimmed = [b.where(b.abs() >= least[i], 0.0) for i, b in blocks[name].items()]
        w = weights[name][having[name]].double()
        merged[name] = Factors((lam * elect_and_average(trimmed, w, "total")).float(), u.float())
    return merged


def _threshold(blocks: list[Tensor], density: float) -> float:
    """The magnitude that the top ``density`` of all entries reach."""
    if density >= 1:
        return 0.0
    values = torch.cat([block.abs().flatten() for block in blocks]).sort(descending=True).values
    return float(values[max(1, int(density * len(values))) - 1])


METHOD = Method(
    "knots", knots, options={"density": KEEP, "lam": LAM}, on=("delta",),
    summary="align all deltas by one SVD, then TIES in the common basis (density, lam)",
    paper="KnOTS (Stoica et al. 2024, arXiv 2410.19735)")  # fmt: skip
