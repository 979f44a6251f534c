"""What a device reaches in this very code: a few seconds on a small model of the base's kind.

Data sheets say little about a CPU, and nothing about what Python costs. So `train_lora`,
`learn_alphas`, a forward pass and greedy generation run on a random Llama as wide as the base (at
most `WIDEST`) with fewer layers, at the profile's own batch and length; the FLOPs of
`estimates` divided by the seconds are the rates that all estimates use. They hold for a machine
that does nothing else.
"""

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from lorasoups import estimates
from lorasoups.estimates import Speed
from lorasoups.plan import Plan
from lorasoups.shapes import ModelShape
from lorasoups.training import SkillTraining

WIDEST = 1024
"""Hidden size above which a narrower model stands in: from there on rates hardly change."""
SUSTAINED = {"cpu": 0.8, "cuda": 1.0}
"""Share of these rates that a long run keeps. On a CPU batches have many widths: matmul kernels are
compiled for each, and freed memory is faulted in again (mini, bfloat16: 0.18 s of processor time
per step against 0.15 with both switched off). On a GPU not measured."""
BUDGET = {"cpu": 6e9, "cuda": 4e12}
"""FLOPs of one timed step, about: some tenths of a second."""


@dataclass(frozen=True)
class Calibration:
    """Measured rates.

    Attributes:
        speed: for the estimates.
        matmul: FLOP/s of a large matmul by dtype.
        seconds: that measuring took.
        proxy: the model that stood in.
    """

    speed: Speed
    matmul: dict[str, float]
    seconds: float
    proxy: ModelShape


def proxy_of(shape: ModelShape, tokens: float, budget: float) -> tuple[ModelShape, float]:
    """A model to time in place of ``shape``, and the share of the tokens to give it.

    As wide as the base up to `WIDEST`, and as many layers as a step of ``tokens`` tokens may have
    within ``budget`` FLOPs; if one layer is already too much, fewer tokens. The vocabulary shrinks
    with width and layers, so that the output head keeps its share of the work.
    """
    narrow = min(1.0, WIDEST / shape.hidden)
    heads = max(1, round(shape.heads * narrow))
    kv = heads // max(1, round(shape.heads / shape.kv_heads)) or 1
    small = replace(
        shape,
        vocab=max(64, round(shape.vocab * narrow)),
        name=f"stand-in of {shape.name}",
        hidden=max(8, round(shape.hidden * narrow) // 8 * 8),
        intermediate=max(8, round(shape.intermediate * narrow) // 8 * 8),
        heads=heads,
        kv_heads=kv if heads % kv == 0 else heads,
    )
    step = 4 * small.matmul_parameters * tokens
    layers = min(shape.layers, max(1, int(shape.layers * budget / step)))
    vocab = max(64, round(small.vocab * layers / shape.layers))
    small = replace(small, layers=layers, vocab=vocab)
    return small, min(1.0, budget / (4 * small.matmul_parameters * tokens))


def calibrate(plan: Plan) -> Calibration:
    """Measure what the plan's device reaches in the plan's own stages.

    Args:
        plan: its profile, shape, lengths and setup are used; its speed is not.
    """
    started = time.perf_counter()
    where = plan.setup.where
    matmul = {name: _matmul(where, name) for name in _dtypes(where, plan)}
    bandwidth = _bandwidth(where)
    _, _, batch, rank, tokens = plan.adapters()[0]
    proxy, share = proxy_of(plan.shape, batch * tokens, BUDGET[where])
    train_batch = max(1, round(batch * share))
    model = _model(proxy, plan, where)
    config = replace(plan.profile.training, r=rank, batch_size=train_batch, warmup_steps=0)
    width = max(4, round(tokens))
    train, loras = _train(model, proxy, plan, config, width)
    model = _model(proxy, plan, where)  # PEFT has been on the first one
    alphas = _alphas(model, proxy, plan, loras, width, share)
    forward = _forward(model, proxy, plan, width, max(1, round(32 * share)))
    decode, layer_s = _decode(model, proxy, plan, bandwidth, where)
    train_layer_s = 0.0
    if where == "cuda":  # a step too small to keep the GPU busy shows what Python takes
        tiny = replace(config, batch_size=1)
        train_layer_s = _train_step(model, tiny, 8)[0] / proxy.layers
    kept = SUSTAINED[where]
    speed = Speed(
        kept * train, kept * alphas, kept * forward, kept * decode, kept * bandwidth,
        train_layer_s, layer_s / kept,
        overlaps=where == "cuda", source="calibrated on this machine",
    )  # fmt: skip
    del model
    gc.collect()
    return Calibration(speed, matmul, time.perf_counter() - started, proxy)


# --- the device itself --------------------------------------------------------------------------


def _dtypes(where: str, plan: Plan) -> list[str]:
    return ["float32"] + (["bfloat16"] if plan.device.bf16 else [])


def _matmul(where: str, dtype: str) -> float:
    size = 8192 if where == "cuda" else 1024
    a = torch.randn(size, size, device=where).to(getattr(torch, dtype))
    return 2 * size**3 / _best(lambda: a @ a, where, 4)


def _bandwidth(where: str) -> float:
    """Bytes/s of a copy of 256 MB, read and written."""
    data = torch.zeros(64 * 2**20, dtype=torch.float32, device=where)
    target = torch.empty_like(data)
    return 2 * data.numel() * 4 / _best(lambda: target.copy_(data), where, 3)


def _best(run: Callable, where: str, times: int) -> float:
    """Seconds of the fastest of some runs, after one that does not count."""
    best = math.inf
    for attempt in range(times + 1):
        started = _clock(where)
        run()
        if attempt:
            best = min(best, _clock(where) - started)
    return best


def _clock(where: str) -> float:
    """Seconds; with a single thread on a CPU those of this process, whatever else runs."""
    if where == "cpu" and torch.get_num_threads() == 1:
        return time.process_time()
    _wait(where)
    return time.perf_counter()


def _wait(where: str) -> None:
    if where == "cuda":
        torch.cuda.synchronize()


# --- the stages ---------------------------------------------------------------------------------


def _model(proxy: ModelShape, plan: Plan, where: str):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=proxy.hidden,
        intermediate_size=proxy.intermediate,
        num_hidden_layers=proxy.layers,
        num_attention_heads=proxy.heads,
        num_key_value_heads=proxy.kv_heads,
        head_dim=proxy.head_dim,
        vocab_size=proxy.vocab,
        tie_word_embeddings=proxy.tied,
        attn_implementation=plan.setup.attention,
        max_position_embeddings=8192,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    dtype = "bfloat16" if plan.setup.dtype == "nf4" else plan.setup.dtype
    with torch.random.fork_rng(devices=[]), torch.device(where):
        model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    if plan.setup.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.eval().requires_grad_(False)


def _rows(n: int, width: int, vocab: int) -> list[dict]:
    row = [3 + i % (vocab - 3) for i in range(width)]
    return [{"input_ids": row, "labels": row} for _ in range(n)]


def _train(model, proxy: ModelShape, plan: Plan, config: SkillTraining, width: int):
    """FLOP/s of a LoRA training step, and a trained LoRA per skill."""
    seconds, lora = _train_step(model, config, width)
    trained = proxy.lora_parameters(config.target_modules, config.r)
    flops = estimates.lora_step_flops(
        proxy, width, trained, plan.setup.attention, plan.setup.checkpointing
    )
    return config.batch_size * width * flops / seconds, [lora] * plan.k


def _train_step(model, config: SkillTraining, width: int, few: int = 1, many: int = 4):
    """Seconds of one step: of four steps less one, so that what happens once cancels."""
    from lorasoups.training import train_lora

    where = model.device.type
    rows = _rows(config.batch_size * many, width, model.config.vocab_size)
    took = {}
    with torch.random.fork_rng():
        for steps in (few, few, many):  # the first warms up
            started = _clock(where)
            lora, _ = train_lora(model, rows, replace(config, steps=steps), 0)
            took[steps] = _clock(where) - started
    return max(took[many] - took[few], 1e-6) / (many - few), lora


def _alphas(model, proxy: ModelShape, plan: Plan, loras, width: int, share: float) -> float:
    """FLOP/s of a step of alpha learning."""
    from lorasoups.alphas import learn_alphas

    batch = max(1, round(plan.profile.alphas.batch_size * share))
    rows, took = _rows(batch * 4, width, proxy.vocab), {}
    with torch.random.fork_rng():
        for steps in (1, 1, 4):
            started = _clock(plan.setup.where)
            learn_alphas(model, loras, rows, batch_size=batch, max_steps=steps)
            took[steps] = _clock(plan.setup.where) - started
    training = plan.profile.training
    stacked = plan.k * proxy.lora_parameters(training.target_modules, training.r)
    flops = estimates.alpha_step_flops(proxy, width, stacked, plan.setup.attention)
    return 3 * batch * width * flops / max(took[4] - took[1], 1e-6)


def _forward(model, proxy: ModelShape, plan: Plan, width: int, n: int) -> float:
    """FLOP/s of a loss without gradients."""
    from lorasoups.batching import heldout_loss

    rows = _rows(n, width, proxy.vocab)
    seconds = _best(lambda: heldout_loss(model, rows), plan.setup.where, 2)
    return n * width * estimates.forward_flops(proxy, width, plan.setup.attention) / seconds


def _decode(
    model, proxy: ModelShape, plan: Plan, bandwidth: float, where: str
) -> tuple[float, float]:
    """FLOP/s of decoding at the profile's batch, and the seconds per layer that stay at batch 1."""
    p, prompt = plan.profile, 32
    dtype = plan.setup.dtype
    batch = min(p.eval_batch, max(p.n_test.values(), default=p.eval_batch))
    weights = estimates.weight_bytes(proxy, "bfloat16" if dtype == "nf4" else dtype)
    alone = _decode_step(model, 1, prompt, where)
    layer_s = max(0.0, alone - weights / bandwidth) / proxy.layers
    together = _decode_step(model, batch, prompt, where)
    computing = together - (0.0 if where == "cuda" else proxy.layers * layer_s)
    flops = batch * estimates.forward_flops(proxy, prompt, "eager")
    return flops / max(computing, 0.05 * together), layer_s


@torch.no_grad()
def _decode_step(model, batch: int, prompt: int, where: str, few: int = 2, many: int = 8) -> float:
    ids = torch.full((batch, prompt), 3, device=where)

    def run(new: int) -> float:
        return _best(
            lambda: model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
            ),
            where,
            2,
        )

    return max(run(many) - run(few), 1e-6) / (many - few)
