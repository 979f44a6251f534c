"""LoRA-LEGO: cluster the rank-one units of all LoRAs, one cluster per rank of the result.

There is no official code; two unofficial implementations agree on this: a unit is a row a_j of A
with the column b_j of B; k-means groups the units of all LoRAs into ``clusters`` clusters (default:
r, the largest rank of any LoRA); a centroid is scaled so that its top entry is the mean of its
members' top entries; the result is multiplied by sqrt(r / clusters). No more units than clusters:
the exact sum. Here units are not normalised, their size is their largest magnitude. Weights are
ours: sqrt|w s| multiplies a and b, the sign of w s stands on a. Unlike other methods on deltas, the
result depends on how a delta is factored ((a, b) or (c a, b / c)) and on the order of the LoRAs,
which decides from where k-means starts.
"""

import warnings

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from lorasoups.lora.lora import Factors, LoRA, module_names
from lorasoups.lora.methods.base import RANK, SEED, Method, Weights, present

STARTS, ROUNDS, PART = 5, 100, 5  # of k-means (the tightest start is taken); rounds at a time


def units(factors: list[Factors], weights: Tensor) -> tuple[Tensor, int]:
    """All units [sum r_i, in + out], float64, and the width of their a part."""
    rows = []
    for f, w in zip(factors, weights.tolist(), strict=True):
        root = abs(w * f.scale) ** 0.5
        a = f.A.double() * (root if w * f.scale >= 0 else -root)
        b = (f.B.double() / f.scale).T * root
        alive = a.any(1) & b.any(1)  # a unit that adds nothing must not pull at a centroid
        rows.append(torch.cat([a, b], dim=1)[alive])
    return torch.cat(rows), factors[0].A.shape[1]


def cluster(points: Tensor, k: int, seed: int) -> list[Tensor]:
    """k-means of points [n, d] into at most k groups: the members' indices per group."""
    if len(points) <= k:
        return [torch.tensor([i]) for i in range(len(points))]
    k = min(k, len(points.unique(dim=0)))  # k-means++ cannot start from more
    # n points have the same distances in n dimensions; a layer of Llama-7B has d = 15,104
    data = torch.linalg.qr(points.T, mode="r").R.T.contiguous().cpu().numpy()
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of an empty cluster
        starts = [_settled(data, k, rng) for _ in range(STARTS)]
    _, labels = min(starts, key=lambda found: float(((data - found[0][found[1]]) ** 2).sum()))
    return [torch.from_numpy(np.flatnonzero(labels == c)) for c in range(k) if (labels == c).any()]


def _settled(data: np.ndarray, k: int, rng: np.random.Generator) -> tuple:
    """Centers and labels after ROUNDS rounds, or from when on the centers stay as they are."""
    found = kmeans2(data, k, PART, minit="++", rng=rng)
    for _ in range(PART, ROUNDS, PART):
        before, found = found, kmeans2(data, found[0], PART, minit="matrix")
        if (before[0] == found[0]).all():
            break
    return found


def lego(
    loras: list[LoRA], weights: Weights, *, on: str, clusters: int | None, seed: int
) -> dict[str, Factors]:
    """Cluster the units of every module and make each cluster one unit of the result."""
    merged, largest = {}, max(lora.max_rank for lora in loras)
    k = clusters or largest
    for name in module_names(loras):
        factors, w = present(loras, weights, name)
        points, width = units(factors, w)
        if not len(points):
            merged[name] = Factors(factors[0].A, torch.zeros_like(factors[0].B))
            continue
        groups = cluster(points, k, seed)
        centers = torch.stack([_center(points[members]) for members in groups])
        if len(groups) < len(points):
            centers = centers * (largest / k) ** 0.25  # on both factors: sqrt(r / k) together
        merged[name] = Factors(centers[:, :width].float(), centers[:, width:].T.float())
    return merged


def _center(members: Tensor) -> Tensor:
    """The mean of units [n, d], as large as they are on average."""
    mean = members.mean(0)
    size = mean.abs().max()
    return mean * (members.abs().amax(1).mean() / size) if size > 0 else mean


METHOD = Method(
    "lego", lego, options={"clusters": RANK, "seed": SEED}, on=("delta",),
    summary="cluster the rank-one units of all LoRAs by k-means (clusters, seed)",
    paper="LoRA-LEGO (Zhao et al. 2024, arXiv 2409.16167), after unofficial implementations",
)  # fmt: skip
