"""A Jupyter kernel of the very interpreter that runs this process.

A kernelspec named ``python3`` may be absent, or installed somewhere else for another Python; its
``argv`` may say just ``python``. None of that is asked here.
"""

from __future__ import annotations

import sys

import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from traitlets import default


class SameInterpreterKernelManager(AsyncKernelManager):
    """Starts ``sys.executable -m ipykernel_launcher``, whatever kernelspecs are installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        # Its log shares our terminal, and at every normal end may report the interrupt that
        # jupyter_client sends before a shutdown as an ERROR: only what is critical.
        return KernelSpec(**get_kernel_dict(extra_arguments=["--log-level=50"]))

    @default("transport_encryption")
    def _encrypt(self) -> str:
        """On shared machines others could listen (ipykernel 7 warns of it at every start)."""
        return "auto" if zmq.has("curve") else "disabled"

    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """As usual; but at once after Ctrl-C, else a busy kernel is waited for, and complains."""
        interrupted = isinstance(sys.exception(), KeyboardInterrupt)
        await super().shutdown_kernel(now=now or interrupted, restart=restart)
