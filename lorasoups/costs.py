"""Measured costs as a file, as text, and scaled to other devices."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lorasoups.errors import SoupError
from lorasoups.files import write_json_atomic
from lorasoups.hardware import Card, assumed_speed, find
from lorasoups.lengths import lengths_of
from lorasoups.paths import Folders
from lorasoups.plan import Device, Plan, Stage
from lorasoups.profiles import Profile
from lorasoups.shapes import KNOWN
from lorasoups.units import duration, gb

CARDS = ("H100", "A100-80GB", "RTX 4090")
"""Large, its predecessor, and one with 24 GB."""
ROOM = 0.94
"""Share of a card's memory that a process may use."""
_LESS_MEMORY: tuple[tuple[str, dict], ...] = (
    ("", {}),
    ("checkpointing", {"gradient_checkpointing": True}),
    ("4-bit base", {"four_bit": True}),
    ("4-bit base, checkpointing", {"four_bit": True, "gradient_checkpointing": True}),
)


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


def costs(
    profile: Profile,
    cards: Sequence[str] = CARDS,
    seeds: int = 1,
    measured: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """What a profile takes on some cards: one row per card, estimated.

    Args:
        profile: with a base that `shapes.KNOWN` has.
        cards: names of `hardware.CARDS`.
        seeds: how many.
        measured: what `measure.measure` found on a GPU: its share of that card's data-sheet peak is
            used for training on all of them, in place of the assumed share.

    Returns:
        ``{card, changes, stages: {name: seconds}, seconds, peak_bytes, fits, source}``;
        ``changes``: what had to be changed to fit.

    Raises:
        SoupError: unknown card or base.
    """
    if profile.base not in KNOWN:
        raise SoupError(f"no known shape: base {profile.base}; choose of {', '.join(KNOWN)}")
    return [_on(find(name), profile, seeds, measured) for name in cards]


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """`costs` as people say it."""
    return [
        {
            "card": row["card"],
            "changed to fit": row["changes"] or "-",
            **{name: duration(seconds) for name, seconds in row["stages"].items()},
            "all": duration(row["seconds"]),
            "peak": gb(row["peak_bytes"]),
            "fits": "yes" if row["fits"] else "NO",
            "rests on": row["source"],
        }
        for row in rows
    ]


def _on(card: Card, profile: Profile, seeds: int, measured: Mapping[str, Any] | None) -> dict:
    speed, source = assumed_speed(card), "assumed share of peak"
    share = _share(measured)
    if share:
        speed = replace(speed, train=share * card.matmul, alphas=share * card.matmul)
        source = f"share of peak measured on {measured['device']}"
    device = Device("cuda", card.name, ROOM * card.memory, card.bf16, speed)
    for changes, fields in _LESS_MEMORY:
        own = profile.override(**fields)
        stages = Plan(own, KNOWN[own.base], device, lengths_of(own), seeds).stages()
        peak = max(stage.memory.total for stage in _on_card(stages))
        if peak <= device.memory:
            break
    return {
        "card": card.name,
        "changes": changes,
        "stages": {stage.name: stage.seconds for stage in stages},
        "seconds": sum(stage.seconds for stage in stages),
        "peak_bytes": peak,
        "fits": peak <= device.memory,
        "source": source,
    }


def _on_card(stages: Sequence[Stage]) -> list[Stage]:
    return [stage for stage in stages if stage.where == "cuda"]


def _share(measured: Mapping[str, Any] | None) -> float | None:
    """FLOP/s of the measured training step over the data sheet's peak; None without a GPU's."""
    stage = (measured or {}).get("stages", {}).get("skill", {})
    if "tokens_per_s" not in stage or not measured["whole"]:
        return None
    try:
        return stage["tokens_per_s"] * stage["flops_per_token"] / find(measured["device"]).matmul
    except SoupError:  # a CPU, or a card without a data sheet here
        return None
