"""Learn CAT's alphas on a little of the skills' own data (5 % in the paper)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorasoups.errors import SoupError
from lorasoups.files import write_json_atomic
from lorasoups.learning.cat import CatModel
from lorasoups.learning.fit import fit, scheduled
from lorasoups.lora.lora import LoRA
from lorasoups.models.batching import encode_all, heldout_loss
from lorasoups.models.rows import as_items

_OPTIONS = ("normalise", "init", "lr", "epochs", "batch_size", "warmup_steps")
DEFAULTS = dict(zip(_OPTIONS, ("none", "ones", 0.01, 3.0, 16, 0), strict=True))
PRESETS = {  # released: the schedule of the script released with the paper
    "released": dict(zip(_OPTIONS, ("softmax", "randn", 1e-4, 1.0, 6, 100), strict=True))
}


@dataclass(frozen=True, eq=False)
class Alphas(Mapping[str, Tensor]):
    """CAT's alphas (not ``lora_alpha``): what to multiply each LoRA's delta weight with.

    A mapping module name -> float32 [k]; `merging.merge` takes it as ``weights``.

    In the history, ``alpha_moved`` is the mean over modules and LoRAs of |alpha - start|.
    """

    weights: dict[str, Tensor]  # effective alphas, after the normalisation
    normalise: str = "none"  # this and the next two: see `cat.CatModel`
    init: str = "uniform"
    seed: int = 0
    history: list[dict] = field(default_factory=list)  # `fit.Fit`'s, alpha_mean [k], alpha_moved
    losses: dict[str, float] = field(default_factory=dict)  # start and end, on ``eval_dataset``

    def __getitem__(self, module: str) -> Tensor:
        return self.weights[module]

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alphas) and self.content() == other.content()

    def content(self) -> dict:
        """Everything as plain numbers and names."""
        return {**self.__dict__, "weights": {m: a.tolist() for m, a in self.weights.items()}}

    def to_json(self, path: str | Path) -> Path:
        """Write everything into one JSON file (``lorasoups merge --alphas`` reads it)."""
        return write_json_atomic(path, self.content())

    @classmethod
    def from_json(cls, path: str | Path) -> "Alphas":
        """Read what `to_json` wrote, or just its ``weights``, perhaps written by hand: modules or
        patterns (`merging.matches`) -> k alphas. SoupError, naming the file, for anything else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            content = content if "weights" in content else {"weights": content}
            weights = {m: torch.tensor(a).float() for m, a in content["weights"].items()}
            shapes = {a.shape for a in weights.values()}
            if len(shapes) != 1 or len(*shapes) != 1:
                raise ValueError("every module needs one list of k alphas")
            if not all(a.isfinite().all() for a in weights.values()):
                raise ValueError("some alphas are not finite")
            return cls(**{**content, "weights": weights})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            what = f"not a file of alphas ({error}): {path}"
            raise SoupError(f'{what}; learn them, or write {{"*": [1, 0.6]}}') from error


def learn_alphas(
    model, loras: Sequence[LoRA], dataset: Sequence[dict], *,
    eval_dataset: Sequence[dict] | None = None, preset: str | None = None,
    normalise: str | None = None, init: str | None = None, granularity: str = "module",
    lr: float | None = None, epochs: float | None = None, batch_size: int | None = None,
    warmup_steps: int | None = None, max_steps: int = -1, seed: int = 0, bf16: bool | str = False,
    checkpoints: Path | str | None = None, progress: bool = True, tokenizer: Any = None,
    max_length: int = 512,
) -> Alphas:  # fmt: skip
    """Learn the alphas of frozen LoRAs on a frozen model with AdamW and linear decay.

    Args:
        model, loras: see `cat.CatModel`; the model comes back as it was.
        dataset: dicts ``input_ids``, ``labels`` (lists of int; -100 where nothing is learned): a
            share of the skills' own training data, never the target task's. Rows without any
            label (a prompt cut off before its answer) are left out.
        eval_dataset: held-out rows; their loss before and after goes into ``losses``.
        preset: ``released``, the settings of the paper's script; options given as well win.
        normalise, init, granularity: see `cat.CatModel`; default "none", "ones", "module".
        lr: peak learning rate, default 0.01; 0 returns the start (a control).
        epochs, batch_size, warmup_steps: the schedule; default 3, 16, 0.
        max_steps: if above 0, the number of steps in place of ``epochs``.
        seed: of ``randn`` and of the data order.
        bf16, checkpoints, progress: see `fit.fit`.
        tokenizer, max_length: with a tokenizer, ``dataset`` and ``eval_dataset`` are raw rows
            (`rows.as_items`), which it encodes to at most so many tokens.

    Raises:
        Diverged: a loss that is not finite.
        SoupError: nothing to learn from, unknown preset, a bad schedule.
    """
    if preset is not None and preset not in PRESETS:
        raise SoupError(f"unknown preset {preset!r}: choose from {', '.join(PRESETS)}")
    if tokenizer is not None:
        dataset, eval_dataset = (
            rows and encode_all(tokenizer, as_items(rows, tokenizer), max_length)
            for rows in (dataset, eval_dataset)
        )
    given = zip(_OPTIONS, (normalise, init, lr, epochs, batch_size, warmup_steps), strict=True)
    options = DEFAULTS | PRESETS.get(preset, {}) | {name: v for name, v in given if v is not None}
    schedule = {name: options[name] for name in ("lr", "epochs", "batch_size")}
    batches = scheduled(_with_labels(dataset), model, max_steps=max_steps, seed=seed, **schedule)
    start = {"normalise": options["normalise"], "init": options["init"], "seed": seed}
    with CatModel(model, loras, granularity=granularity, **start) as cat:
        losses = {"start": heldout_loss(model, list(eval_dataset))} if eval_dataset else {}
        first = _stacked(cat)

        def describe(labels: Tensor) -> dict:
            now = _stacked(cat)
            moved = float((now - first).abs().mean())
            return {"alpha_mean": now.mean(0).tolist(), "alpha_moved": moved}

        trained = fit(
            cat, batches, lr=options["lr"], warmup_steps=options["warmup_steps"], seed=seed,
            bf16=bf16, name="alphas", describe=describe, checkpoints=checkpoints, progress=progress,
        )  # fmt: skip
        if eval_dataset:
            losses["end"] = heldout_loss(model, list(eval_dataset))
        return Alphas(cat.weights(), history=trained.history, losses=losses, **start)


def balanced(by_skill: Sequence[Sequence[dict]]) -> list[dict]:
    """All rows, those of smaller skills again and again: as many of each skill as the largest has.

    Alphas follow the majority of their rows (the cell ``imbalance 20`` in docs/results.md).
    """
    most = max(map(len, by_skill))
    return [own[i % len(own)] for own in by_skill for i in range(most)]


def _stacked(cat: CatModel) -> Tensor:
    """All alphas, [modules, k]."""
    return torch.stack(list(cat.weights().values()))


def _with_labels(dataset: Sequence[dict]) -> list[dict]:
    """The rows that have a token to learn (the first token is never predicted)."""
    for at, row in enumerate(dataset):
        if len(row["input_ids"]) != len(row["labels"]):
            raise SoupError(f"row {at} has labels of another length than its input_ids: dataset")
    rows = [row for row in dataset if set(row["labels"][1:]) - {-100}]
    if not rows:
        what = "dataset has no label but -100" if dataset else "dataset is empty"
        raise SoupError(f"no data to learn alphas from: {what}; give ~5 % of the skills' rows")
    return rows
