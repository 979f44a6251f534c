"""What each stage of a profile costs on this device, on a randomly initialised model of its shape.

Speed and memory depend on shapes, not on what the weights say: a random Llama of the 7B shape,
created on the device itself, goes through the very functions that a real run calls (`train_lora`,
`learn_alphas`, `merge`, `folded`). No download, nothing is learned, no accuracy is claimed.
Source: issue 4, section 3.
"""

import gc
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lorasoups.alphas import learn_alphas
from lorasoups.devices import device_name, hardware_bf16
from lorasoups.errors import SoupError
from lorasoups.evaluation import folded
from lorasoups.lora import Factors, LoRA
from lorasoups.merging import merge
from lorasoups.profiles import Profile
from lorasoups.training import train_lora

SHAPES: dict[str, dict[str, int]] = {
    "llama-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
    },
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 128,
        "max_position_embeddings": 512,
    },
}
"""Name -> fields of `LlamaConfig`."""
SHAPE_OF = {"paper": "llama-7b", "small": "smollm2-135m"}
"""Profile -> the shape of its base."""


def random_base(shape: str, device: str, dtype: str, layers: int | None = None) -> LlamaForCausalLM:
    """A Llama with random weights, created on the device, frozen, in eval mode.

    Args:
        shape: a key of `SHAPES`.
        device: ``cpu`` or ``cuda``.
        dtype: ``float32`` or ``bfloat16``.
        layers: fewer decoder layers than the shape has.

    Raises:
        SoupError: unknown shape.
    """
    if shape not in SHAPES:
        raise SoupError(f"unknown shape {shape!r}: choose one of {', '.join(SHAPES)}")
    fields = SHAPES[shape] | ({"num_hidden_layers": layers} if layers else {})
    config = LlamaConfig(**fields, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return model.eval().requires_grad_(False)


def matmul_peak(device: str, dtype: str = "bfloat16", size: int | None = None) -> float:
    """FLOP/s of the best of some large square matmuls on this device: what MFU is a share of."""
    size = size or (8192 if device == "cuda" else 1024)
    a = torch.randn(size, size, device=device, dtype=getattr(torch, dtype))
    best = 0.0
    for _ in range(8):
        _wait(device)
        started = time.perf_counter()
        for _ in range(4):
            a @ a
        _wait(device)
        best = max(best, 4 * 2 * size**3 / (time.perf_counter() - started))
    return best


def step_flops(model: Any, tokens: int, width: int, trained: int = 0) -> float:
    """FLOPs that one training step of a frozen base needs, recomputation not counted.

    Two per weight and token forward, two backward for the gradient of the activations (the
    frozen weights' own gradients are never computed, unlike in the usual 6 N); attention's two
    products over half of ``width`` squared (causal) once forward and twice backward; six for each
    of the ``trained`` LoRA parameters. The embedding is a lookup, the output head a product.

    Args:
        model: a Llama.
        tokens: tokens of the step.
        width: length of its sequences.
        trained: number of LoRA parameters.
    """
    c = model.config
    inputs = model.get_input_embeddings().weight.numel()
    weights = model.num_parameters() - (0 if c.tie_word_embeddings else inputs)
    attention = c.num_hidden_layers * 2 * width * c.hidden_size  # 2 products, half of them masked
    return tokens * (4 * weights + 3 * attention + 6 * trained)


def measure(
    profile: Profile,
    shape: str | None = None,
    *,
    layers: int | None = None,
    steps: int = 12,
    batch: int | None = None,
    eval_batch: int | None = None,
    new_tokens: int = 64,
    checkpointing: bool | None = None,
    device: str | None = None,
) -> dict:
    """Tokens per second, peak memory and MFU of each stage.

    Args:
        profile: rank, targets, batch size, lengths are this profile's.
        shape: a key of `SHAPES`; default: the one of the profile's base.
        layers: fewer layers (what fits here), recorded as such.
        steps: training steps that are timed, after three that are not.
        batch, eval_batch: other batches than the profile's.
        new_tokens: tokens generated per prompt.
        checkpointing: gradient checkpointing; default the profile's.
        device: ``cpu`` or ``cuda``; default what there is.

    Returns:
        ``{device, shape, layers, parameters, dtype, matmul_peak, stages: {name: {...}}, ...}``;
        a stage that runs out of memory has ``error`` in place of numbers.

    Raises:
        SoupError: unknown shape, or a profile without one.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    shape = shape or SHAPE_OF.get(profile.name, "")
    dtype = "bfloat16" if hardware_bf16(device) else "float32"
    checkpointing = profile.gradient_checkpointing if checkpointing is None else checkpointing
    model = random_base(shape, device, dtype, layers)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    config = replace(
        profile.training.on(device), batch_size=batch or profile.training.batch_size, steps=steps
    )
    peak = matmul_peak(device, dtype)
    rows = random_rows(config.batch_size * (steps + 3), profile.max_length, model.config.vocab_size)
    found: dict[str, dict] = {}
    loras: list[LoRA] = []

    def stage(name: str, run: Callable[[], dict]) -> None:
        found[name] = _measured(run, device)

    def train() -> dict:
        train_lora(model, rows, replace(config, steps=3), 0)
        lora, log = train_lora(model, rows, config, 0)
        lora = LoRA({n: Factors(f.A.cpu(), f.B.cpu(), f.scale) for n, f in lora.modules.items()})
        loras.extend([lora, random_like(lora, 1)])
        trained = sum(f.A.numel() + f.B.numel() for f in lora.modules.values())
        per_token = step_flops(model, 1, profile.max_length, trained)
        return _speed(log["tokens"], log["seconds"], per_token, peak) | {"lora_parameters": trained}

    def alphas() -> dict:
        options = {"normalise": "none", "init": "ones", "lr": 0.01, "seed": 0}
        learn_alphas(model, loras, rows, max_steps=3, batch_size=config.batch_size, **options)
        started = time.perf_counter()
        learn_alphas(model, loras, rows, max_steps=steps, batch_size=config.batch_size, **options)
        _wait(device)
        seconds = time.perf_counter() - started
        tokens = steps * config.batch_size * profile.max_length
        return _speed(tokens, seconds, step_flops(model, 1, profile.max_length), peak)

    def merging() -> dict:
        started = time.perf_counter()
        loras.append(merge(loras[:2], "cat", weights=[1.0, 1.0]))
        return {"seconds": time.perf_counter() - started}

    def evaluate() -> dict:
        n = eval_batch or profile.eval_batch
        with folded(model, loras[2]) as soup:
            _generate(soup, n, 4, device)
            seconds = _generate(soup, n, new_tokens, device)
        return {"seconds": seconds, "prompts": n, "tokens_per_s": n * new_tokens / seconds}

    stage("skill", train)
    if loras:
        stage("alphas", alphas)
        stage("merge", merging)
        if len(loras) > 2:
            stage("evaluate", evaluate)
    return {
        "schema": 1,
        "profile": profile.name,
        "shape": shape,
        "layers": model.config.num_hidden_layers,
        "whole": layers is None or layers == SHAPES[shape]["num_hidden_layers"],
        "parameters": model.num_parameters(),
        "dtype": dtype,
        "device": device_name(device),
        "checkpointing": checkpointing,
        "length": profile.max_length,
        "batch": config.batch_size,
        "rank": config.r,
        "steps": steps,
        "new_tokens": new_tokens,
        "matmul_peak": peak,
        "stages": found,
        "versions": {n: metadata.version(n) for n in ("torch", "transformers", "peft")},
        "threads": torch.get_num_threads(),
    }


def random_rows(n: int, length: int, vocabulary: int) -> list[dict]:
    """``n`` rows of ``length`` random tokens, the second half with labels."""
    ids = torch.randint(3, vocabulary, (n, length), generator=torch.Generator().manual_seed(0))
    half = length // 2
    return [{"input_ids": row, "labels": [-100] * half + row[half:]} for row in ids.tolist()]


def random_like(lora: LoRA, seed: int) -> LoRA:
    """A LoRA of the same shapes with Gaussian factors."""
    draw = torch.Generator().manual_seed(seed)
    modules = {
        name: Factors(
            torch.randn(f.A.shape, generator=draw) * 0.01,
            torch.randn(f.B.shape, generator=draw) * 0.01,
        )
        for name, f in sorted(lora.modules.items())
    }
    return LoRA(modules, lora.base_model)


def _measured(run: Callable[[], dict], device: str) -> dict:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        found = run()
    except torch.OutOfMemoryError as error:
        return {"error": f"out of memory: {str(error).splitlines()[0][:160]}"}
    return found | {"peak_bytes": _peak_bytes(device)}


def _peak_bytes(device: str) -> int:
    """Most memory of the stage on a GPU; of the process so far on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _speed(tokens: int, seconds: float, flops_per_token: float, peak: float) -> dict:
    rate = tokens / seconds
    return {
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_s": rate,
        "flops_per_token": flops_per_token,
        "mfu": rate * flops_per_token / peak,
    }


@torch.no_grad()
def _generate(model: Any, n: int, new: int, device: str) -> float:
    ids = torch.randint(3, model.config.vocab_size, (n, 128), device=device)
    _wait(device)
    started = time.perf_counter()
    model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
    )
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
