"""``lorasoups reproduce``: run the notebook series, headless, and check that it really ran.

The notebooks ``notebooks/NN_name.ipynb`` run in order through papermill, each in a fresh kernel of
this interpreter whose working folder is the project. A notebook succeeds if there is no exception,
every code cell has an execution count and no output is an error; the series, if the results files
that its notebooks write are complete too. (Papermill's own metadata calls cells completed that
never ran.) An executed notebook replaces its source by a rename; a failed one is kept beside it as
``NN_name.failed.ipynb``.
"""

import ast
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import papermill
import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from lorasoups.errors import SoupError
from lorasoups.files import ensure_folder, write_json_atomic, write_text_atomic
from lorasoups.paths import Folders
from lorasoups.results.file import load_results, results_path
from lorasoups.study.profile import load_profile

RESULTS_OF = {3: ["hard_math"], 4: ["manual_qa"], 5: ["reading"], 6: ["formats"],
              7: ["alphas", "random_loras"], 9: ["hard_math"]}  # fmt: skip
"""Notebook number -> the studies and ablations whose results files it must leave complete."""
COMMON_PARAMETERS = ("profile", "seeds", "out", "force")
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
INJECTED = "injected-parameters"
_LEFT_BY_PAPERMILL = {INJECTED, "papermill-error-cell-tag"}
_WIDGETS = "application/vnd.jupyter.widget-view+json"
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
        profile, seeds, force: what every notebook is given; ``force`` ignores finished stages.
        only: run these alone: numbers or names, several with commas ("03", "01,02_soups").
        start_from: run this one and all after it.
        out: write below this folder (``notebooks``, ``data/results``, ``figures``, ``cache``)
            instead of into the project, where executed notebooks replace their sources.
        progress: bars on stderr and a table of times on stdout.
        parameters: further notebook parameters; each goes to the notebooks that declare it.
        hub_mirror: folder with mirrored Hub data; kernels see it as ``LORASOUPS_HUB_MIRROR``.
        root: the project; default `paths.project_root`.

    Returns:
        Seconds per notebook, also kept in ``data/results/<profile>.times.json``.

    Raises:
        SoupError: unknown profile, notebook or parameter (before anything runs); a notebook that
            failed; a results file that is missing or not complete.
    """
    loaded = load_profile(profile)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise SoupError(f"bad number of seeds {seeds!r}: --seeds; give 1 or more")
    folders, times = Folders(out=out, root=root), {}
    where = str(folders.base) if out else ""
    common = {"profile": profile, "seeds": seeds, "out": where, "force": force}
    sources = choose(find_series(folders.project / "notebooks"), only, start_from)
    tasks = plan(sources, ensure_folder(folders.notebooks), common, parameters or {})
    with _kernel_environment(offline=not loaded.real, hub_mirror=hub_mirror):
        for position, task in enumerate(tasks, start=1):
            bar = {"desc": f"[{position}/{len(tasks)}] {task.name}", "disable": not progress}
            times[task.name] = _run(task, folders, bar)
            _keep_time(folders, loaded.name, seeds, task.name, times[task.name])
    if progress:
        print(time_table(times))
    for experiment in (e for task in tasks for e in RESULTS_OF.get(int(task.name[:2]), ())):
        _check_results(folders, loaded.name, experiment, seeds)
    return times


def time_table(times: Mapping[str, float]) -> str:
    """Two columns, notebook and seconds, and the sum."""
    width = max(len(name) for name in (*times, "notebook"))
    rows = [*times.items(), ("total", sum(times.values()))]
    lines = [f"{name:<{width}}  {seconds:8.1f}" for name, seconds in rows]
    return "\n".join([f"{'notebook':<{width}}  {'seconds':>8}", *lines])


def _keep_time(folders: Folders, profile: str, seeds: int, name: str, seconds: float) -> None:
    """Update ``<profile>.times.json``; times of another number of seeds are dropped."""
    path, times = folders.results / f"{profile}.times.json", {}
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(path.read_text(encoding="utf-8"))
        times = known["notebooks"] if known["seeds"] == seeds else {}
    times = dict(sorted({**times, name: round(seconds, 1)}.items()))
    write_json_atomic(path, {"schema": 1, "profile": profile, "seeds": seeds, "notebooks": times})


def _check_results(folders: Folders, profile: str, experiment: str, seeds: int) -> None:
    results = load_results(profile, experiment, folders.base)
    n = len({row["seed"] for row in results["rows"]} - {None})
    if n < seeds:
        path = results_path(profile, experiment, folders.base)
        raise SoupError(f"results of {n} seeds, {seeds} were asked for: {path}; run 01 again")


# --- which notebooks, with which parameters ----------------------------------------------------


class Task(NamedTuple):
    """One notebook of a run: its source, where its executed copy goes, what it is given."""

    source: Path
    target: Path
    parameters: dict[str, Any]

    @property
    def name(self) -> str:
        return self.source.stem


def find_series(folder: Path) -> list[Path]:
    """The notebooks ``NN_name.ipynb`` of a folder, in order. Raises SoupError if there is none."""
    paths = sorted(p for p in folder.glob("*.ipynb") if re.fullmatch(r"\d\d_\w+", p.stem))
    if not paths:
        raise SoupError(f"no notebooks NN_name.ipynb: {folder}; run inside a clone")
    return paths


def choose(series: Sequence[Path], only: str | None, start_from: str | None) -> list[Path]:
    """The part of a series that ``--only`` ("03", "01,02_soups") or ``--from`` names."""
    if only and start_from:
        raise SoupError("--only and --from exclude each other: command line; give one of them")
    if only:
        wanted = {_named(series, name.strip()) for name in only.split(",")}
        return [path for path in series if path in wanted]
    return list(series[series.index(_named(series, start_from)) if start_from else 0 :])


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

    Every notebook must declare those of ``common``, some notebook those of ``extra``. A value that
    equals the notebook's own default is not passed: a default run injects no cell.

    Raises:
        SoupError: naming the parameter and the notebook.
    """
    declared = {path: declared_parameters(read_notebook(path), path) for path in sources}
    known = sorted(set().union(*declared.values()))
    for name in extra:
        if name in COMMON_PARAMETERS:
            raise SoupError(f"{name!r} has an option of its own: --parameter; use --{name}")
        if name not in known:
            where = ", ".join(path.stem for path in sources)
            raise SoupError(f"unknown parameter {name!r}: {where}; there are {', '.join(known)}")
    tasks = []
    for path, defaults in declared.items():
        for name in common:
            if name not in defaults:
                every = ", ".join(COMMON_PARAMETERS)
                raise SoupError(f"no parameter {name!r}: {path}; every notebook declares {every}")
        given = {name: value for name, value in {**common, **extra}.items() if name in defaults}
        changed = {name: v for name, v in given.items() if repr(v) != repr(defaults[name])}
        tasks.append(Task(path, target / path.name, changed))
    return tasks


def declared_parameters(notebook: NotebookNode, where: Path) -> dict[str, Any]:
    """Names and defaults in the cell tagged ``parameters``.

    Read from the syntax tree: papermill's ``inspect_notebook`` misses ``name: int | None = 3`` and
    strings with ``=`` or ``#``. Raises SoupError unless there is one such cell that holds nothing
    but ``name = literal`` (a derived value would keep the default when papermill sets the others).
    """
    cells = [cell for cell in notebook.cells if "parameters" in tags(cell)]
    if len(cells) != 1:
        raise SoupError(f"{len(cells)} cells tagged 'parameters': {where}; exactly one is needed")
    try:
        return dict(_name_and_literal(line) for line in ast.parse(cells[0].source).body)
    except (SyntaxError, ValueError) as error:
        raise SoupError(
            f"not of the form name = literal ({error}): {where}, cell tagged 'parameters'; "
            "derive values in the next cell"
        ) from error


def _name_and_literal(line: ast.stmt) -> tuple[str, Any]:
    if isinstance(line, ast.Assign | ast.AnnAssign):
        [target, *others] = line.targets if isinstance(line, ast.Assign) else [line.target]
        if isinstance(target, ast.Name) and not others:
            with suppress(ValueError, TypeError):  # no literal, no value
                return target.id, ast.literal_eval(line.value)
    raise ValueError(ast.unparse(line))


# --- running one --------------------------------------------------------------------------------


class SameInterpreterKernelManager(AsyncKernelManager):
    """Starts ``sys.executable -m ipykernel_launcher``, whatever kernelspecs are installed.

    A kernelspec ``python3`` may be absent, of another Python, or say just ``python``.
    """

    @property
    def kernel_spec(self) -> KernelSpec:
        # its log shares our terminal and reports the interrupt before every normal end as an error
        return KernelSpec(**get_kernel_dict(extra_arguments=["--log-level=50"]))

    @default("transport_encryption")
    def _encrypt(self) -> str:
        """On shared machines others could listen (ipykernel 7 warns of it at every start)."""
        return "auto" if zmq.has("curve") else "disabled"

    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """As usual; but at once after Ctrl-C, else a busy kernel is waited for, and complains."""
        interrupted = isinstance(sys.exception(), KeyboardInterrupt)
        await super().shutdown_kernel(now=now or interrupted, restart=restart)


def _run(task: Task, folders: Folders, bar: dict[str, Any]) -> float:
    """Execute one notebook; returns seconds. Unless it succeeds its target stays as it was."""
    running = task.target.with_name(f".{task.name}.running.ipynb")
    failed = task.target.with_name(f"{task.name}.failed.ipynb")
    started, cause = time.monotonic(), None

    def keep(path: Path) -> None:
        notebook = clean(read_notebook(running), folders.project, folders.base)
        nbformat.validate(notebook)
        write_text_atomic(path, nbformat.writes(notebook).rstrip("\n") + "\n")

    try:
        try:
            papermill.execute_notebook(
                prepare(read_notebook(task.source)),
                # papermill fills {name} in paths from the parameters: ours are meant literally
                str(running).replace("{", "{{").replace("}", "}}"),
                parameters=task.parameters,
                kernel_name="python3",
                language="python",
                kernel_manager_class=SameInterpreterKernelManager,
                coalesce_streams=True,
                progress_bar=bar,
                cwd=str(folders.project),
            )
            trouble = trouble_in(read_notebook(running))
        except Exception as error:
            trouble, cause = _explain(error), error
        if not trouble:
            keep(task.target)
            failed.unlink(missing_ok=True)
            return time.monotonic() - started
        with suppress(SoupError):  # nothing was written, or a full disk cut it
            keep(failed)
        raise SoupError(
            f"notebook {task.name} failed, {trouble}: {failed if failed.exists() else task.target};"
            f" correct it and go on with --from {task.name[:2]} (finished stages are reused)"
        ) from cause
    finally:
        running.unlink(missing_ok=True)


def trouble_in(notebook: NotebookNode) -> str:
    """What papermill lets pass, e.g. ``sys.exit(0)`` in the middle; "" if there is nothing."""
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return _line(f"{output.ename}: {output.evalue}") + f" in cell {index}"
    code = [
        (i, c) for i, c in enumerate(notebook.cells) if c.cell_type == "code" and c.source.strip()
    ]
    skipped = ", ".join(str(index) for index, cell in code if cell.execution_count is None)
    return f"cells {skipped} were not executed" if skipped else ""


def _explain(error: Exception) -> str:
    if isinstance(error, PapermillExecutionError):
        return _line(f"{error.ename} at In [{error.exec_count}], {error.evalue}")
    if isinstance(error, DeadKernelError):
        return "its kernel died (killed from outside, or by the system for lack of memory)"
    return _line(f"{type(error).__name__}, {error}")


def _line(text: str) -> str:
    """The first line of a message, at most 300 characters."""
    return (text.strip().splitlines() or [""])[0][:300]


@contextmanager
def _kernel_environment(offline: bool, hub_mirror: Path | str | None) -> Iterator[None]:
    """Environment variables for the kernels, which inherit ours; put back afterwards."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(KEEP_FREED_MEMORY | before)
        os.environ["IPYTHONDIR"] = scratch  # the user's start-up scripts must not change a run
        os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # else a warning on every start
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        os.environ.pop("MPLBACKEND", None)  # the kernel's inline backend shows the figures
        if offline:  # the embedded worlds need nothing but the clone
            os.environ["HF_HUB_OFFLINE"] = "1"
        if hub_mirror:
            os.environ["LORASOUPS_HUB_MIRROR"] = str(Path(hub_mirror).expanduser().resolve())
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


# --- notebooks as documents ---------------------------------------------------------------------


def read_notebook(path: Path) -> NotebookNode:
    """Raises SoupError if the file is no notebook."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat lets JSON, validation and its own errors through
        what = f"not a readable notebook ({type(error).__name__})"
        raise SoupError(f"{what}: {path}; restore it from git") from error


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def prepare(notebook: NotebookNode) -> NotebookNode:
    """Take away everything that an earlier run left, in place: the source alone remains."""
    notebook.cells = [cell for cell in notebook.cells if not _LEFT_BY_PAPERMILL & set(tags(cell))]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    return _strip_metadata(notebook)


def clean(notebook: NotebookNode, *here: Path) -> NotebookNode:
    """Make an executed notebook fit to be kept, in place.

    Papermill's metadata goes, widget state, time stamps and paths of this machine: those of
    ``here`` become ``.``, the environment ``<python>``, the home folder ``~``.
    """
    replace = _path_replacer(*here)
    for cell in notebook.cells:
        if INJECTED in tags(cell):
            cell.id = INJECTED  # papermill draws a random one: needless differences in git
        for output in cell.get("outputs", []):
            _clean_output(output, replace)
    return _strip_metadata(notebook)


def _strip_metadata(notebook: NotebookNode) -> NotebookNode:
    language = NotebookNode(name="python")
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(KERNELSPEC), language_info=language)
    for cell in notebook.cells:
        for name in ("papermill", "execution", "collapsed", *(() if tags(cell) else ("tags",))):
            cell.metadata.pop(name, None)
    return notebook


def _clean_output(output: NotebookNode, replace: Callable[[str], str]) -> None:
    if output.output_type == "stream":
        output.text = replace(output.text)
    elif output.output_type == "error":
        output.evalue = replace(output.evalue)
        output.traceback = [replace(line) for line in output.traceback]
    else:
        output.data.pop(_WIDGETS, None)
        for mime, value in output.data.items():
            if mime.startswith("text/") and isinstance(value, str):
                output.data[mime] = replace(value)


def _path_replacer(*folders: Path) -> Callable[[str], str]:
    temporary = tempfile.gettempdir()
    names = {temporary: "<tmp>", str(Path.home()): "~", sys.base_prefix: "<python>"}
    names |= {sys.prefix: "<python>"} | {str(folder): "." for folder in folders}
    ordered = sorted((name for name in names if len(name) > 3), key=len, reverse=True)
    paths = re.compile("(" + "|".join(map(re.escape, ordered)) + r")(?![\w.-])")
    cell_file = re.compile(re.escape(temporary) + r"[/\\]ipykernel_\d+[/\\]\d+\.py(:\d+)?")
    return lambda text: paths.sub(lambda m: names[m[1]], cell_file.sub("<cell>", text))
