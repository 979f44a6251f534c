"""A store of artifacts, each named by the hash of everything that determines it.

A stage (train a skill, learn alphas, merge, evaluate) is a function that writes files into an
empty folder. Its artifact is ``<root>/<stage>/<key>/``: the files and, written last, a manifest
with their sha256 and sizes. A second run reuses it after checking every byte, an interrupted one
leaves nothing that could be mistaken for it, a damaged one is put aside and built again.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import re
import shutil
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lorasoups.errors import SoupError
from lorasoups.files import (
    DISK_FULL,
    disk_errors,
    ensure_folder,
    fsync_folder,
    sha256_file,
    write_json_atomic,
)

MANIFEST = "MANIFEST.json"
SCHEMA = 1
LIBRARIES = ("torch", "transformers", "peft", "safetensors")
_OLD_SECONDS = 24 * 3600


def libraries() -> dict[str, str]:
    """Versions (major.minor) of the libraries that can change what a stage computes."""
    return {name: ".".join(metadata.version(name).split(".")[:2]) for name in LIBRARIES}


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces, floats by repr.

    Raises:
        SoupError: for anything but None, bool, int, finite float, str, list, tuple and mappings
            with str keys. Paths are refused on purpose: where a file lies determines nothing,
            its sha256 does.
    """
    _check_plain(value, "inputs")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise SoupError(
                    f"key of a mapping is no string: {where}[{name!r}]; "
                    "stage inputs must be plain JSON values"
                )
            _check_plain(item, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif type(value) is float and not (float("-inf") < value < float("inf")):
        raise SoupError(f"not a finite number ({value}): {where}; stage inputs must be finite")
    elif value is not None and type(value) not in (bool, int, float, str):
        raise SoupError(
            f"a {type(value).__name__} cannot name an artifact: {where}; "
            "give plain JSON values (for a file its sha256, for a tensor its numbers)"
        )


def key(stage: str, **inputs: Any) -> str:
    """sha256 (hex) of the stage's name, its inputs and the library versions.

    :meth:`Store.build` adds the source of the stage's code as the input ``code``.
    """
    text = canonical_json({"stage": stage, "inputs": inputs, "libraries": libraries()})
    return hashlib.sha256(text.encode()).hexdigest()


def source_hash(code: Sequence[Any]) -> str:
    """sha256 of the source of functions, classes or modules; comments and docstrings do not count.

    Functions that these call are not followed: name the whole module where helpers matter.
    """
    digest = hashlib.sha256()
    for item in code:
        item = inspect.unwrap(item) if callable(item) else item
        source = textwrap.dedent(inspect.getsource(item))
        name = getattr(item, "__qualname__", item.__name__)
        digest.update(f"{name}\n{_without_docstrings(source)}\n".encode())
    return digest.hexdigest()


def _without_docstrings(source: str) -> str:
    try:
        tree = ast.parse(source)
    except SyntaxError:  # e.g. a lambda in the middle of an expression: its lines as they are
        return source
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


class Store:
    """Artifacts below one folder.

    Args:
        root: created when first needed. Beside the artifacts it holds ``<key>.lock`` files and
            ``corrupt/``, where damaged artifacts are put.

    Raises:
        SoupError: if the folder cannot be created.
    """

    def __init__(self, root: Path | str):
        self.root = ensure_folder(root)
        self._remove_old_rests()

    def path(self, stage: str, inputs: dict[str, Any], code: Sequence[Any] = ()) -> Path:
        """Where the artifact lies, or would lie."""
        _check_stage(stage)
        return self.root / stage / key(stage, **_with_code(inputs, code))[:32]

    def build(
        self,
        stage: str,
        inputs: dict[str, Any],
        make: Callable[[Path], None],
        code: Sequence[Any] = (),
        *,
        force: bool = False,
    ) -> Path:
        """Return the artifact's folder, building it if it is not there, whole and sound.

        Args:
            stage: name of the stage (letters, digits, ``_``, ``-``).
            inputs: everything that determines the result, as plain JSON values.
            make: writes the artifact's files into the (empty, existing) folder it is given.
            code: functions, classes or modules whose source enters the key.
            force: build again even if a sound artifact is there; that one is replaced only when
                the new one is complete.

        Raises:
            SoupError: bad inputs; no space or no permission; ``make`` wrote nothing or tensors
                that are not finite. Whatever ``make`` raises goes through. In all these cases
                nothing half-built is left, and an older artifact stands as it was.
        """
        folder = self.path(stage, inputs, code)
        inputs = _with_code(inputs, code)
        full_key = key(stage, **inputs)
        ensure_folder(folder.parent)
        with self._lock(folder, stage):
            self._remove_rests_of(folder)
            if folder.exists():
                damage = _damage(folder, full_key)
                if damage is None and not force:
                    return folder
                if damage is not None:
                    self._quarantine(folder, stage, damage)
            self._make(folder, stage, full_key, inputs, make)
        return folder

    def _make(
        self,
        folder: Path,
        stage: str,
        full_key: str,
        inputs: dict[str, Any],
        make: Callable[[Path], None],
    ) -> None:
        temporary = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
        replaced = folder.with_name(f"{folder.name}.old-{os.getpid()}")
        started = time.monotonic()
        with disk_errors(temporary):
            temporary.mkdir()
        try:
            with _full_disk_is_told(folder):
                make(temporary)
            files = _flushed(temporary, stage)
            _refuse_non_finite(temporary, stage)
            write_json_atomic(
                temporary / MANIFEST,
                {
                    "schema": SCHEMA,
                    "stage": stage,
                    "key": full_key,
                    "inputs": inputs,
                    "libraries": libraries(),
                    "seconds": round(time.monotonic() - started, 3),
                    "files": files,
                },
            )
            with disk_errors(folder):
                if folder.exists():
                    os.rename(folder, replaced)
                os.rename(temporary, folder)
            fsync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            self._settle(folder, replaced)

    @contextmanager
    def _lock(self, folder: Path, stage: str) -> Iterator[None]:
        """One builder per key. The system's own file lock: it ends with its holder, even killed."""
        lock = FileLock(str(folder.with_name(f"{folder.name}.lock")))
        with disk_errors(folder.parent):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                warnings.warn(
                    f"another process builds {stage} {folder.name[:8]}; waiting for it",
                    stacklevel=4,
                )
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _quarantine(self, folder: Path, stage: str, damage: str) -> None:
        corrupt = ensure_folder(self.root / "corrupt")
        target = corrupt / f"{stage}-{folder.name}-{time.time_ns()}"
        with disk_errors(target):
            os.rename(folder, target)
        warnings.warn(
            f"artifact {stage} {folder.name[:8]} is damaged ({damage}); "
            f"put aside as corrupt/{target.name} and built again",
            stacklevel=3,
        )

    def _remove_rests_of(self, folder: Path) -> None:
        """Rests of builders that died: nobody else works on this key while we hold its lock."""
        for rest in folder.parent.glob(f"{folder.name}.tmp-*"):
            shutil.rmtree(rest, ignore_errors=True)
        for replaced in folder.parent.glob(f"{folder.name}.old-*"):
            self._settle(folder, replaced)

    @staticmethod
    def _settle(folder: Path, replaced: Path) -> None:
        """Of a forced build's two renames none, one or both happened: leave one artifact."""
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        elif replaced.exists():
            os.rename(replaced, folder)

    def _remove_old_rests(self) -> None:
        for rest in self.root.glob("*/*.tmp-*"):
            try:
                if time.time() - rest.stat().st_mtime > _OLD_SECONDS:
                    shutil.rmtree(rest, ignore_errors=True)
            except FileNotFoundError:  # its builder has just finished
                continue


def _check_stage(stage: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", stage) or stage == "corrupt":
        raise SoupError(f"bad stage name: {stage!r}; use letters, digits, _ and - (not 'corrupt')")


def _with_code(inputs: dict[str, Any], code: Sequence[Any]) -> dict[str, Any]:
    if "code" in inputs:
        raise SoupError("'code' is taken: stage inputs; rename this input")
    return {**inputs, "code": source_hash(code)} if code else dict(inputs)


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)


def _flushed(folder: Path, stage: str) -> dict[str, dict[str, Any]]:
    """Flush every file and describe it for the manifest."""
    files = {}
    for path in _files_in(folder):
        with disk_errors(path), open(path, "rb+") as file:
            os.fsync(file.fileno())
        files[path.relative_to(folder).as_posix()] = {
            "sha256": sha256_file(path),
            "size": path.stat().st_size,
        }
    if not files:
        raise SoupError(f"the stage wrote no file: {stage}; its function must write its result")
    return files


def _refuse_non_finite(folder: Path, stage: str) -> None:
    import torch
    from safetensors.torch import load_file

    for path in folder.rglob("*.safetensors"):
        for name, tensor in load_file(path).items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise SoupError(
                    f"NaN or infinite numbers: {stage}, {path.name}, tensor {name}; "
                    "nothing was stored, lower the learning rate or check the data"
                )


def _damage(folder: Path, full_key: str) -> str | None:
    """What is wrong with a stored artifact, or None. Only files in the manifest count."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["key"] != full_key:
            return "it belongs to another key"
        if not manifest["files"]:
            return "its manifest is empty"
        for name, facts in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != facts["size"] or sha256_file(path) != facts["sha256"]:
                return f"{name} has changed"
    except FileNotFoundError:
        return "its manifest is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its manifest cannot be read"
    return None


@contextmanager
def _full_disk_is_told(folder: Path) -> Iterator[None]:
    """Tell a full disk plainly; libraries wrap it in errors of their own (safetensors, torch)."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        with disk_errors(folder):
            raise
    except Exception as error:
        if "No space left" not in str(error) and "File too large" not in str(error):
            raise
        raise SoupError(
            f"cannot write, no space left on the disk: {folder}; free some space and run again"
        ) from error
