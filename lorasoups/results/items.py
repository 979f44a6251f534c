"""Verdicts of single items, out of a results file: of one method, or of two to be compared."""

from collections.abc import Iterable

import numpy as np

from lorasoups.errors import SoupError
from lorasoups.results import stats
from lorasoups.results.file import find, unpack_verdicts
from lorasoups.results.reading import Results


def matrix(
    results: Results, task: str, method: str, view: str = "all", seeds: Iterable[str] = ()
) -> np.ndarray:
    """Verdicts of a method, bool [seeds, items], unpacked.

    Args:
        results: of any experiment.
        task, method: as in ``items``.
        view: only its items; they must be listed in the file's ``views``.
        seeds: which, in which order; default all of them, ascending.

    Raises:
        SoupError: there are no verdicts of this method, view or seed.
    """
    packed = results["items"].get(task, {}).get(method, {})
    seeds = list(seeds) or sorted(packed, key=int)
    if not packed or any(seed not in packed for seed in seeds):
        raise SoupError(f"no verdicts: {method} on {task}; evaluate it with all seeds")
    n = find(results["rows"], task=task, method=method, view="all")[0]["n"]
    table = np.stack([unpack_verdicts(packed[seed], n) for seed in seeds])
    if view == "all":
        return table
    chosen = results.get("views", {}).get(task, {}).get(view)
    if chosen is None:
        raise SoupError(f"items not listed: view {view!r} of {task}; write the file's 'views'")
    return table[:, unpack_verdicts(chosen, n)]


def pair(
    results: Results, task: str, a: str, b: str, view: str = "all"
) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts of two methods, bool [seeds, items] each, row i of both from the same seed.

    Raises:
        SoupError: one has no verdicts, or they have different seeds.
    """
    seeds = [set(results["items"].get(task, {}).get(m, {})) for m in (a, b)]
    if all(seeds) and seeds[0] != seeds[1]:
        raise SoupError(f"different seeds: {a} and {b} on {task}; evaluate both with all seeds")
    return matrix(results, task, a, view), matrix(results, task, b, view)


def against_all(results: Results, task: str, a: str = "cat") -> dict[str, stats.Paired]:
    """Method ``a`` minus every other method on a test, also one that is not the target.

    Args:
        results: of any experiment.
        task: one of its tests.
        a: the method.

    Raises:
        SoupError: ``a`` or the task has no verdicts, or methods have different seeds.
    """
    others = [method for method in results["items"].get(task, {}) if method != a]
    if not others:
        raise SoupError(f"no verdicts: {task}; tests are {', '.join(results['items'])}")
    return {b: stats.paired(*pair(results, task, a, b)) for b in others}
