"""``lorasoups doctor``: what a run takes on this machine, from a few real steps of every stage.

Nothing is looked up in data sheets. The stages' own functions run on the profile's base, or on a
model of its shape with random weights (speed and memory depend on shapes alone); seconds per step
are then multiplied by what the profile asks for.
"""

import gc
import math
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PreTrainedConfig

from lorasoups.errors import SoupError
from lorasoups.learning.alphas import learn_alphas
from lorasoups.learning.skills import SkillTraining, train_lora
from lorasoups.lora.lora import Factors, LoRA
from lorasoups.lora.merging import merge
from lorasoups.models.base import WHEELS, cached_snapshot, gguf_of_wheel
from lorasoups.models.batching import encode_all, heldout_loss
from lorasoups.models.devices import cpu_name, device_name, native_bf16
from lorasoups.study.methods import methods_of
from lorasoups.study.methods.base import DataMix, Fresh, Trained
from lorasoups.study.methods.merges import Cat, Static
from lorasoups.study.methods.rivals import LoraHub, XLora
from lorasoups.study.profile import Profile
from lorasoups.study.run import Experiment, jobs_of, open_experiment
from lorasoups.study.sources import WORLDS
from lorasoups.tasks.real.hub import mirror_folder
from lorasoups.tasks.real.sets import catalogue

SHAPES: dict[str, dict[str, Any]] = {
    "llama-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                 "num_attention_heads": 32, "vocab_size": 32000, "max_position_embeddings": 2048},
    "smollm2-135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                     "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
                     "max_position_embeddings": 8192, "tie_word_embeddings": True},
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 2, "vocab_size": 128, "max_position_embeddings": 512},
}  # fmt: skip
"""Name -> fields of `LlamaConfig`."""
PACKAGES = ("torch", "transformers", "peft")
STEPS = 3  # that are timed, after one that is not


def random_base(
    shape: str | PreTrainedConfig, device: str, dtype: str, layers: int | None = None
) -> Any:
    """A causal LM with random weights, created on the device, frozen, in eval mode.

    Args:
        shape: a key of `SHAPES`, or a config.
        device, dtype: ``cpu`` or ``cuda``; ``float32`` or ``bfloat16``.
        layers: fewer decoder layers than the shape has.
    """
    config = shape
    if isinstance(shape, str):
        if shape not in SHAPES:
            raise SoupError(f"unknown shape {shape!r}: choose one of {', '.join(SHAPES)}")
        config = LlamaConfig(**SHAPES[shape], pad_token_id=0, bos_token_id=1, eos_token_id=2)
    config.num_hidden_layers = layers or config.num_hidden_layers
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    return model.eval().requires_grad_(False)


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


def matmul_peak(device: str, dtype: str = "bfloat16", size: int | None = None) -> float:
    """FLOP/s of the best of some large square matmuls: what MFU is a share of."""
    size = size or (8192 if device == "cuda" else 1024)
    a = torch.randn(size, size, device=device, dtype=getattr(torch, dtype))
    return 8 * size**3 / min(seconds(lambda: [a @ a for _ in range(4)], device) for _ in range(8))


def seconds(run: Callable[[], object], device: str) -> float:
    """Seconds of one call; a GPU is waited for."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - started


class Peak:
    """``with Peak(device) as peak``: the most bytes held meanwhile, by the GPU or this process."""

    def __init__(self, device: str):
        self.device, self.bytes, self._end = device, 0, threading.Event()

    def __enter__(self) -> "Peak":
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        else:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.bytes = max(self.bytes, process.memory_info().rss)
            if self._end.wait(0.01):
                return

    def __exit__(self, *_: object) -> None:
        if self.device == "cuda":
            self.bytes = torch.cuda.max_memory_allocated()
        else:
            self._end.set()
            self._thread.join()


# --- what a run consists of ---------------------------------------------------------------------


def work(experiment: Experiment) -> dict[str, float]:
    """Stage -> how often it is done: training steps, steps of alphas and gates (of the profile's
    batch), held-out rows, sets of static merges, problems solved."""
    p, seeds, a = experiment.profile, len(experiment.seeds), experiment.profile.alphas
    rows = {skill: min(p.n_train, _rows_there_are(p, skill)) for skill in p.skills}
    steps = {}
    for skill in p.skills:
        config = p.training_of(skill)
        steps[skill] = math.ceil(p.epochs * rows[skill] / config.batch_size) or config.steps
    alpha_rows = sum(max(1, round(a.share * n)) for n in rows.values())
    training = learning = evaluated = 0.0  # steps, rows, rows
    runs, methods = len(a.grid) - 1, methods_of(p)
    for method in methods:
        if isinstance(method, DataMix):
            training += sum(steps.values())
        elif isinstance(method, Trained):
            training += 0 if method.name in p.adapters else steps[method.name]
        elif isinstance(method, Fresh):
            training += math.ceil(a.epochs * alpha_rows / a.batch_size)
        elif isinstance(method, Cat | XLora):
            released = isinstance(method, Cat) and method.preset == "released"
            learning += alpha_rows * (1.0 if released else a.epochs)
            evaluated += a.n_held_out * len(p.skills)
        elif isinstance(method, LoraHub):
            evaluated += p.budget * alpha_rows
    problems = sum(min(p.n_test[task], _rows_there_are(p, task, "test")) for _, task in jobs_of(p))
    on_grid = len(a.grid) * min(p.n_test[p.target], _rows_there_are(p, p.target, "test"))
    learning = learning * seeds + runs * a.epochs * alpha_rows
    return {
        "skill step": training * seeds,
        "alpha step": math.ceil(learning / a.batch_size),
        "held-out row": evaluated * seeds + runs * a.n_held_out * len(p.skills),
        "static merges": seeds,
        "problem": problems * seeds + on_grid,
    }


def _rows_there_are(p: Profile, task: str, split: str = "train") -> float:
    declared = catalogue()
    if not p.real or task not in declared.tasks:
        return math.inf
    data = declared.sets[declared.tasks[task].set]
    return data.rows.get(data.splits.get(split, split), math.inf)


# --- a few steps of each ------------------------------------------------------------------------


def measure(model: Any, p: Profile, rows: list[dict], device: str) -> dict[str, dict[str, float]]:
    """Stage -> ``{seconds, bytes}`` of one of it on this model (``flops`` too for a skill step).

    Args:
        model: frozen base on ``device``.
        p: rank, targets, batches, lengths and methods are this profile's.
        rows: at least four batches of training rows.
        device: ``cpu`` or ``cuda``.
    """
    config = replace(SkillTraining(**asdict(p.training)), lora_dropout=0.0)
    alphas = {"normalise": "none", "init": "uniform", "lr": 0.01, "progress": False}
    pair = [random_lora(model, config.target_modules, config.r, seed) for seed in (0, 1)]
    first = [LoRA({n: f for n, f in lora.modules.items() if ".0." in n}) for lora in pair]
    layers, statics = (
        model.config.num_hidden_layers,
        [m for m in methods_of(p) if type(m) is Static],
    )
    prompt = max(1, sum(row["labels"].count(-100) for row in rows) // len(rows))
    ids = torch.randint(3, model.config.vocab_size, (p.eval_batch, prompt), device=device)
    mask = torch.ones_like(ids)

    def train(steps: int) -> None:
        train_lora(model, rows, replace(config, steps=steps), 0, progress=False)

    def learn(steps: int) -> None:
        learn_alphas(model, pair, rows, max_steps=steps, batch_size=p.alphas.batch_size, **alphas)

    def decode(tokens: int) -> None:
        with torch.no_grad():
            model.generate(input_ids=ids, attention_mask=mask, do_sample=False, pad_token_id=0,
                           max_new_tokens=tokens, min_new_tokens=tokens)  # fmt: skip

    def per_step(run: Callable[[int], None], more: int = STEPS) -> tuple[float, float]:
        """Seconds of the first step with all that surrounds it, and of a further one."""
        run(1)
        start = min(seconds(lambda: run(1), device) for _ in range(2))
        whole = seconds(lambda: run(1 + more), device)
        return start, max(whole - start, 0.05 * whole) / more

    measured = {}
    for stage, run in (("skill step", train), ("alpha step", learn)):
        with Peak(device) as peak:
            measured[stage] = {"seconds": per_step(run)[1]}
        measured[stage]["bytes"] = peak.bytes
    with FlopCounterMode(display=False) as counter:
        train(1)
    measured["skill step"]["flops"] = counter.get_total_flops()
    heldout_loss(model, rows[:1])
    with Peak(device) as peak:
        took = seconds(lambda: heldout_loss(model, rows[:32]), device)
    measured["held-out row"] = {"seconds": took / len(rows[:32]), "bytes": peak.bytes}
    with Peak(device) as peak:
        start, further = per_step(decode, 8)
    batch = start + (p.max_new_tokens - 1) * further
    cache = 2 * layers * _cache_width(model) * p.eval_batch * p.max_new_tokens
    measured["problem"] = {"seconds": batch / p.eval_batch,
                           "bytes": peak.bytes + cache * model.dtype.itemsize}  # fmt: skip
    merge(first, "svd", rank=config.r)  # loads what the first call loads
    with Peak("cpu") as peak:
        took = sum(
            seconds(lambda m=m: merge(first, m.merge_method, on=m.on), "cpu") for m in statics
        )
    measured["static merges"] = {"seconds": took * layers, "bytes": peak.bytes}
    return measured


def _cache_width(model: Any) -> int:
    """Numbers that one token keeps in a layer, keys or values."""
    c = model.config
    return c.hidden_size // c.num_attention_heads * (c.num_key_value_heads or c.num_attention_heads)


def examine(
    profile: str | Path = "mini", study: str = "hard_math", seeds: int = 1, **options: Any
) -> dict:
    """What a run of a profile takes here.

    Args:
        profile, study, seeds, options: of `open_experiment`; a run on a CPU is cut down as there.

    Returns:
        ``{machine, base, data, note, stages: [{stage, times, seconds_each, seconds, bytes,
        flop_per_s}], seconds, disk_bytes, fits, advice}``.
    """
    experiment = open_experiment(profile, study, seeds, **options)
    p, project = experiment.profile, experiment.folders.project
    device = "cuda" if p.real and torch.cuda.is_available() else "cpu"
    dtype = "bfloat16" if native_bf16(device) else "float32"
    place = base_place(p.base, project)
    config = _config(p.base, place)
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    total, free = _memory(device)
    n_rows = (1 + STEPS) * max(p.training.batch_size, p.alphas.batch_size)
    layers, size = config.num_hidden_layers, parameters * getattr(torch, dtype).itemsize
    whole = not p.real or 1.3 * size * (0.3 if p.four_bit else 1) < free
    if p.real:
        rows = random_rows(n_rows, p.max_length, config.vocab_size)
    else:
        items = WORLDS[p.source][0](p.skills[0], "train", n_rows, 0)
        rows = encode_all(experiment.source.tokenizer, items, p.max_length)
    if place and whole:
        measured = measure(experiment.source.model, p, rows, device)
    else:
        measured = _on_random(config, p, rows, device, dtype, None if whole else layers)
    stages = []
    for stage, times in work(experiment).items():
        one = measured[stage]
        rate = {"flop_per_s": one["flops"] / one["seconds"]} if "flops" in one else {}
        stages.append({"stage": stage, "times": times, "seconds_each": one["seconds"],
                       "seconds": times * one["seconds"], "bytes": round(one["bytes"]),
                       "fits": one["bytes"] < total, **rate})  # fmt: skip
    disk = shutil.disk_usage(project).free
    needed = 2 * 10**9 + (0 if place else size)
    report = {
        "machine": {"device": device_name(device), "cpu": cpu_name(), "memory_bytes": total,
                    "disk_free_bytes": disk, "threads": torch.get_num_threads(),
                    "versions": {n: metadata.version(n) for n in PACKAGES}},
        "profile": p.name, "study": p.study, "seeds": seeds, "note": p.note,
        "base": {"name": p.base, "parameters": parameters, "here": bool(place), "dtype": dtype,
                 "measured_layers": layers if whole else 2, "layers": layers},
        "data": "generated" if not p.real else f"mirror {mirror_folder().name}"
        if mirror_folder() else "from the Hub",
        "stages": stages, "seconds": sum(s["seconds"] for s in stages), "disk_bytes": needed,
        "fits": all(s["fits"] for s in stages) and disk > needed,
    }  # fmt: skip
    return report | {"advice": _advice(report)}


def _on_random(config: Any, p: Profile, rows: list[dict], device: str, dtype: str, layers) -> dict:
    """On the whole random model, or from one and two layers to all ``layers`` of them."""
    found = []
    for n in (None,) if layers is None else (1, 2):
        model = random_base(config.__class__.from_dict(config.to_dict()), device, dtype, n)
        if p.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        found.append(measure(model, p, rows, device))
        del model
    one, two, more = found[0], found[-1], (layers or 1) - 1
    return {  # never less than with one layer, however noisy the clock
        stage: {k: v + max(0.0, two[stage][k] - v) * more for k, v in values.items()}
        for stage, values in one.items()
    }


def base_place(base: str, project: Path) -> Path | None:
    """Where a base lies on this machine, without asking a network; None: it must be fetched."""
    if base in WHEELS:
        try:
            return gguf_of_wheel(base)
        except SoupError:
            return None
    for path in (project / base, Path(base).expanduser()):
        if path.exists():
            return path
    name, _, revision = base.partition("@")
    return cached_snapshot(name, revision or None)


def _config(base: str, place: Path | None) -> PreTrainedConfig:
    if place is not None:
        gguf = {"gguf_file": place.name} if place.suffix == ".gguf" else {}
        return AutoConfig.from_pretrained(place.parent if gguf else place, **gguf)
    for name, fields in SHAPES.items():
        if all(part in base.lower() for part in name.split("-")):
            return LlamaConfig(**fields, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    raise SoupError(f"neither here nor of a known shape: base {base}; fetch it, or give its folder")


def _memory(device: str) -> tuple[int, int]:
    """Bytes of the GPU or the machine: in all, and free now."""
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return total, free
    memory = psutil.virtual_memory()
    return memory.total, memory.available


def _advice(report: dict) -> list[str]:
    lines = []
    for stage in report["stages"]:
        if not stage["fits"]:
            smaller = {"skill step": "--checkpointing or --four-bit", "problem": "--eval-batch"}
            how = smaller.get(stage["stage"], "--four-bit, or a smaller --base")
            lines.append(f"{stage['stage']}: needs {_gb(stage['bytes'])}; try {how}")
    free = report["machine"]["disk_free_bytes"]
    if free < report["disk_bytes"]:
        lines.append(f"disk: {_gb(report['disk_bytes'])} needed, {_gb(free)} free; --out elsewhere")
    if not report["base"]["here"]:
        lines.append(f"the base is not here: {report['base']['name']} comes from the Hub first")
    return lines


def text(report: dict) -> str:
    """The report as lines for people."""
    machine, base = report["machine"], report["base"]
    measured = "all" if base["measured_layers"] == base["layers"] else f"2 of {base['layers']}"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"machine: {machine['device']}, {_gb(machine['memory_bytes'])}, "
        f"{machine['threads']} threads, disk {_gb(machine['disk_free_bytes'])} free; {versions}",
        f"base: {base['name']}, {base['parameters'] / 1e6:,.0f}M parameters, {base['dtype']}, "
        f"{'here' if base['here'] else 'not here'}; measured on {measured} layers",
        f"data: {report['data']}",
        *([f"NOTE: {report['note']}."] if report["note"] else []),
        f"{'stage':14} {'times':>9} {'each':>10} {'together':>10} {'memory':>9}  fits",
    ]
    for s in report["stages"]:
        rate = f"  {s['flop_per_s'] / 1e9:,.0f} GFLOP/s" if "flop_per_s" in s else ""
        lines.append(
            f"{s['stage']:14} {s['times']:9,.0f} {_time(s['seconds_each']):>10} "
            f"{_time(s['seconds']):>10} {_gb(s['bytes']):>9}  {'yes' if s['fits'] else 'NO'}{rate}"
        )
    lines.append(
        f"{'all':14} {report['seeds']:3} seed(s) {'':10}{_time(report['seconds']):>9}: at most, "
        "as every answer is taken to be as long as it may be"
    )
    return "\n".join([*lines, *report["advice"]])


def _time(s: float) -> str:
    for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
        if s >= size:
            return f"{s / size:.1f} {unit}"
    return f"{1000 * s:.1f} ms"


def _gb(n: float) -> str:
    return f"{n / 1e9:.1f} GB"
