"""Magnitude pruning: keep the largest entries of each adapter, then add."""

import torch
from torch import Tensor

from lorasoups.lora.lora import Factors, LoRA
from lorasoups.lora.methods.base import DENSITY, Method, Weights, apply_rule
from lorasoups.lora.methods.linear import weighted_sum


def keep_largest(tensor: Tensor, density: float) -> Tensor:
    """The ``int(density * numel)`` entries of largest magnitude, the others 0, nothing rescaled."""
    if density >= 1:
        return tensor
    flat = tensor.flatten()
    # unsorted: the same entries, without sorting tens of millions of them
    kept = flat.abs().topk(int(density * flat.numel()), sorted=False).indices
    return torch.zeros_like(flat).scatter(0, kept, flat[kept]).view_as(tensor)


def magnitude_prune(
    loras: list[LoRA], weights: Weights, *, on: str, density: float
) -> dict[str, Factors]:
    """``sum_i w_i keep_largest(T_i)``, per tensor (as PEFT), on the deltas or on A and B apart."""

    def rule(tensors: list[Tensor], w: Tensor) -> Tensor:
        return weighted_sum([keep_largest(tensor, density) for tensor in tensors], w)

    return apply_rule(rule, loras, weights, on)


METHOD = Method(
    name="magnitude_prune",
    fn=magnitude_prune,
    summary="keep the largest entries of each LoRA (density), then the weighted sum",
    paper="Magnitude pruning (Han et al. 2015, arXiv 1506.02626)",
    options={"density": DENSITY},
)
