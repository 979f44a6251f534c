"""LoRAs that know nothing, as controls: same shapes, same size per module, no skill.

Source: "The Appeal and Reality of Recycling LoRAs" (arXiv 2602.12323): random LoRAs did about as
well there. Its distribution and scale are not known to us; ours are stated below.
"""

import torch
from torch import Tensor

from lorasoups.lora.lora import Factors, LoRA


def gaussian_like(lora: LoRA, seed: int) -> LoRA:
    """A and B standard normal, B rescaled so that every module has ||B A||_F of the original."""
    return _like(lora, seed, "gaussian")


def permuted_like(lora: LoRA, seed: int) -> LoRA:
    """The original with the rows of every A shuffled: each factor is real, their pairing is not."""
    return _like(lora, seed, "permuted")


def _like(lora: LoRA, seed: int, kind: str) -> LoRA:
    """Other factors per module with the original's norm; the global generator is not touched."""
    generator = torch.Generator().manual_seed(seed)
    modules = {}
    for name, real in sorted(lora.modules.items()):
        if kind == "permuted":
            A, B = real.A[torch.randperm(real.rank, generator=generator)], real.B
        else:
            A, B = (torch.randn(f.shape, generator=generator) for f in (real.A, real.B))
        modules[name] = Factors(A, B * (_norm(real.A, real.B) / _norm(A, B)), real.scale)
    return LoRA(modules, lora.base_model, {"random": kind, "seed": seed})


def _norm(A: Tensor, B: Tensor) -> Tensor:
    """||B A||_F without forming B A: sqrt(sum of (B^T B) * (A A^T))."""
    return ((B.T @ B) * (A @ A.T)).sum().clamp(min=1e-30).sqrt()
