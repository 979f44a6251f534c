"""Results files ``data/results/<profile>/<experiment>.json``: written, read, and looked up.

Every number in a figure or in a notebook's prose comes from here, so the file is checked when it
is written and when it is read (`results_form`). ``complete`` is true only once everything is in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lorasoups.errors import SoupError
from lorasoups.files import write_json_atomic
from lorasoups.models.processes import is_main
from lorasoups.paths import Folders
from lorasoups.results.form import SCHEMA, validate
from lorasoups.results.provenance import git_state, provenance
from lorasoups.results.verdicts import pack_verdicts, unpack_verdicts

__all__ = [
    "SCHEMA",
    "find",
    "git_state",
    "load_results",
    "mean_over_seeds",
    "pack_verdicts",
    "provenance",
    "read_results",
    "results_path",
    "unpack_verdicts",
    "validate",
    "write_results",
]


def results_path(
    profile: str, experiment: str = "hard_math", root: Path | str | None = None
) -> Path:
    """``<root>/data/results/<profile>/<experiment>.json``; root: ``--out``'s folder, default the
    project. An experiment is a study (`studies.STUDIES`) or an ablation."""
    return Folders(out=root).results / profile / f"{experiment}.json"


def write_results(path: Path | str, results: dict[str, Any]) -> Path:
    """Check and write a results file in one step; on an error the old file stands as it was.

    Of several processes (`distributed`) the first writes.
    """
    results = validate(results, Path(path).name)
    return write_json_atomic(path, results) if is_main() else Path(path)


def read_results(path: Path | str) -> dict[str, Any]:
    """Read and check a results file, complete or not. Raises SoupError."""
    path = Path(path)
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SoupError(
            f"no results file: {path}; run `lorasoups reproduce --profile {path.parent.name}` first"
        ) from None
    except (OSError, ValueError) as error:
        raise SoupError(
            f"results file cannot be read ({error}): {path}; "
            f"delete it and run `lorasoups reproduce --profile {path.parent.name}`"
        ) from error
    return validate(results, path.name)


def load_results(
    profile: str, experiment: str = "hard_math", root: Path | str | None = None
) -> dict[str, Any]:
    """The complete results of one experiment in a profile.

    Args:
        profile: e.g. ``"mini"``.
        experiment: e.g. ``"hard_math"``, ``"manual_qa"``, ``"lr_sweep"``.
        root: the folder that holds ``data/results`` (what was ``--out``); default the project.

    Raises:
        SoupError: missing, unreadable, not of the schema, or not complete.
    """
    path = results_path(profile, experiment, root)
    results = read_results(path)
    if not results["complete"]:
        raise SoupError(
            f"results are not complete: {path}; "
            f"run `lorasoups reproduce --profile {profile}` again, it goes on where it stopped"
        )
    return results


def find(rows: Iterable[Mapping[str, Any]], **filters: Any) -> list[Mapping[str, Any]]:
    """Rows whose fields equal the filters; a list, tuple or set as filter means "one of".

    Raises:
        SoupError: if no row has a field of that name (a typo would else find nothing).
    """
    rows = list(rows)
    for name in filters:
        if rows and not any(name in row for row in rows):
            raise SoupError(f"unknown field: {name!r}; rows have {', '.join(sorted(rows[0]))}")
    return [row for row in rows if all(_matches(row.get(k), v) for k, v in filters.items())]


def _matches(value: Any, wanted: Any) -> bool:
    return value in wanted if isinstance(wanted, list | tuple | set) else value == wanted


def mean_over_seeds(
    rows: Iterable[Mapping[str, Any]], by: Sequence[str] = ("task", "view", "method")
) -> list[dict[str, Any]]:
    """One row per group of ``by``, in order of first appearance.

    Each has the fields of ``by``, ``seeds`` (how many rows), ``n`` and ``correct`` (sums),
    ``accuracy`` (mean of the rows' accuracies), ``sd`` (between seeds, n - 1 in the denominator;
    None for a single seed), ``min`` and ``max``.
    """
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    means = []
    for names, members in groups.items():
        accuracies = np.array([row["accuracy"] for row in members], dtype=np.float64)
        means.append(
            dict(zip(by, names, strict=True))
            | {
                "seeds": len(members),
                "n": sum(row["n"] for row in members),
                "correct": sum(row["correct"] for row in members),
                "accuracy": float(accuracies.mean()),
                "sd": float(accuracies.std(ddof=1)) if len(members) > 1 else None,
                "min": float(accuracies.min()),
                "max": float(accuracies.max()),
            }
        )
    return means
