"""The training loop of everything small on a frozen base: LoRA factors, alphas, a gate.

transformers' Trainer with AdamW, and checkpoints of what is trained: on a CPU, a run that is killed
and goes on ends bit for bit where it would have ended (compiled layers: to rounding). Under
``accelerate launch`` every process takes a share of each batch's rows.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import sys
import tempfile
import time
import warnings
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, chain
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.optimization import get_linear_schedule_with_warmup

from lorasoups.errors import Diverged, SoupError
from lorasoups.files import ensure_folder, json_text, new_folder, sha256_file
from lorasoups.models import processes
from lorasoups.models.batching import LengthBatches, answer_loss
from lorasoups.models.devices import fast_bf16

SAVE_EVERY_S, LINE_EVERY_S = 300.0, 60.0  # a line: where there is no terminal
BAR_AFTER_S = 2.0  # most runs of the mini world are over by then
# Tokens x layers x hidden size from which compiled layers pay: they save about 0.1 us for each, and
# compiling takes a minute once and 10 s when torch has it in its cache.
COMPILE_FROM = 5e8
KEPT = 2  # checkpoints on the disk: if the newest is damaged, there is one before it


@dataclass
class Fit:
    """What a training was like."""

    history: list[dict] = field(default_factory=list)  # {step, loss (nats per labelled token), lr}
    seconds: float = 0.0  # without interruptions


def fit(
    module: nn.Module, batches: LengthBatches, *, lr: float, seed: int, name: str,
    warmup_steps: int = 0, bf16: bool | str = False, checkpoints: Path | str | None = None,
    describe: Callable[[Tensor], dict] = lambda labels: {}, progress: bool = True,
) -> Fit:  # fmt: skip
    """Train the parameters of ``module`` that require gradients, in place, one step per batch.

    Args:
        module: with a causal LM as ``module.model``, in whose layers the parameters take part.
        batches: all batches of the run.
        lr, warmup_steps: the rate rises to ``lr`` and then falls linearly to 0.
        seed: of the batches' order and of dropout.
        name: of what is trained, for progress and errors.
        bf16: bfloat16 autocast, trained tensors and loss in float32; "auto": where it is faster.
        checkpoints: a folder to save into every five minutes and to go on from; None: none.
        describe: more entries for the history, from the labels of the step just done.
        progress: show a bar or lines; ``TQDM_DISABLE`` in the environment hides them too.

    Raises Diverged for a loss that is not finite, SoupError for checkpoints of another run, and
    DiskError for a folder that cannot be written.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        raise SoupError("FSDP cuts the base for good, and it is used whole later; launch with DDP")
    device = module.model.device.type
    bf16 = wants_bf16(bf16, device)
    run = _Run(module, batches, lr, warmup_steps, name, describe)
    if checkpoints is not None:
        settings = {"name": name, "lr": lr, "warmup_steps": warmup_steps, "seed": seed}
        run.open(checkpoints, settings | {"bf16": bf16, "data": _digest(batches)})
    done = len(run.fit.history)
    if done == len(batches):
        return run.fit
    shares = _Shares(batches, seed, done, processes.size())
    with tempfile.TemporaryDirectory() as folder:  # the Trainer wants one; nothing is kept
        trainer = Trainer(
            _Loss(module, run), _arguments(folder, len(batches) - done, seed, bf16, device),
            data_collator=lambda items: items[0],  # an item is a whole batch
            train_dataset=shares, optimizers=(run.optimizer, run.schedule), callbacks=[run],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        with run.started(shares, progress), warnings.catch_warnings():
            # torch 2.13 renames what accelerate 1.15 passes on
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            trainer.train()
    return run.fit


@contextmanager
def compiled_layers(model: nn.Module, tokens: int) -> Iterator[None]:
    """The layers of ``model`` as compiled code while it reads, or is trained on, many ``tokens``.

    On a CPU the compiler fuses element-wise work, which is most of what a small model does. On a
    GPU, for few tokens and without a C++ compiler the layers stay as they are, and so does each
    that torch cannot compile.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    work = tokens * len(layers) * model.get_input_embeddings().embedding_dim
    compiler = shutil.which("g++") or shutil.which("clang++")
    if model.device.type != "cpu" or work < COMPILE_FROM or not compiler:
        yield
        return
    log = logging.getLogger("torch._dynamo")  # pages of warnings on what it cannot compile
    level, before = log.level, [layer._compiled_call_impl for layer in layers]
    try:
        log.setLevel(logging.ERROR)
        for layer in layers:
            layer.compile(dynamic=True)
        with torch._dynamo.config.patch(suppress_errors=True, recompile_limit=32):
            yield
    finally:
        log.setLevel(level)
        for layer, compiled in zip(layers, before, strict=True):
            layer._compiled_call_impl = compiled


def wants_bf16(bf16: bool | str, device: str) -> bool:
    """The setting itself; for "auto", whether bfloat16 matmuls are faster on ``device``."""
    return fast_bf16(device) if bf16 == "auto" else bool(bf16)


def scheduled(
    rows: Sequence[dict], model, *, epochs: float, batch_size: int, max_steps: int, lr: float,
    seed: int,
) -> LengthBatches:  # fmt: skip
    """The batches of ``epochs`` passes, or of ``max_steps`` > 0 steps; SoupError for a bad one."""
    if lr < 0 or batch_size < 1 or (epochs <= 0 and max_steps <= 0):
        what = f"bad schedule: lr {lr}, batch_size {batch_size}, epochs {epochs}"
        raise SoupError(f"{what}; lr must be at least 0, batch_size at least 1, epochs above 0")
    steps = max_steps if max_steps > 0 else math.ceil(epochs * len(rows) / batch_size)
    return LengthBatches(list(rows), batch_size, steps, seed, model.config.pad_token_id or 0)


def _arguments(folder: str, steps: int, seed: int, bf16: bool, device: str) -> TrainingArguments:
    """A Trainer that neither saves nor reports; `_Run` does."""
    arguments = TrainingArguments(
        folder, max_steps=steps, per_device_train_batch_size=1, bf16=bf16, seed=seed,
        train_sampling_strategy="sequential", remove_unused_columns=False, use_cpu=device == "cpu",
        logging_steps=1, logging_nan_inf_filter=False, save_strategy="no", report_to=[],
        disable_tqdm=True, ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # they are frozen factors
    )  # fmt: skip
    arguments._n_gpu = 1  # one process, one GPU: no DataParallel over all that are visible
    return arguments


class _Loss(nn.Module):
    """What the Trainer calls, and what DDP wraps: a batch in, its loss out."""

    def __init__(self, module: nn.Module, run: "_Run"):
        super().__init__()
        self.module, self.run = module, run

    def forward(self, input_ids: Tensor, labels: Tensor, weight: Tensor) -> dict[str, Tensor]:
        self.run.labels = labels
        return {"loss": answer_loss(self.module.model, input_ids, labels) * weight}


class _Shares(torch.utils.data.Dataset):
    """The batches still to do. accelerate gives process r the items r, r + size, ... of it."""

    def __init__(self, batches: LengthBatches, seed: int, done: int, size: int):
        generator = torch.Generator().manual_seed(seed)
        self.order = torch.randperm(len(batches), generator=generator).tolist()[done:]
        self.batches, self.size = batches, size

    def __len__(self) -> int:
        return len(self.order) * self.size

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        step, rank = divmod(i, self.size)
        return share(self.batches[self.order[step]], rank, self.size)


def share(batch: dict[str, Tensor], rank: int, size: int) -> dict[str, Tensor]:
    """The rows of one process (int64 [rows, tokens]), and what their mean loss counts for.

    DDP averages gradients over processes. With ``weight`` = size * (labelled tokens of this share)
    / (labelled tokens of the batch) the average is the gradient of the whole batch's mean loss.
    Every ``size``-th row of rows sorted by length makes about equal work. A process for which no
    row is left computes one at weight 0: all take part in every step.
    """
    tokens = (batch["labels"][:, 1:] != -100).sum(1)
    rows = tokens.nonzero()[rank::size, 0]
    weight = size * tokens[rows].sum() / tokens.sum()  # NaN for a batch without any label
    if len(rows) == 0:
        rows = tokens.argmax()[None]
    return {key: values[rows] for key, values in batch.items()} | {"weight": weight}


def _digest(batches: LengthBatches) -> str:
    """sha256 of all token ids and labels, in the order of the batches."""
    digest = hashlib.sha256()
    for row in chain.from_iterable(batches.batches):
        for key in ("input_ids", "labels"):
            digest.update(array("q", row[key]).tobytes())
    return digest.hexdigest()


class _Run(TrainerCallback):
    """Keeps the history, saves now and then, and stops at a loss that is not finite."""

    def __init__(self, module, batches, lr, warmup_steps, name, describe):
        self.trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
        parameters = list(self.trained.values())
        self.optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0, fused=True)
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, warmup_steps, len(batches))
        self.lr, self.name, self.describe, self.fit = lr, name, describe, Fit()
        self.folder: Path | None = None
        self.random: dict[str, Tensor] | None = None  # the generators' states to go on from
        self.labels: Tensor | None = None  # of the present step

    def open(self, folder: Path | str, settings: dict) -> None:
        """Save into ``folder`` from now on (rank 0); go on from its newest sound checkpoint."""
        self.settings = settings
        self.folder = Path(processes.broadcast(str(ensure_folder(folder).resolve())))
        newest = processes.broadcast(str(newest_checkpoint(self.folder) or ""))
        if not newest:
            return
        notes = json.loads(Path(newest, "notes.json").read_text(encoding="utf-8"))
        tensors = load_file(Path(newest, "trained.safetensors"))
        there, here = ({n: t.shape for n, t in each.items()} for each in (tensors, self.trained))
        if notes["settings"] != settings or there != here:
            raise SoupError(f"checkpoints of another run: {self.folder}; give an empty folder")
        for name, parameter in self.trained.items():
            parameter.data.copy_(tensors[name])
        state = torch.load(Path(newest, "state.pt"), map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.random = state["random"]
        self.fit = Fit(notes["history"], notes["seconds"])

    @contextmanager
    def started(self, shares: _Shares, progress: bool) -> Iterator[None]:
        """Around the training: clocks and progress."""
        rows = (shares.batches.batches[i] for i in shares.order)
        self.tokens = accumulate(sum(len(row["input_ids"]) for row in batch) for batch in rows)
        self.start = self.saved = time.perf_counter()
        self.before = self.fit.seconds
        with progress_bar(self.name, len(shares.batches), len(self.fit.history), progress) as bar:
            self.bar = bar
            yield

    def on_step_begin(self, *_, **__) -> None:
        if self.random is not None:  # here, since the Trainer and its data loader draw numbers too
            torch.set_rng_state(self.random["cpu"])
            if "cuda" in self.random and torch.cuda.is_available():
                torch.cuda.set_rng_state(self.random["cuda"])
            self.random = None

    def on_log(self, args, state, control, logs=None, **_) -> None:
        if "loss" not in logs:  # the summary at the end
            return
        step, loss = len(self.fit.history) + 1, float(logs["loss"])
        if not math.isfinite(loss):
            raise Diverged(f"loss is {loss} at step {step}: {self.name}; lower lr ({self.lr:g})")
        entry = {"step": step, "loss": loss, "lr": float(logs["learning_rate"])}
        self.fit.history.append(entry | self.describe(self.labels))
        now = time.perf_counter()
        self.fit.seconds = self.before + now - self.start
        speed = next(self.tokens) / (now - self.start)
        self.bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s", refresh=False)
        self.bar.update()
        if self.folder and processes.is_main() and now - self.saved >= SAVE_EVERY_S:
            self.save()
            self.saved = time.perf_counter()

    def save(self) -> None:
        """Write a checkpoint with its manifest; a damaged one of the same step is replaced."""
        for leftover in self.folder.glob(".step-*"):  # of a run killed while it saved
            shutil.rmtree(leftover, ignore_errors=True)
        state = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
        state["random"] = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            state["random"]["cuda"] = torch.cuda.get_rng_state()
        tensors = {n: p.detach().cpu().contiguous() for n, p in self.trained.items()}
        notes = {"settings": self.settings, **vars(self.fit)}
        with new_folder(self.folder / f"step-{len(self.fit.history):08d}") as folder:
            save_file(tensors, folder / "trained.safetensors")
            torch.save(state, folder / "state.pt")
            (folder / "notes.json").write_text(json_text(notes, folder, None), encoding="utf-8")
            manifest = {path.name: sha256_file(path) for path in folder.iterdir()}
            (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        for old in sorted(self.folder.glob("step-*"))[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the highest step whose files are those of its manifest, if any."""
    for checkpoint in sorted(folder.glob("step-*"), reverse=True):
        try:
            manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
            if all(sha256_file(checkpoint / name) == sha for name, sha in manifest.items()):
                return checkpoint
        except (OSError, ValueError, AttributeError):
            continue
    return None


class _Lines(tqdm):
    """tqdm for log files: whole lines, now and then."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self.n > self.initial and msg is None:
            print(self, file=self.fp, flush=True)

    def close(self) -> None:
        self.disable = True


def progress_bar(name: str, steps: int, done: int, shown: bool = True) -> tqdm:
    """Loss, tokens per second and time left, on stderr; only rank 0 shows anything."""
    hidden = not shown or not processes.is_main() or bool(os.environ.get("TQDM_DISABLE"))
    common = {"desc": name, "total": steps, "initial": done, "disable": hidden, "leave": False}
    ipython = sys.modules.get("IPython")
    if sys.stderr.isatty() or (ipython and ipython.get_ipython()):
        return tqdm(**common, unit=" steps", delay=BAR_AFTER_S)
    line = "{desc}: step {n_fmt}/{total_fmt}{postfix}, {remaining} left"
    return _Lines(**common, bar_format=line, mininterval=LINE_EVERY_S, miniters=1)
