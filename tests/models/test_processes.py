"""Several processes: who each is, what they tell each other, and who prints."""

import subprocess
import sys

import pytest

from lorasoups.errors import SoupError
from lorasoups.models import processes

PROGRAM = """
from lorasoups.models import processes
with processes.one_voice():
    values = processes.gather({"rank": processes.rank()})
    word = processes.broadcast("from 0" if processes.is_main() else None)
    assert processes.gather(word) == ["from 0", "from 0"]
    print(values, word)
"""


def test_two_processes_agree_and_one_prints(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc-per-node=2", tmp_path / "program.py"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[{'rank': 0}, {'rank': 1}] from 0\n"


def launched(monkeypatch, world, rank):
    values = {"WORLD_SIZE": world, "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_the_environment_of_a_launcher_is_read(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")  # alone it means nothing
    assert (processes.size(), processes.rank()) == (1, 0)
    launched(monkeypatch, "4", "2")
    assert (processes.size(), processes.rank(), processes.is_main()) == (4, 2, False)
    with pytest.raises(SoupError, match="started as 4 processes"):
        processes.only_one("merging is for one")


@pytest.mark.parametrize("world, rank", [("two", "0"), ("2", "2"), ("0", "0")])
def test_numbers_that_no_launcher_writes_are_refused(monkeypatch, world, rank):
    launched(monkeypatch, world, rank)
    with pytest.raises(SoupError, match="not a process of a launcher"):
        processes.size()
