"""Rows of a dataset: from a local mirror folder, or from the Hub.

A mirror is a folder with ``<org>/<name>/<config>/<split>.jsonl.gz`` (one JSON object a line) and a
``MANIFEST.json``: a list of ``{path, rows, sha256, licence, complete, note}``. Every file is
checked against it. What the manifest says about a file (a stand-in? a part only?) goes with the
rows into the results.
"""

import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorasoups.errors import SoupError
from lorasoups.models.hub_errors import explain_hub_error

MIRROR_VARIABLE = "LORASOUPS_HUB_MIRROR"
_ABOUT = ("licence", "complete", "note")
_MIRROR_OPTION = f"give a local mirror with --hub-mirror DIR (or {MIRROR_VARIABLE})"


@dataclass(frozen=True)
class Rows(Sequence):
    """Rows of one split, in the file's order.

    Attributes:
        rows: a dict per row, by column.
        info: ``repo``, ``config``, ``split``, ``origin`` (``mirror`` or ``hub``), ``rows``, ``of``
            (rows before ``limit``), ``sha256`` (of the mirror's file), ``revision`` (of the Hub),
            ``licence``, ``complete``, ``note``, ``stand_in_for`` (the repository that these rows
            are used instead of). What is unknown is None. No paths.
    """

    rows: list[dict]
    info: dict

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def __iter__(self) -> Iterator[dict]:
        return iter(self.rows)


def load_split(
    repo: str,
    config: str,
    split: str,
    mirror: str | Path | None = None,
    limit: int | None = None,
    columns: Sequence[str] = (),
    stand_in_for: str | None = None,
) -> Rows:
    """Load a split of a dataset.

    Args:
        repo, config, split: as on the Hub, e.g. ``"openai/gsm8k", "main", "train"``; a dataset
            without configurations has ``"default"``.
        mirror: a mirror's folder; default what the environment variable ``LORASOUPS_HUB_MIRROR``
            names. With a mirror the Hub is never asked; without one it (or its cache) is.
        limit: only the first rows.
        columns: what every row must have.
        stand_in_for: the repository that these rows are used instead of. Without it a file that
            its manifest calls a STAND-IN stands in for the repository whose name it bears.

    Raises:
        SoupError: no mirror, file or manifest entry; a damaged file; a missing column; or a Hub
            that cannot be reached.
    """
    mirror = mirror_folder(mirror)
    if mirror:
        rows, about = _from_mirror(mirror, repo, config, split)
    else:
        rows, about = _from_hub(repo, config, split)
    where = f"{repo}/{config}/{split} ({'mirror' if mirror else 'Hub'})"
    if not rows:
        raise SoupError(f"no rows: {where}; fetch the dataset again")
    missing = [name for name in columns if any(name not in row for row in rows)]
    if missing:
        raise SoupError(
            f"column {missing[0]!r} is missing: {where}, it has {', '.join(rows[0])}; "
            "is this the right dataset and configuration?"
        )
    info = {
        "repo": repo,
        "config": config,
        "split": split,
        "origin": "mirror" if mirror else "hub",
        "rows": len(rows[:limit]),
        "of": len(rows),
        **{name: about.get(name) for name in ("sha256", "revision", *_ABOUT)},
        "stand_in_for": stand_in_for or (repo if is_stand_in(about) else None),
    }
    return Rows(rows[:limit], info)


def mirror_folder(mirror: str | Path | None = None) -> Path | None:
    """The mirror that is used: what was given, else what the variable names, else None."""
    named = mirror or os.environ.get(MIRROR_VARIABLE)
    return Path(named).expanduser() if named else None


def mirror_entry(
    repo: str, config: str, split: str, mirror: str | Path | None = None
) -> dict | None:
    """What the mirror's manifest says of a file; None where mirror or file is missing.

    Raises:
        SoupError: the file is there, but the manifest is not, or does not name it.
    """
    folder, name = mirror_folder(mirror), _file_name(repo, config, split)
    if folder is None or not (folder / name).is_file():
        return None
    return _manifest_entry(folder, name)


def is_stand_in(about: dict) -> bool:
    """Whether a manifest's entry says of its file that it only stands in for the real one."""
    return (about.get("note") or "").startswith("STAND-IN")


# --- mirror -------------------------------------------------------------------------------------


def _file_name(repo: str, config: str, split: str) -> str:
    return f"{repo}/{config}/{split}.jsonl.gz"


def _from_mirror(mirror: Path, repo: str, config: str, split: str) -> tuple[list[dict], dict]:
    if not mirror.is_dir():
        raise SoupError(f"no such mirror folder: {mirror}; check --hub-mirror or {MIRROR_VARIABLE}")
    name = _file_name(repo, config, split)
    path = mirror / name
    if not path.is_file():
        raise SoupError(
            f"the mirror has no {name}: {mirror}; put it there, or leave out --hub-mirror"
        )
    entry = _manifest_entry(mirror, name)
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != entry.get("sha256"):
        raise SoupError(
            f"its sha256 is not the manifest's, damaged or changed: {path}; copy the file again"
        )
    rows = _parse(data, path)
    if "rows" in entry and entry["rows"] != len(rows):
        raise SoupError(
            f"{len(rows)} rows, the manifest says {entry['rows']}: {path}; copy the mirror again"
        )
    return rows, entry


def _manifest_entry(mirror: Path, name: str) -> dict:
    path = mirror / "MANIFEST.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        found = [entry for entry in entries if entry["path"] == name]
    except FileNotFoundError:
        raise SoupError(f"a mirror needs a manifest: {path}; copy the whole mirror") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SoupError(f"manifest cannot be read ({error}): {path}; copy it again") from error
    if not found:
        raise SoupError(f"no entry for {name}: {path}; add its sha256, licence and note")
    return found[0]


def _parse(data: bytes, path: Path) -> list[dict]:
    try:
        # not splitlines(): texts hold U+2028 and other line ends that are none in JSON lines
        lines = gzip.decompress(data).decode("utf-8").removesuffix("\n").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SoupError(f"not a sound gzip file ({error}): {path}; copy it again") from error
    rows = []
    for number, line in enumerate(lines if lines != [""] else [], 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SoupError(f"line {number} is no JSON ({error}): {path}; copy it again") from error
        if not isinstance(row, dict):
            raise SoupError(f"line {number} is no JSON object: {path}; copy it again")
        rows.append(row)
    return rows


# --- Hub ----------------------------------------------------------------------------------------


def _from_hub(repo: str, config: str, split: str) -> tuple[list[dict], dict]:
    from datasets import load_dataset

    try:
        loaded = load_dataset(repo, config, split=split)
    except Exception as error:
        what = f"dataset {repo}, {config}/{split}"
        raise explain_hub_error(error, what, _MIRROR_OPTION) from error
    # the files that were read are named with their commit: hf://datasets/<repo>@<commit>/...
    commits = re.findall(r"@([0-9a-f]{40})/", " ".join(loaded.info.download_checksums or {}))
    about = {
        "revision": commits[0] if commits else None,
        "licence": loaded.info.license or None,
        "complete": True,
    }
    return loaded.to_list(), about
