"""Rows of one's own data: from a JSONL, CSV or Parquet file or a data set on the Hub.

What a row can be: see `models.rows`.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lorasoups.errors import DiskError, SoupError
from lorasoups.models.batching import encode_all
from lorasoups.models.rows import as_items
from lorasoups.tasks.real.hub import load_split

HELD_OUT, CHOICE, FEWEST = 0.2, 0.1, 10  # shares of the rows; rows that are needed
_READERS = {
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False),
    ".json": lambda path: pd.read_json(path, dtype=False),
    ".csv": lambda path: pd.read_csv(path, dtype=str, keep_default_na=False),
    ".parquet": pd.read_parquet,
}


@dataclass(frozen=True)
class Data:
    """The rows of one skill, encoded and divided."""

    name: str  # the file, or the data set
    train: list[dict]  # what alphas are learned on
    choice: list[dict]  # what their learning rate is chosen on
    held_out: list[dict]  # what the report is on
    told: str = ""  # what became of rows that are not used as they are


def read_data(
    source: str | Path | Sequence[Mapping], tokenizer: Any, *, limit: int | None = None,
    max_length: int = 512, share: float = HELD_OUT, seed: int = 0,
) -> Data:  # fmt: skip
    """Read, encode and divide the rows of one skill.

    ``source`` is a file (.jsonl, .json, .csv, .parquet), a Hub data set (``org/name``,
    ``org/name/config`` or ``org/name/config/split``; default the training split), or rows. At most
    ``limit`` rows are used (default all). A row without a token of its answer within ``max_length``
    tokens is left out, and so is one that is there already. ``share`` of the rows, above 0 and at
    most a half, is held out. ``seed`` decides the draw and the division.

    Raises SoupError (DiskError for a file that cannot be read): another format; a row of another
    form, named by its number; fewer than 10 rows with an answer; a bad number.
    """
    if not 0 < share <= 0.5 or (limit is not None and limit < FEWEST):
        raise SoupError(f"share {share}, limit {limit}: give 0 < share <= 0.5, limit >= {FEWEST}")
    rows, name = _rows(source)
    items = as_items(rows, tokenizer, name)
    if limit and limit < len(items):
        items = random.Random(seed).sample(items, limit)
    whole = encode_all(tokenizer, items, max_length)
    long = sum(row["input_ids"][-1] != tokenizer.eos_token_id for row in whole)
    distinct = {tuple(row["input_ids"]): row for row in whole if set(row["labels"][1:]) - {-100}}
    encoded, gone = list(distinct.values()), len(items) - len(distinct)
    told = f"{gone} rows left out, {long} longer than {max_length} tokens" if gone or long else ""
    if len(encoded) < FEWEST:
        what = f"{len(encoded)} different rows with an answer within {max_length} tokens"
        raise SoupError(f"{what}: {name}; give at least {FEWEST}, better a few hundred")
    random.Random(seed).shuffle(encoded)
    n, m = max(2, round(share * len(encoded))), max(2, round(CHOICE * len(encoded)))
    return Data(name, encoded[n + m :], encoded[n : n + m], encoded[:n], told)


def _rows(source: str | Path | Sequence[Mapping]) -> tuple[list[Mapping], str]:
    if not isinstance(source, str | Path):
        return list(source), "the given rows"
    path = Path(source).expanduser()
    if path.suffix.lower() not in _READERS:
        parts = str(source).split("/")
        if path.exists() or not 2 <= len(parts) <= 4:
            kinds = ", ".join(_READERS)
            raise SoupError(f"not a data file or data set: {source}; give {kinds}, or org/name")
        config, split = ([*parts[2:], *["default", "train"][len(parts) - 2 :]])[:2]
        return load_split("/".join(parts[:2]), config, split)[0], str(source)
    try:
        frame = _READERS[path.suffix.lower()](path)
    except OSError as error:
        raise DiskError(f"cannot read ({error.strerror}): {path}; check the path") from error
    except ValueError as error:
        what = f"not a {path.suffix} file ({str(error).splitlines()[0]:.100})"
        raise SoupError(f"{what}: {path}; save it again") from error
    return frame.to_dict("records"), path.name
