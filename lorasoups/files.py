"""Writing files so that a reader never sees half of one.

Everything is written under a temporary name in the same folder, flushed to the disk and then
renamed: after a crash or on a full disk the old version is still there, whole.
"""

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

_SPACE, _OTHER = "free some space and run again", "choose another folder"
_FILE = ("a file stands where a folder is needed", f"move it away or {_OTHER}")
_DENIED = ("no permission to write", f"{_OTHER} or change its permissions")
_CAUSES = {
    errno.ENOSPC: ("no space left on the disk", _SPACE),
    errno.EDQUOT: ("the disk quota is used up", _SPACE),
    errno.EFBIG: ("the file size limit is reached", "raise the limit (ulimit -f) and run again"),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: ("the file system is read-only", _OTHER),
    errno.ENOTDIR: _FILE,
    errno.EEXIST: _FILE,
}


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


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A hidden folder to write into, which takes the place of ``target`` when the block ends well.

    ``target`` appears whole or not at all; an older one goes only after the new one stands. Raises
    DiskError.
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


def write_bytes_atomic(path: Path | str, data: bytes) -> Path:
    """Replace ``path`` by ``data`` in one step. Raises DiskError, and the old file stands."""
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


def json_text(value: Any, path: Path | str, indent: int | None = 1) -> str:
    """``value`` as JSON with a final line end; SoupError, naming ``path``, for what is not JSON."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise SoupError(
            f"not representable in JSON ({error}): {path}; "
            "use plain numbers, strings, lists and mappings, and null instead of NaN"
        ) from error


def write_json_atomic(path: Path | str, value: Any, *, indent: int | None = 1) -> Path:
    """Write ``value`` as JSON. NaN and infinity are refused (SoupError)."""
    return write_text_atomic(path, json_text(value, path, indent))


def read_json(path: Path | str, cure: str) -> dict[str, Any]:
    """A JSON object from a file; ``cure`` is what the error advises.

    Raises DiskError if the file cannot be read, SoupError if it holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DiskError(f"missing file: {path}; {cure}") from error
    except OSError as error:
        raise DiskError(f"cannot read ({error.strerror}): {path}; {cure}") from error
    except ValueError as error:
        raise SoupError(f"not valid JSON ({error}): {path}; {cure}") from error
    if not isinstance(content, dict):
        raise SoupError(f"not a JSON object: {path}; {cure}")
    return content


def sha256_file(path: Path | str) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
