"""The artifact store under faults: nothing damaged or half-written is ever handed out."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lorasoups.errors import SoupError
from lorasoups.files import write_bytes_atomic, write_json_atomic, write_text_atomic
from lorasoups.study.store import MANIFEST, Store, canonical_json, key, source_hash

INPUTS = {"seed": 0, "lr": 1e-3}


class Maker:
    """Writes two files and counts how often it was asked to."""

    def __init__(self, text: str = "soup"):
        self.calls, self.text = 0, text

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "a.txt").write_text(self.text)
        (folder / "sub").mkdir()
        (folder / "sub" / "b.bin").write_bytes(bytes(1000))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def rests(root: Path) -> list[str]:
    return [str(p) for p in root.rglob("*") if ".tmp" in p.name or ".old-" in p.name]


# --- keys ---------------------------------------------------------------------------------------


def test_key_depends_on_every_input_but_not_on_their_order():
    assert key("train", a=1, b=2.0) == key("train", b=2.0, a=1)
    others = [key("train", a=1, b=2), key("eval", a=1, b=2.0), key("train", a=1), key("train")]
    assert len({key("train", a=1, b=2.0), *others}) == 5


def test_key_follows_major_and_minor_library_versions(monkeypatch):
    from lorasoups.study import store

    def with_peft(version):
        monkeypatch.setattr(store.metadata, "version", lambda name: version)
        return key("train")

    assert with_peft("0.21.2") == with_peft("0.21.3") != with_peft("0.22.0")


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), Path("x"), {1, 2}, {1: 2}, torch.ones(1), b"x"]
)
def test_inputs_that_are_no_plain_values_are_refused_by_name(value):
    with pytest.raises(SoupError, match="inputs.b.0."):
        canonical_json({"a": 1, "b": [value]})


def test_key_is_the_same_in_another_process_and_hash_seed(store):
    program = "from lorasoups.study.store import key; print(key('train', a=[1, 2.5, 'x'], b=None))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == key("train", b=None, a=[1, 2.5, "x"])


def define(source: str, folder: Path, name: str):
    """A function whose source can be looked up, from text."""
    path = folder / f"{name}.py"
    path.write_text(textwrap.dedent(source))
    namespace: dict = {}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    return namespace["f"]


def test_source_hash_sees_code_but_no_comments_and_docstrings(tmp_path):
    plain = define("def f(x):\n    return x + 1\n", tmp_path, "one")
    told = define('def f(x):\n    """Adds."""\n    # one\n    return x + 1\n', tmp_path, "two")
    other = define("def f(x):\n    return x + 2\n", tmp_path, "three")
    assert source_hash([plain]) == source_hash([told]) != source_hash([other])


def test_changed_code_makes_another_artifact(store, tmp_path):
    one = define("def f(x):\n    return x + 1\n", tmp_path, "one")
    two = define("def f(x):\n    return x + 2\n", tmp_path, "two")
    maker = Maker()
    first = store.build("train", INPUTS, maker, [one])
    assert store.build("train", INPUTS, maker, [two]) != first
    assert store.build("train", INPUTS, maker, [one]) == first
    assert maker.calls == 2


# --- reuse and damage ---------------------------------------------------------------------------


def test_second_build_reuses_and_the_manifest_lists_every_file(store):
    maker = Maker()
    folder = store.build("train", INPUTS, maker)
    assert store.build("train", INPUTS, maker) == folder == store.path("train", INPUTS)
    assert maker.calls == 1
    manifest = json.loads((folder / MANIFEST).read_text())
    assert set(manifest["files"]) == {"a.txt", "sub/b.bin"}
    assert manifest["files"]["sub/b.bin"]["size"] == 1000
    assert rests(store.root) == []


def truncate(folder):
    os.truncate(folder / "a.txt", 2)


def flip_a_bit(folder):
    data = bytearray((folder / "sub" / "b.bin").read_bytes())
    data[500] ^= 1
    (folder / "sub" / "b.bin").write_bytes(data)


def empty_a_file(folder):
    (folder / "a.txt").write_bytes(b"")


def delete_a_file(folder):
    (folder / "sub" / "b.bin").unlink()


def delete_the_manifest(folder):
    (folder / MANIFEST).unlink()


def truncate_the_manifest(folder):
    os.truncate(folder / MANIFEST, 40)


def empty_the_manifest_list(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "files": {}}))


def manifest_of_another_form(folder):
    (folder / MANIFEST).write_text("[1, 2]")


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_a_bit,
        empty_a_file,
        delete_a_file,
        delete_the_manifest,
        truncate_the_manifest,
        empty_the_manifest_list,
        manifest_of_another_form,
    ],
)
def test_damaged_artifact_is_put_aside_and_built_again(store, damage):
    maker = Maker()
    folder = store.build("train", INPUTS, maker)
    damage(folder)
    with pytest.warns(UserWarning, match="damaged"):
        assert store.build("train", INPUTS, maker) == folder
    assert maker.calls == 2
    assert (folder / "a.txt").read_text() == "soup"
    assert (folder / "sub" / "b.bin").read_bytes() == bytes(1000)
    assert len(list((store.root / "corrupt").iterdir())) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.build("train", INPUTS, maker)


def test_two_swapped_artifacts_are_both_built_again(store):
    one = store.build("train", {"seed": 1}, Maker("one"))
    two = store.build("train", {"seed": 2}, Maker("two"))
    aside = one.with_name("aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)
    with pytest.warns(UserWarning, match="another key"):
        store.build("train", {"seed": 1}, Maker("one"))
        store.build("train", {"seed": 2}, Maker("two"))
    assert (one / "a.txt").read_text() == "one" and (two / "a.txt").read_text() == "two"


def test_foreign_files_are_ignored_and_stale_rests_removed(store):
    folder = store.path("train", INPUTS)
    folder.parent.mkdir(parents=True)
    stale = folder.with_name(f"{folder.name}.tmp-99999999")
    stale.mkdir()
    (stale / "a.txt").write_text("half")
    old = folder.with_name("another.tmp-99999999")
    old.mkdir()
    os.utime(old, (1, 1))
    young = folder.with_name("third.tmp-99999999")
    young.mkdir()
    store = Store(store.root)
    store.build("train", INPUTS, Maker())
    (folder / ".DS_Store").write_text("foreign")
    maker = Maker()
    store.build("train", INPUTS, maker)
    assert maker.calls == 0
    assert rests(store.root) == [str(young)]  # it may belong to a builder that is still alive


def test_force_replaces_only_when_the_new_one_is_whole(store):
    folder = store.build("train", INPUTS, Maker("old"))

    def broken(folder):
        (folder / "a.txt").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.build("train", INPUTS, broken, force=True)
    assert (folder / "a.txt").read_text() == "old"
    store.build("train", INPUTS, Maker("new"), force=True)
    assert (folder / "a.txt").read_text() == "new"
    assert rests(store.root) == []


def test_builder_that_died_between_the_renames_of_a_forced_build_loses_nothing(store):
    folder = store.build("train", INPUTS, Maker("old"))
    folder.rename(folder.with_name(f"{folder.name}.old-99999999"))
    maker = Maker("new")
    assert (store.build("train", INPUTS, maker) / "a.txt").read_text() == "old"
    assert maker.calls == 0 and rests(store.root) == []


# --- stages that fail ---------------------------------------------------------------------------


def test_failing_stage_leaves_nothing(store):
    def broken(folder):
        (folder / "a.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build("train", INPUTS, broken)
    assert not store.path("train", INPUTS).exists() and rests(store.root) == []
    store.build("train", INPUTS, Maker())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_tensors_that_are_not_finite_are_not_stored(store, number):
    def bad(folder):
        save_file({"w": torch.tensor([1.0, number])}, folder / "adapter_model.safetensors")

    with pytest.raises(SoupError, match="NaN or infinite.*adapter_model.safetensors, tensor w"):
        store.build("train", INPUTS, bad)
    assert not store.path("train", INPUTS).exists() and rests(store.root) == []


def test_stage_that_wrote_nothing_is_an_error(store):
    with pytest.raises(SoupError, match="wrote no file: train"):
        store.build("train", INPUTS, lambda folder: None)


def test_errors_of_the_stage_itself_are_not_renamed(store):
    def needs_a_file(folder):
        (folder / "absent").read_text()

    with pytest.raises(FileNotFoundError):
        store.build("train", INPUTS, needs_a_file)


@pytest.mark.parametrize("stage", ["", "../x", "a/b", "corrupt"])
def test_bad_stage_names_are_refused(store, stage):
    with pytest.raises(SoupError, match="bad stage name"):
        store.build(stage, INPUTS, Maker())


# --- several processes --------------------------------------------------------------------------

BUILDER = """
    import os, sys, time, warnings
    from pathlib import Path
    from lorasoups.store import Store

    warnings.simplefilter("ignore")
    def make(folder):
        Path(sys.argv[2]).open("a").write("built\\n")
        (folder / "a.txt").write_text("half")
        time.sleep(float(sys.argv[3]))
        (folder / "a.txt").write_text(str(os.getpid()))
    print((Store(sys.argv[1]).build("train", {"seed": 0}, make) / "a.txt").read_text())
"""


def start_builder(store: Store, log: Path, seconds: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(BUILDER), store.root, log, str(seconds)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.02)


def test_two_processes_at_once_build_one_artifact(store, tmp_path):
    log = tmp_path / "log"
    both = [start_builder(store, log, 1.0) for _ in range(2)]
    answers = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1] != ""
    assert log.read_text() == "built\n"


def test_lock_of_a_killed_builder_is_taken_over(store, tmp_path):
    log = tmp_path / "log"
    process = start_builder(store, log, 600)
    wait_for(log)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    assert rests(store.root)  # its half artifact
    maker = Maker()
    folder = store.build("train", {"seed": 0}, maker)
    assert maker.calls == 1 and (folder / "a.txt").read_text() == "soup"
    assert rests(store.root) == []


# --- disks --------------------------------------------------------------------------------------


def test_file_in_place_of_the_folder_is_told_plainly(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(SoupError, match="a file stands where a folder is needed"):
        Store(tmp_path / "cache")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder_is_told_plainly(tmp_path):
    (tmp_path / "cache").mkdir(mode=0o555)
    with pytest.raises(SoupError, match="no permission to write"):
        Store(tmp_path / "cache").build("train", INPUTS, Maker())


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    import torch
    from safetensors.torch import save_file
    from lorasoups.errors import SoupError
    from lorasoups.files import write_text_atomic
    from lorasoups.store import Store

    store = Store(sys.argv[1])
    makers = {
        "plain": lambda folder: (folder / "a").write_bytes(bytes(200_000)),
        "safetensors": lambda folder: save_file({"w": torch.ones(50_000)}, folder / "a"),
    }
    store.build("kept", {}, lambda folder: (folder / "a").write_text("old"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, resource.RLIM_INFINITY))
    told = []
    for name, make in makers.items():
        for stage in (name, "kept"):
            try:
                store.build(stage, {}, make, force=True)
            except SoupError as error:
                told.append(str(error))
    try:
        write_text_atomic(Path(sys.argv[1]) / "text", "x" * 200_000)
    except SoupError as error:
        told.append(str(error))
    assert len(told) == 5, told
    assert all("cannot write" in line and "\\n" not in line for line in told), told
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for name, make in makers.items():
        assert not store.path(name, {}).exists()
        store.build(name, {}, make)
    assert (store.path("kept", {}) / "a").read_text() == "old"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_full_disk_leaves_the_old_version_and_no_half_file(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL_DISK), tmp_path / "cache"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert rests(tmp_path) == []


def test_atomic_write_replaces_whole_files_and_leaves_no_rest(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json_atomic(path, {"b": "ü", "a": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": "ü", "a": [1, 2.5, None]}
    write_text_atomic(path, "two\n")
    write_bytes_atomic(path, b"three")
    assert path.read_bytes() == b"three" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, torch.ones(2)])
def test_json_that_is_not_json_keeps_the_old_file(tmp_path, value):
    path = write_text_atomic(tmp_path / "a.json", "old")
    with pytest.raises(SoupError, match="not representable in JSON.*a.json"):
        write_json_atomic(path, {"value": value})
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
