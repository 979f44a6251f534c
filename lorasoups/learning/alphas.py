"""Learn CAT's alphas on a little of the skills' own data (paper: about 5 %; issue 2, section 4)."""

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from lorasoups.errors import SoupError
from lorasoups.files import write_json_atomic
from lorasoups.learning.cat import CatModel
from lorasoups.lora.lora import LoRA
from lorasoups.models.batching import LengthBatches, heldout_loss
from lorasoups.models.devices import hardware_bf16

# The schedule of the released script (merging-facts: softmax of randn logits, lr 1e-4, warm-up 100,
# one epoch, effective batch 6), so that its effect can be measured beside ours.
PRESETS = {
    "released": {
        "normalise": "softmax",
        "init": "randn",
        "lr": 1e-4,
        "warmup_steps": 100,
        "epochs": 1.0,
        "batch_size": 6,
    },
}


@dataclass(frozen=True, eq=False)
class Alphas(Mapping[str, Tensor]):
    """CAT's alphas (not ``lora_alpha``): what to multiply each LoRA's delta weight with.

    A mapping module name -> float32 [k]; `merging.merge` takes it as ``weights``.

    Attributes:
        weights: effective alphas, after the normalisation.
        normalise, init, seed: how they were parametrised and started.
        history: per step ``{step, loss, lr, alpha_mean: [k], alpha_moved}``; ``alpha_moved`` is the
            mean over modules and LoRAs of |alpha - start|.
        losses: ``{start, end}`` on ``eval_dataset``, if one was given.
    """

    weights: dict[str, Tensor]
    normalise: str = "none"
    init: str = "uniform"
    seed: int = 0
    history: list[dict] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)

    def __getitem__(self, module: str) -> Tensor:
        return self.weights[module]

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alphas) and self._content() == other._content()

    def _content(self) -> dict:
        """Everything as plain numbers and names."""
        return {**self.__dict__, "weights": {m: a.tolist() for m, a in self.weights.items()}}

    def to_json(self, path: str | Path) -> Path:
        """Write everything into one JSON file (``lorasoups merge --alphas`` reads it)."""
        return write_json_atomic(path, self._content())

    @classmethod
    def from_json(cls, path: str | Path) -> "Alphas":
        """Read what `to_json` wrote. Raises SoupError, naming the file, for anything else."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            weights = {
                m: torch.tensor(a, dtype=torch.float32) for m, a in content["weights"].items()
            }
            shapes = {a.shape for a in weights.values()}
            if len(shapes) != 1 or len(*shapes) != 1:
                raise ValueError("every module needs one list of k alphas")
            if not all(a.isfinite().all() for a in weights.values()):
                raise ValueError("some alphas are not finite")
            return cls(**{**content, "weights": weights})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SoupError(
                f"not a file of alphas ({error}): {path}; learn them again with learn_alphas"
            ) from error


def learn_alphas(
    model,
    loras: Sequence[LoRA],
    dataset: Sequence[dict],
    *,
    eval_dataset: Sequence[dict] | None = None,
    preset: str | None = None,
    normalise: str = "none",
    init: str = "ones",
    lr: float = 0.01,
    epochs: float = 3.0,
    batch_size: int = 16,
    warmup_steps: int = 0,
    max_steps: int = -1,
    seed: int = 0,
    granularity: str = "module",
    bf16: bool | str = False,
) -> Alphas:
    """Learn the alphas of frozen LoRAs on a frozen model with AdamW and linear decay.

    Args:
        model: causal LM, see `cat.CatModel`; it comes back as it was.
        loras: k adapters.
        dataset: dicts ``input_ids``, ``labels`` (lists of int; -100 where nothing is learned): a
            share of the skills' own training data, never the target task's. Rows without any
            label (a prompt cut off before its answer) are left out.
        eval_dataset: held-out rows; their loss before and after goes into ``losses``.
        preset: ``released`` sets normalise, init, lr, warm-up, epochs and batch size at once.
        normalise, init, granularity: see `cat.CatModel`.
        lr: peak learning rate; 0 returns the start (a control).
        epochs, batch_size, warmup_steps, max_steps: the schedule; ``max_steps`` > 0 overrides
            ``epochs``.
        seed: of ``randn`` and of the data order.
        bf16: run matmuls under bfloat16 autocast ("auto": where native). Alphas stay float32.

    Raises:
        SoupError: nothing to learn from, unknown preset, or a loss that is not finite.
    """
    if preset is not None:
        if preset not in PRESETS:
            raise SoupError(f"unknown preset {preset!r}: choose from {', '.join(PRESETS)}")
        return learn_alphas(
            model, loras, dataset, eval_dataset=eval_dataset, max_steps=max_steps, seed=seed,
            granularity=granularity, bf16=bf16, **PRESETS[preset],
        )  # fmt: skip
    rows = _with_labels(dataset)
    if lr < 0 or batch_size < 1 or (epochs <= 0 and max_steps <= 0):
        raise SoupError(
            f"bad schedule: lr {lr}, batch_size {batch_size}, epochs {epochs}; "
            "lr must be at least 0, batch_size at least 1, epochs above 0"
        )
    steps = max_steps if max_steps > 0 else math.ceil(epochs * len(rows) / batch_size)
    batches = LengthBatches(rows, batch_size, steps, seed, model.config.pad_token_id or 0)
    device = model.device.type
    options = {"normalise": normalise, "init": init, "seed": seed}
    with CatModel(model, loras, granularity=granularity, **options) as cat:
        record = _Record(cat)
        losses = {"start": heldout_loss(model, list(eval_dataset))} if eval_dataset else {}
        with tempfile.TemporaryDirectory() as folder:  # the Trainer wants one; nothing is kept
            trainer = Trainer(
                model=cat,
                args=TrainingArguments(
                    output_dir=folder,
                    max_steps=steps,
                    per_device_train_batch_size=1,  # an item of `batches` is a whole batch
                    learning_rate=lr,
                    lr_scheduler_type="linear",
                    warmup_steps=warmup_steps,
                    weight_decay=0.0,
                    bf16=hardware_bf16(device) if bf16 == "auto" else bool(bf16),
                    use_cpu=device == "cpu",
                    logging_steps=1,
                    save_strategy="no",
                    report_to=[],
                    logging_nan_inf_filter=False,
                    disable_tqdm=True,
                    remove_unused_columns=False,
                    seed=seed,
                ),
                train_dataset=batches,
                data_collator=_only,
                callbacks=[record],
            )
            trainer.remove_callback(PrinterCallback)
            model.eval()  # dropout, if the base has any, stays off
            trainer.train()
        if eval_dataset:
            losses["end"] = heldout_loss(model, list(eval_dataset))
        return Alphas(cat.weights(), history=record.history, losses=losses, **options)


def _with_labels(dataset: Sequence[dict]) -> list[dict]:
    """The rows that have a token to learn (the first token is never predicted)."""
    for at, row in enumerate(dataset):
        if len(row["input_ids"]) != len(row["labels"]):
            raise SoupError(f"row {at} has labels of another length than its input_ids: dataset")
    rows = [row for row in dataset if any(label != -100 for label in row["labels"][1:])]
    if not rows:
        what = "dataset has no label but -100" if dataset else "dataset is empty"
        raise SoupError(f"no data to learn alphas from: {what}; give ~5 % of the skills' rows")
    return rows


def _only(items: list) -> dict:
    return items[0]


class _Record(TrainerCallback):
    """Keeps loss and alphas of every step; stops at a loss that is not finite."""

    def __init__(self, cat: CatModel):
        self.cat, self.history = cat, []
        self.start = torch.stack(list(cat.weights().values()))

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise SoupError(f"loss is {loss} at step {state.global_step}: alphas; lower lr")
        now = torch.stack(list(self.cat.weights().values()))
        self.history.append(
            {
                "step": state.global_step,
                "loss": loss,
                "lr": float(logs["learning_rate"]),
                "alpha_mean": now.mean(0).tolist(),
                "alpha_moved": float((now - self.start).abs().mean()),
            }
        )
