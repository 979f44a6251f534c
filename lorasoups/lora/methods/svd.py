"""SVD merging: the exact sum, cut to a small rank."""

from lorasoups.lora.linalg import compress
from lorasoups.lora.lora import Factors, LoRA
from lorasoups.lora.methods.base import Method, Option, Weights
from lorasoups.lora.methods.cat import exact_sum

RANK = Option(
    default=None,
    help="rank of the result (default: the largest rank of any LoRA)",
    allowed=lambda value: value is None or (type(value) is int and value > 0),
    expects="a positive integer, or None for the largest rank of any LoRA",
)


def svd(loras: list[LoRA], weights: Weights, *, on: str, rank: int | None) -> dict[str, Factors]:
    """The best approximation of the exact sum at rank ``rank`` (Eckart-Young), per module."""
    rank = rank or max(lora.max_rank for lora in loras)
    return {
        name: compress(factors, rank) for name, factors in exact_sum(loras, weights, on=on).items()
    }


METHOD = Method(
    name="svd",
    fn=svd,
    summary="exact weighted sum cut to the largest rank of the LoRAs (or rank) by QR + SVD",
    paper="Eckart & Young 1936; as PEFT's svd (Mangrulkar et al. 2022)",
    options={"rank": RANK},
    on=("delta",),
)
