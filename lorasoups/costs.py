"""Measured costs as a file, as text, and scaled to other devices."""

import re
from pathlib import Path
from typing import Any

from lorasoups.files import write_json_atomic
from lorasoups.paths import Folders


def measured_path(profile: str, device: str, root: Path | str = "") -> Path:
    """``data/results/speed/measure_<profile>_<device>.json``."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", device).strip("-").lower()
    return Folders(out=root).results / "speed" / f"measure_{profile}_{name}.json"


def save_measured(measured: dict[str, Any], root: Path | str = "") -> Path:
    """Write what `measure.measure` found; an earlier file of the same device is replaced."""
    return write_json_atomic(measured_path(measured["profile"], measured["device"], root), measured)


def report(measured: dict[str, Any]) -> str:
    """The measured stages as lines of text."""
    part = "" if measured["whole"] else f", ONLY {measured['layers']} LAYERS"
    lines = [
        f"{measured['shape']}{part}: {measured['parameters'] / 1e9:.3f}B parameters, random, "
        f"{measured['dtype']}, on {measured['device']}",
        f"matmul peak {measured['matmul_peak'] / 1e12:.2f} TFLOP/s; sequences of "
        f"{measured['length']} tokens, batch {measured['batch']}, rank {measured['rank']}",
        f"{'stage':9} {'seconds':>9} {'tokens/s':>10} {'MFU':>6} {'peak GB':>8}",
    ]
    for name, stage in measured["stages"].items():
        if "error" in stage:
            lines.append(f"{name:9} {stage['error']}")
            continue
        rate = f"{stage['tokens_per_s']:,.0f}" if "tokens_per_s" in stage else "-"
        mfu = f"{stage['mfu']:.1%}" if "mfu" in stage else "-"
        memory = stage["peak_bytes"] / 1e9
        lines.append(f"{name:9} {stage['seconds']:9.2f} {rate:>10} {mfu:>6} {memory:8.2f}")
    return "\n".join(lines)
