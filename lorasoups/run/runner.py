"""``lorasoups reproduce``: run the notebook series, headless, and believe nothing but the facts.

The notebooks ``notebooks/NN_name.ipynb`` run in order through papermill's Python API, each in a
fresh kernel of this interpreter whose working folder is the project's root. A notebook has run if
no exception came, every code cell has an execution count, and no output is an error; the series
has run if the results files that its notebooks write are complete too. (Papermill's own
metadata is not asked: after a crash it calls cells completed that never ran.) An executed notebook
takes its place by a rename; what a failed one wrote is kept beside it as ``NN_name.failed.ipynb``.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from lorasoups.errors import SoupError
from lorasoups.files import ensure_folder, write_json_atomic
from lorasoups.paths import Folders
from lorasoups.results.file import load_results, results_path
from lorasoups.run.kernel import SameInterpreterKernelManager
from lorasoups.run.notebook_files import (
    clean,
    error_in,
    prepare,
    read_notebook,
    unexecuted,
    write_notebook,
)
from lorasoups.run.series import RESULTS_OF, Task, choose, find_series, plan

HUB_MIRROR = "LORASOUPS_HUB_MIRROR"
OFFLINE_PROFILES = ("smoke", "mini")  # they need nothing but the clone
# glibc hands freed tensors back to the kernel and faults the pages in again, step after step; told
# to keep them, small-model training on a CPU is some 13 % faster. Other C libraries ignore this.
KEEP_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "8589934592"}


def reproduce(
    profile: str = "mini",
    seeds: int = 1,
    only: str | None = None,
    start_from: str | None = None,
    force: bool = False,
    out: Path | str | None = None,
    progress: bool = True,
    *,
    parameters: Mapping[str, Any] | None = None,
    hub_mirror: Path | str | None = None,
    root: Path | str | None = None,
) -> dict[str, float]:
    """Run the notebooks of the series.

    Args:
        profile: a name of :mod:`lorasoups.study.profiles`.
        seeds: number of seeds, >= 1.
        only: run these alone: numbers or names, several with commas ("03", "01,02_soups").
        start_from: run this one and all after it.
        force: build every stage again instead of taking it from the cache.
        out: write below this folder (``notebooks``, ``data/results``, ``figures``, ``cache``)
            instead of into the project, where executed notebooks replace their sources.
        progress: bars on stderr and a table of times on stdout.
        parameters: further notebook parameters; each goes to the notebooks that declare it.
        hub_mirror: folder with mirrored Hub data; kernels see it as ``LORASOUPS_HUB_MIRROR``.
        root: the project; default :func:`lorasoups.paths.project_root`.

    Returns:
        Seconds per notebook, also kept in ``data/results/<profile>.times.json``.

    Raises:
        SoupError: unknown profile, notebook or parameter (before anything runs); a notebook that
            failed; a results file that is missing or not complete.
    """
    from lorasoups.study.profile import load_profile

    load_profile(profile)  # refuses unknown names
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise SoupError(f"bad number of seeds {seeds!r}: --seeds; give 1 or more")
    folders = Folders(out=out, root=root)
    common = {
        "profile": profile,
        "seeds": seeds,
        "out": str(folders.base) if out else "",
        "force": force,
    }
    sources = choose(find_series(folders.project / "notebooks"), only, start_from)
    tasks = plan(sources, ensure_folder(folders.notebooks), common, parameters or {})

    times: dict[str, float] = {}
    with _kernel_environment(profile, hub_mirror):
        for position, task in enumerate(tasks, start=1):
            bar = {"desc": f"[{position}/{len(tasks)}] {task.name}", "disable": not progress}
            times[task.name] = _run(task, folders, bar)
            _keep_time(folders, profile, seeds, task.name, times[task.name])
    if progress:
        print(time_table(times))
    for task in tasks:
        for experiment in RESULTS_OF.get(task.number, ()):
            _check_results(folders, profile, experiment, seeds)
    return times


def time_table(times: Mapping[str, float]) -> str:
    """Two columns, notebook and seconds, and the sum."""
    width = max(len(name) for name in (*times, "notebook"))
    lines = [f"{'notebook':<{width}}  {'seconds':>8}"]
    lines += [f"{name:<{width}}  {seconds:8.1f}" for name, seconds in times.items()]
    lines += [f"{'total':<{width}}  {sum(times.values()):8.1f}"]
    return "\n".join(lines)


def _run(task: Task, folders: Folders, bar: dict[str, Any]) -> float:
    """Execute one notebook; returns seconds. Unless it succeeds its target stays as it was."""
    started = time.monotonic()
    try:
        try:
            _execute(task, folders, bar)
            trouble = _not_a_success(read_notebook(task.running))
        except Exception as error:
            trouble = _explain(error)
            cause = error
        else:
            cause = None
        if trouble is not None:
            kept = _keep_failed(task, folders)
            raise SoupError(
                f"notebook {task.name} failed, {trouble}: {kept}; correct it and go on with "
                f"--from {task.name[:2]} (finished stages are reused)"
            ) from cause
        executed = clean(read_notebook(task.running), folders.project, folders.base)
        write_notebook(executed, task.target)
        task.failed.unlink(missing_ok=True)
    finally:
        task.running.unlink(missing_ok=True)
    return time.monotonic() - started


def _execute(task: Task, folders: Folders, bar: dict[str, Any]) -> None:
    papermill.execute_notebook(
        prepare(read_notebook(task.source)),
        # papermill fills {name} in paths from the parameters: ours are meant literally
        str(task.running).replace("{", "{{").replace("}", "}}"),
        parameters=task.parameters,
        kernel_name="python3",
        language="python",
        kernel_manager_class=SameInterpreterKernelManager,
        coalesce_streams=True,
        progress_bar=bar,
        cwd=str(folders.project),
    )


def _not_a_success(notebook: NotebookNode) -> str | None:
    """What papermill let pass, e.g. ``sys.exit(0)`` in the middle."""
    error = error_in(notebook)
    if error is not None:
        return f"{_line(error[1])} in cell {error[0]}"
    skipped = unexecuted(notebook)
    if skipped:
        return f"cells {', '.join(map(str, skipped))} were not executed"
    return None


def _explain(error: Exception) -> str:
    if isinstance(error, PapermillExecutionError):
        return _line(f"{error.ename} at In [{error.exec_count}], {error.evalue}")
    if isinstance(error, DeadKernelError):
        return "its kernel died (killed from outside, or by the system for lack of memory)"
    return _line(f"{type(error).__name__}, {error}")


def _line(text: str) -> str:
    """The first line of a message, at most 300 characters."""
    return (text.strip().splitlines() or [""])[0][:300]


def _keep_failed(task: Task, folders: Folders) -> str:
    """Keep what there is of a failed run beside the target; returns where."""
    try:
        partial = clean(read_notebook(task.running), folders.project, folders.base)
        write_notebook(partial, task.failed)
    except SoupError:  # nothing was written, or a full disk cut it: there is nothing to show
        return str(task.target)
    return str(task.failed)


@contextmanager
def _kernel_environment(profile: str, hub_mirror: Path | str | None) -> Iterator[None]:
    """Environment variables for the kernels, which inherit ours; put back afterwards."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["IPYTHONDIR"] = scratch  # the user's start-up scripts must not change a run
        os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # else a warning on every start
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        for name, value in KEEP_FREED_MEMORY.items():
            os.environ.setdefault(name, value)
        os.environ.pop("MPLBACKEND", None)  # the kernel's inline backend shows the figures
        if profile in OFFLINE_PROFILES:
            os.environ["HF_HUB_OFFLINE"] = "1"
        if hub_mirror:
            os.environ[HUB_MIRROR] = str(Path(hub_mirror).expanduser().resolve())
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _keep_time(folders: Folders, profile: str, seeds: int, name: str, seconds: float) -> None:
    """Update ``<profile>.times.json``; times of another number of seeds are dropped."""
    path = folders.results / f"{profile}.times.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        times = known["notebooks"] if known["seeds"] == seeds else {}
    except (OSError, ValueError, KeyError, TypeError):
        times = {}
    times[name] = round(seconds, 1)
    write_json_atomic(
        path,
        {"schema": 1, "profile": profile, "seeds": seeds, "notebooks": dict(sorted(times.items()))},
    )


def _check_results(folders: Folders, profile: str, experiment: str, seeds: int) -> None:
    results = load_results(profile, experiment, folders.base)
    found = {row["seed"] for row in results["rows"]} - {None}
    if len(found) < seeds:
        raise SoupError(
            f"results of {len(found)} seeds, {seeds} were asked for: "
            f"{results_path(profile, experiment, folders.base)}; run again from notebook 01"
        )
