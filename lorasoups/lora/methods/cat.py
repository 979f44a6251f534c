"""CAT: the exact weighted sum of the delta weights, by concatenating the factors."""

from lorasoups.lora.linalg import concatenate
from lorasoups.lora.lora import Factors, LoRA, module_names
from lorasoups.lora.methods.base import Method, Weights, present


def exact_sum(loras: list[LoRA], weights: Weights, *, on: str) -> dict[str, Factors]:
    """``delta = sum_i w_i delta_i`` per module, of rank sum r_i.

    With the learned alphas of CAT as per-module weights this is the paper's soup; with constant
    weights it is PEFT's ``cat``.
    """
    return {name: concatenate(*present(loras, weights, name)) for name in module_names(loras)}


METHOD = Method(
    name="cat",
    fn=exact_sum,
    summary="exact weighted sum by concatenated factors; takes learned per-module alphas",
    paper="LoRA Soups (Prabhakar et al. 2024, arXiv 2410.13025)",
    on=("delta",),
)
