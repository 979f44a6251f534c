"""What a server must know of an adapter: its ranks, and what was lost where they were cut."""

import math
from collections.abc import Sequence

from torch.nn.functional import pad

from lorasoups.lora.linalg import compress, distance, frobenius
from lorasoups.lora.lora import Factors, LoRA
from lorasoups.lora.merging import merge
from lorasoups.lora.methods import METHODS

EXACT = 2**31  # a rank that cuts nothing
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's ``--max-lora-rank`` accepts (documentation of vLLM 0.11; not run here)."""


def vllm_max_lora_rank(lora: LoRA) -> int | None:
    """The smallest ``--max-lora-rank`` that lets vLLM load this adapter; None: none is enough."""
    return next((rank for rank in VLLM_RANKS if rank >= lora.max_rank), None)


def advice(lora: LoRA) -> str:
    """One line on how the adapter can be served."""
    needed = vllm_max_lora_rank(lora)
    if needed is None:
        limit = f"rank {lora.max_rank}: above what vLLM serves ({VLLM_RANKS[-1]})"
        return f"{limit}; cut it with --rank, or fold it into the base with --into-base"
    ranks = {factors.rank for factors in lora.modules.values()}
    uneven = "" if len(ranks) == 1 else "; ranks differ between modules: consider --uniform-rank"
    return f"rank {lora.max_rank}: vLLM needs --max-lora-rank {needed}{uneven}"


def uniform_rank(lora: LoRA) -> LoRA:
    """The same delta weights, each module padded with zeros to the largest rank.

    For servers that read one ``r`` from the config, and not PEFT's ``rank_pattern``.
    """

    def padded(f: Factors) -> Factors:
        extra = lora.max_rank - f.rank
        A, B = pad(f.A, (0, 0, 0, extra)), pad(f.B, (0, extra))
        return Factors(A, B, f.scale) if extra else f

    return lora.each(padded)


def rank_loss(loras: Sequence[LoRA], method: str, rank: int, **options) -> tuple[float, str, float]:
    """What ``merge(..., rank=rank, **options)`` loses against full rank, svd against the exact sum.

    Returns the relative Frobenius norm of the loss over all modules together, the name of the worst
    module, and its own loss.
    """
    full = {"rank": EXACT} if "rank" in METHODS[method].options else {}
    whole = merge(loras, method, **options, **full)
    lost, size, worst = 0.0, 0.0, ("", -1.0)
    for name, before in whole.modules.items():
        norm, error = frobenius(before), distance(before, compress(before, rank))
        lost, size = lost + error**2, size + norm**2
        worst = max(worst, (name, error / norm if norm else 0.0), key=lambda pair: pair[1])
    return math.sqrt(lost / size) if size else 0.0, *worst
