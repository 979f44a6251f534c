"""Files and folders that appear whole or not at all, with errors of one line."""

import errno
import os

import pytest

from lorasoups.errors import DiskError, SoupError
from lorasoups.files import ensure_folder, new_folder, read_json, write_json_atomic


def test_a_new_folder_appears_whole_and_replaces_the_old_one(tmp_path):
    for word in ("one", "two"):
        with new_folder(tmp_path / "deep" / "a") as folder:
            (folder / "word").write_text(word)
            assert word == "one" or (tmp_path / "deep" / "a" / "word").read_text() == "one"
    assert (tmp_path / "deep" / "a" / "word").read_text() == "two"
    assert os.listdir(tmp_path / "deep") == ["a"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyError("other")])
def test_after_an_error_the_old_folder_stands(tmp_path, error):
    with new_folder(tmp_path / "a") as folder:
        (folder / "word").write_text("old")
    kind = DiskError if isinstance(error, OSError) else KeyError
    with pytest.raises(kind) as caught, new_folder(tmp_path / "a") as folder:
        (folder / "word").write_text("new")
        raise error
    if kind is DiskError:
        assert "no space left on the disk" in str(caught.value)
        assert caught.value.errno == errno.ENOSPC and isinstance(caught.value, SoupError)
    assert (tmp_path / "a" / "word").read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_disk_errors_are_disk_errors(tmp_path):
    (tmp_path / "file").write_text("[1]")
    with pytest.raises(DiskError, match="a file stands where a folder is needed: .*file"):
        ensure_folder(tmp_path / "file")
    with pytest.raises(DiskError, match="cannot write"):
        write_json_atomic(tmp_path / "file" / "a.json", {})
    with pytest.raises(DiskError, match="missing file: .*none.json; look again"):
        read_json(tmp_path / "none.json", "look again")
    with pytest.raises(SoupError, match="not a JSON object") as caught:
        read_json(tmp_path / "file", "look again")
    assert not isinstance(caught.value, DiskError)
