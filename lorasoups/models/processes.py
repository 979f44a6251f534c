"""Several processes as one run: who this process is, and how they talk, through accelerate.

``accelerate launch`` (or ``torchrun``) starts one command several times and numbers the processes
in the environment. With one process neither torch nor accelerate is imported.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from importlib import import_module
from typing import Any

from lorasoups.errors import SoupError

_LAUNCHER = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR")
PATIENCE = timedelta(days=7)  # of each for the others: rank 0 may wait for another job's lock


def size() -> int:
    """How many processes run this command. SoupError for numbers that no launcher would write."""
    return _numbers()[0]


def rank() -> int:
    """The number of this process, from 0."""
    return _numbers()[1]


def is_main() -> bool:
    """Whether this is the process that writes and prints: rank 0, or the only one."""
    return rank() == 0


def _numbers() -> tuple[int, int]:
    # every launcher sets all four: a WORLD_SIZE alone means nothing
    if any(name not in os.environ for name in _LAUNCHER):
        return 1, 0
    processes, number = os.environ["WORLD_SIZE"], os.environ["RANK"]
    if processes.isdecimal() and number.isdecimal() and int(number) < int(processes):
        return int(processes), int(number)
    values = f"WORLD_SIZE={processes}, RANK={number}"
    raise SoupError(f"not a process of a launcher: {values}; unset them, or accelerate launch")


def join() -> Any:
    """Meet the others, before the first model; ``cuda`` is then this process's own GPU."""
    if size() == 1:
        return None
    cpu = not import_module("torch").cuda.is_available()
    return import_module("accelerate").PartialState(cpu=cpu, timeout=PATIENCE)


def gather(value: Any) -> list:
    """The values of all processes, by rank; a barrier too. Values are pickled: keep them small."""
    return import_module("accelerate.utils").gather_object([value]) if join() else [value]


def broadcast(value: Any = None) -> Any:
    """Rank 0's value, on every process."""
    return import_module("accelerate.utils").broadcast_object_list([value])[0] if join() else value


def only_one(why: str) -> None:
    """Refuse several processes. Raises SoupError, for ``why``."""
    if size() > 1:
        raise SoupError(f"started as {size()} processes: {why}, or start it without a launcher")


@contextmanager
def one_voice() -> Iterator[None]:
    """Around a command of several processes: rank 0 prints, errors are all shown."""
    if is_main():
        yield
    else:
        os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is first imported, which is later
        with open(os.devnull, "w") as silence, redirect_stdout(silence):
            yield
    leave()


def leave() -> None:
    """Part from the others at the end of a run that went well."""
    if size() > 1 and import_module("torch").distributed.is_initialized():
        gather(None)
        join().destroy_process_group()
