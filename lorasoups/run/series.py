"""Which notebooks a run consists of, and which parameters each of them is given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorasoups.errors import SoupError
from lorasoups.run.notebook_files import declared_parameters, read_notebook

RESULTS_OF: dict[int, tuple[str, ...]] = {
    3: ("hard_math",),
    4: ("manual_qa",),
    5: ("reading",),
    6: ("formats",),
    7: ("alphas", "random_loras"),
    9: ("hard_math",),
}
"""Notebook number -> the experiments whose results files it must leave complete."""
COMMON_PARAMETERS = ("profile", "seeds", "out", "force")


@dataclass(frozen=True)
class Task:
    """One notebook of a run: its source, where its executed copy goes, what it is given."""

    source: Path
    target: Path
    parameters: dict[str, Any]

    @property
    def name(self) -> str:
        return self.source.stem

    @property
    def number(self) -> int:
        return int(self.name[:2])

    @property
    def running(self) -> Path:
        return self.target.with_name(f".{self.name}.running.ipynb")

    @property
    def failed(self) -> Path:
        return self.target.with_name(f"{self.name}.failed.ipynb")


def find_series(folder: Path) -> list[Path]:
    """The notebooks ``NN_name.ipynb`` of a folder, in order. Raises SoupError if there is none."""
    found = sorted(
        path for path in folder.glob("*.ipynb") if re.fullmatch(r"\d\d_[A-Za-z0-9_]+", path.stem)
    )
    if not found:
        raise SoupError(
            f"no notebooks NN_name.ipynb: {folder}; run inside a clone of the repository"
        )
    return found


def choose(series: Sequence[Path], only: str | None, start_from: str | None) -> list[Path]:
    """The part of a series that ``--only`` ("03", "01,02_soups") or ``--from`` names."""
    if only and start_from:
        raise SoupError("--only and --from exclude each other: command line; give one of them")
    if only:
        wanted = {_named(series, name.strip()) for name in only.split(",")}
        return [path for path in series if path in wanted]
    if start_from:
        return list(series[series.index(_named(series, start_from)) :])
    return list(series)


def _named(series: Sequence[Path], name: str) -> Path:
    for path in series:
        if name in (path.stem, path.name, path.stem[:2], str(int(path.stem[:2]))):
            return path
    names = ", ".join(path.stem for path in series)
    raise SoupError(f"unknown notebook: {name!r}; there are {names}")


def plan(
    sources: Sequence[Path], target: Path, common: Mapping[str, Any], extra: Mapping[str, Any]
) -> list[Task]:
    """Check all parameters before anything runs (papermill would only warn).

    A value that equals the notebook's own default is not passed: a default run injects no cell.

    Args:
        sources: notebooks to run.
        target: folder of the executed ones.
        common: values of COMMON_PARAMETERS, which every notebook must declare.
        extra: values for parameters of some of the notebooks.

    Raises:
        SoupError: naming the parameter and the notebook.
    """
    for name in COMMON_PARAMETERS:
        if name in extra:
            raise SoupError(f"{name!r} has an option of its own: --parameter; use --{name}")
    tasks, seen = [], set()
    for source in sources:
        declared = declared_parameters(read_notebook(source), source)
        for name in common:
            if name not in declared:
                raise SoupError(
                    f"unknown parameter {name!r}: {source}; "
                    f"every notebook declares {', '.join(COMMON_PARAMETERS)}"
                )
        seen |= declared.keys()
        given = {**common, **{name: extra[name] for name in extra if name in declared}}
        changed = {
            name: value for name, value in given.items() if repr(value) != repr(declared[name])
        }
        tasks.append(Task(source, target / source.name, changed))
    for name in extra:
        if name not in seen:
            raise SoupError(
                f"unknown parameter {name!r}: {', '.join(path.stem for path in sources)}; "
                f"declared are {', '.join(sorted(seen))}"
            )
    return tasks
