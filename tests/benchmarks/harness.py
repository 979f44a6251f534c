"""Timing two ways of doing one thing in turn, so that a busy machine slows both alike."""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

HERE = Path(__file__).parent


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call; a GPU is waited for."""
    _wait()
    started = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - started


def in_turn(
    benchmark,
    first: Callable[[], object],
    second: Callable[[], object],
    rounds: int,
    clock: Callable[[Callable[[], object]], float] = timed,
) -> dict:
    """Times both in turn, ``rounds`` times after one that does not count.

    Which of them comes first changes from round to round: neither always finds warm caches.

    Args:
        benchmark: pytest-benchmark's fixture, which times whole rounds; None without it.
        first, second: what is compared.
        rounds: how often.
        clock: calls one of them and gives the seconds that count (default: all of it).

    Returns:
        See `compared`.
    """
    seconds: list[tuple[float, float]] = []

    def both() -> None:
        if len(seconds) % 2:
            last = clock(second)
            seconds.append((clock(first), last))
        else:
            seconds.append((clock(first), clock(second)))

    if benchmark is None:
        for _ in range(1 + rounds):
            both()
        return compared(seconds[1:])
    benchmark.pedantic(both, rounds=rounds, warmup_rounds=1, iterations=1)
    found = compared(seconds[1:])
    benchmark.extra_info.update(found)
    return found


def compared(seconds: Sequence[tuple[float, float]]) -> dict:
    """Ratios within a round, and what they are made of.

    Returns:
        ``{ratio, low, high, rounds, first_s, second_s}``: median and quartiles of seconds of the
        first over seconds of the second; median, lower and upper quartile of each one's seconds.
    """
    low, middle, high = _quartiles([a / b for a, b in seconds])
    first, second = (_quartiles(own) for own in zip(*seconds, strict=True))
    return {
        "ratio": middle,
        "low": low,
        "high": high,
        "rounds": len(seconds),
        "first_s": [first[1], first[0], first[2]],
        "second_s": [second[1], second[0], second[2]],
    }


def _quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile; by interpolation between the values, not beyond."""
    values = list(values)
    return statistics.quantiles(values, n=4, method="inclusive") if values[1:] else values * 3


def hot_spots(run: Callable[[], object], device: str, top: int = 5) -> str:
    """Which operations take the time of one call: ``name 42 %, ...``, largest first."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    run()
    with profile(activities=kinds) as profiled:
        run()
        _wait()
    field = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    took = {event.key: getattr(event, field) for event in profiled.key_averages()}
    total = sum(took.values()) or 1
    largest = sorted(took, key=took.get, reverse=True)[:top]
    return ", ".join(f"{name[:40]} {100 * took[name] / total:.0f} %" for name in largest)


def in_child(code: str, *arguments: str, timeout_s: float = 300) -> dict:
    """Run ``code`` in a fresh process; it prints JSON on its last line (see `Peak`).

    Raises:
        RuntimeError: it failed; its last words.
        subprocess.TimeoutExpired: it took longer than ``timeout_s``.
    """
    code = f"import sys; sys.path.insert(0, {str(HERE)!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, check=False, timeout=timeout_s,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


class Peak:
    """The most memory that a block holds above what was held before: ``with Peak() as peak``.

    ``bytes`` is the process's whole peak, ``above`` the part above the start. On a GPU both are of
    the GPU's memory. On Linux the kernel's high-water mark is reset first, so that what importing
    the libraries once needed does not hide what the block needs; elsewhere it may.
    """

    def __init__(self, device: str = "cpu"):
        self.device, self.bytes, self.above = device, 0, 0

    def __enter__(self) -> "Peak":
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return self
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass
        self._before = _status("VmRSS") or _most()
        return self

    def __exit__(self, *_) -> None:
        cuda = self.device == "cuda"
        self.bytes = torch.cuda.max_memory_allocated() if cuda else _status("VmHWM") or _most()
        self.above = max(0, self.bytes - self._before)


def _status(field: str) -> int | None:
    """A field of /proc/self/status in bytes (Linux)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(x.split()[1]) for x in lines if x.startswith(f"{field}:")), None)


def _most() -> int:
    """Most memory that this process has held (Linux: kibibytes, macOS: bytes)."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


class OtherWork:
    """How many cores other processes kept busy meanwhile (Linux; None elsewhere).

    The load average cannot tell: it counts our own work of the last minutes too.
    """

    def __init__(self):
        self._started = time.monotonic(), _busy(), _own()

    def cores(self) -> float | None:
        """On average since the start."""
        then, busy, own = self._started
        now = _busy()
        if busy is None or now is None:
            return None
        elapsed = max(1e-3, time.monotonic() - then)
        return max(0.0, round((now - busy - (_own() - own)) / elapsed, 2))


def _busy() -> float | None:
    """CPU seconds of all processes since boot, other virtual machines' theft included."""
    import os

    try:
        line = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return None
    user, nice, system, _, _, irq, soft, steal = (int(x) for x in line.split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
