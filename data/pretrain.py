"""Pretrain an embedded base on a generated language: ``python data/pretrain.py --world mini``.

``data/mini`` and ``data/pages`` were made so: two Llamas of one shape (half an hour on two cores).
"""

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from random import Random

import torch
import typer
from language import Language
from mini_corpus import MINI
from pages_corpus import PAGES
from shots_corpus import SHOTS
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    get_cosine_schedule_with_warmup,
)

from lorasoups.errors import Diverged, SoupError
from lorasoups.files import ensure_folder, write_json_atomic
from lorasoups.models.batching import ANSWER, EVERYTHING, Collate, encode_all
from lorasoups.models.generation import generate

LANGUAGES = {"mini": MINI, "pages": PAGES, "shots": SHOTS}
CONFIG = {
    "hidden_size": 160, "num_hidden_layers": 5, "num_attention_heads": 5, "num_key_value_heads": 5,
    "intermediate_size": 416, "tie_word_embeddings": True,
    "attn_implementation": "eager",  # 2 cores, no padding mask: several times faster than SDPA
}  # fmt: skip
POOL = 8
PROMPT_LOSS_SHARE = 0.2  # of the documents also teach their prompt; all teach their answer
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
# a leading space belongs to the piece, so that decoding is plain concatenation and exact
_PIECE = r"\n(?:    )*| ?[A-Za-z_]+| ?[0-9]| ?[^\sA-Za-z_0-9]"


def language(name: str) -> Language:
    """The language of a name; SoupError for an unknown one."""
    if name not in LANGUAGES:
        raise SoupError(f"unknown world {name!r}: choose {' or '.join(LANGUAGES)}")
    return LANGUAGES[name]


def word_tokenizer(texts: Iterable[str], context: int = 256) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word, digit, mark and line break (with its indent) in texts.

    It begins every text with ``<s>``; unknown pieces become ``<unk>``; ``decode(encode(t)) == t``
    for every text made of known pieces.
    """
    pieces = {f"{space}{digit}" for space in ("", " ") for digit in "0123456789"}
    for text in texts:
        pieces.update(re.findall(_PIECE, text))
    vocab = {piece: i for i, piece in enumerate([*_SPECIAL, *sorted(pieces)])}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE), behavior="isolated")
    core.decoder = decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocab["<s>"])]
    )
    special = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), _SPECIAL, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        clean_up_tokenization_spaces=False,
        model_max_length=context,
        **special,
    )


def batches(
    document: Callable, tokenizer, steps: int, seed: int, batch: int = 80
) -> Iterator[dict]:
    """The first ``steps`` batches {input_ids, labels} of the endless corpus.

    A pool of ``POOL`` batches is sorted by length, cut and shuffled, so that little padding is
    left. Each pool is a function of (seed, its number) alone.
    """
    collate = Collate(tokenizer.pad_token_id)
    for number in range(math.ceil(steps / POOL)):
        rng = Random(f"pretrain/{seed}/{number}")
        rows = encoded(tokenizer, [_items(document, rng) for _ in range(batch * POOL)])
        rows.sort(key=lambda row: len(row["input_ids"]))
        pool = [rows[i : i + batch] for i in range(0, len(rows), batch)]
        rng.shuffle(pool)
        yield from map(collate, pool[: steps - number * POOL])


def encoded(tokenizer, documents: list[list[dict]]) -> list[dict]:
    """Rows of documents. Of several examples each has an empty line before the next.

    That line is no label: what follows an answer is the end, wherever a document stops.
    """
    gap = tokenizer("\n\n", add_special_tokens=False).input_ids
    rows = []
    for items in documents:
        first, *more = encode_all(tokenizer, items)
        ids, labels = first["input_ids"][:-1], first["labels"][:-1]
        for row in more:
            ids += gap + row["input_ids"][1:-1]
            labels += [-100] * len(gap) + row["labels"][1:-1]
        rows.append({"input_ids": [*ids, tokenizer.eos_token_id],
                     "labels": [*labels, tokenizer.eos_token_id]})  # fmt: skip
    return rows


def _items(document: Callable, rng: Random) -> list[dict[str, str]]:
    pairs = document(rng)
    pairs = pairs if isinstance(pairs, list) else [pairs]
    learn_all = not pairs[0][0] or rng.random() < PROMPT_LOSS_SHARE
    train_on = EVERYTHING if learn_all else ANSWER
    return [{"prompt": prompt, "answer": answer, "train_on": train_on} for prompt, answer in pairs]


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


def _measure(model, tokenizer, world: Language, step: int, loss: float) -> dict:
    """One entry of the log, also printed: accuracy on held-out and on some trained cells."""
    some = tuple(sorted(world.grid))[:: max(1, len(world.grid) // 10)]
    asked = {"held_out_cells": (world.example, sorted(world.held_out)),
             "trained_cells": (world.example, some)}  # fmt: skip
    if world.shown_example:
        asked["shown_cells"] = (world.shown_example, sorted(world.held_out))
    found = {name: cell_accuracy(model, tokenizer, *cells) for name, cells in asked.items()}
    means = (f"{name} {sum(cells.values()) / len(cells):.3f}" for name, cells in found.items())
    print(f"step {step} loss {loss:.4f}", *means, flush=True)
    return {"step": step, "loss": loss} | found


def train(model, tokenizer, world: Language, steps: int, seed: int, lr: float, every: int) -> dict:
    """Train in place (AdamW, cosine decay, 100 steps of warm-up, bfloat16 autocast).

    Returns ``tokens`` read (without padding) and ``log``, an entry per ``every`` steps: ``step``,
    ``loss`` (nats, mean of the last 50 steps) and accuracy on held-out and trained cells. Raises
    Diverged for a loss that is not finite.
    """
    decayed = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimizer, 100, steps)
    losses, log, tokens = [], [], 0
    corpus = batches(world.document, tokenizer, steps, seed, world.batch)
    for step, batch in enumerate(corpus, start=1):
        model.train()
        tokens += int((batch["input_ids"] != tokenizer.pad_token_id).sum())
        with torch.autocast(model.device.type, torch.bfloat16):
            loss = model(**{k: v.to(model.device) for k, v in batch.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise Diverged(f"loss is {losses[-1]} at step {step}: pretraining; lower lr ({lr})")
        if step % every == 0 or step == steps:
            recent = losses[-50:]
            log.append(_measure(model, tokenizer, world, step, sum(recent) / len(recent)))
    return {"tokens": tokens, "log": log}


def main(
    out: str = "", steps: int = 0, seed: int = 0, lr: float = 0.0, every: int = 500,
    world: str = "mini",
) -> None:  # fmt: skip
    """Pretrain, then write model, tokenizer and ``card.json`` into a folder.

    Args:
        out: the folder; "": beside this file, where the committed bases are.
        steps, lr: batches of documents, peak learning rate; 0: the language's own.
        seed: of the corpus and the initialisation.
        every: steps between two measurements on held-out cells.
        world: a name of `LANGUAGES`.
    """
    source = language(world)
    steps, lr = steps or source.steps, lr or source.lr
    folder = ensure_folder(out or Path(__file__).with_name(world))
    torch.manual_seed(seed)
    tokenizer = word_tokenizer(source.sample(20_000, 0), source.context)
    config = CONFIG | {"max_position_embeddings": source.context}
    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name) for name in special}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **ids, **config))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    started = time.time()
    run = train(model, tokenizer, source, steps, seed, lr, every)
    card = {
        "what": source.what,
        "corpus": source.corpus,
        "command": f"python data/pretrain.py --world {world}",
        "world_version": source.version,
        "config": config,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": run["tokens"],
        "steps": steps,
        "documents_per_step": source.batch,
        "seed": seed,
        "lr": lr,
        "loss": run["log"][-1]["loss"],
        "seconds": round(time.time() - started),
        "device": f"{model.device.type}, {torch.get_num_threads()} threads",
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        "licence": "Apache-2.0, as the code that generated the corpus",
        "held_out_cells": sorted("/".join(cell) for cell in source.held_out),
        "log": run["log"],
    }
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json_atomic(folder / "card.json", card)


if __name__ == "__main__":
    typer.run(main)
