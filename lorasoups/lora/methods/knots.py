"""KnOTS: align the LoRAs by one SVD of all their deltas side by side, then merge by signs (TIES).

After the official code (KnOTS baa35e8, ``task_merger.py``, ``masking_ops.py``), per module:
``[D_1 .. D_k] = U diag(S) [V_1 .. V_k]``, singular values up to 1e-5 of the largest are dropped
(official: 1e-5 absolute, which means something else for every scale); ``T_i = diag(S) V_i``. The
T_i of all modules together are trimmed per LoRA to the top ``density`` by magnitude (official for
Llama: 100 %, our default), signs are elected by the sum, agreeing entries are averaged over their
number and multiplied by ``lam``; the result is ``U T``. Differences: our deltas contain LoRA's
scale (the official code forms B A without it); ``lam`` is 1 by default (official for Llama-3-8B:
0.5), so that one LoRA at weight 1 comes back as itself; weights, which the official code lacks,
multiply the kept entries after the election, as in our TIES: a negative weight does not turn a
vote. Entries of T_i up to 1e-12 of the largest singular value count as 0: they are rounding errors,
and as "agreeing entries" they would halve what another LoRA holds alone. The dense matrix is never
formed.
"""

import torch
from torch import Tensor

from lorasoups.lora.lora import Factors, LoRA, module_names
from lorasoups.lora.methods.base import DENSITY, Method, Option, Weights, is_number, present
from lorasoups.lora.methods.sparse import elect_and_average

CUT, ROUNDING = 1e-5, 1e-12  # of the largest singular value: rows dropped, entries set to 0
LAM = Option(
    default=1.0,
    help="factor lambda on the merged result",
    allowed=lambda value: is_number(value) and value > 0,
    expects="a number above 0",
)
KEEP = Option(1.0, DENSITY.help, DENSITY.allowed, DENSITY.expects)


def align(factors: list[Factors]) -> tuple[Tensor, list[Tensor]]:
    """``U`` [out, p] and ``T_i`` [p, in] with ``B_i A_i = U T_i``, float64, 1 <= p <= sum r_i.

    The SVD is of a small matrix between two QR decompositions. Its result does not depend on how a
    delta is factored, but for rotations among equal singular values and for signs of columns. Those
    matter only where votes cancel to 0, as for a LoRA and its negative: there the result is
    arbitrary. If all deltas are 0, so is the one row of every T_i.
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
    aligned = {name: align(present(loras, weights, name)[0]) for name in names}
    having = {name: [i for i, x in enumerate(loras) if name in x.modules] for name in names}
    least = _thresholds(aligned, having, len(loras), density)
    merged = {}
    for name, (u, blocks) in aligned.items():
        trimmed = [
            block.where(block.abs() >= least[i], 0.0)
            for i, block in zip(having[name], blocks, strict=True)
        ]
        w = weights[name][having[name]].double()
        merged[name] = Factors((lam * elect_and_average(trimmed, w, "total")).float(), u.float())
    return merged


def _thresholds(aligned, having, k: int, density: float) -> list[float]:
    """Per LoRA the magnitude that its top ``density`` of entries, over all modules, reach."""
    if density >= 1:
        return [0.0] * k
    thresholds = []
    for i in range(k):
        entries = [
            block.abs().flatten()
            for name, (_, blocks) in aligned.items()
            for j, block in zip(having[name], blocks, strict=True)
            if j == i
        ]
        values = torch.cat(entries).sort(descending=True).values
        thresholds.append(float(values[max(1, int(density * len(values))) - 1]))
    return thresholds


METHOD = Method(
    name="knots",
    fn=knots,
    summary="align all deltas by one SVD, then TIES in the common basis (density, lam)",
    paper="KnOTS (Stoica et al. 2024, arXiv 2410.19735)",
    options={"density": KEEP, "lam": LAM},
    on=("delta",),
)
