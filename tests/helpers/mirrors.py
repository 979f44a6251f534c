"""Dataset mirrors for tests: tiny ones made here, and the real one where a variable names it."""

import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest

from lorasoups.tasks.real.hub import MIRROR_VARIABLE

GSM8K = ("openai/gsm8k", "main")
CODE = ("sahil2801/CodeAlpaca-20k", "default")
HARD = ("reasoning-machines/gsm-hard", "default")
SQUAD = ("rajpurkar/squad_v2", "squad_v2")
FORMATS = ("local/prompt-formats", "default")


def write_split(mirror: Path, dataset: tuple[str, str], split: str, rows: list, **entry) -> Path:
    """Write rows as a split of a mirror and add it to its manifest."""
    name = f"{dataset[0]}/{dataset[1]}/{split}.jsonl.gz"
    path = mirror / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode(), mtime=0))
    manifest = mirror / "MANIFEST.json"
    entries = json.loads(manifest.read_text()) if manifest.exists() else []
    entry = {"path": name, "rows": len(rows), "sha256": sha256(path), **entry}
    kept = [other for other in entries if other["path"] != name]
    manifest.write_text(json.dumps([*kept, entry]))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def real_mirror() -> Path:
    """The mirror with real data, or skip: it is not part of the repository."""
    folder = os.environ.get(MIRROR_VARIABLE)
    if not folder or not (Path(folder) / HARD[0]).is_dir():
        pytest.skip(f"no dataset mirror: set {MIRROR_VARIABLE} to a folder with {HARD[0]}")
    return Path(folder)


def write_tiny_mirror(mirror: Path) -> Path:
    """All four files of profile ``small`` with word problems made by a rule."""
    skill = [_word_problem(i) for i in range(200)]
    write_split(mirror, GSM8K, "train", skill, complete=True, note="")
    write_split(mirror, GSM8K, "test", [_word_problem(i) for i in range(500, 512)], complete=True)
    code = [
        {"instruction": f"Write a function that adds {i}.", "input": "", "output": f"return {i}"}
        for i in range(120)
    ]
    write_split(mirror, CODE, "train", code, complete=False, note="STAND-IN: 120 rows")
    hard = [
        {
            "input": _word_problem(i)["question"].replace("has", "has 1000 and"),
            "code": f"def solution():\n    return {1000 + i} + 2\n",
            "target": 1002.0 + i,
        }
        for i in range(500, 512)
    ]
    write_split(mirror, HARD, "train", hard, complete=True, note="evaluation only")
    return mirror


def _word_problem(i: int) -> dict:
    return {
        "question": f"Tom has {i} apples and buys 2. How many apples?",
        "answer": f"Tom has {i} + 2 = <<{i}+2={i + 2}>>{i + 2} apples.\n#### {i + 2}",
    }


def write_whole_mirror(mirror: Path) -> Path:
    """The tiny mirror, and a few rows of every other set that a mirror can hold."""
    write_tiny_mirror(mirror)
    alpaca = [
        {"instruction": f"Name {i} birds.", "input": ("", f"Bird {i}")[i % 2], "output": f"Owl {i}"}
        for i in range(60)
    ]
    write_split(
        mirror, ("tatsu-lab/alpaca", "default"), "train", alpaca, complete=False, note="SUBSET"
    )
    squad = [
        {
            "id": str(i),
            "title": f"Title {i % 30}",
            "context": f"City {i} has {i} gates.",
            "question": f"How many gates has city {i}?",
            "answers": {"text": [f"{i}", f"{i} gates"] if i % 3 else []},
        }
        for i in range(240)
    ]
    write_split(mirror, SQUAD, "validation", squad, complete=True)
    mawps = [
        {"question": f"Ann has {i} and {i} hens. How many ?", "answer": 2.0 * i} for i in range(5)
    ]
    write_split(mirror, ("local/mawps-singleeq", "default"), "test", mawps, complete=True)
    train = [_count(form, i) for form in (1, 2, 4) for i in range(100)]
    test = [_count(form, i) for form in (3, 7, 8, 10) for i in (5, 200, 201)]
    write_split(mirror, FORMATS, "train", train, complete=True)
    write_split(mirror, FORMATS, "test", test, complete=True)
    reading = [
        {"instruction": f"Context: gene {i}.\n\nQuestion: ?", "answer": f"g{i}"} for i in range(4)
    ]
    write_split(mirror, ("local/bioasq-rc", "default"), "test", reading, complete=True)
    closed = [{"question": f"What is cell {i}?", "answer": f"Cell {i}."} for i in range(3)]
    write_split(mirror, ("local/biology-qa", "default"), "test", closed, complete=True)
    book = [{"title": f"{i}", "text": f"Cell {i} lives. It grows.\n\nIt ends."} for i in range(50)]
    write_split(mirror, ("local/openstax-biology", "default"), "train", book, complete=True)
    return mirror


def _count(form: int, i: int) -> dict:
    return {
        "format": form,
        "instruction": f"{form}: 'bird {i} isn't here'. How many words contain 'e'.\nAnswer \n\n",
        "output": f"the correct answer is {i % 4}",
        "answer": f"answer{i % 4}",
    }
