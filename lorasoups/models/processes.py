"""Several processes as one run: who this process is, and how they talk, through accelerate.

``accelerate launch`` (or ``torchrun``) starts the same command several times and tells every
process its number in the environment. With one process every function answers at once, and neither
torch nor accelerate is imported.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from importlib import import_module
from typing import Any

from lorasoups.errors import SoupError

_LAUNCHER = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR")
PATIENCE = timedelta(days=7)
"""How long processes wait for each other: rank 0 may judge, or wait for another job's lock."""


def size() -> int:
    """How many processes run this command together.

    Raises:
        SoupError: numbers in the environment that no launcher would write.
    """
    return _numbers()[0]


def rank() -> int:
    """The number of this process, from 0."""
    return _numbers()[1]


def is_main() -> bool:
    """Whether this is the process that writes and prints: rank 0, or the only one."""
    return rank() == 0


def _numbers() -> tuple[int, int]:
    # all four, as every launcher sets them: a WORLD_SIZE that lies around alone means nothing
    if any(name not in os.environ for name in _LAUNCHER):
        return 1, 0
    try:
        processes, number = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    except ValueError:
        processes, number = 0, 0
    if not 0 <= number < processes:
        values = ", ".join(f"{name}={os.environ[name]}" for name in _LAUNCHER[:2])
        raise SoupError(f"not a process of a launcher: {values}; unset them, or accelerate launch")
    return processes, number


def join() -> Any:
    """Meet the other processes; returns accelerate's state, None for one process.

    Gives this process its GPU too (``cuda`` means that one from now on), so it comes before the
    first model.
    """
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
def one_voice(several: bool) -> Iterator[None]:
    """Around a command: rank 0 prints, the other processes only compute; errors are all shown.

    Raises SoupError for several processes where the command does not know them (``several``).
    """
    if size() > 1 and not several:
        only_one("this command runs in one process; only reproduce and ablate share their work")
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
