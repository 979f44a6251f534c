"""Timing two ways of doing one thing in turn, so that a busy machine slows both alike."""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call; a GPU is waited for."""
    _wait()
    started = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - started


def in_turn(
    benchmark, first: Callable[[], object], second: Callable[[], object], rounds: int
) -> dict:
    """Times both in turn, ``rounds`` times after one that does not count.

    Args:
        benchmark: pytest-benchmark's fixture; it times whole rounds.
        first, second: what is compared.
        rounds: how often.

    Returns:
        ``{ratio, low, high, first_s, second_s}``: median and quartiles of seconds of the first over
        seconds of the second within a round; medians of both.
    """
    seconds: list[tuple[float, float]] = []

    def both() -> None:
        seconds.append((timed(first), timed(second)))

    benchmark.pedantic(both, rounds=rounds, warmup_rounds=1, iterations=1)
    kept = seconds[1:]
    ratios = [a / b for a, b in kept]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    found = {
        "ratio": middle,
        "low": low,
        "high": high,
        "first_s": statistics.median(a for a, _ in kept),
        "second_s": statistics.median(b for _, b in kept),
    }
    benchmark.extra_info.update(found)
    return found


def in_child(code: str, *arguments: str) -> dict:
    """Run ``code`` in a fresh process; it prints a dict on its last line (see `peak_bytes`)."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return eval(done.stdout.strip().splitlines()[-1], {})  # our own child's repr


def peak_bytes() -> int:
    """Most memory that this process has held (Linux: kibibytes, macOS: bytes)."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
