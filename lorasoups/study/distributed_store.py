"""One store, several processes: built together, written once.

Rank 0 alone looks whether an artifact is there, locks it and writes it (`store.Store`); the others
wait for its word, compute their part with it, and go on when the artifact lies there. Which
artifact is meant is compared first: processes that compute on different data must not go on.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from lorasoups.errors import SoupError
from lorasoups.models import processes as distributed
from lorasoups.study.store import MANIFEST, Store

ALONE = frozenset({"merge", "lorahub"})
"""Stages without a part for others: rank 0 makes them while the rest waits."""
_SEEN_WITHIN_S = 90.0  # network file systems remember for up to a minute that a file was not there


class DistributedStore:
    """`Store.path` and `Store.build` for all processes of a run, which call them in the same order.

    Args:
        store: of this process; all have the same folder.
        together: entered by every process around the making of an artifact.
    """

    def __init__(self, store: Store, together: Callable[[], AbstractContextManager] = nullcontext):
        self.store, self.together = store, together
        self.root, self.path = store.root, store.path

    def build(
        self,
        stage: str,
        inputs: dict[str, Any],
        make: Callable[[Path], None],
        code: Sequence[Any] = (),
        *,
        force: bool = False,
    ) -> Path:
        """As `Store.build`. What other ranks write into the folder they get is thrown away.

        An error in one process leaves it at once, and the launcher ends the others: they may be in
        the middle of a step that will never be answered.

        Raises:
            SoupError: as `Store.build`; processes that mean different artifacts; an artifact that
                another process does not see.
        """
        folder = self.store.path(stage, inputs, code)
        self._same_for_all(stage, folder.name)
        if distributed.is_main():
            self._build_and_tell(stage, inputs, make, code, force)
        elif distributed.broadcast():
            with tempfile.TemporaryDirectory() as aside, self.together():
                make(Path(aside))
        distributed.gather(None)
        _wait_for(folder / MANIFEST)
        return folder

    def _build_and_tell(self, stage, inputs, make, code, force) -> None:
        told = False

        def make_together(folder: Path) -> None:
            nonlocal told
            told = True
            distributed.broadcast(True)
            with self.together():
                make(folder)

        alone = stage in ALONE
        self.store.build(stage, inputs, make if alone else make_together, code, force=force)
        if not told:
            distributed.broadcast(False)

    @staticmethod
    def _same_for_all(stage: str, name: str) -> None:
        names = distributed.gather(name)
        if len(set(names)) > 1:
            odd = next(r for r, other in enumerate(names) if other != names[0])
            raise SoupError(
                f"processes 0 and {odd} mean different artifacts of {stage}: their base, data, "
                "library versions or hardware (bfloat16) differ; run on machines of one kind"
            )


def _wait_for(manifest: Path) -> None:
    until = time.monotonic() + _SEEN_WITHIN_S
    while not manifest.is_file():
        if time.monotonic() > until:
            raise SoupError(
                f"process {distributed.rank()} does not see what process 0 wrote: {manifest}; "
                "give --out a folder that all machines share"
            )
        time.sleep(0.2)


def open_store(root: Path | str) -> Store | DistributedStore:
    """The store of a run, for however many processes it has; meets the other processes."""
    if distributed.size() == 1:
        return Store(root)
    from lorasoups.learning.split_batches import split_batches

    distributed.join()
    return DistributedStore(Store(root), split_batches)
