"""Datasets: from a mirror that is checked, or from the Hub with a clear word when it fails."""

import gzip
import json
import re
from types import SimpleNamespace

import datasets
import pytest
from huggingface_hub import errors
from mirrors import CODE, GSM8K, sha256, write_split

from lorasoups.errors import SoupError
from lorasoups.models.hub_errors import hub_errors
from lorasoups.tasks.real.hub import MIRROR_VARIABLE, load_split

ROWS = [{"question": f"How many is {i}?\u2028", "answer": f"#### {i}"} for i in range(5)]
FILE = "openai/gsm8k/main/test.jsonl.gz"


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path))
    write_split(tmp_path, GSM8K, "test", ROWS, licence="MIT", complete=False, note="SUBSET: 5 rows")
    return tmp_path


def refuse(message, *arguments, **options):
    with pytest.raises(SoupError, match=message) as error:
        load_split(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_rows_come_with_what_is_known_of_them(mirror):
    rows, info = load_split(*GSM8K, "test")
    assert rows == ROWS
    assert info == {
        "repo": "openai/gsm8k", "config": "main", "split": "test", "origin": "mirror",
        "rows": 5, "of": 5, "sha256": sha256(mirror / FILE), "revision": None,
        "licence": "MIT", "complete": False, "note": "SUBSET: 5 rows", "stand_in_for": None,
    }  # fmt: skip
    assert str(mirror) not in json.dumps(info)


def test_a_stand_in_is_named_by_the_caller_or_by_the_manifest(mirror):
    assert load_split(*GSM8K, "test", stand_in_for="a/b")[1]["stand_in_for"] == "a/b"
    write_split(mirror, CODE, "train", ROWS, note="STAND-IN: 5 rows of the same author")
    assert load_split(*CODE, "train")[1]["stand_in_for"] == CODE[0]


def test_a_missing_mirror_file_or_entry_is_named(mirror, monkeypatch):
    assert "train.jsonl.gz" in refuse("the mirror has no", *GSM8K, "train")
    (mirror / "MANIFEST.json").unlink()
    refuse("manifest cannot be read", *GSM8K, "test")
    monkeypatch.setenv(MIRROR_VARIABLE, str(mirror / "no"))
    assert str(mirror / "no") in refuse("no such mirror", *GSM8K, "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"files": []}', "manifest cannot be read"),
        ("[1]", "manifest cannot be read"),
        ("no json", "manifest cannot be read"),
        ("[{}]", "no entry for openai/gsm8k/main/test"),
        ("[]", "no entry for openai/gsm8k/main/test"),
    ],
)
def test_a_broken_manifest_is_named(mirror, content, message):
    (mirror / "MANIFEST.json").write_text(content)
    refuse(message, *GSM8K, "test")


def test_a_changed_file_is_refused(mirror):
    path = mirror / FILE
    path.write_bytes(path.read_bytes() + b"\0")
    assert FILE in refuse("its sha256 is not the manifest's", *GSM8K, "test")


def list_file(mirror, **changes):
    """Write a manifest that fits the test file, but for ``changes``."""
    entry = {"path": FILE, "sha256": sha256(mirror / FILE), **changes}
    (mirror / "MANIFEST.json").write_text(json.dumps([entry]))


@pytest.mark.parametrize("content", ["cut", b"question,answer", gzip.compress(b"{", mtime=0)])
def test_a_broken_file_is_refused(mirror, content):
    path = mirror / FILE
    path.write_bytes(path.read_bytes()[:40] if content == "cut" else content)
    list_file(mirror)
    refuse("not gzipped JSON lines", *GSM8K, "test")


def test_a_wrong_number_of_rows_is_refused(mirror):
    list_file(mirror, rows=6)
    refuse("5 rows, the manifest says 6", *GSM8K, "test")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question": "?", "answer": "1"}, {"question": "?"}], "column 'answer' is missing"),
        ([[1, 2]], "not gzipped JSON lines"),
        ([], "no rows"),
    ],
)
def test_rows_of_another_shape_are_refused(mirror, rows, message):
    write_split(mirror, GSM8K, "train", rows)
    refuse(message, *GSM8K, "train", columns=("question", "answer"))


@pytest.fixture
def no_mirror(monkeypatch):
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)


def test_an_unreachable_hub_is_explained_with_the_way_around(no_mirror, monkeypatch):
    def fail(*args, **options):
        raise ConnectionError("[Errno -2] Name or service not known\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    message = refuse("Hub, unreachable", *CODE, "train")
    assert "sahil2801/CodeAlpaca-20k" in message
    assert "--hub-mirror" in message and MIRROR_VARIABLE in message


def test_rows_of_the_hub_name_their_commit(no_mirror, monkeypatch):
    asked = []

    def load(*arguments, **options):
        asked.append((arguments, options))
        loaded = datasets.Dataset.from_list(ROWS)
        loaded.info.download_checksums = {f"hf://datasets/openai/gsm8k@{'a' * 40}/main/x": {}}
        return loaded

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows, info = load_split(*GSM8K, "test")
    assert asked == [(GSM8K, {"split": "test"})]
    assert rows == ROWS
    assert (info["origin"], info["revision"], info["complete"]) == ("hub", "a" * 40, True)


def hub_error(kind, status=403):
    """As huggingface_hub raises it, whichever HTTP library it was built on."""
    error = kind.__new__(kind)
    error.args = ("told\nat length",)
    error.response = SimpleNamespace(status_code=status)
    return error


class TransportError(Exception):
    """The common class of what httpx raises when it cannot connect."""


@pytest.mark.parametrize(
    ("error", "told", "cure"),
    [
        (hub_error(errors.GatedRepoError), "access is gated", "hf auth login"),
        (hub_error(errors.RepositoryNotFoundError, 404), "no such repository", "check the name"),
        (hub_error(errors.RevisionNotFoundError, 404), "no such revision", "check the commit"),
        (hub_error(errors.HfHubHTTPError, 503), "answered 503", "later"),
        (errors.OfflineModeIsEnabled("off"), "offline mode is on", "unset HF_HUB_OFFLINE"),
        (errors.LocalEntryNotFoundError("?"), "unreachable and it is not in the cache", "network"),
        (TransportError("no route"), "unreachable and it is not in the cache", "network"),
        (ValueError("odd\nthing hf_abcdefghijklmnop"), r"failed \(odd\)", "network"),
        (ValueError("bad hf_abcdefghijklmnop"), r"failed \(bad \[token\]\)", "network"),
    ],
)
def test_what_is_wrong_with_the_hub_is_told_in_one_line(error, told, cure):
    told = f"Hugging Face Hub, .*{told}.*: model a/b; .*{cure}.*, or take a folder"
    with pytest.raises(SoupError) as caught, hub_errors("model a/b", "take a folder"):
        raise error
    assert re.fullmatch(told, str(caught.value))


def test_the_cause_behind_an_error_counts():
    told = pytest.raises(SoupError, match="access is gated")
    with told, hub_errors("model a/b", "take a folder"):
        try:
            raise hub_error(errors.GatedRepoError)
        except errors.HfHubHTTPError as gated:
            raise errors.LocalEntryNotFoundError("not in the cache") from gated
