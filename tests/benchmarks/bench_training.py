"""LoRA training tokens per second: ours against a default transformers.Trainer + PEFT run.

    python tests/benchmarks/bench_training.py [--steps 40]

The default run: random batches padded to their longest row, attention mask, transformers' own
attention (SDPA), float32. Ours: `lorasoups.training.train_lora` (length-sorted batches, no mask,
eager attention, bfloat16 matmuls where they are native). Same base, rows, batch size and steps;
tokens are real ones, padding not counted.
"""

import argparse
import tempfile
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainingArguments

from lorasoups.base_models import load_base
from lorasoups.paths import Folders
from lorasoups.training import LLAMA_PROJECTIONS, SkillTraining, encode, train_lora
from lorasoups.world.tasks import dataset


def default_run(rows: list[dict], config: SkillTraining) -> float:
    """Tokens per second of the plain way."""
    model, tokenizer, _ = load_base(Folders().data / "mini")
    peft = get_peft_model(
        model,
        LoraConfig(r=config.r, lora_alpha=config.lora_alpha, target_modules=LLAMA_PROJECTIONS),
    )
    seen = 0

    class Count(DataCollatorForSeq2Seq):
        def __call__(self, items, return_tensors=None):
            nonlocal seen
            seen += sum(len(item["input_ids"]) for item in items)
            return super().__call__(items, return_tensors)

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=peft,
            args=TrainingArguments(
                folder, max_steps=config.steps, per_device_train_batch_size=config.batch_size,
                learning_rate=config.lr, use_cpu=not torch.cuda.is_available(), report_to=[],
                save_strategy="no", disable_tqdm=True,
            ),
            train_dataset=rows,
            data_collator=Count(tokenizer, padding=True),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        started = time.perf_counter()
        trainer.train()
        return seen / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    steps = parser.parse_args().steps
    model, tokenizer, _ = load_base(Folders().data / "mini", attn_implementation="eager")
    rows = encode(tokenizer, dataset("math", "train", 4000, 0))
    config = SkillTraining(steps=steps)
    _, log = train_lora(model, rows, config, 0)
    plain = default_run(rows, config)
    ours = log["tokens_per_s"]
    print(f"threads {torch.get_num_threads()}, bf16 {log['config']['bf16']}, {steps} steps")
    print(f"ours {ours:,.0f} tokens/s, default Trainer {plain:,.0f} tokens/s: {ours / plain:.2f} x")


if __name__ == "__main__":
    main()
