"""Rows of public datasets: from a local mirror of the Hub, or from the Hub itself.

A mirror is a folder ``<org>/<name>/<config>/<split>.jsonl.gz`` with a ``MANIFEST.json``: a list of
``{path, sha256, licence, complete, note}``. A file that is listed is checked against its sha256.
No code of a dataset is ever run.
"""

import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorasoups.errors import SoupError

HUB_MIRROR = "LORASOUPS_HUB_MIRROR"
_MIRROR_HINT = f"give a local mirror with --hub-mirror DIR or {HUB_MIRROR}"


@dataclass(frozen=True)
class Dataset:
    """What is known of a dataset before it is read: its columns, its licence on the Hub."""

    columns: tuple[str, ...]
    licence: str
    splits: tuple[str, ...] = ("train",)


REGISTRY: dict[tuple[str, str], Dataset] = {
    ("openai/gsm8k", "main"): Dataset(("question", "answer"), "MIT", ("train", "test")),
    ("sahil2801/CodeAlpaca-20k", "default"): Dataset(
        ("instruction", "input", "output"), "CC BY-NC 4.0"
    ),
    ("reasoning-machines/gsm-hard", "default"): Dataset(("input", "code", "target"), "MIT"),
}


@dataclass(frozen=True)
class Rows:
    """Rows of one split, and where they came from.

    Attributes:
        rows: dicts with at least the registered columns; the first ``limit`` of the split.
        source: ``mirror:<path inside it>`` or ``hub:<repo>@<revision>``.
        sha256: of the registered columns of the *whole* split, as canonical JSON lines: the
            same for a mirror and the Hub, whatever the limit.
        licence: of the dataset.
        note: what a reader of results must know ("STAND-IN: ...", "SUBSET: ..."), or "".
    """

    rows: list[dict[str, Any]]
    source: str
    sha256: str
    licence: str
    note: str = ""


def load_split(
    repo: str,
    config: str,
    split: str,
    mirror: str | Path | None = None,
    limit: int | None = None,
) -> Rows:
    """Read one split of a registered dataset.

    Args:
        repo, config, split: as on the Hub (config ``default`` where it has no name).
        mirror: folder of a mirror; None: the environment variable ``LORASOUPS_HUB_MIRROR``; if
            that is not set either, the Hub (or its local cache).
        limit: only the first rows.

    Raises:
        SoupError: unknown dataset; missing, damaged or changed file; missing column; Hub not to
            be reached.
    """
    if (repo, config) not in REGISTRY or split not in REGISTRY[repo, config].splits:
        known = ", ".join(f"{r}/{c}" for r, c in REGISTRY)
        raise SoupError(f"unknown dataset: {repo}/{config}/{split}; there are {known}")
    known = REGISTRY[repo, config]
    mirror = mirror or os.environ.get(HUB_MIRROR)
    if mirror:
        rows, source, entry = _from_mirror(Path(mirror).expanduser(), repo, config, split)
    else:
        rows, source = _from_hub(repo, config, split)
        entry = {}
    _check_columns(rows, known.columns, source)
    licence, note = entry.get("licence") or known.licence, entry.get("note") or ""
    digest = rows_digest(rows, known.columns)
    return Rows(rows if limit is None else rows[:limit], source, digest, licence, note)


def rows_digest(rows: Iterable[dict], columns: Iterable[str]) -> str:
    """sha256 over the given columns of rows, one canonical JSON line each."""
    columns = sorted(columns)
    digest = hashlib.sha256()
    for row in rows:
        chosen = {name: row[name] for name in columns}
        digest.update(json.dumps(chosen, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _from_mirror(mirror: Path, repo: str, config: str, split: str) -> tuple[list[dict], str, dict]:
    if not mirror.is_dir():
        raise SoupError(f"no such folder: dataset mirror {mirror}; check --hub-mirror")
    name = f"{repo}/{config}/{split}.jsonl.gz"
    path = mirror / name
    try:
        packed = path.read_bytes()
    except FileNotFoundError:
        raise SoupError(
            f"the mirror does not have {repo}/{config}/{split}: {path}; "
            "put the file there, or run without a mirror to use the Hub"
        ) from None
    except OSError as error:
        raise SoupError(f"cannot read: {path}, {error.strerror}; check the file") from error
    entry = _manifest(mirror).get(name, {})
    wanted, found = entry.get("sha256"), hashlib.sha256(packed).hexdigest()
    if wanted and wanted != found:
        raise SoupError(
            f"damaged or changed, sha256 {found[:12]}... instead of {wanted[:12]}...: {path}; "
            "copy the file again"
        )
    return _parse(packed, path), f"mirror:{name}", entry


def _manifest(mirror: Path) -> dict[str, dict]:
    """Entries of ``MANIFEST.json`` by path; a mirror without one vouches for nothing."""
    path = mirror / "MANIFEST.json"
    try:
        return {entry["path"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SoupError(
            f"not a list of {{path, sha256, ...}}: {path}; restore the mirror's manifest"
        ) from error


def _parse(packed: bytes, path: Path) -> list[dict]:
    try:
        lines = gzip.decompress(packed).decode("utf-8").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SoupError(f"not a gzip file of UTF-8 text: {path}; copy the file again") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SoupError(f"not JSON: {path} line {number}; copy the file again") from error
        if not isinstance(row, dict):
            raise SoupError(f"not a JSON object: {path} line {number}; copy the file again")
        rows.append(row)
    return rows


def _from_hub(repo: str, config: str, split: str) -> tuple[list[dict], str]:
    import datasets

    try:
        data = datasets.load_dataset(repo, config, split=split)
    except Exception as error:
        raise SoupError(
            f"cannot load {repo}/{config}/{split} from the Hugging Face Hub: {reason(error)}; "
            f"check the network, or {_MIRROR_HINT}"
        ) from error
    urls = " ".join(map(str, data.info.download_checksums or {}))
    revision = re.search(r"@([0-9a-f]{40})", urls)
    return data.to_list(), f"hub:{repo}@{revision[1] if revision else 'main'}"


def reason(error: BaseException) -> str:
    """One line of at most 160 characters on why the Hub failed, without addresses or tokens."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"hf_[A-Za-z0-9]{8,}", "hf_***", text)
    return text if len(text) <= 160 else text[:157] + "..."


def _check_columns(rows: list[dict], columns: tuple[str, ...], source: str) -> None:
    if not rows:
        raise SoupError(f"no rows: {source}; copy the file again")
    for number, row in enumerate(rows):
        missing = [name for name in columns if name not in row]
        if missing:
            raise SoupError(
                f"no column {missing[0]!r}: {source} row {number}; "
                f"expected {', '.join(columns)}, found {', '.join(row)}"
            )
