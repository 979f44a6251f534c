"""Results files ``data/results/<profile>/<experiment>.json``: their form, writing, reading.

Every number in a figure, a table or a sentence comes from such a file, so it is checked when it is
written and when it is read (`validate`). Torch is not needed here.
"""

import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from lorasoups.errors import SoupError
from lorasoups.files import read_json, write_json_atomic
from lorasoups.paths import Folders, project_root

_MAY_DIFFER = ("seeds", "threads")  # in the settings of seeds that stand in one file
_PACKAGES = ("lorasoups torch transformers peft accelerate datasets safetensors scipy numpy "
             "nevergrad pydantic-monty").split()  # fmt: skip
SCHEMA = 1
Root = Path | str | None  # the project, or a folder with its own data/results; None: the project

NUMBER = int | float
MAYBE = int | float | None  # null: cannot be computed, such as an interval over a single seed
EACH = object()  # stands for every key
FORM = {
    "schema": int, "profile": str, "created": str, "complete": bool,
    "provenance": {"versions": dict, "device": str, "cpu": str, "git": dict | None,
                   "base_sha256": str | None, "world_version": object, "wall_s": MAYBE},
    "config": dict,
    "rows": [{"task": str, "view": str, "method": str, "on": str | None, "weights": object,
              "seed": int | None, "n": int, "correct": int, "accuracy": NUMBER, "ci": [NUMBER],
              "outcomes": {EACH: int}, "extra": {EACH: MAYBE}}],
    "items": {EACH: {EACH: {EACH: object}}},  # task -> method -> seed -> packed verdicts
    "alphas": [{"seed": int, "preset": str, "normalise": str, "module": str, "values": list}],
    "curves": [{"seed": int, "preset": str, "step": int, "loss": NUMBER, "alpha_mean": list,
                "alpha_moved": NUMBER}],
    "sweep": [{"seed": int, "normalise": str, "init": str, "lr": NUMBER, "heldout_loss": NUMBER,
               "chosen": bool}],
    "skills": [{"seed": int, "name": str, "steps": int, "loss": NUMBER, "seconds": NUMBER,
                "tokens_per_s": NUMBER}],
    "timings": dict,
    "floors?": {EACH: NUMBER},  # what answers right without a skill -> its share of the target
    "experiment?": str,  # absent: hard_math
    "artifacts?": dict,  # stage -> artifact -> short sha256
    "decontamination?": dict,  # what training and test items share
    "views?": dict,  # task -> view -> which items belong to it, packed like verdicts
}  # fmt: skip
"""Field -> type; a list holds entries of one form; ``?`` marks what may be absent. Further fields
are allowed."""


def results_path(profile: str, experiment: str = "hard_math", root: Root = None) -> Path:
    """The file of a study or ablation; ``root`` holds ``data/results``."""
    return Folders(out=root).results / profile / f"{experiment}.json"


def write_results(path: Path | str, results: dict[str, Any]) -> Path:
    """Check and write a results file in one step; on an error the old file stands as it was."""
    return write_json_atomic(path, validate(results, Path(path).name))


def read_results(path: Path | str) -> dict[str, Any]:
    """Read and check a results file, complete or not. Raises SoupError."""
    path = Path(path)
    results = read_json(path, f"run `lorasoups reproduce --profile {path.parent.name}`")
    return validate(results, path.name)


def load_results(profile: str, experiment: str = "hard_math", root: Root = None) -> dict[str, Any]:
    """The complete results of one study or ablation, such as ``"manual_qa"`` or ``"lr_sweep"``."""
    path = results_path(profile, experiment, root)
    results = read_results(path)
    if not results["complete"]:
        again = f"run `lorasoups reproduce --profile {profile}` again, it goes on where it stopped"
        raise SoupError(f"results are not complete: {path}; {again}")
    return results


def odd_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Where two configs differ; a setting that is younger than one of them is empty there."""
    return [k for k in one.keys() | other.keys() if (one.get(k) or 0) != (other.get(k) or 0)]


def with_earlier_seeds(results: dict, earlier: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Results of some seeds with those that ``earlier`` results of the same study have besides.

    For a study that takes more than one sitting, or one machine. Raises SoupError, naming the
    setting, where the two were not made alike.
    """
    one, other = ({k: v for k, v in r["config"].items() if k not in _MAY_DIFFER}
                  for r in (results, earlier))  # fmt: skip
    if odd := odd_settings(one, other):
        what = f"{min(odd)} is not what the seeds that are there were made with: {where}"
        raise SoupError(f"{what}; begin at seed 0, or give --out another folder")
    seeds = set(results["config"]["seeds"])
    kept = {name: [entry for entry in earlier[name] if entry["seed"] not in seeds]
            for name in ("rows", "alphas", "curves", "sweep", "skills")}  # fmt: skip
    items = {task: {method: {**earlier["items"][task][method], **verdicts}
                    for method, verdicts in methods.items()}
             for task, methods in results["items"].items()}  # fmt: skip
    timings = {k: round(v + earlier["timings"].get(k, 0.0), 3)
               for k, v in results["timings"].items()}  # fmt: skip
    artifacts = {k: {**earlier["artifacts"].get(k, {}), **v}
                 for k, v in results["artifacts"].items()}  # fmt: skip
    before = dict(earlier["provenance"])
    runs = [*before.pop("earlier", []), before]
    return results | {name: entries + results[name] for name, entries in kept.items()} | {
        "items": items, "timings": timings, "artifacts": artifacts,
        "provenance": results["provenance"] | {"earlier": runs},
        "config": results["config"] | {"seeds": sorted({*earlier["config"]["seeds"], *seeds})},
    }  # fmt: skip


def find(rows: Iterable[Mapping[str, Any]], **filters: Any) -> list[Mapping[str, Any]]:
    """Rows whose fields equal the filters.

    Raises SoupError if no row has a field of that name (a typo would else find nothing).
    """
    rows = list(rows)
    for name in filters:
        if rows and not any(name in row for row in rows):
            raise SoupError(f"unknown field: {name!r}; rows have {', '.join(sorted(rows[0]))}")
    return [row for row in rows if all(row.get(k) == value for k, value in filters.items())]


def provenance(*, device: str, cpu: str, threads: int | None = None, **more: Any) -> dict[str, Any]:
    """What made these results: versions, hardware, commit. No paths, no user names.

    ``more``: further fields, such as ``base_sha256``, ``world_version`` and ``wall_s`` (seconds).
    """
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):  # a checkout that is not installed
            versions[name] = metadata.version(name)
    return {
        "versions": versions, "platform": f"{platform.system()} {platform.machine()}",
        "device": device, "cpu": cpu, "cores": os.cpu_count(), "threads": threads,
        "git": git_state(project_root()), "base_sha256": None, "world_version": None,
        "wall_s": None,
    } | more  # fmt: skip


def git_state(root: Path) -> dict[str, Any] | None:
    """``{"commit", "dirty"}`` of a checkout, apart from what a run rewrites; None without git."""
    rewritten = [f":(exclude){folder}" for folder in ("data/results", "figures", "notebooks")]
    status = ["status", "--porcelain", "--untracked-files=no", "--", ".", *rewritten]
    how = {"text": True, "stderr": subprocess.DEVNULL, "timeout": 30}
    try:
        commit, changes = (
            subprocess.check_output(["git", "-C", str(root), *command], **how).strip()
            for command in (["rev-parse", "HEAD"], status)
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}


def validate(results: Any, where: str = "results") -> dict[str, Any]:
    """Check the content of a results file (parsed JSON); returns it.

    Besides fields and types: rows agree with themselves and with the verdicts. ``where`` is what
    errors call the file. Raises SoupError, naming the field, such as ``rows[3].ci``.
    """
    _check(results, FORM, where)
    if results["schema"] != SCHEMA:
        _fail(f"schema {results['schema']}, this version reads {SCHEMA}", where, "schema")
    for index, row in enumerate(results["rows"]):
        _check_row(row, where, f"rows[{index}]")
    _check_items(results, where)
    if results["complete"] and not results["rows"]:
        _fail("marked complete without rows", where, "complete")
    return results


def _fail(what: str, where: str, path: str) -> NoReturn:
    raise SoupError(f"{what}: {where}, field {path}; make the file again or correct its writer")


def _check(value: Any, form: Any, where: str, path: str = "") -> None:
    """Refuse a value that is not of a form: a type, or a list or mapping of forms."""
    kind = type(form) if isinstance(form, dict | list) else form
    if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object)):
        names = "a JSON object" if kind is dict else getattr(kind, "__name__", kind)
        _fail(f"{type(value).__name__} instead of {names}", where, path or "(top level)")
    if isinstance(value, float) and not math.isfinite(value):
        _fail("not a finite number (write null)", where, path)
    if isinstance(form, list):
        for index, entry in enumerate(value):
            _check(entry, form[0], where, f"{path}[{index}]")
    elif isinstance(form, dict):
        fields = dict.fromkeys(value, form[EACH]) if EACH in form else form
        for field, inner in fields.items():
            name = field.removesuffix("?")
            if name in value:
                _check(value[name], inner, where, f"{path}.{name}".lstrip("."))
            elif name == field:
                _fail("missing field", where, f"{path}.{name}".lstrip("."))


def _check_row(row: Mapping[str, Any], where: str, path: str) -> None:
    n, correct, ci, accuracy = row["n"], row["correct"], row["ci"], row["accuracy"]
    if n <= 0 or not 0 <= correct <= n:
        _fail(f"{correct} correct of {n}", where, f"{path}.correct")
    if abs(accuracy - correct / n) > 1e-6:
        _fail(f"accuracy {accuracy} is not {correct}/{n}", where, f"{path}.accuracy")
    if len(ci) != 2 or not ci[0] - 1e-6 <= accuracy <= ci[1] + 1e-6:
        _fail("no interval [lo, hi] around the accuracy", where, f"{path}.ci")
    if row["outcomes"] and sum(row["outcomes"].values()) != n:
        _fail(f"outcome counts do not sum to n = {n}", where, f"{path}.outcomes")


def _check_items(results: Mapping[str, Any], where: str) -> None:
    whole = find(results["rows"], view="all")
    rows = {(row["task"], row["method"], str(row["seed"])): row for row in whole}
    methods = [(t, m, seeds) for t, by in results["items"].items() for m, seeds in by.items()]
    for task, method, seeds in methods:
        for seed, text in seeds.items():
            path, row = f"items.{task}.{method}.{seed}", rows.get((task, method, seed))
            if row is None:
                _fail("verdicts without a row of view 'all'", where, path)
            try:
                ones = int(unpack_verdicts(text, row["n"]).sum())
            except SoupError as error:
                _fail(str(error).split(";")[0], where, path)
            if ones != row["correct"]:
                _fail(f"{ones} verdicts, {row['correct']} correct in its row", where, path)


def pack_verdicts(verdicts: Sequence[bool] | np.ndarray) -> str:
    """Right or wrong per problem as hex: 8 per byte, the first problem in the highest bit."""
    return np.packbits(np.asarray(verdicts, dtype=bool)).tobytes().hex()


def unpack_verdicts(text: str, n: int) -> np.ndarray:
    """The inverse of `pack_verdicts`: bool array of shape [n]. Raises SoupError."""
    try:
        packed = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    except (ValueError, TypeError):
        raise SoupError(f"no hex string of verdicts: {text!r:.20}; make the file again") from None
    if len(packed) != math.ceil(n / 8) or np.unpackbits(packed)[n:].any():
        raise SoupError(f"{len(packed)} bytes of verdicts for {n} problems; make the file again")
    return np.unpackbits(packed, count=n).astype(bool)
