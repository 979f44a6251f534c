"""Training a skill LoRA: tokens per second against a default run, and against the matmul peak."""

import tempfile
from dataclasses import replace

from harness import in_turn
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainingArguments

from lorasoups.base_models import load_base
from lorasoups.measure import measure
from lorasoups.paths import Folders
from lorasoups.profiles import get_profile
from lorasoups.training import LLAMA_PROJECTIONS, SkillTraining, encode, train_lora
from lorasoups.world.tasks import dataset


class DefaultRun:
    """Random batches padded to their longest row, attention mask, SDPA, the base's precision."""

    def __init__(self, rows: list[dict], config: SkillTraining, device: str):
        model, self.tokenizer, _ = load_base(Folders().data / "mini")
        self.model = model.to(device)
        self.rows, self.config, self.device, self.tokens = rows, config, device, 0

    def __call__(self) -> None:
        c, self.tokens = self.config, 0
        run = self
        peft = get_peft_model(
            self.model,
            LoraConfig(r=c.r, lora_alpha=c.lora_alpha, target_modules=list(LLAMA_PROJECTIONS)),
        )

        class Count(DataCollatorForSeq2Seq):
            def __call__(self, items, return_tensors=None):
                run.tokens += sum(len(item["input_ids"]) for item in items)
                return super().__call__(items, return_tensors)

        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                max_steps=c.steps,
                per_device_train_batch_size=c.batch_size,
                learning_rate=c.lr,
                use_cpu=self.device == "cpu",
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
            )
            trainer = Trainer(
                model=peft,
                args=arguments,
                train_dataset=self.rows,
                data_collator=Count(self.tokenizer, padding=True),
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        peft.unload()


def test_training_against_a_default_run(benchmark, figure, quick, device):
    attention = "sdpa" if device == "cuda" else "eager"
    model, tokenizer, _ = load_base(Folders().data / "mini", attn_implementation=attention)
    rows = encode(tokenizer, dataset("math", "train", 200 if quick else 4000, 0))
    config = SkillTraining(steps=3 if quick else 12)
    default, model, log = DefaultRun(rows, config, device), model.to(device), {}

    def ours() -> None:
        log.update(train_lora(model, rows, config, 0)[1])

    found = in_turn(benchmark, default, ours, rounds=2 if quick else 5)
    per_token = log["tokens"] / default.tokens  # both see other batches: seconds per real token
    values = [found[name] * per_token for name in ("ratio", "low", "high")]
    rates = (log["tokens"] / found["second_s"], default.tokens / found["first_s"])
    note = (
        f"mini base, batch {config.batch_size}, bf16 {bool(config.on(device).bf16)}: "
        f"{rates[0]:,.0f} against {rates[1]:,.0f} tokens/s"
    )
    figure("training", values[0], low=values[1], high=values[2], note=note)


def test_share_of_the_matmul_peak(benchmark, figure, quick, device):
    """A whole Llama-7B where a GPU is; on a CPU one layer of its shape."""
    paper = get_profile("paper")
    small = device == "cpu"
    options = {"layers": 1 if small else None, "steps": 2 if small else 12}
    options |= {"batch": 1 if small else 16, "eval_batch": 1, "new_tokens": 2}
    shape = "tiny" if quick else "llama-7b"
    if quick:
        paper = paper.override(max_length=16, training=replace(paper.training, r=2))
    measured = benchmark.pedantic(
        lambda: measure(paper, shape, device=device, **options), rounds=1, iterations=1
    )
    stage = measured["stages"]["skill"]
    peak = measured["matmul_peak"] / 1e12
    note = (
        f"{measured['layers']} layers, {measured['dtype']}, batch {options['batch']} x "
        f"{measured['length']} tokens: {stage['tokens_per_s']:,.0f} tokens/s, "
        f"peak of {peak:,.1f} TFLOP/s"
    )
    figure("mfu", stage["mfu"], note=note)
