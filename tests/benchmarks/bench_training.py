"""Training a skill LoRA: tokens per second against a default run, and against the matmul peak."""

import random
import tempfile
from dataclasses import asdict, replace

import pytest
from gpu import matmul_peak
from harness import hot_spots, in_turn
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainingArguments

from lorasoups.learning import LLAMA_PROJECTIONS, SkillTraining, fit
from lorasoups.learning.fit import wants_bf16
from lorasoups.learning.skills import train_lora
from lorasoups.models.base import load_base
from lorasoups.models.batching import encode_all
from lorasoups.models.devices import fast_bf16, native_bf16
from lorasoups.paths import Folders
from lorasoups.run.doctor import measure, random_base, random_rows
from lorasoups.study.profile import load_profile
from lorasoups.tasks.worlds.mini.tasks import dataset


class DefaultRun:
    """Random batches padded to their longest row, attention mask, SDPA, the base's precision."""

    def __init__(self, model, collator, rows: list[dict], config: SkillTraining):
        self.model, self.collator = model, collator
        self.rows, self.config, self.tokens = rows, config, 0

    def __call__(self) -> None:
        c, self.tokens = self.config, 0
        peft = get_peft_model(
            self.model,
            LoraConfig(r=c.r, lora_alpha=c.lora_alpha, target_modules=list(LLAMA_PROJECTIONS)),
        )

        def collate(items: list[dict]):
            self.tokens += sum(len(item["input_ids"]) for item in items)
            return self.collator(items)

        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                model=peft,
                args=TrainingArguments(
                    folder, max_steps=c.steps, per_device_train_batch_size=c.batch_size,
                    learning_rate=c.lr, use_cpu=self.model.device.type == "cpu", report_to=[],
                    save_strategy="no", disable_tqdm=True,
                ),
                train_dataset=self.rows,
                data_collator=collate,
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        peft.unload()


def mixed_rows(n: int, longest: int, vocabulary: int) -> list[dict]:
    """Rows of random tokens whose lengths are spread as real sets' are (log-normal, median 150)."""
    rng = random.Random(0)
    widths = [min(longest, max(24, round(rng.lognormvariate(5.0, 0.5)))) for _ in range(n)]
    rows = random_rows(n, longest, vocabulary)
    return [{k: v[-w:] for k, v in row.items()} for row, w in zip(rows, widths, strict=True)]


def against_default(benchmark, models, collator, rows, config, device, rounds, name) -> dict:
    """Ours against the default run on the same rows, per real token, with a note on both.

    ``models``: the base that the default run trains, and ours. On a CPU our layers are compiled in
    the round that does not count, as they are in every training that is long enough to earn it.
    """
    (theirs, model), log = models, {}
    default = DefaultRun(theirs, collator, rows, config)

    def ours() -> None:
        log.update(train_lora(model, rows, config, 0)[1])

    found = in_turn(benchmark, default, ours, rounds=rounds)
    per_token = log["tokens"] / default.tokens  # both see other batches: seconds per real token
    for key in ("ratio", "low", "high"):
        found[key] *= per_token
    rates = log["tokens"] / found["second_s"][0], default.tokens / found["first_s"][0]
    note = (
        f"{name}, batch {config.batch_size}, {config.steps} steps, bf16 "
        f"{wants_bf16(config.bf16, device)}: {rates[0]:,.0f} against {rates[1]:,.0f} tokens/s"
    )
    return found | {"note": note, "hot": lambda: hot_spots(ours, device)}


def keep(figure, missed, quick, name: str, found: dict) -> None:
    """The figure, with a profile where it misses its goal."""
    hot, ratio = found.pop("hot"), found.pop("ratio")
    if missed(name, ratio) and not quick:
        found["note"] += f"; time of ours: {hot()}"
    figure(name, ratio, **found)


def test_training_against_a_default_run(benchmark, figure, missed, quick, device, monkeypatch):
    """On a GPU both train the same bfloat16 base of SmolLM2-135M's shape: what remains is padding
    and the mask. On a CPU they train the mini base, the default in its own float32."""
    monkeypatch.setattr(fit, "COMPILE_FROM", 1e12 if quick else 0)
    model, tokenizer, _ = load_base(
        Folders().data / "mini", attn_implementation="eager" if device == "cpu" else None
    )
    collator = DataCollatorForSeq2Seq(tokenizer, padding=True)
    if device == "cuda":
        shape = "SmolLM2-135M shape, bfloat16"
        model = default_model = random_base("smollm2-135m", device, "bfloat16")
        rows = mixed_rows(200 if quick else 4000, 512, model.config.vocab_size)
        config = SkillTraining(steps=3 if quick else 40)
    else:
        shape = "mini base"
        default_model = load_base(Folders().data / "mini")[0]
        rows = encode_all(tokenizer, dataset("math", "train", 200 if quick else 4000, 0))
        config = SkillTraining(steps=3 if quick else 12)
    models, rounds = (default_model, model), 2 if quick else 5
    found = against_default(benchmark, models, collator, rows, config, device, rounds, shape)
    keep(figure, missed, quick, "training", found)


def test_training_of_135m(benchmark, figure, missed, quick, device, monkeypatch):
    """SmolLM2-135M's shape on a CPU, rows as long as GSM8K's; both in float32 or as "auto" says."""
    if device == "cuda":
        pytest.skip("on a GPU the figure above has this shape")
    monkeypatch.setattr(fit, "COMPILE_FROM", 1e12 if quick else 0)
    model = random_base("tiny" if quick else "smollm2-135m", device, "float32")
    tokenizer = load_base(Folders().data / "mini")[1]  # it only pads
    rows = mixed_rows(100, 64 if quick else 256, model.config.vocab_size)
    config = SkillTraining(steps=3, batch_size=2 if quick else 8)
    collator = DataCollatorForSeq2Seq(tokenizer, padding=True)
    found = against_default(
        benchmark, (model, model), collator, rows, config, device, 2 if quick else 3,
        "SmolLM2-135M's shape",
    )  # fmt: skip
    keep(figure, missed, quick, "training_135m", found)


def test_share_of_the_matmul_peak(benchmark, figure, missed, quick, device):
    """A whole Llama-7B where a GPU is; on a CPU one layer of its shape, marked as such."""
    paper = load_profile("paper")
    shape, layers = ("tiny" if quick else "llama-7b"), (1 if device == "cpu" else None)
    batch, length = (1 if device == "cpu" else 16), (16 if quick else paper.max_length)
    training = replace(paper.training, batch_size=batch, r=2 if quick else paper.training.r)
    profile = paper.override(
        training=training, alphas=replace(paper.alphas, batch_size=batch), max_length=length,
        eval_batch=1, max_new_tokens=2,
    )  # fmt: skip
    dtype = "bfloat16" if native_bf16(device) or fast_bf16(device) else "float32"
    model = random_base(shape, device, dtype, layers)
    rows = random_rows(4 * batch, length, model.config.vocab_size)
    stages = benchmark.pedantic(
        lambda: measure(model, profile, rows, device), rounds=1, iterations=1
    )
    step, peak = stages["skill step"], matmul_peak(device, dtype)
    mfu = step["flops"] / step["seconds"] / peak
    note = (
        f"{'CPU, a slice of ' if layers else ''}{model.config.num_hidden_layers} layer(s) of "
        f"{shape}, {dtype}, batch {batch} x {length} tokens: "
        f"{batch * length / step['seconds']:,.0f} tokens/s, peak of {peak / 1e12:,.2f} TFLOP/s"
    )
    if missed("mfu", mfu) and not quick:
        one = replace(SkillTraining(**asdict(training)), steps=1)
        note += f"; time: {hot_spots(lambda: train_lora(model, rows, one, 0), device)}"
    figure("mfu", mfu, note=note, stages=stages)
