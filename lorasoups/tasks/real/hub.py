"""Rows of a data set: from a local mirror folder, or from the Hub.

A mirror is a folder with ``<org>/<name>/<config>/<split>.jsonl.gz`` (one JSON object per line) and
a ``MANIFEST.json``: a list of ``{path, sha256, rows, licence, complete, note}``. Every file is
checked against its entry. What the entry says (a stand-in? only a part?) goes with the rows into
the results.
"""

import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import datasets

from lorasoups.errors import SoupError
from lorasoups.models.hub_errors import hub_errors

MIRROR_VARIABLE = "LORASOUPS_HUB_MIRROR"
MIRROR_OPTION = f"give a local mirror with --hub-mirror DIR (or {MIRROR_VARIABLE})"


def load_split(
    repo: str, config: str, split: str, columns: Sequence[str] = (), stand_in_for: str | None = None
) -> tuple[list[dict], dict]:
    """Load a split, from the mirror that ``LORASOUPS_HUB_MIRROR`` names, else from the Hub.

    ``repo``, ``config``, ``split`` are as on the Hub, e.g. ``"openai/gsm8k", "main", "train"``; a
    data set without configurations has ``"default"``. Every row must have ``columns``.
    ``stand_in_for`` is the repository that these rows replace; by default a file that its manifest
    calls a STAND-IN replaces the repository whose name it bears.

    Returns the rows as dicts by column, in the file's order, and their info: ``{repo, config,
    split, origin, rows, of, sha256, revision, licence, complete, note, stand_in_for}``. ``rows``
    and ``of`` both count the rows, ``sha256`` is of the mirror's file; what is unknown is None.
    Raises SoupError: no such file or manifest entry; a damaged file; a missing column; no Hub.
    """
    folder = mirror_folder()
    origin, place = "mirror" if folder else "hub", (repo, config, split)
    rows, about = _from_mirror(folder, *place) if folder else _from_hub(*place)
    where = f"{repo}/{config}/{split} ({origin})"
    _require(rows, f"no rows: {where}; fetch the data set again")
    for column in columns:
        problem = f"column {column!r} is missing: {where} has {', '.join(rows[0])}"
        _require(all(column in row for row in rows), f"{problem}; check the data set's name")
    if (about.get("note") or "").startswith("STAND-IN"):
        stand_in_for = stand_in_for or repo
    kept = ("sha256", "revision", "licence", "complete", "note")
    info = {"repo": repo, "config": config, "split": split, "origin": origin,
            "rows": len(rows), "of": len(rows)}  # fmt: skip
    info |= {name: about.get(name) for name in kept} | {"stand_in_for": stand_in_for}
    return rows, info


def mirror_folder() -> Path | None:
    """The mirror that ``LORASOUPS_HUB_MIRROR`` names, or None."""
    named = os.environ.get(MIRROR_VARIABLE)
    return Path(named).expanduser() if named else None


def mirror_file(repo: str, config: str, split: str) -> str:
    """The path of a split inside a mirror."""
    return f"{repo}/{config}/{split}.jsonl.gz"


def _from_mirror(mirror: Path, repo: str, config: str, split: str) -> tuple[list[dict], dict]:
    _require(mirror.is_dir(), f"no such mirror folder: {mirror}; {MIRROR_OPTION}")
    name = mirror_file(repo, config, split)
    path = mirror / name
    _require(path.is_file(), f"the mirror has no {name}: {mirror}; add it, or use the Hub")
    entry, data = _manifest_entry(mirror / "MANIFEST.json", name), path.read_bytes()
    same = hashlib.sha256(data).hexdigest() == entry.get("sha256")
    _require(same, f"damaged, its sha256 is not the manifest's: {path}; copy the file again")
    try:
        # lines end at \n alone: texts hold U+2028, where str.splitlines would cut
        rows = [dict(json.loads(line)) for line in gzip.decompress(data).split(b"\n") if line]
    except (OSError, EOFError, zlib.error, ValueError, TypeError) as error:
        raise SoupError(f"not gzipped JSON lines ({error}): {path}; copy it again") from error
    n = entry.get("rows", len(rows))
    _require(n == len(rows), f"{len(rows)} rows, the manifest says {n}: {path}; copy it again")
    return rows, entry


def _manifest_entry(path: Path, name: str) -> dict:
    try:
        entries = {entry["path"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
        return entries[name]
    except KeyError:
        raise SoupError(f"no entry for {name}: {path}; add its sha256, licence and note") from None
    except (OSError, ValueError, TypeError) as error:
        raise SoupError(f"manifest cannot be read ({error}): {path}; copy it again") from error


def _from_hub(repo: str, config: str, split: str) -> tuple[list[dict], dict]:
    with hub_errors(f"dataset {repo}, {config}/{split}", MIRROR_OPTION):
        loaded = datasets.load_dataset(repo, config, split=split)
    # file names carry the commit: hf://datasets/<repo>@<commit>/...
    commits = re.findall(r"@([0-9a-f]{40})/", " ".join(loaded.info.download_checksums or {}))
    revision, licence = commits[0] if commits else None, loaded.info.license or None
    return loaded.to_list(), {"revision": revision, "licence": licence, "complete": True}


def _require(condition: object, problem: str) -> None:
    if not condition:
        raise SoupError(problem)
