"""Token ids of training examples where an item may say what its loss is on."""

from typing import Any

ANSWER, EVERYTHING = "answer", "everything"


def encode_all(tokenizer: Any, items: list[dict], max_length: int = 512) -> list[dict]:
    """Token ids of prompt + answer + end, with labels on what each item wants to be trained on.

    An item's ``train_on`` is ``answer`` (the default: the prompt's labels are -100, exactly what
    `training.encode` gives) or ``everything``: labels on the prompt too, as in the released
    script. The ids are the same in both cases.

    Args:
        tokenizer: the base's tokenizer; it may add a begin token to the prompt.
        items: dicts with ``prompt``, ``answer`` and perhaps ``train_on``. Plain text has an empty
            prompt.
        max_length: tokens; longer examples lose the tail of their answer.

    Returns:
        dicts of ``input_ids`` and ``labels`` (lists of int, equally long).
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
