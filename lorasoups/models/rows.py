"""One's own rows as items to train on: prompt and answer, messages, or plain text."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lorasoups.errors import SoupError
from lorasoups.models.batching import EVERYTHING

FORMS = "rows need prompt and answer, or messages, or text"


def as_items(rows: Sequence[Mapping | str], tokenizer: Any, name: str = "the rows") -> list[dict]:
    """Items for `batching.encode_all` from one's own rows.

    A row has ``prompt`` and ``answer`` (taken as they are), ``messages`` (the base's own chat
    template; the last one is the assistant's answer) or ``text`` (all of it is learned; a plain
    string too). Raises SoupError for a row of another form, by its number.
    """
    return [
        _item({"text": row} if isinstance(row, str) else row, tokenizer, f"{name}, row {i}")
        for i, row in enumerate(rows, start=1)
    ]


def _item(row: Mapping, tokenizer: Any, where: str) -> dict:
    given = {key: row[key] for key in ("prompt", "answer", "messages", "text") if _says(row, key)}
    if "messages" in given:
        return _chat(given["messages"], tokenizer, where)
    if "prompt" in given and "answer" in given:
        return {"prompt": str(given["prompt"]), "answer": str(given["answer"])}
    if "prompt" in row and "answer" in row:
        raise SoupError(f"an empty prompt or answer: {where}; fill it, or leave the row out")
    if "text" in given:
        return {"prompt": "", "answer": str(given["text"]), "train_on": EVERYTHING}
    raise SoupError(f"{FORMS}: {where} has {', '.join(map(str, row)) or 'nothing'}; rename columns")


def _says(row: Mapping, key: str) -> bool:
    """Whether a column is there and not empty (a missing value is NaN); a number is a text too."""
    value = row.get(key)
    return len(value) > 0 if hasattr(value, "__len__") else value is not None and value == value


def _chat(messages: Any, tokenizer: Any, where: str) -> dict:
    try:
        turns = json.loads(messages) if isinstance(messages, str) else list(messages)
        turns = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    except (ValueError, TypeError, KeyError) as error:
        raise SoupError(f"messages are no list of role and content: {where}; mend it") from error
    if not turns or turns[-1]["role"] != "assistant" or not turns[-1]["content"]:
        raise SoupError(f"the last message is not the assistant's: {where}; end with an answer")
    if not getattr(tokenizer, "chat_template", None):
        raise SoupError(f"the base has no chat template: {where}; give prompt and answer")
    return {"prompt": chat_prompt(tokenizer, turns[:-1]), "answer": turns[-1]["content"]}


def chat_prompt(tokenizer: Any, turns: list[dict]) -> str:
    """Turns in the tokenizer's chat template, up to where the answer begins.

    A begin token that the tokenizer adds itself is not written twice.
    """
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    begin = tokenizer.bos_token
    doubled = begin and tokenizer(text).input_ids[:2] == [tokenizer.bos_token_id] * 2
    return text.removeprefix(begin) if doubled else text
