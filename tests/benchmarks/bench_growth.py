"""How time and memory grow: with methods, seeds, the base's size, and the number of LoRAs.

Every point is measured in a process of its own, whose peak of memory is the point's. Written to
``data/results/speed/growth-<device>.json`` and drawn to ``figures/speed/growth-<device>``.
"""

import json
import math
from statistics import median

import goals
import torch
from bench_alphas import alpha_step
from harness import Peak, in_child, timed
from models import llama, loras_for

from lorasoups.files import write_json_atomic
from lorasoups.learning import SkillTraining
from lorasoups.learning.skills import train_lora
from lorasoups.lora.merging import merge
from lorasoups.models.devices import device_name
from lorasoups.models.generation import folded
from lorasoups.report.figures import style
from lorasoups.run.doctor import random_base, random_rows

MINI = (160, 5)
SIZES = {"0.4M": (96, 4), "1.6M": MINI, "6M": (320, 5), "135M": ()}
"""About so many parameters -> hidden width and layers of a random Llama; 135M: SmolLM2's shape."""

AXES = {
    "methods": ("soups merged and answering", (1, 2, 4, 8, 16)),
    "seeds": ("seeds of a skill, 4 steps each", (1, 2, 4, 8)),
    "size": ("4 skill steps by million parameters", tuple(SIZES)),
    "k": ("4 alpha steps by LoRAs", (1, 2, 4, 8)),
}
"""Axis -> (what is timed, its values)."""


def work(axis: str, value, device: str, quick: bool):
    """The model's parameters, and a function that does what the axis counts."""
    size = (16, 1) if quick else SIZES[value] if axis == "size" else MINI
    model = llama(*size, device) if size else random_base("smollm2-135m", device, "float32")
    vocabulary = model.config.vocab_size
    rows, training = random_rows(64, 128, vocabulary), SkillTraining(batch_size=8, steps=4)
    if axis == "methods":
        loras, ids = loras_for(model, device=device), torch.full((32, 64), 5, device=device)

        def run() -> None:
            for soup in range(value):
                with folded(model, merge(loras, "linear", weights=[1.0, soup / value])):
                    model.generate(
                        ids, attention_mask=torch.ones_like(ids), max_new_tokens=16,
                        min_new_tokens=16, do_sample=False, pad_token_id=0, use_cache=True,
                    )  # fmt: skip

    elif axis == "k":
        ids = torch.randint(vocabulary, (16, 64), device=device)
        loras = loras_for(model, value, device=device)

        def run() -> None:
            with alpha_step(model, loras, ids) as step:
                for _ in range(4):
                    step()

    else:

        def run() -> None:
            for seed in range(value if axis == "seeds" else 1):
                train_lora(model, rows, training, seed, progress=False)

    return sum(p.numel() for p in model.parameters()), run


def point(axis: str, value, device: str, quick: bool) -> dict:
    """``{value, parameters, seconds, bytes}``: median of five after one that does not count."""
    parameters, run = work(axis, value, device, quick)
    with Peak(device) as peak:
        run()
        seconds = median(timed(run) for _ in range(1 if quick else 5))
    return {"value": value, "parameters": parameters, "seconds": seconds, "bytes": peak.bytes}


def exponent(xs: list[float], ys: list[float]) -> float:
    """Slope of log y on log x (least squares): 1 is proportional, 0 does not grow."""
    u, v = [math.log(x) for x in xs], [math.log(y) for y in ys]
    mu, mv = sum(u) / len(u), sum(v) / len(v)
    up = sum((a - mu) * (b - mv) for a, b in zip(u, v, strict=True))
    return up / sum((a - mu) ** 2 for a in u)


def counted(axis: str, points: list[dict]) -> list[float]:
    return [p["parameters"] / 1e6 if axis == "size" else p["value"] for p in points]


@style.styled
def drawn(found: dict[str, list[dict]], machine: str):
    """Time above, memory below, one column per axis; both logarithmic, the exponents written in."""
    figure, panels = style.panels(4.2, f"How cost grows ({machine})", 2, len(found))
    for at, (axis, points) in enumerate(found.items()):
        xs = counted(axis, points)
        for row, (field, unit) in enumerate((("seconds", 1.0), ("bytes", 1e9))):
            ax = panels[row * len(found) + at]
            ys = [p[field] / unit for p in points]
            last = exponent(xs[-2:], ys[-2:])
            ax.loglog(xs, ys, "o-", color=style.BLUE, ms=4)
            ax.set_xticks(xs, [f"{x:.0f}" if x >= 10 else f"{x:.2g}" for x in xs], fontsize=7.5)
            ax.minorticks_off()
            low, high = min(ys), max(ys)
            ticks = [low, high] if high > 1.5 * low else [high]
            ax.set_yticks(ticks, [f"{y:.2g}" for y in ticks])
            ax.set_ylim(low / 2 if high < 4 * low else low / 1.5, max(high, 4 * low) * 1.5)
            ax.set_title(f"exponent {exponent(xs, ys):.2f}, last {last:.2f}", fontsize=7.5)
            if not at:
                ax.set_ylabel("seconds" if field == "seconds" else "peak memory, GB")
            if row:
                ax.set_xlabel(AXES[axis][0], fontsize=7.5)
    return figure


def test_growth(quick, device):
    """Toy sizes write nothing."""
    code = (
        "import json, sys\nfrom bench_growth import point\n"
        "print(json.dumps(point(*json.loads(sys.argv[1]))))"
    )
    found = {
        axis: [
            in_child(code, json.dumps([axis, value, device, quick]), timeout_s=900)
            for value in (values[:2] if quick else values)
        ]
        for axis, (_, values) in AXES.items()
    }
    for axis, points in found.items():
        xs = counted(axis, points)
        if len(set(xs)) > 1:
            slopes = [exponent(xs, [p[f] for p in points]) for f in ("seconds", "bytes")]
            print(f"{axis}: {points}; exponents of time and memory {slopes}")
    if quick:
        return
    name = device_name(device)
    path = goals.speed_path(f"growth {name}")
    write_json_atomic(path, {"schema": 1, "device": name, "axes": found})
    style.save(drawn(found, name), path.parents[3] / "figures" / "speed", path.stem)
