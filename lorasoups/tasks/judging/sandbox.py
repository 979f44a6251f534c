"""Run generated programs in pydantic-monty, a Python interpreter without access to the host.

Every program gets its own session in a worker process (a separate binary: the host, which holds a
model, is never forked). Clock, time zone and random numbers are fixed, so a verdict does not depend
on when and where it is reached. Targets never enter the sandbox.
"""

import builtins
import re
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import pydantic_monty as monty

from lorasoups.errors import SoupError, one_line

Number = int | float | bool | Decimal | str
STATUSES = (
    "ok",  # solution() returned a number, or a text that float() reads as one
    "no_solution",  # no program, or nothing callable named `solution`
    "refused",  # correct Python that the sandbox does not offer (module, builtin, file, feature)
    "syntax",
    "exception",
    "timeout",
    "memory",  # heap, or printed output, over the limit
    "bad_type",  # returned something that is no number in float64
)
_LONGEST = 400  # characters of a number: no float64 needs more
GRACE = 1.0  # seconds after which a worker that does not stop by itself is killed
_ATTEMPTS = 3  # a worker that dies is replaced and its program run again


@dataclass(frozen=True)
class Outcome:
    """What became of one program."""

    status: str  # one of `STATUSES`
    value: Number | None = None  # what ``solution()`` returned, where that is ``ok``
    detail: str = ""  # one line on the cause, "" for ``ok``


def run_programs(
    sources: Iterable[str | None], *, seconds: float = 5.0, workers: int = 2
) -> list[Outcome]:
    """Run programs side by side; one outcome per source, in order.

    None stands for an answer without a program. ``seconds``: wall time of defining ``solution`` and
    of running it, each (the slowest GSM-Hard reference program needs 0.3 s); ``workers`` is the
    number of processes. A program whose worker dies runs again in a new one; the third time it is
    an ``exception``. Raises SoupError if the sandbox does not start.
    """
    sources = list(sources)
    workers = max(1, min(workers, len(sources)))
    if all(source is None for source in sources):
        return [_NONE for _ in sources]
    try:
        pool = monty.Monty(
            min_processes=workers, max_processes=workers, feed_duration_limit_grace=GRACE,
            request_timeout=seconds + 2 * GRACE,
        ).__enter__()  # fmt: skip
    except Exception as error:
        what = f"the sandbox does not start: pydantic-monty, {one_line(error)}"
        cure = "reinstall it: pip install --force-reinstall 'pydantic-monty==1.4.*'"
        raise SoupError(f"{what}; {cure}") from error
    with pool:
        threads = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")
        try:
            return list(threads.map(lambda source: _run(pool, source, seconds), sources))
        finally:
            # after Ctrl-C: nothing new is begun, what runs ends within its limits
            threads.shutdown(wait=True, cancel_futures=True)


_OUTPUT = 64 * 2**10  # printed bytes; they are discarded
_LIMITS: monty.ResourceLimits = {
    "max_memory": 64 * 2**20,  # heap in bytes
    "max_recursion_depth": 1000,  # CPython's default
    "max_suspensions": 100,  # attempts at files, clock and the like
    "max_total_sleep_secs": 0.1,  # of ``time.sleep``; more is a timeout at once
}
_NONE = Outcome("no_solution", detail="no program in the answer")
_POLICY: monty.OSPolicy = {
    "datetime": datetime(2024, 1, 1, tzinfo=UTC),
    "timezone": "utc",
    "sleep": "system",
    "sleep_system_max": float("inf"),  # uncapped, so that a long sleep exceeds the total and ends
    "random_start": {"seed": 0},
}
_UNSUPPORTED = re.compile(
    r"(?i)not yet support|not supported|not implemented in monty|Internal error in monty"
    r"|only supports|suspension limit"
)
_NO_NAME = re.compile(r"name '(\w+)' is not defined")
_NO_ATTRIBUTE = re.compile(r"'(\w+)' object has no attribute '(\w+)'")
_NO_MEMBER = re.compile(r"module '([\w.]+)' has no attribute '\w+'")


def _run(pool: monty.Monty, source: str | None, seconds: float) -> Outcome:
    if source is None:
        return _NONE
    for _ in range(_ATTEMPTS):
        try:
            return _session(pool, source, seconds)
        except monty.MontyCrashedError as error:
            if error.timed_out:
                return Outcome("timeout", detail=f"worker killed after {seconds:g} s")
            died = error
    return Outcome("exception", detail=f"the worker died {_ATTEMPTS} times: {one_line(died)}")


def _session(pool: monty.Monty, source: str, seconds: float) -> Outcome:
    """One program in one fresh session: define it, then call it."""
    session_limits = _LIMITS | {"max_feed_duration_secs": seconds}
    with pool.checkout(limits=session_limits, os_policy=_POLICY) as session:
        defined, printed = False, partial(monty.CollectString, _OUTPUT)
        try:
            session.feed_run(source, print_callback=printed())
            defined = True
            value = session.feed_run("solution()", print_callback=printed())
        except monty.MontyCrashedError:
            raise
        except monty.MontySyntaxError as error:
            return Outcome("syntax", detail=one_line(error))
        except monty.MontyRuntimeError as error:
            called = defined and len(error.traceback()) <= 1
            # how far a limit was exceeded differs by run
            detail = re.sub(r"(limit exceeded):.*", r"\1", one_line(error))
            return Outcome(_status(error, called), detail=detail)
    return _outcome(value)


def _outcome(value: Any) -> Outcome:
    """``ok`` for what Python's ``float`` takes (PAL's rule), ``bad_type`` for all else.

    Only exact builtin types count: objects of the program's own classes arrive as inert stand-ins,
    so no code of the program runs here.
    """
    kind = type(value)
    if kind is int and value.bit_length() > 1024:
        return Outcome("bad_type", detail=f"an int of {value.bit_length()} bits")
    short = kind in (Decimal, str) and len(str(value)) <= _LONGEST
    number = kind in (bool, int, float) or (kind is Decimal and short)
    if kind is str and short:
        with suppress(ValueError):
            number = isinstance(float(value), float)
    bad = Outcome("bad_type", detail=f"returned {kind.__name__}")
    return Outcome("ok", value) if number else bad


def _status(error: monty.MontyRuntimeError, called: bool) -> str:
    """Status of an exception; ``called``: it arose in the call of ``solution`` itself."""
    cause, text = error.exception(), str(error)
    if isinstance(cause, TimeoutError) and "limit exceeded" in text:
        return "timeout"
    if isinstance(cause, MemoryError) and "memory limit" in text:
        return "memory"
    if isinstance(cause, SyntaxError):
        return "syntax"
    if called and ("name 'solution' is not" in text or "object is not callable" in text):
        return "no_solution"
    return "refused" if _beyond_monty(cause, text) else "exception"


def _beyond_monty(cause: BaseException, text: str) -> bool:
    """Whether CPython would have offered what the program asked for."""
    if isinstance(cause, ImportError | PermissionError) or _UNSUPPORTED.search(text):
        return True
    if match := _NO_NAME.search(text):
        return hasattr(builtins, match[1])
    if match := _NO_ATTRIBUTE.search(text):
        return hasattr(getattr(builtins, match[1], None), match[2])
    if match := _NO_MEMBER.search(text):
        return match[1].partition(".")[0] in sys.stdlib_module_names
    return False
