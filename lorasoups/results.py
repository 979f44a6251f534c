"""Results files ``data/results/<profile>/<experiment>.json``: form, checks, and reading from them.

Every number in a figure or in a notebook's prose comes from here, so the file is checked when it
is written and when it is read. ``complete`` is true only once everything is in it.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from lorasoups.errors import SoupError
from lorasoups.files import write_json_atomic
from lorasoups.paths import Folders, project_root

SCHEMA = 1

NUMBER = (int, float)
MAYBE = (int, float, type(None))  # null: could not be computed, e.g. from a single seed
TEXT = (str,)
MAYBE_TEXT = (str, type(None))
ANYTHING = (object,)

_TOP = {
    "schema": (int,),
    "profile": TEXT,
    "created": TEXT,
    "complete": (bool,),
    "provenance": (dict,),
    "config": (dict,),
    "rows": (list,),
    "items": (dict,),
    "comparisons": (list,),
    "superlinearity": (dict,),
    "alphas": (list,),
    "curves": (list,),
    "sweep": (list,),
    "skills": (list,),
    "timings": (dict,),
}
_LISTS = {
    "rows": {
        "task": TEXT,
        "view": TEXT,
        "method": TEXT,
        "on": MAYBE_TEXT,
        "weights": ANYTHING,
        "seed": (int, type(None)),
        "n": (int,),
        "correct": (int,),
        "accuracy": NUMBER,
        "ci": (list,),
        "outcomes": (dict,),
        "extra": (dict,),
    },
    "comparisons": {
        "task": TEXT,
        "a": TEXT,
        "b": TEXT,
        "diff": NUMBER,
        "lo": MAYBE,
        "hi": MAYBE,
        "p": MAYBE,
        "p_holm": MAYBE,
        "wins": ANYTHING,
    },
    "alphas": {
        "seed": (int,),
        "preset": TEXT,
        "normalise": TEXT,
        "module": TEXT,
        "values": (list,),
    },
    "curves": {
        "seed": (int,),
        "preset": TEXT,
        "step": (int,),
        "loss": NUMBER,
        "alpha_mean": (list,),
        "alpha_moved": NUMBER,
    },
    "sweep": {
        "seed": (int,),
        "normalise": TEXT,
        "init": TEXT,
        "lr": NUMBER,
        "heldout_loss": NUMBER,
        "chosen": (bool,),
    },
    "skills": {
        "seed": (int,),
        "name": TEXT,
        "steps": (int,),
        "loss": NUMBER,
        "seconds": NUMBER,
        "tokens_per_s": NUMBER,
    },
}
_SUPERLINEARITY = {
    "gain_soup": NUMBER,
    "sum_of_gains": NUMBER,
    "diff": NUMBER,
    "lo": MAYBE,
    "hi": MAYBE,
}
_PROVENANCE = {
    "versions": (dict,),
    "device": TEXT,
    "cpu": TEXT,
    "git": (dict, type(None)),
    "base_sha256": MAYBE_TEXT,
    "world_version": ANYTHING,
    "wall_s": MAYBE,
}


# --- form ---------------------------------------------------------------------------------------


def validate(results: Any, where: str = "results") -> dict[str, Any]:
    """Check a results file's content; returns it.

    Besides presence and types of the fields of the schema: ``accuracy == correct / n``, outcome
    counts that sum to ``n``, intervals around the accuracy, and verdict bit strings in ``items``
    with as many ones as the row of the same task, method and seed has correct answers.

    Args:
        results: the parsed JSON.
        where: what error messages call it (a file name).

    Raises:
        SoupError: naming the field, e.g. ``rows[3].ci``.
    """
    _check_fields(results, _TOP, where, "")
    if results["schema"] != SCHEMA:
        raise SoupError(
            f"schema {results['schema']}, this version reads {SCHEMA}: {where}; "
            "make the file again with `lorasoups reproduce`"
        )
    _check_fields(results["provenance"], _PROVENANCE, where, "provenance.")
    if results["superlinearity"]:
        _check_fields(results["superlinearity"], _SUPERLINEARITY, where, "superlinearity.")
    for name, fields in _LISTS.items():
        for index, entry in enumerate(results[name]):
            _check_fields(entry, fields, where, f"{name}[{index}].")
    for index, row in enumerate(results["rows"]):
        _check_row(row, where, f"rows[{index}]")
    _check_items(results, where)
    if results["complete"] and not results["rows"]:
        raise SoupError(f"marked complete without rows: {where}; run the notebooks again")
    return results


def _fail(what: str, where: str, field: str) -> None:
    raise SoupError(f"{what}: {where}, field {field}; make the file again or correct its writer")


def _check_fields(value: Any, fields: Mapping[str, tuple], where: str, prefix: str) -> None:
    if not isinstance(value, dict):
        _fail("not a JSON object", where, prefix.rstrip(".") or "(top level)")
    for name, types in fields.items():
        field = prefix + name
        if name not in value:
            _fail("missing field", where, field)
        item = value[name]
        is_bool_as_number = isinstance(item, bool) and bool not in types and types != ANYTHING
        if not isinstance(item, types) or is_bool_as_number:
            names = " or ".join("null" if t is type(None) else t.__name__ for t in types)
            _fail(f"{type(item).__name__} instead of {names}", where, field)
        if isinstance(item, float) and not math.isfinite(item):
            _fail("not a finite number (write null)", where, field)


def _check_row(row: Mapping[str, Any], where: str, field: str) -> None:
    n, correct, ci = row["n"], row["correct"], row["ci"]
    if n <= 0 or not 0 <= correct <= n:
        _fail(f"{correct} correct of {n}", where, f"{field}.correct")
    if abs(row["accuracy"] - correct / n) > 1e-6:
        _fail(f"accuracy {row['accuracy']} is not {correct}/{n}", where, f"{field}.accuracy")
    numbers = all(isinstance(end, NUMBER) and not isinstance(end, bool) for end in ci)
    if len(ci) != 2 or not numbers or not ci[0] - 1e-6 <= row["accuracy"] <= ci[1] + 1e-6:
        _fail("no interval [lo, hi] around the accuracy", where, f"{field}.ci")
    if row["outcomes"] and sum(row["outcomes"].values()) != n:
        _fail(f"outcome counts do not sum to n = {n}", where, f"{field}.outcomes")


def _check_items(results: Mapping[str, Any], where: str) -> None:
    rows = {
        (row["task"], row["method"], str(row["seed"])): row
        for row in results["rows"]
        if row["view"] == "all"
    }
    for task, methods in results["items"].items():
        for method, seeds in methods.items():
            for seed, text in seeds.items():
                field = f"items.{task}.{method}.{seed}"
                row = rows.get((task, method, seed))
                if row is None:
                    _fail("verdicts without a row of view 'all'", where, field)
                try:
                    ones = int(unpack_verdicts(text, row["n"]).sum())
                except SoupError as error:
                    _fail(str(error).split(";")[0], where, field)
                if ones != row["correct"]:
                    _fail(f"{ones} verdicts, {row['correct']} correct in its row", where, field)


# --- files --------------------------------------------------------------------------------------


def results_path(
    profile: str, experiment: str = "hard_math", root: Path | str | None = None
) -> Path:
    """``<root>/data/results/<profile>/<experiment>.json``; root: ``--out``'s folder, default the
    project. An experiment is a study (`studies.STUDIES`) or an ablation."""
    return Folders(out=root).results / profile / f"{experiment}.json"


def write_results(path: Path | str, results: dict[str, Any]) -> Path:
    """Check and write a results file in one step; on an error the old file stands as it was."""
    return write_json_atomic(path, validate(results, Path(path).name))


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


# --- rows ---------------------------------------------------------------------------------------


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


# --- verdicts -----------------------------------------------------------------------------------


def pack_verdicts(verdicts: Sequence[bool] | np.ndarray) -> str:
    """Right/wrong per problem, in order, as hex: 8 per byte, first problem in the highest bit."""
    return np.packbits(np.asarray(verdicts, dtype=bool)).tobytes().hex()


def unpack_verdicts(text: str, n: int) -> np.ndarray:
    """The inverse of :func:`pack_verdicts`: bool array of shape [n]. Raises SoupError."""
    try:
        packed = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    except ValueError:
        raise SoupError(f"no hex string of verdicts: {text[:20]!r}; make the file again") from None
    if len(packed) != math.ceil(n / 8) or np.unpackbits(packed)[n:].any():
        raise SoupError(f"{len(packed)} bytes of verdicts for {n} problems; make the file again")
    return np.unpackbits(packed, count=n).astype(bool)


# --- provenance ---------------------------------------------------------------------------------

_PACKAGES = (
    "lorasoups torch transformers peft accelerate datasets safetensors scipy numpy pydantic-monty"
).split()


def provenance(**more: Any) -> dict[str, Any]:
    """What made these results: versions, device, processor, commit. No paths, no user names.

    Args:
        more: further fields; the schema wants ``base_sha256``, ``world_version`` and ``wall_s``
            (seconds), which are null unless given.
    """
    import torch

    cuda = torch.cuda.is_available()
    return {
        "versions": {"python": platform.python_version()} | _versions(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "git": git_state(project_root()),
        "base_sha256": None,
        "world_version": None,
        "wall_s": None,
    } | more


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return versions


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git_state(root: Path) -> dict[str, Any] | None:
    """``{"commit", "dirty"}`` of a checkout, or None without git.

    ``dirty``: a tracked file differs from the commit. What a run itself rewrites (results,
    figures, executed notebooks) does not count.
    """
    own = [":(exclude)data/results", ":(exclude)figures", ":(exclude)notebooks"]
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *own)
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()
