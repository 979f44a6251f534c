"""Exact sums of the delta weights (CAT, linear), and their cut to a small rank (SVD)."""

import torch
from torch import Tensor

from lorasoups.lora.linalg import compress, concatenate
from lorasoups.lora.lora import Factors, LoRA, module_names
from lorasoups.lora.methods.base import RANK, Method, Weights, apply_rule, present


def exact_sum(loras: list[LoRA], weights: Weights, *, on: str) -> dict[str, Factors]:
    """``sum_i w_i delta_i`` per module, of rank sum r_i, by concatenated factors.

    With learned alphas this is the paper's soup, with constant weights PEFT's ``cat``.
    """
    return {name: concatenate(*present(loras, weights, name)) for name in module_names(loras)}


def weighted_sum(tensors: list[Tensor], weights: Tensor) -> Tensor:
    """``sum_i weights[i] * tensors[i]``."""
    return torch.einsum("k,k...->...", weights.to(tensors[0].device), torch.stack(tensors))


def linear(loras: list[LoRA], weights: Weights, *, on: str) -> dict[str, Factors]:
    """on="delta": the exact sum of the delta weights. on="factors": A and B summed apart."""
    if on == "delta":
        return exact_sum(loras, weights, on=on)
    return apply_rule(weighted_sum, loras, weights, on)


def svd(loras: list[LoRA], weights: Weights, *, on: str, rank: int | None) -> dict[str, Factors]:
    """The best approximation of the exact sum at rank ``rank`` (Eckart-Young), per module."""
    rank = rank or max(lora.max_rank for lora in loras)
    whole = exact_sum(loras, weights, on=on).items()
    return {name: compress(factors, rank) for name, factors in whole}


# fmt: off
CAT = Method(
    "cat", exact_sum, on=("delta",),
    summary="exact weighted sum by concatenated factors; takes learned per-module alphas",
    paper="LoRA Soups (Prabhakar et al. 2024, arXiv 2410.13025)")
LINEAR = Method(
    "linear", linear,
    summary="weighted sum of the delta weights (on=factors: of A and B apart, with cross terms)",
    paper="Task arithmetic (Ilharco et al. 2022, arXiv 2212.04089)")
SVD = Method(
    "svd", svd, options={"rank": RANK}, on=("delta",),
    summary="exact weighted sum cut to the largest rank of the LoRAs (or rank) by QR + SVD",
    paper="Eckart & Young 1936; as PEFT's svd (Mangrulkar et al. 2022)")
# fmt: on
