"""TIES: trim, elect sign, disjoint mean.

Implementations differ; this one follows PEFT 0.21.2 (``utils/merge_utils.py``), tensor by tensor:
trim to the top ``density`` by magnitude (the paper trims the whole task vector at once), elect
signs on the trimmed, *unweighted* tensors (mergekit: weighted), a tie counts as +, then weight and
take the mean over the *number* of agreeing tensors (mergekit: over their weights), with no further
factor lambda. Note that the mean already divides by up to k: with weights 1/k the result is about k
times smaller than an average. The released LoRA-Soups script uses weights 1.0.
"""

import torch
from torch import Tensor

from lorasoups.lora.lora import Factors, LoRA
from lorasoups.lora.methods.base import DENSITY, Method, Option, Weights, apply_rule
from lorasoups.lora.methods.magnitude_prune import keep_largest

SIGN = Option(
    default="total",
    help="how the sign is elected: by the sum of the values or by counting their signs",
    allowed=lambda value: value in ("total", "frequency"),
    expects='"total" or "frequency"',
)


def elect_and_average(tensors: list[Tensor], weights: Tensor, majority_sign_method: str) -> Tensor:
    """Elect a sign per entry, then average the weighted entries that have this sign (TIES 3.2-3.3).

    Entries that are 0 agree with no sign; where nothing agrees the result is 0.
    """
    stacked = torch.stack(tensors)
    signs = stacked.sign()
    votes = (stacked if majority_sign_method == "total" else signs).sum(dim=0)
    agree = signs == torch.where(votes >= 0, 1.0, -1.0)
    total = torch.einsum("k,k...->...", weights.to(stacked.device), stacked * agree)
    return total / agree.sum(dim=0).clamp(min=1)


def ties(
    loras: list[LoRA], weights: Weights, *, on: str, density: float, majority_sign_method: str
) -> dict[str, Factors]:
    """TIES per tensor, on the deltas or on A and B apart."""

    def rule(tensors: list[Tensor], w: Tensor) -> Tensor:
        trimmed = [keep_largest(tensor, density) for tensor in tensors]
        return elect_and_average(trimmed, w, majority_sign_method)

    return apply_rule(rule, loras, weights, on)


METHOD = Method(
    name="ties",
    fn=ties,
    summary="trim to the largest entries, elect a sign per entry, average those that agree",
    paper="TIES-Merging (Yadav et al. 2023, arXiv 2306.01708)",
    options={"density": DENSITY, "majority_sign_method": SIGN},
)
