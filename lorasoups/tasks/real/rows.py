"""Rows of a declared set: from the mirror, the Hub, or a text file that the user names."""

import hashlib
import os
from pathlib import Path

from lorasoups.errors import SoupError
from lorasoups.tasks.real.hub import (
    MIRROR_VARIABLE,
    Rows,
    load_split,
    mirror_entry,
    mirror_folder,
)
from lorasoups.tasks.real.sets import Catalogue, DataSet, Task

MANUAL_VARIABLE = "LORASOUPS_MANUAL"
OWN_FILE = "your own text file"


def manual_file(manual: str | Path | None = None) -> Path | None:
    """The user's own text: what was given, else what ``LORASOUPS_MANUAL`` names, else None."""
    named = manual or os.environ.get(MANUAL_VARIABLE)
    return Path(named).expanduser() if named else None


def needs_stand_in(rows: DataSet, manual: str | Path | None = None) -> bool:
    """Whether a set cannot be served: a mirror that lacks one of its files, or no file named.

    Without a mirror the Hub is asked, which has no stand-ins.
    """
    if rows.file:
        return manual_file(manual) is None
    folder = mirror_folder()
    if folder is None or not folder.is_dir():
        return False
    return not all(mirror_entry(rows.repo, rows.config, s) for s in rows.splits.values())


def served(
    task: Task, found: Catalogue, manual: str | Path | None = None
) -> tuple[Task, str | None]:
    """The task whose data are used for a task, and what it stands in for (None: for nothing)."""
    rows = found.sets[task.set]
    if task.stand_in and needs_stand_in(rows, manual):
        return found.tasks[task.stand_in], rows.repo or OWN_FILE
    return task, None


def read(
    rows: DataSet,
    split: str,
    manual: str | Path | None = None,
    stand_in_for: str | None = None,
) -> Rows:
    """The rows of ``train`` or ``test`` of a set.

    Args:
        rows: where they are.
        split: a key of ``rows.splits``.
        manual: the user's text file, for a set that is one.
        stand_in_for: what these rows are used instead of; goes into ``info``.

    Raises:
        SoupError: see `hub.load_split`; a set that only a mirror has, without a mirror; a text
            file that is missing, empty or not UTF-8.
    """
    if rows.file:
        return _own_file(manual_file(manual))
    if not rows.hub and mirror_folder() is None:
        raise SoupError(
            f"not on the Hub, only in a mirror: {rows.repo}; "
            f"give one with --hub-mirror DIR (or {MIRROR_VARIABLE})"
        )
    return load_split(
        rows.repo, rows.config, rows.splits[split], columns=rows.columns, stand_in_for=stand_in_for
    )


def _own_file(path: Path | None) -> Rows:
    if path is None:
        raise SoupError(f"no manual: name your text file in {MANUAL_VARIABLE}, or use a mirror")
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise SoupError(f"cannot be read ({error.strerror}): {path}; name a text file") from error
    except UnicodeDecodeError as error:
        raise SoupError(f"not UTF-8 text ({error.reason}): {path}; save it as UTF-8") from error
    if not text.strip():
        raise SoupError(f"an empty text: {path}; name a file with the manual's text")
    info = {
        "repo": OWN_FILE,
        "config": "",
        "split": "train",
        "origin": "file",
        "rows": 1,
        "of": 1,
        "sha256": hashlib.sha256(data).hexdigest(),
        "revision": None,
        "licence": None,
        "complete": True,
        "note": "",
        "stand_in_for": None,
    }
    return Rows([{"text": text}], info)
