"""Which device computes, what it is called, and whether bfloat16 pays there."""

import gc
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch
from torch.utils.benchmark import Timer

from lorasoups.errors import SoupError
from lorasoups.files import read_json, write_json_atomic


def native_bf16(device: str) -> bool:
    """Whether a GPU computes bfloat16 matmuls natively (a T4 emulates them)."""
    return device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)


@cache
def fast_bf16(device: str) -> bool:
    """Whether bfloat16 matmuls are faster than float32 ones: what bf16="auto" asks.

    On a CPU both are timed (0.2 s), as some have the instructions and are slower with them; the
    answer is kept per processor and torch version.
    """
    if not device.startswith("cpu"):
        return native_bf16(device)
    key = f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache_folder / "lorasoups" / "bf16.json"
    try:
        known = read_json(path, "")
    except SoupError:
        known = {}
    if key not in known:
        known[key] = _matmul_seconds(torch.bfloat16) < 0.9 * _matmul_seconds(torch.float32)
        with suppress(SoupError):  # measured again next time
            write_json_atomic(path, known)
    return bool(known[key])


def _matmul_seconds(dtype: torch.dtype, size: int = 512, budget: float = 0.1) -> float:
    """Seconds of a square matmul, the least within a budget of seconds."""
    factor, threads = torch.ones(size, size, dtype=dtype), torch.get_num_threads()
    timer = Timer("a @ a", globals={"a": factor}, num_threads=threads)
    return min(timer.blocked_autorange(min_run_time=budget).times)


def seconds(run: Callable[[], object], device: str) -> float:
    """Seconds of one call; a GPU is waited for."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - started


@contextmanager
def peak_memory(device: str) -> Iterator[SimpleNamespace]:
    """At its end ``.bytes`` is the most that the GPU, or this process, held meanwhile."""
    peak, ended, process = SimpleNamespace(bytes=0), threading.Event(), psutil.Process()

    def watch() -> None:
        while True:
            peak.bytes = max(peak.bytes, process.memory_info().rss)
            if ended.wait(0.01):
                return

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(watch)
        try:
            yield peak
        finally:
            ended.set()
    if device == "cuda":
        peak.bytes = torch.cuda.max_memory_allocated()


def device_name(device: str) -> str:
    """What the vendor calls the GPU, or the processor."""
    return torch.cuda.get_device_name() if device.startswith("cuda") else cpu_name()


def cpu_name() -> str:
    """The processor's model name, or at least its architecture."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x for x in lines if x.startswith("model name")).split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
