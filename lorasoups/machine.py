"""What this machine has: devices, memory, disk, versions. Facts only; nothing is downloaded."""

import ctypes
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

PACKAGES = (
    "lorasoups torch transformers peft accelerate datasets safetensors huggingface_hub tokenizers "
    "scipy numpy nevergrad pydantic-monty"
).split()
EXTRAS = {
    "bitsandbytes": "4-bit bases",
    "gguf": "GGUF files as bases",
    "submitit": "stages as Slurm jobs",
    "papermill": "the notebooks",
}
"""Importable name -> what it is needed for."""
CPU_FLAGS = {"avx2": "AVX2", "avx512_f": "AVX-512", "avx512_bf16": "AVX512-BF16",
             "amx_bf16": "AMX-BF16"}  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in bytes, ``capability`` as NVIDIA counts it (``9.0``)."""

    name: str
    memory: int
    free: int
    capability: str
    bf16: bool


@dataclass(frozen=True)
class Machine:
    """What was found. Bytes everywhere; None is unknown.

    Attributes:
        system, python: operating system and Python.
        cpu, cores, threads: the processor, its logical cores, and those torch uses.
        cpu_flags: of `CPU_FLAGS`, what is there.
        cpu_bf16: bfloat16 matmuls are native on the CPU.
        memory, free: RAM as this process may use it (a container's limit counts), and what of it
            is available now.
        load: programs that want a core, on average over the last minute.
        disk_free: of the folder that artifacts and downloads go to.
        gpus: CUDA devices.
        versions: of `PACKAGES`; extras: of `EXTRAS`, by name, whether they can be imported.
    """

    system: str
    python: str
    cpu: str
    cores: int
    threads: int
    cpu_flags: tuple[str, ...]
    cpu_bf16: bool
    memory: int | None
    free: int | None
    load: float | None
    disk_free: int | None
    gpus: tuple[Gpu, ...]
    versions: dict[str, str]
    extras: dict[str, bool]


def facts(folder: Path) -> Machine:
    """Look at this machine; ``folder`` is where artifacts go (it need not exist yet)."""
    import torch

    from lorasoups.devices import cpu_name, hardware_bf16

    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    memory, free = _memory()
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        cpu=cpu_name(),
        cores=_cores(),
        threads=torch.get_num_threads(),
        cpu_flags=tuple(shown for flag, shown in CPU_FLAGS.items() if flags.get(flag)),
        cpu_bf16=hardware_bf16("cpu"),
        memory=memory,
        free=free,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        disk_free=_disk_free(folder),
        gpus=tuple(_gpus()),
        versions=_versions(),
        extras={name: find_spec(name) is not None for name in EXTRAS},
    )


def _cores() -> int:
    """Logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> list[Gpu]:
    import torch

    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        # from compute capability 8.0 on; is_bf16_supported() also says yes where it is emulated
        found.append(Gpu(about.name, total, free, f"{about.major}.{about.minor}", about.major >= 8))
    return found


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _disk_free(folder: Path) -> int | None:
    there = next((f for f in (folder, *folder.parents) if f.is_dir()), None)
    try:
        return shutil.disk_usage(there).free if there else None
    except OSError:
        return None


# --- memory -------------------------------------------------------------------------------------


def _memory() -> tuple[int | None, int | None]:
    """RAM in all and available, within the limit of a container."""
    total, free = _windows() if sys.platform == "win32" else _posix()
    limit, used = _cgroup()
    if limit is not None and (total is None or limit < total):
        total = limit
        free = min(free if free is not None else limit, max(0, limit - (used or 0)))
    return total, free


def _posix() -> tuple[int | None, int | None]:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None, None
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        return total, kib * 1024
    except (OSError, StopIteration, ValueError):  # not Linux: nothing tells what is available
        return total, total


def _windows() -> tuple[int | None, int | None]:
    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (name, ctypes.c_ulonglong)
            for name in ("total", "free", "_a", "_b", "_c", "_d", "_e")
        ]  # fmt: skip

    status = Status()
    status.length = ctypes.sizeof(Status)
    try:
        if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            return None, None
    except (AttributeError, OSError):
        return None, None
    return status.total, status.free


def _cgroup() -> tuple[int | None, int | None]:
    """Limit and use of a container's memory (cgroup 2, then 1); (None, None) without a limit."""
    root = Path("/sys/fs/cgroup")
    for limit, used in (
        (root / "memory.max", root / "memory.current"),
        (root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes"),
    ):
        try:
            return int(limit.read_text()), int(used.read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return None, None
