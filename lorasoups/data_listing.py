"""Which of the declared data sets are at hand: in the mirror, in the Hub's cache, or not here."""

import os
from pathlib import Path

from lorasoups.hub import is_stand_in, mirror_entry, mirror_folder
from lorasoups.real_rows import OWN_FILE, manual_file, needs_stand_in
from lorasoups.real_sets import DataSet, catalogue


def listing() -> list[dict]:
    """Every declared set, in the file's order.

    Returns:
        ``{name, repo, licence, rows, where, note, tasks}`` of each: ``rows`` as on the Hub, as
        text; ``where`` one of ``mirror``, ``mirror, in part`` (not all of its files), ``cache``,
        ``file``, ``Hub`` (not here, but to be fetched) and ``not here``; ``note`` what the mirror's
        manifest says of an incomplete file, and which stand-in is used.

    Raises:
        SoupError: a manifest that cannot be read.
    """
    found = catalogue()
    lines = []
    for own in found.sets.values():
        tasks = [task for task in found.tasks.values() if task.set == own.name]
        where, notes = _where(own)
        for task in tasks:
            if task.stand_in and needs_stand_in(own):
                other = found.set_of(task.stand_in)
                notes.append(f"{task.name}: stand-in {other.repo} ({task.stand_in})")
        lines.append(
            {
                "name": own.name,
                "repo": own.repo or OWN_FILE,
                "licence": own.licence,
                "rows": " + ".join(f"{n:,}" for n in own.rows.values()) or "-",
                "where": where,
                "note": "; ".join(notes),
                "tasks": [task.name for task in tasks],
            }
        )
    return lines


def table(lines: list[dict]) -> str:
    """The listing as text, a set a line."""
    columns = ("repo", "rows", "licence", "where", "tasks", "note")
    cells = [columns] + [
        tuple(", ".join(line[c]) if c == "tasks" else line[c] for c in columns) for line in lines
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(row.rstrip() for row in rows)


def _where(own: DataSet) -> tuple[str, list[str]]:
    if own.file:
        path = manual_file()
        return ("file" if path and path.is_file() else "not here"), []
    if mirror_folder():
        entries = [mirror_entry(own.repo, own.config, split) for split in own.splits.values()]
        there = [entry for entry in entries if entry]
        notes = dict.fromkeys(
            entry.get("note") or "not complete"
            for entry in there
            if entry.get("complete") is False or is_stand_in(entry)
        )
        where = "mirror" if len(there) == len(entries) else "mirror, in part"
        return (where if there else "not here"), list(notes)
    if not own.hub:
        return "not here", []
    return ("cache" if _in_cache(own.repo) else "Hub"), []


def _in_cache(repo: str) -> bool:
    """Whether `datasets` (prepared rows) or huggingface_hub (files) has kept the repository."""
    from huggingface_hub import constants

    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME, "datasets"))
    files = Path(constants.HF_HUB_CACHE)
    return any(
        folder.is_dir()
        for folder in (
            prepared / repo.replace("/", "___"),
            files / f"datasets--{repo.replace('/', '--')}" / "snapshots",
        )
    )
