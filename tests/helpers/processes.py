"""Child processes that can be interrupted, whatever the test run itself was started like."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator


@contextlib.contextmanager
def child(*args, **options) -> Iterator[subprocess.Popen]:
    """A `subprocess.Popen` that is killed at the end, however the test ends.

    A shell starts ``make test &`` with SIGINT ignored, and its children inherit that: a Ctrl-C
    would never reach them. So the handler is put back first.
    """

    def hear_sigint() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    process = subprocess.Popen(*args, preexec_fn=hear_sigint, **options)  # noqa: PLW1509
    try:
        yield process
    finally:
        process.kill()
        process.wait()
