"""LoRAs that know nothing, as controls: same shapes, same size per module, no skill.

Source: "The Appeal and Reality of Recycling LoRAs" (arXiv 2602.12323): random LoRAs did about as
well there. Its distribution and scale are not known to us; ours are stated below.
"""

import torch

from lorasoups.lora.lora import Factors, LoRA


def gaussian_like(lora: LoRA, seed: int) -> LoRA:
    """A and B standard normal, B rescaled so that every module has ||B A||_F of the original.

    Args:
        lora: whose modules, ranks and norms are copied.
        seed: of the draw; the global generator is not touched.
    """
    generator = torch.Generator().manual_seed(seed)
    modules = {}
    for name in sorted(lora.modules):
        real = lora.modules[name]
        A = torch.randn(real.A.shape, generator=generator)
        B = torch.randn(real.B.shape, generator=generator)
        ratio = _norm(real.A, real.B) / _norm(A, B)
        modules[name] = Factors(A, B * ratio, real.scale)
    return LoRA(modules, lora.base_model, {"random": "gaussian", "seed": seed})


def permuted_like(lora: LoRA, seed: int) -> LoRA:
    """The original with the rows of every A shuffled: each factor is real, their pairing is not."""
    generator = torch.Generator().manual_seed(seed)
    modules = {}
    for name in sorted(lora.modules):
        real = lora.modules[name]
        order = torch.randperm(real.A.shape[0], generator=generator)
        A = real.A[order]
        ratio = _norm(real.A, real.B) / _norm(A, real.B)
        modules[name] = Factors(A, real.B * ratio, real.scale)
    return LoRA(modules, lora.base_model, {"random": "permuted", "seed": seed})


def _norm(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """||B A||_F without forming B A: sqrt(sum of (B^T B) * (A A^T))."""
    return ((B.T @ B) * (A @ A.T)).sum().clamp(min=1e-30).sqrt()
