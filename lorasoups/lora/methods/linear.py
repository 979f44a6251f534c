"""Linear merging (task arithmetic)."""

import torch
from torch import Tensor

from lorasoups.lora.lora import Factors, LoRA
from lorasoups.lora.methods.base import Method, Weights, apply_rule
from lorasoups.lora.methods.cat import exact_sum


def weighted_sum(tensors: list[Tensor], weights: Tensor) -> Tensor:
    """``sum_i weights[i] * tensors[i]``."""
    return torch.einsum("k,k...->...", weights.to(tensors[0].device), torch.stack(tensors))


def linear(loras: list[LoRA], weights: Weights, *, on: str) -> dict[str, Factors]:
    """on="delta": the exact sum of the delta weights. on="factors": A and B summed apart."""
    if on == "delta":
        return exact_sum(loras, weights, on=on)
    return apply_rule(weighted_sum, loras, weights, on)


METHOD = Method(
    name="linear",
    fn=linear,
    summary="weighted sum of the delta weights (on=factors: of A and B apart, with cross terms)",
    paper="Task arithmetic (Ilharco et al. 2022, arXiv 2212.04089)",
)
