"""What the hardware is called, and what it computes in."""

import platform
from pathlib import Path

import torch


def hardware_bf16(device: str) -> bool:
    """Whether bfloat16 matmuls are native on ``device`` ("cpu", "cuda", "mps")."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)  # a T4 emulates it
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return device == "cpu" and bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))


def device_name(device: str) -> str:
    """What the vendor calls the GPU, or the processor."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return cpu_name()


def cpu_name() -> str:
    """The processor's model name, or at least its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
