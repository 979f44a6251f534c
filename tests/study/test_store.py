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

from lorasoups.errors import SoupError
from lorasoups.files import write_bytes_atomic, write_json_atomic, write_text_atomic
from lorasoups.study import store as store_module
from lorasoups.study.store import MANIFEST, Store, canonical_json, key

INPUTS = {"seed": 0, "lr": 1e-3}
STAGE = "skill"


class Maker:
    """Writes two files and counts how often it was asked to."""

    def __init__(self, text: str = "soup"):
        self.calls, self.text = 0, text

    def __call__(self, folder: Path, scratch: Path) -> None:
        self.calls += 1
        (folder / "a.txt").write_text(self.text)
        (folder / "sub").mkdir()
        (folder / "sub" / "b.bin").write_bytes(bytes(1000))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def leftovers(root: Path) -> list[str]:
    return [str(p) for p in root.rglob("*") if p.suffix in (".tmp", ".old", ".scratch")]


# --- keys ---------------------------------------------------------------------------------------


def test_key_depends_on_every_input_but_not_on_their_order():
    assert key("skill", {"a": 1, "b": 2.0}) == key("skill", {"b": 2.0, "a": 1})
    others = [{"a": 1, "b": 2}, {"a": 1}, {}]
    keys = {key("skill", {"a": 1, "b": 2.0}), key("merge", {"a": 1, "b": 2.0})}
    assert len(keys | {key("skill", inputs) for inputs in others}) == 5


def test_key_follows_major_and_minor_library_versions(monkeypatch):
    def with_peft(version):
        monkeypatch.setattr(store_module.metadata, "version", lambda name: version)
        return key("skill", {})

    assert with_peft("0.21.2") == with_peft("0.21.3") != with_peft("0.22.0")


def test_a_raised_version_makes_another_artifact(store, monkeypatch):
    maker = Maker()
    first = store.build(STAGE, INPUTS, maker)
    monkeypatch.setitem(store_module.VERSIONS, STAGE, 2)
    assert store.build(STAGE, INPUTS, maker) != first and maker.calls == 2
    monkeypatch.setitem(store_module.VERSIONS, "merge", 2)
    store.build(STAGE, INPUTS, maker)
    assert maker.calls == 2  # another stage's


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), Path("x"), {1, 2}, {1: 2}, torch.ones(1), b"x"]
)
def test_inputs_that_are_no_plain_values_are_refused(value):
    with pytest.raises(SoupError, match="cannot name an artifact"):
        canonical_json({"a": 1, "b": [value]})


def test_key_is_the_same_in_another_process_and_hash_seed():
    program = (
        "from lorasoups.study.store import key; print(key('skill', dict(a=[1, 2.5, 'x'], b=None)))"
    )
    done = run_python(program, PYTHONHASHSEED="7")
    assert done.stdout.strip() == key("skill", {"b": None, "a": [1, 2.5, "x"]})


def run_python(program, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


# --- reuse and damage ---------------------------------------------------------------------------


def test_second_build_reuses_and_the_manifest_lists_every_file(store):
    maker = Maker()
    folder = store.build(STAGE, INPUTS, maker)
    assert store.build(STAGE, INPUTS, maker) == folder == store.path(STAGE, INPUTS)
    assert maker.calls == 1
    manifest = json.loads((folder / MANIFEST).read_text())
    assert set(manifest["files"]) == {"a.txt", "sub/b.bin"}
    assert manifest["files"]["sub/b.bin"]["size"] == 1000
    assert leftovers(store.root) == []


def truncate(folder):
    os.truncate(folder / "a.txt", 2)


def flip_a_bit(folder):
    data = bytearray((folder / "sub" / "b.bin").read_bytes())
    data[500] ^= 1
    (folder / "sub" / "b.bin").write_bytes(data)


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
        delete_a_file,
        delete_the_manifest,
        truncate_the_manifest,
        empty_the_manifest_list,
        manifest_of_another_form,
    ],
)
def test_damaged_artifact_is_put_aside_and_built_again(store, damage):
    maker = Maker()
    folder = store.build(STAGE, INPUTS, maker)
    damage(folder)
    with pytest.warns(UserWarning, match="damaged"):
        assert store.build(STAGE, INPUTS, maker) == folder
    assert maker.calls == 2
    assert (folder / "a.txt").read_text() == "soup"
    assert (folder / "sub" / "b.bin").read_bytes() == bytes(1000)
    assert len(list((store.root / "corrupt").iterdir())) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.build(STAGE, INPUTS, maker)


def test_two_swapped_artifacts_are_both_built_again(store):
    one = store.build(STAGE, {"seed": 1}, Maker("one"))
    two = store.build(STAGE, {"seed": 2}, Maker("two"))
    aside = one.with_name("aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)
    with pytest.warns(UserWarning, match="another key"):
        store.build(STAGE, {"seed": 1}, Maker("one"))
        store.build(STAGE, {"seed": 2}, Maker("two"))
    assert (one / "a.txt").read_text() == "one" and (two / "a.txt").read_text() == "two"


def test_foreign_files_are_ignored(store):
    folder = store.build(STAGE, INPUTS, Maker())
    (folder / ".DS_Store").write_text("foreign")
    maker = Maker()
    store.build(STAGE, INPUTS, maker)
    assert maker.calls == 0


def test_force_replaces_only_when_the_new_one_is_whole(store):
    folder = store.build(STAGE, INPUTS, Maker("old"))

    def broken(folder, scratch):
        (folder / "a.txt").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.build(STAGE, INPUTS, broken, force=True)
    assert (folder / "a.txt").read_text() == "old"
    store.build(STAGE, INPUTS, Maker("new"), force=True)
    assert (folder / "a.txt").read_text() == "new"
    assert leftovers(store.root) == []


def test_builder_that_died_between_the_renames_of_a_forced_build_loses_nothing(store):
    folder = store.build(STAGE, INPUTS, Maker("old"))
    folder.rename(folder.with_name(f"{folder.name}.old"))
    maker = Maker("new")
    assert (store.build(STAGE, INPUTS, maker) / "a.txt").read_text() == "old"
    assert maker.calls == 0 and leftovers(store.root) == []


# --- stages that fail ---------------------------------------------------------------------------


def test_a_failed_stage_leaves_nothing_but_its_scratch(store):
    def broken(folder, scratch):
        (folder / "a.txt").write_text("half")
        (scratch / "checkpoint").write_text("step 3")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build(STAGE, INPUTS, broken)
    folder = store.path(STAGE, INPUTS)
    assert not folder.exists() and leftovers(store.root) == [
        f"{folder}.scratch",
    ]

    def goes_on(folder, scratch):
        (folder / "a.txt").write_text((scratch / "checkpoint").read_text())

    assert (store.build(STAGE, INPUTS, goes_on) / "a.txt").read_text() == "step 3"
    assert leftovers(store.root) == []


def test_stage_that_wrote_nothing_is_an_error(store):
    with pytest.raises(SoupError, match="wrote no file: skill"):
        store.build(STAGE, INPUTS, lambda folder, scratch: None)


def test_errors_of_the_stage_itself_are_not_renamed(store):
    def needs_a_file(folder, scratch):
        (folder / "absent").read_text()

    with pytest.raises(FileNotFoundError):
        store.build(STAGE, INPUTS, needs_a_file)


def test_unknown_stages_are_refused(store):
    with pytest.raises(SoupError, match="unknown stage '../x'"):
        store.build("../x", INPUTS, Maker())


# --- several processes --------------------------------------------------------------------------

BUILDER = """
    import os, sys, time, warnings
    from pathlib import Path
    from lorasoups.study.store import Store

    warnings.simplefilter("ignore")
    def make(folder, scratch):
        Path(sys.argv[2]).open("a").write("built\\n")
        (folder / "a.txt").write_text("half")
        time.sleep(float(sys.argv[3]))
        (folder / "a.txt").write_text(str(os.getpid()))
    print((Store(sys.argv[1]).build("skill", {"seed": 0}, make) / "a.txt").read_text())
"""


def start_builder(store: Store, log: Path, seconds: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(BUILDER), store.root, log, str(seconds)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.02)


def test_two_processes_at_once_build_one_artifact(store, tmp_path):
    log = tmp_path / "log"
    both = [start_builder(store, log, 1.0) for _ in range(2)]
    answers = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1] != ""
    assert log.read_text() == "built\n"


def test_lock_of_a_killed_builder_is_taken_over(store, tmp_path):
    log = tmp_path / "log"
    process = start_builder(store, log, 600)
    wait_for(log)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    assert leftovers(store.root)  # its half artifact
    maker = Maker()
    folder = store.build(STAGE, {"seed": 0}, maker)
    assert maker.calls == 1 and (folder / "a.txt").read_text() == "soup"
    assert leftovers(store.root) == []


# --- disks --------------------------------------------------------------------------------------


def test_file_in_place_of_the_folder_is_told_plainly(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(SoupError, match="a file stands where a folder is needed"):
        Store(tmp_path / "cache")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder_is_told_plainly(tmp_path):
    (tmp_path / "cache").mkdir(mode=0o555)
    with pytest.raises(SoupError, match="no permission to write"):
        Store(tmp_path / "cache").build(STAGE, INPUTS, Maker())


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    import torch
    from safetensors.torch import save_file
    from lorasoups.errors import SoupError
    from lorasoups.files import write_text_atomic
    from lorasoups.study.store import Store

    store = Store(sys.argv[1])
    makers = {
        "plain": lambda folder, _: (folder / "a").write_bytes(bytes(200_000)),
        "safetensors": lambda folder, _: save_file({"w": torch.ones(50_000)}, folder / "a"),
    }
    store.build("skill", {}, lambda folder, _: (folder / "a").write_text("old"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, resource.RLIM_INFINITY))
    errors = []
    for name, make in makers.items():
        for inputs in ({}, {"name": name}):
            try:
                store.build("skill", inputs, make, force=True)
            except SoupError as error:
                errors.append(str(error))
    try:
        write_text_atomic(Path(sys.argv[1]) / "text", "x" * 200_000)
    except SoupError as error:
        errors.append(str(error))
    assert len(errors) == 5, errors
    assert all("cannot write" in line and "\\n" not in line for line in errors), errors
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for name, make in makers.items():
        assert not store.path("skill", {"name": name}).exists()
        store.build("skill", {"name": name}, make)
    assert (store.path("skill", {}) / "a").read_text() == "old"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_full_disk_leaves_the_old_version_and_no_half_file(tmp_path):
    run_python(FULL_DISK, tmp_path / "cache")
    assert [p for p in leftovers(tmp_path) if not p.endswith(".scratch")] == []


def test_atomic_write_replaces_whole_files_and_leaves_nothing_else(tmp_path):
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
