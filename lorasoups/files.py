"""Writing files so that a reader never sees half of one.

Everything is written under a temporary name in the same folder, flushed to the disk and then
renamed: after a crash or on a full disk the old version is still there, whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorasoups.errors import SoupError

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_CAUSES = {
    errno.ENOSPC: ("no space left on the disk", "free some space and run again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run again"),
    errno.EFBIG: ("the file size limit is reached", "raise the limit (ulimit -f) and run again"),
    errno.EACCES: ("no permission to write", "choose another folder or change its permissions"),
    errno.EPERM: ("no permission to write", "choose another folder or change its permissions"),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
    errno.ENOTDIR: ("a file stands where a folder is needed", "move it away or choose another"),
    errno.EEXIST: ("a file stands where a folder is needed", "move it away or choose another"),
}


@contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turn an ``OSError`` about the disk at ``path`` into a ``SoupError`` of one line."""
    try:
        yield
    except OSError as error:
        cause, cure = _CAUSES.get(
            error.errno, (error.strerror or str(error), "check the folder and run again")
        )
        raise SoupError(f"cannot write, {cause}: {path}; {cure}") from error


def ensure_folder(path: Path | str) -> Path:
    """Create the folder ``path`` (and its parents) if absent. Raises SoupError."""
    path = Path(path)
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


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


def write_bytes_atomic(path: Path | str, data: bytes) -> Path:
    """Replace ``path`` by ``data`` in one step. Raises SoupError, and the old file stands."""
    path = Path(path)
    ensure_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with disk_errors(path):
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)
    return path


def write_text_atomic(path: Path | str, text: str) -> Path:
    """Like :func:`write_bytes_atomic`, for text (UTF-8, line ends as given)."""
    return write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: Path | str, value: Any, *, indent: int | None = 1) -> Path:
    """Write ``value`` as JSON with a final line end. NaN and infinity are refused (SoupError)."""
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SoupError(
            f"not representable in JSON ({error}): {path}; "
            "use plain numbers, strings, lists and mappings, and null instead of NaN"
        ) from error
    return write_text_atomic(path, text + "\n")


def sha256_file(path: Path | str) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
