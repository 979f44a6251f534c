"""What a server must know of an adapter: its ranks, and what was lost where they were cut."""

import math

import torch

from lorasoups.errors import SoupError
from lorasoups.lora.lora import Factors, LoRA

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's ``--max-lora-rank`` accepts (documentation of vLLM 0.11; not run here)."""


def vllm_max_lora_rank(lora: LoRA) -> int | None:
    """The smallest ``--max-lora-rank`` that lets vLLM load this adapter; None: none is enough."""
    return next((rank for rank in VLLM_RANKS if rank >= lora.max_rank), None)


def advice(lora: LoRA) -> str:
    """One line on how the adapter can be served."""
    needed = vllm_max_lora_rank(lora)
    if needed is None:
        return (
            f"rank {lora.max_rank}: above what vLLM serves ({VLLM_RANKS[-1]}); "
            "cut it with --rank, or fold it into the base with --into-base"
        )
    ranks = {factors.rank for factors in lora.modules.values()}
    uneven = "" if len(ranks) == 1 else "; ranks differ between modules: consider --uniform-rank"
    return f"rank {lora.max_rank}: vLLM needs --max-lora-rank {needed}{uneven}"


def uniform_rank(lora: LoRA) -> LoRA:
    """The same delta weights with every module at the largest rank, padded with zeros (exact).

    Servers that read one ``r`` from the config, and not PEFT's ``rank_pattern``, need that.
    """
    rank = lora.max_rank
    modules = {
        name: Factors(
            torch.cat([f.A, f.A.new_zeros(rank - f.rank, f.A.shape[1])]),
            torch.cat([f.B, f.B.new_zeros(f.B.shape[0], rank - f.rank)], dim=1),
            f.scale,
        )
        for name, f in lora.modules.items()
    }
    return LoRA(modules, lora.base_model, lora.provenance)


def frobenius(factors: Factors) -> float:
    """The Frobenius norm of a delta weight, from its factors: no [out, in] matrix is made."""
    A, B = factors.A.double(), factors.B.double()
    return math.sqrt(max(0.0, float(((B.T @ B) * (A @ A.T)).sum())))


def cut_error(whole: LoRA, cut: LoRA) -> tuple[float, str, float]:
    """What rank reduction lost, in relative Frobenius norm.

    Args:
        whole: before.
        cut: after, the same modules.

    Returns:
        over all modules together; the name of the worst module; its own error.

    Raises:
        SoupError: other modules.
    """
    if whole.modules.keys() != cut.modules.keys():
        raise SoupError("adapters of different modules: rank reduction; compare one with its cut")
    lost, size, worst = 0.0, 0.0, ("", -1.0)
    for name, before in whole.modules.items():
        after = cut.modules[name]
        difference = Factors(torch.cat([before.A, after.A]), torch.cat([before.B, -after.B], dim=1))
        norm, error = frobenius(before), frobenius(difference)
        lost, size = lost + error**2, size + norm**2
        own = error / norm if norm else 0.0
        worst = max(worst, (name, own), key=lambda pair: pair[1])
    return math.sqrt(lost / size) if size else 0.0, *worst
