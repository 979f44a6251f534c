"""Pretrain an embedded base on a generated language: ``python -m lorasoups pretrain-mini``.

``data/mini`` reads the world of hard math (`lorasoups.tasks.worlds.mini`), ``data/pages`` the world of pages
(`lorasoups.tasks.worlds.pages`). Both are Llamas of the same shape.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from lorasoups.errors import SoupError
from lorasoups.files import ensure_folder, write_json_atomic
from lorasoups.models.batching import Collate
from lorasoups.models.generation import generate
from lorasoups.study.store import libraries

CONFIG = {
    "hidden_size": 160,
    "num_hidden_layers": 5,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "intermediate_size": 416,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "attn_implementation": "eager",  # 2 cores, no padding mask: several times faster than SDPA
}
BATCH, POOL = 80, 8
PROMPT_LOSS_SHARE = 0.2  # of the documents also teach their prompt; all teach their answer


@dataclass(frozen=True)
class Language:
    """A generated language that a base can be pretrained on.

    Attributes:
        what: one line for the card.
        module: where its generator lies, for the card.
        version: of its generators.
        document: ``rng -> (prompt, continuation)``; plain text has an empty prompt.
        tokenizer: builds its tokenizer.
        example: ``(content, form, rng, split) -> {prompt, answer, target}`` of one grid cell.
        grid, held_out: the cells (content, form) that documents show, and those they never show.
        steps, lr: of the committed base.
    """

    what: str
    module: str
    version: int
    document: Callable
    tokenizer: Callable
    example: Callable
    grid: tuple[tuple[str, str], ...]
    held_out: frozenset[tuple[str, str]]
    steps: int
    lr: float


def language(name: str) -> Language:
    """The language of a name: ``mini`` or ``pages``.

    Raises:
        SoupError: unknown name.
    """
    if name == "mini":
        from lorasoups.tasks.worlds.mini.language import MINI

        return MINI
    if name == "pages":
        from lorasoups.tasks.worlds.pages.language import PAGES

        return PAGES
    raise SoupError(f"unknown world {name!r}: choose mini or pages")


class GridBatches(torch.utils.data.Dataset):
    """Batch ``i`` of the endless corpus, a function of (seed, i) alone.

    A pool of ``POOL`` batches is sorted by length and cut, so that little padding is left; pools
    are served in shuffled order within themselves.
    """

    def __init__(self, document: Callable, tokenizer, steps: int, seed: int):
        self.document, self.tokenizer = document, tokenizer
        self.steps, self.seed = steps, seed
        self.collate = Collate(tokenizer.pad_token_id)
        self._pool: tuple[int, list] = (-1, [])

    def __len__(self) -> int:
        return self.steps

    def _fill(self, number: int) -> list:
        rng = Random(f"pretrain/{self.seed}/{number}")
        docs = []
        for _ in range(BATCH * POOL):
            prompt, answer = self.document(rng)
            head = self.tokenizer(prompt).input_ids
            tail = self.tokenizer(answer, add_special_tokens=False).input_ids
            tail.append(self.tokenizer.eos_token_id)
            learn_all = not prompt or rng.random() < PROMPT_LOSS_SHARE
            labels = head if learn_all else [-100] * len(head)
            docs.append({"input_ids": head + tail, "labels": labels + tail})
        docs.sort(key=lambda d: len(d["input_ids"]))
        batches = [docs[i : i + BATCH] for i in range(0, len(docs), BATCH)]
        rng.shuffle(batches)
        return batches

    def __getitem__(self, i: int) -> dict:
        if self._pool[0] != i // POOL:
            self._pool = (i // POOL, self._fill(i // POOL))
        return self.collate(self._pool[1][i % POOL])


def cell_accuracy(
    model, tokenizer, example: Callable, cells: Iterable, per_cell: int = 30, seed: int = 1
) -> dict[str, float]:
    """Exact match of greedy answers on validation problems, per grid cell ``content/form``."""
    rng = Random(seed)
    items = [(c, example(*c, rng, "validation")) for c in cells for _ in range(per_cell)]
    texts = generate(model, tokenizer, [e["prompt"] for _, e in items], max_new_tokens=80)
    hits: dict[str, list[bool]] = {}
    for ((content, form), item), text in zip(items, texts, strict=True):
        hits.setdefault(f"{content}/{form}", []).append(text == item["answer"])
    return {cell: sum(h) / len(h) for cell, h in sorted(hits.items())}


class _HeldOutCells(TrainerCallback):
    """Every ``every`` steps: accuracy on held-out and on trained cells, into the log."""

    def __init__(self, world: Language, tokenizer, every: int, log: list):
        self.world, self.tokenizer, self.every, self.log = world, tokenizer, every, log
        self.trained = tuple(sorted(world.grid))[:: max(1, len(world.grid) // 10)]

    def on_step_end(self, args, state, control, model=None, **_):
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        example = self.world.example
        held = cell_accuracy(model, self.tokenizer, example, sorted(self.world.held_out))
        seen = cell_accuracy(model, self.tokenizer, example, self.trained)
        loss = next((e["loss"] for e in reversed(state.log_history) if "loss" in e), None)
        self.log.append({"step": state.global_step, "loss": loss, "held_out_cells": held,
                         "trained_cells": seen})  # fmt: skip
        print(f"step {state.global_step} loss {loss} held-out {_mean(held):.3f} "
              f"trained {_mean(seen):.3f} {held}", flush=True)  # fmt: skip


def _mean(d: dict[str, float]) -> float:
    return sum(d.values()) / len(d)


def corpus_tokens(data: GridBatches, batches: int) -> int:
    """Real tokens (no padding) in the first ``batches`` batches."""
    pad = data.tokenizer.pad_token_id
    return sum(int((data[i]["input_ids"] != pad).sum()) for i in range(batches))


def main(
    out: str | Path,
    steps: int = 0,
    seed: int = 0,
    lr: float = 0.0,
    every: int = 500,
    world: str = "mini",
):
    """Pretrain, then write model, tokenizer and ``card.json`` into ``out``.

    Args:
        out: folder; created, its files replaced at the end.
        steps: batches of ``BATCH`` documents; 0: the language's own number.
        seed: of the corpus and the initialisation.
        lr: peak learning rate (cosine decay, 100 steps of warm-up); 0: the language's own.
        every: steps between two measurements on held-out cells.
        world: ``mini`` or ``pages``, see `language`.
    """
    spoken = language(world)
    steps, lr = steps or spoken.steps, lr or spoken.lr
    out = ensure_folder(out)
    torch.manual_seed(seed)
    tokenizer = spoken.tokenizer()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **CONFIG,
        )
    )
    data = GridBatches(spoken.document, tokenizer, steps, seed)
    log: list[dict] = []
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=_arguments(folder, steps, seed, lr),
            train_dataset=data,
            data_collator=lambda items: items[0],
            callbacks=[_HeldOutCells(spoken, tokenizer, every, log)],
        )
        trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(data)
        trainer.train()
    seconds = time.time() - started
    model.config.use_cache = True
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    card = {
        "what": spoken.what,
        "corpus": spoken.module,
        "command": f"python -m lorasoups pretrain-mini --world {world}",
        "world_version": spoken.version,
        "config": CONFIG,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": corpus_tokens(data, steps),
        "steps": steps,
        "documents_per_step": BATCH,
        "seed": seed,
        "lr": lr,
        "loss": log[-1]["loss"] if log else None,
        "seconds": round(seconds),
        "device": f"{model.device.type}, {torch.get_num_threads()} threads",
        "versions": libraries(),
        "licence": "Apache-2.0, as the code that generated the corpus",
        "held_out_cells": sorted("/".join(cell) for cell in spoken.held_out),
        "log": log,
    }
    write_json_atomic(out / "card.json", card)


def _arguments(folder: str, steps: int, seed: int, lr: float) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=1,  # an item is a whole batch of BATCH documents
        learning_rate=lr,
        lr_scheduler_type="cosine",
        warmup_steps=100,
        weight_decay=0.01,
        adam_beta2=0.98,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=50,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=seed,
        remove_unused_columns=False,
    )
