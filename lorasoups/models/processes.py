"""Several processes as one run: who this process is, and how the processes talk.

``accelerate launch`` (or ``torchrun``) starts the same command several times and tells every
process its number in the environment; nothing here is started. With one process every function
answers at once and torch is not even imported.

Numbers that are large (gradients) go over the backend of the devices (NCCL, or gloo on CPUs), and
that is accelerate's business. What the processes say to each other here is small and may be waited
for long (until rank 0 has judged a thousand programs, or a sweep's other job has let go of a lock),
so it has a gloo group of its own whose time-out is a week: NCCL's would end the run in minutes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from functools import cache
from typing import Any

from lorasoups.errors import SoupError

_TOLD = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR")
PATIENCE = timedelta(days=7)


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
    """Whether this is the process that writes and speaks: rank 0, or the only one."""
    return rank() == 0


def _numbers() -> tuple[int, int]:
    # all four, as every launcher sets them: a WORLD_SIZE that lies around alone means nothing
    if any(name not in os.environ for name in _TOLD):
        return 1, 0
    try:
        world, own = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    except ValueError:
        world, own = 0, 0
    if not 0 <= own < world:
        told = ", ".join(f"{name}={os.environ[name]}" for name in _TOLD[:2])
        raise SoupError(f"not a process of a launcher: {told}; unset them, or accelerate launch")
    return world, own


@cache
def join() -> Any:
    """Meet the other processes; returns the group that `gather` and `broadcast` talk over.

    Gives this process its GPU too (``cuda`` means that one from now on), so it comes before the
    first model. None for one process.
    """
    if size() == 1:
        return None
    import torch
    from accelerate import PartialState

    sharding()
    PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)


@cache
def sharding() -> tuple[str, bool] | None:
    """What the launcher's config says about FSDP: the decoder layer's class, and whether layers
    are computed again in the backward pass. None without FSDP.

    The switch is then taken out of the environment: what is cut, and when, is up to
    `sharded_base`, and transformers would load no weights on all processes but one.
    """
    if os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() != "true" or size() == 1:
        return None
    again = os.environ.get("FSDP_ACTIVATION_CHECKPOINTING", "false").lower() == "true"
    return os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "LlamaDecoderLayer"), again


def gather(value: Any) -> list:
    """The values of all processes, by rank; a barrier too. Values are pickled: keep them small."""
    if size() == 1:
        return [value]
    import torch

    group = join()
    values = [None] * size()
    torch.distributed.all_gather_object(values, value, group=group)
    return values


def broadcast(value: Any = None) -> Any:
    """Rank 0's value, on every process."""
    if size() == 1:
        return value
    import torch

    group, box = join(), [value]
    torch.distributed.broadcast_object_list(box, src=0, group=group)
    return box[0]


def only_one(why: str) -> None:
    """Refuse several processes. Raises SoupError, for ``why``."""
    if size() > 1:
        raise SoupError(f"started as {size()} processes: {why}, or start it without a launcher")


@contextmanager
def one_voice(several: bool) -> Iterator[None]:
    """Around a command: of several processes the first one speaks, the others only compute.

    Errors are not silenced: they may be one process's own.

    Args:
        several: whether the command knows several processes; others are refused.

    Raises:
        SoupError: several processes where one is needed.
    """
    if size() == 1:
        yield
        return
    if not several:
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
    if size() > 1 and join.cache_info().currsize:
        import torch

        gather(None)
        torch.distributed.destroy_process_group()
        join.cache_clear()
