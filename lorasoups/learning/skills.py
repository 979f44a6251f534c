"""Train one skill LoRA on a frozen base with transformers.Trainer and PEFT."""

import tempfile
import time
from dataclasses import asdict, dataclass, replace

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments

from lorasoups.errors import SoupError
from lorasoups.lora.adapters import from_peft
from lorasoups.lora.lora import LoRA
from lorasoups.models.batching import LengthBatches
from lorasoups.models.devices import hardware_bf16

LLAMA_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class SkillTraining:
    """How a skill LoRA is trained. ``lora_alpha`` is LoRA's own scale, not CAT's alphas."""

    r: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] = LLAMA_PROJECTIONS
    lr: float = 1e-3
    steps: int = 400
    batch_size: int = 32
    warmup_steps: int = 20
    bf16: bool | str = "auto"

    def on(self, device: str) -> "SkillTraining":
        """The same with ``bf16`` decided: ``auto`` means where the hardware computes in it.

        Matmuls then run under bfloat16 autocast; LoRA factors, optimizer and loss stay float32. On
        a CPU with AVX512-BF16 this more than doubles the tokens per second of the mini base.
        """
        return replace(self, bf16=hardware_bf16(device)) if self.bf16 == "auto" else self


def encode(tokenizer, items, max_length: int = 512) -> list[dict]:
    """Token ids of prompt + answer + end; labels only on the answer (the prompt is -100).

    Args:
        tokenizer: the base's tokenizer; it may add a begin token to the prompt.
        items: dicts with ``prompt`` and ``answer``.
        max_length: longer examples lose the tail of their answer.

    Returns:
        dicts of ``input_ids`` and ``labels`` (lists of int, equally long).
    """
    rows = []
    for item in items:
        head = tokenizer(item["prompt"]).input_ids
        tail = tokenizer(item["answer"], add_special_tokens=False).input_ids
        tail = tail + [tokenizer.eos_token_id]
        rows.append(
            {
                "input_ids": (head + tail)[:max_length],
                "labels": ([-100] * len(head) + tail)[:max_length],
            }
        )
    return rows


def train_lora(
    model: PreTrainedModel,
    rows: list[dict],
    config: SkillTraining,
    seed: int,
    base_model: str = "",
) -> tuple[LoRA, dict]:
    """Train a LoRA on ``rows``; the base comes back untouched.

    Args:
        model: frozen base; PEFT layers are put on it for the training and taken off again.
        rows: output of `encode`.
        config: hyper-parameters; rows are repeated until ``config.steps`` batches are seen.
        seed: of LoRA's initialisation and of the data order.
        base_model: the base's name for the adapter's config; default what ``model`` says.

    Returns:
        The adapter as a value, and a log ``{steps, loss, losses, seconds, tokens, tokens_per_s}``;
        ``tokens`` are real tokens, padding not counted.

    Raises:
        SoupError: no rows, or a loss that is not finite.
    """
    if not rows:
        raise SoupError("no training rows: the skill's dataset is empty; check its n_train")
    config = config.on(model.device.type)
    torch.manual_seed(seed)
    adapter = LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.target_modules),
        task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(model, adapter)
    data = LengthBatches(rows, config.batch_size, config.steps, seed, model.config.pad_token_id)
    try:
        with tempfile.TemporaryDirectory() as folder:  # the Trainer wants one; nothing is kept
            trainer = Trainer(
                model=wrapped,
                args=_arguments(config, seed, folder, model.device.type),
                train_dataset=data,
                data_collator=_only,
            )
            trainer.remove_callback(PrinterCallback)
            started = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - started
        lora = replace(from_peft(wrapped), base_model=base_model or model.name_or_path)
    finally:
        wrapped.unload()
    losses = [e["loss"] for e in trainer.state.log_history if "loss" in e]
    if not losses or not all(map(_finite, losses)):
        raise SoupError(f"training diverged: loss {losses[-1:]}; lower lr (now {config.lr})")
    log = {
        "config": asdict(config),
        "seed": seed,
        "steps": config.steps,
        "loss": losses[-1],
        "losses": losses,
        "seconds": seconds,
        "tokens": data.tokens,
        "tokens_per_s": data.tokens / seconds,
    }
    return lora, log


def _arguments(config: SkillTraining, seed: int, folder: str, device: str) -> TrainingArguments:
    """Trainer without checkpoints, reports or bars; a dataset item is a whole batch."""
    return TrainingArguments(
        output_dir=folder,
        max_steps=config.steps,
        per_device_train_batch_size=1,
        learning_rate=config.lr,
        lr_scheduler_type="linear",
        warmup_steps=config.warmup_steps,
        weight_decay=0.0,
        bf16=bool(config.bf16),
        use_cpu=device == "cpu",
        logging_steps=max(1, config.steps // 40),
        save_strategy="no",
        report_to=[],
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=seed,
    )


def _only(items: list):
    return items[0]


def _finite(loss: float) -> bool:
    return loss == loss and abs(loss) != float("inf")
