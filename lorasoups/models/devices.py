"""Which device computes, what it is called, and whether bfloat16 pays there."""

import os
import platform
import time
from functools import cache
from pathlib import Path

import torch

from lorasoups.errors import SoupError
from lorasoups.files import read_json, write_json_atomic
from lorasoups.lora.lora import pick_device

__all__ = ["cpu_name", "device_name", "fast_bf16", "native_bf16", "pick_device"]


def native_bf16(device: str) -> bool:
    """Whether a GPU computes bfloat16 matmuls natively (a T4 emulates them)."""
    return device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)


@cache
def fast_bf16(device: str) -> bool:
    """Whether bfloat16 matmuls are faster than float32 ones: what bf16="auto" asks.

    On a CPU both are timed (0.2 s); the answer is kept per processor and torch version, so that
    runs on one machine do not change their minds. Some processors have the instructions and are
    slower with them.
    """
    if not device.startswith("cpu"):
        return native_bf16(device)
    key = f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    path = _cache_folder() / "bf16.json"
    try:
        known = read_json(path, "")
    except SoupError:
        known = {}
    if key not in known:
        known[key] = _matmul_seconds(torch.bfloat16) < 0.9 * _matmul_seconds(torch.float32)
        try:
            write_json_atomic(path, known)
        except SoupError:  # measured again next time
            pass
    return bool(known[key])


def _matmul_seconds(dtype: torch.dtype, size: int = 512, budget: float = 0.1) -> float:
    """Seconds of the fastest square matmul within a budget of seconds, one warm-up before."""
    a = torch.ones(size, size, dtype=dtype)
    a @ a
    best, until = float("inf"), time.perf_counter() + budget
    while time.perf_counter() < until:
        started = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - started)
    return best


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lorasoups"


def device_name(device: str) -> str:
    """What the vendor calls the GPU, or the processor."""
    return torch.cuda.get_device_name() if device.startswith("cuda") else cpu_name()


def cpu_name() -> str:
    """The processor's model name, or at least its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
