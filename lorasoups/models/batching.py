"""Token ids of examples, and batches of them: padded on the right, no attention mask needed."""

import random
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ANSWER, EVERYTHING = "answer", "everything"
POOL = 16  # batches whose rows are sorted by length together
AT_ONCE = 25  # rows whose losses are computed together: more leave the processor's cache


def encode_all(tokenizer: Any, items: list[dict], max_length: int = 512) -> list[dict]:
    """Token ids of prompt + answer + end, with labels on what each item trains on.

    Args:
        tokenizer: the base's tokenizer; it may add a begin token to the prompt.
        items: dicts with ``prompt`` (empty for plain text), ``answer`` and perhaps ``train_on``:
            ``answer`` (the default: the prompt's labels are -100) or ``everything``.
        max_length: tokens; longer examples lose the tail of their answer.

    Returns dicts of ``input_ids`` and ``labels`` (lists of int, equally long).
    """
    rows = []
    for item in items:
        head = tokenizer(item["prompt"]).input_ids
        tail = tokenizer(item["answer"], add_special_tokens=False).input_ids
        tail = tail + [tokenizer.eos_token_id]
        everything = item.get("train_on", ANSWER) == EVERYTHING
        labels = (head if everything else [-100] * len(head)) + tail
        rows.append({"input_ids": (head + tail)[:max_length], "labels": labels[:max_length]})
    return rows


class Collate:
    """Pad ``input_ids`` with ``pad_id`` and ``labels`` with -100, on the right.

    Causal attention never looks there, so no mask is needed: on a CPU several times faster.
    """

    def __init__(self, pad_id: int):
        self.pad_id = pad_id

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        """Stack dicts of int lists into int64 tensors [batch, longest]."""
        width = max(len(item["input_ids"]) for item in items)
        pad = {"input_ids": self.pad_id, "labels": -100}
        return {
            key: torch.tensor([item[key] + [fill] * (width - len(item[key])) for item in items])
            for key, fill in pad.items()
        }


class LengthBatches(torch.utils.data.Dataset):
    """``steps`` whole batches of nearly equal length, in an order that only the seed decides.

    Each epoch shuffles the rows, sorts pools of `POOL` batches by length, cuts them and shuffles
    the batches. An item of this dataset is a batch; ``tokens`` counts real tokens (no padding).
    """

    def __init__(self, rows: list[dict], batch_size: int, steps: int, seed: int, pad_id: int):
        self.collate = Collate(pad_id)
        rng = random.Random(seed)
        self.batches: list[list[dict]] = []
        while len(self.batches) < steps:
            order, epoch = rng.sample(rows, len(rows)), []
            for at in range(0, len(order), batch_size * POOL):
                chunk = sorted(order[at : at + batch_size * POOL], key=_length)
                epoch += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
            self.batches += rng.sample(epoch, len(epoch))
        del self.batches[steps:]
        self.tokens = sum(map(count_tokens, self.batches))

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return self.collate(self.batches[i])


def count_tokens(rows: Iterable[dict]) -> int:
    """Tokens of encoded rows, without padding."""
    return sum(map(_length, rows))


def _length(row: dict) -> int:
    return len(row["input_ids"])


def answer_loss(model: Any, input_ids: Tensor, labels: Tensor, each: bool = False) -> Tensor:
    """Mean cross-entropy per labelled token (nats), with logits at labelled positions only.

    Logits would be most of a step's memory. A hook in front of the output layer picks the
    positions, so that all else stays in effect, such as the softcapping of logits.

    Args:
        model: causal LM, plain, quantised or wrapped (PEFT, `CatModel`); DDP wraps the caller.
        input_ids, labels: int64 [rows, tokens], padded on the right; -100: nothing is asked.
        each: the loss of every labelled token instead, float32 [tokens], row after row.

    Returns float32 [], NaN without any label; the model's own loss if its output layer sees
    something else than one vector per token.
    """
    while not hasattr(model, "get_output_embeddings"):
        model = model.model
    batch = {"input_ids": input_ids, "use_cache": False}
    asked = labels[:, 1:] != -100
    picked = []

    def pick(_, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if inputs[0].ndim != 3 or inputs[0].shape[:2] != labels.shape:
            return None
        picked.append(True)
        return inputs[0][:, :-1][asked], *inputs[1:]

    head = model.get_output_embeddings()
    if head is not None:
        with head.register_forward_pre_hook(pick):
            logits = model(**batch).logits
    if not picked and not each:
        return model(**batch, labels=labels).loss
    logits = logits if picked else model(**batch).logits[:, :-1][asked]
    how = "none" if each else "mean"
    return F.cross_entropy(logits.float(), labels[:, 1:][asked], reduction=how)


@torch.no_grad()
def row_losses(model, rows: list[dict], batch_size: int = AT_ONCE) -> Tensor:
    """Loss (nats, summed) and number of the labelled tokens of each row, float64 [rows, 2].

    rows: dicts of ``input_ids`` and ``labels`` (-100: not asked), batched by length. The model is
    put into eval mode and computes in its own precision.
    """
    model.eval()
    device, collate = next(model.parameters()).device, Collate(model.config.pad_token_id or 0)
    order = sorted(range(len(rows)), key=lambda i: _length(rows[i]))
    found = torch.zeros(len(rows), 2, dtype=torch.float64)
    for at in range(0, len(order), batch_size):
        chosen = order[at : at + batch_size]
        batch = {k: v.to(device) for k, v in collate([rows[i] for i in chosen]).items()}
        counts = (batch["labels"][:, 1:] != -100).sum(1).tolist()
        losses = answer_loss(model, **batch, each=True).double().cpu().split(counts)
        for i, own, n in zip(chosen, losses, counts, strict=True):
            found[i] = torch.tensor([own.sum(), n], dtype=torch.float64)
    return found


def heldout_loss(model, rows: list[dict], batch_size: int = AT_ONCE) -> float:
    """Mean cross-entropy per labelled token (nats) of ``rows``; see `row_losses`."""
    loss, tokens = row_losses(model, rows, batch_size).sum(0).tolist()
    return loss / max(1, tokens)
