"""Writing files that are never half there: under a temporary name, flushed, then renamed."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorasoups.errors import DiskError, SoupError

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_CAUSES = {
    errno.ENOSPC: ("no space left on the disk", "free some space and run again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run again"),
    errno.EFBIG: ("the file size limit is reached", "raise the limit (ulimit -f) and run again"),
    errno.EACCES: ("no permission to write", "choose another folder or change its permissions"),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
    errno.ENOTDIR: ("a file stands where a folder is needed", "move it or choose another folder"),
}
_CAUSES |= {errno.EPERM: _CAUSES[errno.EACCES], errno.EEXIST: _CAUSES[errno.ENOTDIR]}


@contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turn an ``OSError`` about writing ``path`` into a ``DiskError`` of one line."""
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        other = (error.strerror or str(error), "check the folder and run again")
        cause, cure = _CAUSES.get(error.errno, other)
        clear = DiskError(f"cannot write, {cause}: {path}; {cure}")
        clear.errno = error.errno
        raise clear from error


def ensure_folder(path: Path | str) -> Path:
    """Create the folder ``path`` (and its parents) if absent. Raises DiskError."""
    with disk_errors(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def fsync_folder(path: Path) -> None:
    """Flush a folder's entries; nothing to do where folders cannot be opened (Windows)."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A hidden folder to write into, which takes the place of ``target`` when the block ends well.

    An older ``target`` goes only after the new one stands. Raises DiskError.
    """
    mark = uuid.uuid4().hex[:8]
    fresh, old = (target.with_name(f".{target.name}.{mark}.{kind}") for kind in ("tmp", "old"))
    with disk_errors(target):
        try:
            fresh.mkdir(parents=True)
            yield fresh
            for path in filter(Path.is_file, fresh.rglob("*")):
                with open(path, "rb+") as file:
                    os.fsync(file.fileno())
            fsync_folder(fresh)
            if target.exists():
                target.rename(old)
            fresh.rename(target)
            fsync_folder(target.parent)
        finally:
            if old.exists() and not target.exists():
                old.rename(target)
            for leftover in (fresh, old):
                shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A hidden file to write, which replaces ``path`` in one step when the block ends well.

    Raises DiskError, and the old file stands.
    """
    ensure_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with disk_errors(path):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def write_bytes_atomic(path: Path | str, data: bytes) -> Path:
    """Replace ``path`` by ``data`` in one step. Raises DiskError, and the old file stands."""
    with new_file(Path(path)) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text_atomic(path: Path | str, text: str) -> Path:
    """Like :func:`write_bytes_atomic`, for text (UTF-8, line ends as given)."""
    return write_bytes_atomic(path, text.encode("utf-8"))


def json_text(value: Any, path: Path | str, indent: int | None = 1) -> str:
    """``value`` as JSON with a final line end; SoupError, naming ``path``, for what is not JSON."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        cure = "use plain numbers, strings, lists and mappings, and null instead of NaN"
        raise SoupError(f"not representable in JSON ({error}): {path}; {cure}") from error


def write_json_atomic(path: Path | str, value: Any) -> Path:
    """Write ``value`` as JSON. NaN and infinity are refused (SoupError)."""
    return write_text_atomic(path, json_text(value, path))


def read_json(path: Path | str, cure: str) -> dict[str, Any]:
    """A JSON object from a file. DiskError, or SoupError for another content, advises ``cure``."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        what = "missing file" if error.errno == errno.ENOENT else f"cannot read ({error.strerror})"
        raise DiskError(f"{what}: {path}; {cure}") from error
    except ValueError as error:
        raise SoupError(f"not valid JSON ({error}): {path}; {cure}") from error
    if not isinstance(content, dict):
        raise SoupError(f"not a JSON object: {path}; {cure}")
    return content


def sha256_file(path: Path | str) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
