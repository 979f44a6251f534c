"""Train one skill LoRA on a frozen base with PEFT."""

from dataclasses import asdict, replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from lorasoups.errors import SoupError
from lorasoups.learning import SkillTraining
from lorasoups.learning.fit import compiled_layers, fit, wants_bf16
from lorasoups.lora.adapters import from_peft
from lorasoups.lora.lora import LoRA
from lorasoups.models.batching import LengthBatches

LOGGED = 40  # losses in a skill's log: means over so many equal parts of its training


def train_lora(
    model: PreTrainedModel, rows: list[dict], config: SkillTraining, seed: int,
    base_model: str = "", *, start: LoRA | None = None, checkpoints: Path | str | None = None,
    progress: bool = True,
) -> tuple[LoRA, dict]:  # fmt: skip
    """Train a LoRA on ``rows``; the base comes back untouched.

    Args:
        model: frozen base; PEFT layers are put on it for the training and taken off again.
        rows: see `batching.encode_all`.
        config: hyper-parameters; rows are repeated until ``config.steps`` batches are seen.
        seed: of LoRA's initialisation and of the data order.
        base_model: the base's name for the adapter's config; default what ``model`` says.
        start: a LoRA of the same modules and rank to start from, in place of a fresh one.
        checkpoints, progress: see `fit.fit`.

    Returns the adapter as a value, and a log, in which ``tokens`` are without padding.
    Raises Diverged for a loss that is not finite, SoupError for no rows.
    """
    if not rows:
        raise SoupError("no training rows: the skill's dataset is empty; check its n_train")
    config = replace(config, bf16=wants_bf16(config.bf16, model.device.type))
    torch.manual_seed(seed)
    adapter = LoraConfig(
        r=config.r, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout,
        target_modules=list(config.target_modules), task_type="CAUSAL_LM",
    )  # fmt: skip
    pad_id = model.config.pad_token_id or 0
    batches = LengthBatches(rows, config.batch_size, config.steps, seed, pad_id)
    wrapped = get_peft_model(model, adapter)
    try:
        if start:
            _start_from(wrapped, start)
        with compiled_layers(model, batches.tokens):
            trained = fit(
                wrapped, batches, lr=config.lr, warmup_steps=config.warmup_steps, bf16=config.bf16,
                seed=seed, name="skill LoRA", checkpoints=checkpoints, progress=progress,
            )  # fmt: skip
        lora = replace(from_peft(wrapped), base_model=base_model or model.name_or_path)
    finally:
        wrapped.unload()
    losses, n = [entry["loss"] for entry in trained.history], max(1, config.steps // LOGGED)
    means = [sum(losses[i : i + n]) / n for i in range(0, len(losses) - n + 1, n)]
    return lora, {
        "config": asdict(config), "seed": seed, "steps": config.steps,
        "loss": means[-1], "losses": means, "seconds": trained.seconds, "tokens": batches.tokens,
        "tokens_per_s": batches.tokens / trained.seconds,
    }  # fmt: skip


@torch.no_grad()
def _start_from(wrapped: PeftModel, start: LoRA) -> None:
    """Put a LoRA's factors into PEFT's layers, whose own scale comes off B (and goes on again)."""
    layers = {n: m for n, m in wrapped.base_model.model.named_modules() if hasattr(m, "lora_A")}
    if set(layers) != set(start.modules):
        raise SoupError("other modules than the LoRA to train: start; give one of the same kind")
    for name, layer in layers.items():
        A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        factors = start.modules[name]
        if A.shape != factors.A.shape:
            what = f"rank {factors.rank} instead of {len(A)}"
            raise SoupError(f"{what}: start, module {name!r}; give a LoRA of the rank to train")
        A.copy_(factors.A)
        B.copy_(factors.B / layer.scaling["default"])
