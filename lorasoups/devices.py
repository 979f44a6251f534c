"""What the hardware computes in."""

import torch


def hardware_bf16(device: str) -> bool:
    """Whether bfloat16 matmuls are native on ``device`` ("cpu", "cuda", "mps")."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return device == "cpu" and bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))
