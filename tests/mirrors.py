"""Dataset mirrors for tests: tiny ones made here, and the real one where a variable names it."""

import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest

from lorasoups.hub import MIRROR_VARIABLE

GSM8K = ("openai/gsm8k", "main")
CODE = ("sahil2801/CodeAlpaca-20k", "default")
HARD = ("reasoning-machines/gsm-hard", "default")


def write_split(mirror: Path, dataset: tuple[str, str], split: str, rows: list, **entry) -> Path:
    """Write rows as a split of a mirror and add it to its manifest."""
    name = f"{dataset[0]}/{dataset[1]}/{split}.jsonl.gz"
    path = mirror / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode()))
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
