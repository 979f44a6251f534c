"""Results files ``data/results/<profile>/<experiment>.json``: written, read, and looked up.

Every number in a figure, a table or a sentence comes from such a file, so it is checked when it is
written and when it is read (`schema.validate`). Torch is not needed here.
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from lorasoups.errors import SoupError
from lorasoups.files import write_json_atomic
from lorasoups.paths import Folders, project_root
from lorasoups.results.schema import SCHEMA, pack_verdicts, unpack_verdicts, validate

__all__ = ["SCHEMA", "pack_verdicts", "unpack_verdicts", "validate"]

_MAY_DIFFER = ("seeds", "threads")  # in the settings of seeds that stand in one file
_PACKAGES = (
    "lorasoups torch transformers peft accelerate datasets safetensors scipy numpy nevergrad "
    "pydantic-monty"
).split()


def results_path(
    profile: str, experiment: str = "hard_math", root: Path | str | None = None
) -> Path:
    """The file of a study or ablation; ``root`` holds ``data/results``, None: the project."""
    return Folders(out=root).results / profile / f"{experiment}.json"


def write_results(path: Path | str, results: dict[str, Any]) -> Path:
    """Check and write a results file in one step; on an error the old file stands as it was."""
    return write_json_atomic(path, validate(results, Path(path).name))


def read_results(path: Path | str) -> dict[str, Any]:
    """Read and check a results file, complete or not. Raises SoupError."""
    path = Path(path)
    again = f"run `lorasoups reproduce --profile {path.parent.name}`"
    if not path.exists():
        raise SoupError(f"no results file: {path}; {again} first")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = f"results file cannot be read ({error}): {path}"
        raise SoupError(f"{what}; delete it and {again}") from error
    return validate(results, path.name)


def load_results(
    profile: str, experiment: str = "hard_math", root: Path | str | None = None
) -> dict[str, Any]:
    """The complete results of one study or ablation, such as ``"manual_qa"`` or ``"lr_sweep"``."""
    path = results_path(profile, experiment, root)
    results = read_results(path)
    if not results["complete"]:
        again = f"run `lorasoups reproduce --profile {profile}` again, it goes on where it stopped"
        raise SoupError(f"results are not complete: {path}; {again}")
    return results


def with_earlier_seeds(
    results: dict[str, Any], earlier: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Results of some seeds with those that ``earlier`` results of the same study have besides.

    For a study that takes more than one sitting, or one machine. Raises SoupError, naming the
    setting, where the two were not made alike.
    """
    one, other = ({k: v for k, v in r["config"].items() if k not in _MAY_DIFFER}
                  for r in (results, earlier))  # fmt: skip
    if odd := [k for k in one.keys() | other.keys() if one.get(k) != other.get(k)]:
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
    """Rows whose fields equal the filters; a list, tuple or set means "one of".

    Raises SoupError if no row has a field of that name (a typo would else find nothing).
    """
    rows = list(rows)
    for name in filters:
        if rows and not any(name in row for row in rows):
            raise SoupError(f"unknown field: {name!r}; rows have {', '.join(sorted(rows[0]))}")
    wanted = {k: v if isinstance(v, list | tuple | set) else (v,) for k, v in filters.items()}
    return [row for row in rows if all(row.get(k) in values for k, values in wanted.items())]


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
    try:
        commit, changes = (
            subprocess.check_output(
                ["git", "-C", str(root), *command], text=True, stderr=subprocess.DEVNULL, timeout=30
            ).strip()
            for command in (["rev-parse", "HEAD"], status)
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}
