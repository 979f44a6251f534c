"""The training loop of everything small on a frozen base: LoRA factors, alphas, a gate.

AdamW, linear warm-up and decay, through transformers' Trainer. What this adds to it:

- Checkpoints of what is trained, a few megabytes each: a run that was killed goes on from the last
  one and, on a CPU, ends bit for bit where it would have ended.
- Under ``accelerate launch`` every process takes a share of the rows of each batch, so that several
  processes take the steps of one, to rounding.
- A progress bar on a terminal, a line a minute in a log file.
"""

import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import time
import warnings
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

from lorasoups.errors import Diverged, SoupError
from lorasoups.files import disk_errors, ensure_folder, fsync_folder, sha256_file, write_json_atomic
from lorasoups.models import processes
from lorasoups.models.batching import LengthBatches, answer_loss
from lorasoups.models.devices import fast_bf16

SAVE_EVERY_S = 300.0
"""Seconds between two checkpoints."""
LOG_EVERY_S = 60.0
"""Seconds between two lines of progress where there is no terminal."""
BAR_AFTER_S = 2.0
"""Seconds before a bar appears: most runs of the mini world are over by then."""
KEPT = 2
"""Checkpoints on the disk: if the newest one is damaged, there is one before it."""


@dataclass
class Fit:
    """How a training went.

    Attributes:
        history: per step ``{step, loss, lr}`` and what ``describe`` adds; ``loss`` in nats per
            labelled token of the step's batch.
        seconds: spent in training, interruptions not counted.
    """

    history: list[dict] = field(default_factory=list)
    seconds: float = 0.0


def fit(
    module: nn.Module,
    batches: LengthBatches,
    *,
    lr: float,
    seed: int,
    name: str,
    warmup_steps: int = 0,
    bf16: bool | str = False,
    checkpoints: Path | str | None = None,
    describe: Callable[[Tensor], dict] | None = None,
    progress: bool = True,
) -> Fit:
    """Train the parameters of ``module`` that require gradients, in place, one step per batch.

    Args:
        module: with a causal LM as ``module.model``, in whose layers the parameters take part.
        batches: all batches of the run; the seed decides their order.
        lr: peak learning rate; it rises over ``warmup_steps`` and falls linearly to 0.
        seed: of the order and of dropout.
        name: of what is trained, for progress and errors.
        bf16: matmuls under bfloat16 autocast; "auto": where they are faster, see `wants_bf16`.
        checkpoints: a folder to save into every few minutes and to go on from; None: none.
        describe: more entries for the history, called after every step with its labels.
        progress: show a bar or log lines; the environment's ``TQDM_DISABLE`` turns them off too.

    Raises:
        Diverged: a loss that is not finite.
        SoupError: checkpoints of another run; a folder that cannot be written.
    """
    device = module.model.device.type
    bf16 = wants_bf16(bf16, device)
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(list(trained.values()), lr=lr, weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup_steps, len(batches))
    run = _Run(trained, optimizer, schedule, describe)
    if checkpoints is not None:
        settings = {"name": name, "lr": lr, "warmup_steps": warmup_steps, "seed": seed}
        settings |= {"bf16": bf16, "data": _digest(batches)}
        run.open(Path(checkpoints), settings)
    if len(run.fit.history) == len(batches):
        return run.fit
    shares = _Shares(batches, seed, len(run.fit.history), processes.size())
    run.progress = Progress(name, batches, shares.order, progress)
    with tempfile.TemporaryDirectory() as folder:  # the Trainer wants one; nothing is kept
        trainer = Trainer(
            model=_Loss(module, run),
            args=_arguments(folder, len(shares.order), seed, bf16, device),
            train_dataset=shares,
            data_collator=lambda items: items[0],  # an item is a whole batch
            optimizers=(optimizer, schedule),
            callbacks=[run],
        )
        trainer.remove_callback(PrinterCallback)
        run.start()
        try:
            with warnings.catch_warnings():  # torch 2.13 renames what accelerate 1.15 passes on
                warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
                trainer.train()
        finally:
            run.progress.close()
    return run.fit


def wants_bf16(bf16: bool | str, device: str) -> bool:
    """The setting itself, or for "auto" whether bfloat16 matmuls are faster on ``device``.

    Only matmuls are then in bfloat16; trained tensors, optimizer and loss stay float32.
    """
    return fast_bf16(device) if bf16 == "auto" else bool(bf16)


def check_schedule(lr: float, batch_size: int, epochs: float, max_steps: int = -1) -> None:
    """Refuse a schedule that cannot be run. Raises SoupError."""
    if lr < 0 or batch_size < 1 or (epochs <= 0 and max_steps <= 0):
        raise SoupError(
            f"bad schedule: lr {lr}, batch_size {batch_size}, epochs {epochs}; "
            "lr must be at least 0, batch_size at least 1, epochs above 0"
        )


def _arguments(folder: str, steps: int, seed: int, bf16: bool, device: str) -> TrainingArguments:
    """A Trainer that neither saves nor reports; our callback and optimizer do the rest."""
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        bf16=bf16,
        use_cpu=device == "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        # Buffers are frozen factors and every trained tensor has a gradient in every step: no need
        # to send the former or to look for the latter.
        ddp_broadcast_buffers=False,
        ddp_find_unused_parameters=False,
        seed=seed,
    )
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


# --- batches, shared by the processes -----------------------------------------------------------


class _Shares(torch.utils.data.Dataset):
    """The batches still to do; items ``i * size + rank`` are the shares of the i-th of them.

    accelerate gives process r the items r, r + size, ..., hence its share of every batch.
    """

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
    """The rows of one process, and what the mean loss over them counts for.

    DDP averages gradients over processes. With ``weight`` = size * (labelled tokens of this share)
    / (labelled tokens of the batch) the average is the gradient of the whole batch's mean loss.
    Rows without a label are left out. A process for which no row is left computes the row with most
    labels at weight 0, since all must take part in every step.

    Args:
        batch: ``input_ids``, ``labels`` int64 [rows, tokens]; the first token is never predicted.
        rank, size: which process, of how many.

    Returns:
        ``input_ids``, ``labels`` of every ``size``-th row (rows are sorted by length, so that all
        processes have about the same work) and ``weight`` [], float32.
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
    for row in (row for batch in batches.batches for row in batch):
        for key in ("input_ids", "labels"):
            digest.update(array("q", row[key]).tobytes())
    return digest.hexdigest()


# --- the run and its checkpoints ----------------------------------------------------------------


class _Run(TrainerCallback):
    """Keeps the history, saves now and then, and stops at a loss that is not finite."""

    def __init__(self, trained: dict[str, Tensor], optimizer, schedule, describe):
        self.trained, self.optimizer, self.schedule = trained, optimizer, schedule
        self.describe = describe or (lambda labels: {})
        self.fit = Fit()
        self.folder: Path | None = None
        self.settings: dict = {}
        self.random: dict[str, Tensor] | None = None  # generators' states to go on from
        self.labels: Tensor | None = None  # of the present step
        self.progress: Progress

    def open(self, folder: Path, settings: dict) -> None:
        """Save into ``folder`` from now on; go on from its newest sound checkpoint.

        Of several processes rank 0 writes, and all go on from what it has.
        """
        self.settings = settings
        self.folder = Path(processes.broadcast(str(ensure_folder(folder).resolve())))
        newest = processes.broadcast(str(newest_checkpoint(self.folder) or ""))
        if not newest:
            return
        notes = json.loads((Path(newest) / "notes.json").read_text(encoding="utf-8"))
        tensors = load_file(Path(newest) / "trained.safetensors")
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        ours = {name: tensor.shape for name, tensor in self.trained.items()}
        if notes["settings"] != settings or shapes != ours:
            raise SoupError(f"checkpoints of another run: {self.folder}; give an empty folder")
        for name, parameter in self.trained.items():
            parameter.data.copy_(tensors[name])
        state = torch.load(Path(newest) / "state.pt", map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.random = state["random"]
        self.fit = Fit(notes["history"], notes["seconds"])

    def start(self) -> None:
        now = time.perf_counter()
        self.started, self.saved = now - self.fit.seconds, now

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
            peak = max(self.schedule.base_lrs)
            name = self.progress.name
            raise Diverged(f"loss is {loss} at step {step}: {name}; lower lr (now {peak:g})")
        entry = {"step": step, "loss": loss, "lr": float(logs["learning_rate"])}
        self.fit.history.append(entry | self.describe(self.labels))
        now = time.perf_counter()
        self.fit.seconds = now - self.started
        self.progress.step(loss)
        if self.folder and processes.is_main() and now - self.saved >= SAVE_EVERY_S:
            self.save()
            self.saved = time.perf_counter()

    def save(self) -> None:
        """Write a checkpoint under a temporary name, then its manifest, then rename it."""
        final = self.folder / f"step-{len(self.fit.history):08d}"
        writing = self.folder / "writing"
        with disk_errors(final):
            shutil.rmtree(writing, ignore_errors=True)
            writing.mkdir()
            tensors = {n: p.detach().cpu().contiguous() for n, p in self.trained.items()}
            save_file(tensors, writing / "trained.safetensors")
            random = {"cpu": torch.get_rng_state()}
            if torch.cuda.is_available():
                random["cuda"] = torch.cuda.get_rng_state()
            state = {"optimizer": self.optimizer.state_dict(), "random": random}
            torch.save(state | {"schedule": self.schedule.state_dict()}, writing / "state.pt")
            notes = {"settings": self.settings, **vars(self.fit)}
            write_json_atomic(writing / "notes.json", notes, indent=None)
            for path in writing.iterdir():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
            manifest = {path.name: sha256_file(path) for path in writing.iterdir()}
            write_json_atomic(writing / "manifest.json", manifest)
            if final.exists():  # damaged: else the run had gone on from it
                shutil.rmtree(final)
            writing.rename(final)
            fsync_folder(self.folder)
            for old in sorted(self.folder.glob("step-*"))[:-KEPT]:
                shutil.rmtree(old, ignore_errors=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the highest step whose files are those of its manifest; None: no such."""
    return next(filter(_is_sound, sorted(folder.glob("step-*"), reverse=True)), None)


def _is_sound(checkpoint: Path) -> bool:
    try:
        manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
        return all(sha256_file(checkpoint / name) == sha for name, sha in manifest.items())
    except (OSError, ValueError, AttributeError):
        return False


# --- progress -----------------------------------------------------------------------------------


class Progress:
    """Loss, tokens per second and time left: a bar on a terminal, else a line a minute.

    Args:
        name: of what is trained.
        batches: of the whole run.
        order: numbers of the batches still to do.
        shown: whether to show anything; only rank 0 ever does.
        clock: seconds.
        out: where to write; default stderr.
    """

    def __init__(
        self, name: str, batches: LengthBatches, order: list[int], shown: bool = True,
        clock: Callable[[], float] = time.monotonic, out=None,
    ):  # fmt: skip
        self.name, self.clock, self.out = name, clock, out or sys.stderr
        self.total, self.at = len(batches), len(batches) - len(order)
        self.todo = iter([sum(len(r["input_ids"]) for r in batches.batches[i]) for i in order])
        self.first, self.tokens = self.at, 0
        self.started = self.spoke = clock()
        off = os.environ.get("TQDM_DISABLE", "").lower() not in ("", "0", "false")
        self.shown = shown and processes.is_main() and not off
        self.bar = None
        if self.shown and (self.out.isatty() or "ipykernel" in sys.modules):
            self.bar = tqdm(
                desc=name, total=self.total, initial=self.at, unit="step", leave=False,
                file=self.out, delay=BAR_AFTER_S,
            )  # fmt: skip

    def step(self, loss: float) -> None:
        """One more step is done."""
        self.at += 1
        self.tokens += next(self.todo)
        now = self.clock()
        speed = self.tokens / max(now - self.started, 1e-9)
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s", refresh=False)
            self.bar.update()
        elif self.shown and now - self.spoke >= LOG_EVERY_S:
            self.spoke = now
            left = (now - self.started) / (self.at - self.first) * (self.total - self.at)
            print(
                f"{self.name}: step {self.at}/{self.total}, loss {loss:.3f}, "
                f"{speed:,.0f} tokens/s, {_duration(left)} left",
                file=self.out,
                flush=True,
            )

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


def _duration(seconds: float) -> str:
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
