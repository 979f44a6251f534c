"""A store of artifacts, each named by the hash of everything that determines it.

A stage (train a skill, learn alphas, merge, evaluate) writes files into an empty folder. Its
artifact is ``<root>/<stage>/<key>/``: the files and, written last, a manifest with their sha256
and sizes. A sound artifact is reused, a damaged one is put aside and built again. Several
processes of one run build together: rank 0 looks, locks and writes, the others compute along.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lorasoups.errors import DiskError, SoupError
from lorasoups.files import DISK_FULL, disk_errors, ensure_folder, sha256_file, write_json_atomic
from lorasoups.models import processes

VERSIONS = {"skill": 1, "alphas": 1, "merge": 1, "lorahub": 1, "xlora": 1, "tuned": 1,
            "anchored": 1, "evaluate": 1, "loss": 1}  # fmt: skip
"""Raise a stage's number when its code gives other numbers for the same inputs (tests/golden sees
it): older artifacts are then built again."""
MANIFEST, SCHEMA = "MANIFEST.json", 1
LIBRARIES = ("torch", "transformers", "peft", "safetensors")
# stages that rank 0 builds while the others wait
ALONE = ("merge", "lorahub", "tuned", "anchored", "loss")
HASHED_BYTES = 2**20  # larger files are checked by their size alone when they are reused
SEEN_WITHIN_S = 90.0  # network file systems may remember for a minute that a file was not there

Make = Callable[[Path, Path], None]


def canonical_json(value: Any) -> str:
    """One spelling per JSON value. Refuses all else, paths too: their content determines things."""
    try:
        return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SoupError(f"cannot name an artifact ({error}): inputs; give plain values") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        if any(not isinstance(key, str) for key in value):  # json would turn them into strings
            raise TypeError(f"keys {list(value)[:3]} are not all strings")
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def digest(value: Any) -> str:
    """sha256 (hex) of a plain JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def key(stage: str, inputs: Mapping[str, Any]) -> str:
    """sha256 (hex) of a stage, its version, its inputs and library versions (major.minor)."""
    if stage not in VERSIONS:
        raise SoupError(f"unknown stage {stage!r}: choose one of {', '.join(VERSIONS)}")
    libraries = {name: metadata.version(name).split(".")[:2] for name in LIBRARIES}
    named = {"stage": stage, "version": VERSIONS[stage], "libraries": libraries}
    return digest(named | {"inputs": inputs})


class Store:
    """Artifacts below ``root``, with ``<key>.lock`` files and ``corrupt/`` for damaged ones."""

    def __init__(self, root: Path | str):
        self.root = ensure_folder(root)

    def path(self, stage: str, inputs: Mapping[str, Any]) -> Path:
        """Where the artifact lies, or would lie."""
        return self.root / stage / key(stage, inputs)[:32]

    def build(self, stage: str, inputs: Mapping, make: Make, *, force: bool = False) -> Path:
        """Return the artifact's folder, building it if it is not there, whole and sound.

        ``inputs`` are plain JSON values: everything that determines the result.
        ``make(folder, scratch)`` writes the files into ``folder``; ``scratch`` survives a kill and
        is removed after success (for checkpoints). ``force`` replaces a sound artifact, once the
        new one is complete. Raises SoupError: bad inputs; no space or no permission; nothing
        written; processes that mean different artifacts; and what ``make`` raises.
        """
        folder = self.path(stage, inputs)
        names = processes.gather(folder.name)
        if others := [rank for rank, name in enumerate(names) if name != names[0]]:
            what = f"processes 0 and {others[0]} mean different artifacts of {stage}"
            why = "base, data, library versions or hardware (bfloat16) differ"
            raise SoupError(f"{what}: {why}; run on machines of one kind")
        if processes.is_main():
            waiting = True  # the others, for whether there is something to compute together

            def make_together(target: Path, scratch: Path) -> None:
                nonlocal waiting
                waiting = not processes.broadcast(True)
                make(target, scratch)

            self._build(folder, stage, inputs, make if stage in ALONE else make_together, force)
            if waiting:
                processes.broadcast(False)
        elif processes.broadcast():
            with tempfile.TemporaryDirectory() as aside:  # what other ranks write is dropped
                make(Path(aside), _beside(folder, "scratch"))
        processes.gather(None)
        _wait_for(folder / MANIFEST)
        return folder

    def _build(self, folder: Path, stage: str, inputs: Mapping, make: Make, force: bool) -> None:
        ensure_folder(folder.parent)
        name = f"{stage} {folder.name[:8]}"
        with _lock(folder, name):
            _remove_leftovers(folder)
            if folder.exists() and (damage := _damage(folder, key(stage, inputs))):
                aside = ensure_folder(self.root / "corrupt") / f"{folder.name}-{time.time_ns()}"
                with disk_errors(aside):
                    folder.rename(aside)
                what = f"artifact {name} is damaged ({damage}); put aside as {aside}, built again"
                warnings.warn(what, stacklevel=4)
            try:
                if force or not folder.exists():
                    _make(folder, stage, inputs, make)
            finally:
                _remove_leftovers(folder)


def _make(folder: Path, stage: str, inputs: Mapping, make: Make) -> None:
    temporary, scratch = _beside(folder, "tmp"), _beside(folder, "scratch")
    started = time.monotonic()
    with disk_errors(temporary):
        temporary.mkdir()
        scratch.mkdir(exist_ok=True)
    try:
        make(temporary, scratch)
    except Exception as error:  # one line for a full disk, which libraries wrap in their own errors
        full = re.search("No space left|File too large", str(error))
        if full or getattr(error, "errno", None) in DISK_FULL:
            raise DiskError(f"cannot write, the disk is full: {folder}; free some space") from error
        raise
    manifest = {"schema": SCHEMA, "stage": stage, "key": key(stage, inputs), "inputs": inputs,
                "version": VERSIONS[stage], "files": _files(temporary, stage),
                "seconds": round(time.monotonic() - started, 3)}  # fmt: skip
    write_json_atomic(temporary / MANIFEST, manifest)
    with disk_errors(folder):
        if folder.exists():
            folder.rename(_beside(folder, "old"))
        temporary.rename(folder)
    shutil.rmtree(scratch, ignore_errors=True)


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f"{folder.name}.{suffix}")


def _lock(folder: Path, name: str) -> AbstractContextManager:
    """One builder per key. The system's own file lock ends with its holder, even a killed one."""
    lock = FileLock(str(_beside(folder, "lock")))
    with disk_errors(folder.parent):
        try:
            return lock.acquire(timeout=0)
        except Timeout:
            warnings.warn(f"another process builds {name}; waiting for it", stacklevel=4)
            return lock.acquire()


def _remove_leftovers(folder: Path) -> None:
    """What a killed builder left; we hold the lock, so nobody else works on this key."""
    old = _beside(folder, "old")
    if old.exists() and not folder.exists():  # killed between the two renames
        old.rename(folder)
    for leftover in (old, _beside(folder, "tmp")):
        shutil.rmtree(leftover, ignore_errors=True)


def _files(folder: Path, stage: str) -> dict[str, dict[str, Any]]:
    """Flush every file; returns the sizes and sha256 for the manifest."""
    files = {}
    for path in sorted(filter(Path.is_file, folder.rglob("*"))):
        with disk_errors(path), open(path, "rb+") as file:
            os.fsync(file.fileno())
        name = path.relative_to(folder).as_posix()
        files[name] = {"sha256": sha256_file(path), "size": path.stat().st_size}
    if not files:
        raise SoupError(f"the stage wrote no file: {stage}; its function must write its result")
    return files


def _damage(folder: Path, full_key: str) -> str | None:
    """What is wrong with an artifact, or None. Only files in the manifest count."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["key"] != full_key:
            return "it belongs to another key"
        for name, facts in manifest["files"].items():
            size = (folder / name).stat().st_size
            same = size > HASHED_BYTES or sha256_file(folder / name) == facts["sha256"]
            if size != facts["size"] or not same:
                return f"{name} has changed"
        return None if manifest["files"] else "its manifest is empty"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its manifest cannot be read"


def _wait_for(manifest: Path) -> None:
    until = time.monotonic() + SEEN_WITHIN_S
    while not manifest.is_file():
        if time.monotonic() > until:
            what = f"process {processes.rank()} does not see what process 0 wrote: {manifest}"
            raise SoupError(f"{what}; give --out a folder that all machines share")
        time.sleep(0.2)
