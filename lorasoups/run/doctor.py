"""``lorasoups doctor``: what a run takes on this machine, from a few real steps of every stage.

The stages' own functions run on the profile's base; one that is not here, or too large, is judged
by one and two layers of its shape with random weights (speed and memory depend on shapes alone).
Seconds per step are multiplied by the steps of the run.
"""

import math
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig

from lorasoups.errors import SoupError
from lorasoups.learning.alphas import learn_alphas
from lorasoups.learning.skills import train_lora
from lorasoups.lora.lora import Factors, LoRA
from lorasoups.lora.merging import merge
from lorasoups.models.base import WHEELS, base_config, cached_snapshot, gguf_of_wheel
from lorasoups.models.batching import heldout_loss
from lorasoups.models.devices import device_name, peak_memory, seconds
from lorasoups.study.methods import Static, methods_of
from lorasoups.study.profile import Profile
from lorasoups.study.run import jobs_of, open_experiment
from lorasoups.study.sources import dtype_of
from lorasoups.study.stages import Stages
from lorasoups.tasks.real.sets import catalogue

SHAPES: dict[str, dict[str, Any]] = {
    "llama-7b": {},
    "smollm2-135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                     "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
                     "max_position_embeddings": 8192, "tie_word_embeddings": True},
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 2, "vocab_size": 128, "max_position_embeddings": 512},
}  # fmt: skip
"""Name -> fields of `LlamaConfig` that are not its own defaults, which are Llama 7B's."""
CURES = {"skill step": "--checkpointing or --four-bit", "problem": "--eval-batch"}
STEPS = 3  # that are timed, after one that is not


def random_base(shape: str | PreTrainedConfig, device: str, dtype: str, layers: int = 0) -> Any:
    """A frozen causal LM with random weights, created on the device in ``dtype``.

    ``shape`` is a key of `SHAPES` or a config; ``layers`` replaces its number of decoder layers.
    """
    config = _shape(shape) if isinstance(shape, str) else deepcopy(shape)
    config.num_hidden_layers = layers or config.num_hidden_layers
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    return model.eval().requires_grad_(False)


def _shape(name: str) -> PreTrainedConfig:
    """The config of the shape whose words are all in a model's name."""
    for shape, fields in SHAPES.items():
        if all(word in name.lower() for word in shape.split("-")):
            return LlamaConfig(**fields, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    raise SoupError(f"neither here nor of a known shape: base {name}; fetch it, or give its folder")


def random_rows(n: int, length: int, vocabulary: int) -> list[dict]:
    """``n`` rows of ``length`` random tokens, the second half with labels."""
    ids = torch.randint(3, vocabulary, (n, length), generator=torch.Generator().manual_seed(0))
    half = length // 2
    return [{"input_ids": row, "labels": [-100] * half + row[half:]} for row in ids.tolist()]


def random_lora(model: Any, targets: tuple[str, ...], rank: int, seed: int) -> LoRA:
    """Gaussian factors, float32 on the CPU, for the linear layers of these names."""
    draw, modules = torch.Generator().manual_seed(seed), {}
    for name, layer in model.named_modules():
        if name.rsplit(".", 1)[-1] in targets:
            A = torch.randn(rank, layer.in_features, generator=draw) * 0.01
            modules[name] = Factors(A, torch.randn(layer.out_features, rank, generator=draw) * 0.01)
    return LoRA(modules)


def work(experiment: Stages) -> dict[str, int]:
    """Stage -> how often it is done, at most: as the profile's methods declare (``cost``)."""
    p, a, seeds = experiment.profile, experiment.profile.alphas, len(experiment.seeds)
    jobs, costs = jobs_of(p), Counter()
    for method in methods_of(p):
        unit, times = method.cost
        costs[unit] += times
    steps, alpha_rows = {}, 0
    for skill in p.skills:
        n, config = _rows(p, skill, "train", p.n_train), p.training_of(skill)
        steps[skill] = math.ceil(p.epochs * n / config.batch_size) or config.steps
        alpha_rows += max(1, round(a.share * n))
    alpha_steps = math.ceil(a.epochs * alpha_rows / a.batch_size)
    own = sum(n for skill, n in steps.items() if skill not in p.adapters)
    trained = own + costs["skills"] * sum(steps.values()) + costs["fresh"] * alpha_steps
    learned = seeds * costs["alphas"] + len(a.grid) - 1
    passes = costs["passes"] + costs["searches"] * p.budget
    problems = sum(_rows(p, task, "test", p.n_test[task]) for _, task in jobs)
    return {
        "skill step": seeds * trained,
        "alpha step": learned * alpha_steps,
        "held-out row": learned * a.n_held_out * len(p.skills)
        + seeds * (passes * alpha_rows + len(jobs) * p.n_loss),
        "static merges": seeds,
        "problem": seeds * (problems + costs["validations"] * a.n_held_out),
    }


def _rows(p: Profile, task: str, split: str, wanted: int) -> int:
    """``wanted``, or what there is of a real task's split."""
    declared = catalogue()
    if not p.real or task not in declared.tasks:
        return wanted
    data = declared.sets[declared.tasks[task].set]
    return min(wanted, data.rows.get(data.splits.get(split, split), wanted))


def measure(model: Any, p: Profile, rows: list[dict], device: str) -> dict[str, dict[str, float]]:
    """Stage -> ``{seconds, bytes}`` of one of it on this model (``flops`` too for a skill step).

    ``rows`` are at least four batches of training rows; the profile gives all sizes and methods.
    """
    config = replace(p.training, lora_dropout=0.0)
    pair = [random_lora(model, config.target_modules, config.r, seed) for seed in (0, 1)]
    prompt = max(1, sum(row["labels"].count(-100) for row in rows) // len(rows))
    ids = torch.randint(3, model.config.vocab_size, (p.eval_batch, prompt), device=device)
    quiet = {"progress": False}
    alphas = quiet | {"batch_size": p.alphas.batch_size}
    greedy = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}
    stages: dict[str, Callable[[int], Any]] = {  # n steps of each
        "skill step": lambda n: train_lora(model, rows, replace(config, steps=n), 0, **quiet),
        "alpha step": lambda n: learn_alphas(model, pair, rows, max_steps=n, **alphas),
        "problem": lambda n: model.generate(ids, max_new_tokens=n, min_new_tokens=n, **greedy),
        "held-out row": lambda n: heldout_loss(model, rows[:n]),
    }
    measured = {}
    for stage, run in stages.items():
        run(1)  # loads what the first call loads
        with peak_memory(device) as peak:
            start = min(seconds(partial(run, 1), device) for _ in range(2))
            both = seconds(partial(run, 1 + STEPS), device)
        each = max(both - start, 0.05 * both) / STEPS
        if stage == "problem":  # of a batch, whose cache of keys and values grows
            each = (start + (p.max_new_tokens - 1) * each) / p.eval_batch
            cache = 2 * model.config.num_hidden_layers * model.config.hidden_size  # at most
            peak.bytes += cache * p.eval_batch * p.max_new_tokens * model.dtype.itemsize
        measured[stage] = {"seconds": each, "bytes": peak.bytes}
    with FlopCounterMode(display=False) as counter:
        stages["skill step"](1)
    measured["skill step"]["flops"] = counter.get_total_flops()
    modules = pair[0].modules
    largest = max(modules, key=lambda name: sum(modules[name].shape))  # as if all were like it
    one = [LoRA({largest: lora.modules[largest]}) for lora in pair]
    static = [m for m in methods_of(p) if isinstance(m, Static)]
    merge(one, "svd", rank=1)  # loads what the first call loads
    with peak_memory("cpu") as peak:
        took = seconds(lambda: [merge(one, m.merge_method, on=m.on) for m in static], "cpu")
    measured["static merges"] = {"seconds": took * len(modules), "bytes": peak.bytes}
    return measured


def _on_random(config: Any, p: Profile, rows: list[dict], device: str, dtype: str) -> dict:
    """From random models of one and of two layers to all layers of the config."""
    measured = []
    for layers in (1, 2):
        model = random_base(config, device, dtype, layers)
        if p.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        measured.append(measure(model, p, rows, device))
        del model
    (one, two), more = measured, config.num_hidden_layers - 1
    return {  # never less than with one layer, however noisy the clock
        stage: {k: v + max(0.0, two[stage][k] - v) * more for k, v in values.items()}
        for stage, values in one.items()
    }


def examine(
    profile: str | Path = "mini", study: str = "hard_math", seeds: int = 1, **options: Any
) -> dict:
    """What a run takes here; the arguments are those of `open_experiment`.

    Returns ``{machine, profile, study, seeds, note, base, stages, seconds, disk_bytes, fits,
    advice}``, each stage as ``{stage, times, seconds_each, seconds, bytes, fits}``.
    """
    experiment = open_experiment(profile, study, seeds, **options)
    p, project = experiment.profile, experiment.folders.project
    device = "cuda" if p.real and torch.cuda.is_available() else "cpu"
    dtype = dtype_of(p)
    place, ram = base_place(p.base, project), psutil.virtual_memory()
    config = base_config(place) if place else _shape(p.base)
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    size, layers = parameters * getattr(torch, dtype).itemsize, config.num_hidden_layers
    free, total = torch.cuda.mem_get_info() if device == "cuda" else (ram.available, ram.total)
    loaded = place and (not p.real or 1.3 * size * (0.3 if p.four_bit else 1) < free)
    n_rows = (1 + STEPS) * max(p.training.batch_size, p.alphas.batch_size)
    if p.real:
        rows = random_rows(n_rows, p.max_length, config.vocab_size)
    else:
        rows = experiment.encoded(p.skills[0], n=n_rows)
    if loaded:
        measured = measure(experiment.source.model, p, rows, device)
    else:
        measured = _on_random(config, p, rows, device, dtype)
    stages, advice = [], []
    for stage, times in work(experiment).items():
        each, memory = measured[stage]["seconds"], round(measured[stage]["bytes"])
        stages.append({"stage": stage, "times": times, "seconds_each": each, "bytes": memory,
                       "seconds": times * each, "fits": memory < total})  # fmt: skip
        if memory >= total:
            cure = CURES.get(stage, "--four-bit, or a smaller --base")
            advice.append(f"{stage}: needs {_gb(memory)}; try {cure}")
    disk, needed = shutil.disk_usage(project).free, 2 * 10**9 + (0 if place else size)
    if disk <= needed:
        advice.append(f"disk: {_gb(needed)} needed, {_gb(disk)} free; --out elsewhere")
    fits = not advice
    if not place:
        advice.append(f"the base is not here: {p.base} comes from the Hub first")
    return {
        "machine": {"device": device_name(device), "memory_bytes": total, "disk_free_bytes": disk},
        "profile": p.name, "study": p.study, "seeds": seeds, "note": p.note,
        "base": {"name": p.base, "parameters": parameters, "here": bool(place), "dtype": dtype,
                 "measured_layers": layers if loaded else 2, "layers": layers},
        "stages": stages, "seconds": sum(s["seconds"] for s in stages), "disk_bytes": needed,
        "fits": fits, "advice": advice,
    }  # fmt: skip


def base_place(base: str, project: Path) -> Path | None:
    """Where a base lies on this machine, without asking a network; None: it must be fetched."""
    for path in (project / base, Path(base).expanduser()):
        if path.exists():
            return path
    with suppress(SoupError):  # the wheel is not installed
        return gguf_of_wheel(base) if base in WHEELS else cached_snapshot(*base.split("@", 1))
    return None


def text(report: dict) -> str:
    """The report as lines for people."""
    machine, base = report["machine"], report["base"]
    here, layers = "here" if base["here"] else "not here", f"of {base['layers']} layers"
    lines = [
        f"machine: {machine['device']}, {_gb(machine['memory_bytes'])}, "
        f"disk {_gb(machine['disk_free_bytes'])} free",
        f"base: {base['name']}, {base['parameters'] / 1e6:,.0f}M parameters, {base['dtype']}, "
        f"{here}; measured on {base['measured_layers']} {layers}",
        *([f"NOTE: {report['note']}."] if report["note"] else []),
        f"{'stage':14} {'times':>9} {'each':>10} {'together':>10} {'memory':>9}  fits",
    ]
    for s in report["stages"]:
        each, together, memory = _time(s["seconds_each"]), _time(s["seconds"]), _gb(s["bytes"])
        row = f"{s['stage']:14} {s['times']:9,} {each:>10} {together:>10} {memory:>9}"
        lines.append(f"{row}  {'yes' if s['fits'] else 'NO'}")
    lines.append(f"all, {report['seeds']} seed(s): at most {_time(report['seconds'])}")
    return "\n".join([*lines, *report["advice"]])


def _time(s: float) -> str:
    unit, size = ("h", 3600) if s >= 3600 else ("min", 60) if s >= 60 else ("s", 1)
    return f"{s / size:.1f} {unit}" if s >= 1 else f"{1000 * s:.1f} ms"


def _gb(n: float) -> str:
    return f"{n / 1e9:.1f} GB"
