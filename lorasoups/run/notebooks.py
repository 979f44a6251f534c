"""``lorasoups reproduce``: run the notebook series, headless, and check that it really ran.

Papermill runs ``notebooks/NN_name.ipynb`` in order, each in a fresh kernel of this interpreter that
works in the project. A notebook succeeds if there is no exception, every code cell was executed
and no output is an error; the series, if the results files that it writes are complete too. An
executed notebook replaces its source by a rename; a failed one is kept as ``NN_name.failed.ipynb``.
"""

import ast
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import nbformat
import papermill
import psutil
import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from lorasoups.errors import SoupError
from lorasoups.files import ensure_folder, write_text_atomic
from lorasoups.paths import Folders
from lorasoups.results.file import load_results, results_path
from lorasoups.study.profile import load_profile

RESULTS_OF = {5: ["hard_math"], 7: ["alphas", "random_loras"],
              8: ["manual_qa", "reading", "formats"], 10: ["hard_math"]}  # fmt: skip
"""Notebook number -> the studies and ablations whose results files it must leave complete."""
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
INJECTED = "injected-parameters"
WIDGETS = "application/vnd.jupyter.widget-view+json"
IN_KERNELS = {  # where the user has not set them
    "TQDM_DISABLE": "1",  # no progress bars in outputs that are kept
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else a warning on every start
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",  # the embedded worlds need nothing but the clone
    # glibc hands freed tensors back to the kernel and faults the pages in again, step after step;
    # told to keep them, small-model training on a CPU is some 13 % faster
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
}


def reproduce(
    profile: str = "mini", seeds: int = 1, only: str | None = None, start_from: str | None = None,
    force: bool = False, out: Path | str | None = None, *,
    parameters: Mapping[str, Any] | None = None, root: Path | str | None = None, train: bool = True,
) -> dict[str, float]:  # fmt: skip
    """Run the notebooks of the series; returns seconds per notebook.

    Args:
        profile, seeds, force, train: what every notebook is given; ``force`` ignores finished
            stages, without ``train`` they start from the shipped adapters and results.
        only, start_from: these alone ("03", "01,04_cat_from_scratch"); this one and all after it.
        out: write below this folder instead of into the project and over its notebooks.
        parameters: further ones; each goes to the notebooks that declare it.
        root: the project (`paths.project_root`).

    Raises SoupError: unknown profile, notebook or parameter (before anything runs); a notebook that
    failed; a results file that is missing or not complete.
    """
    loaded = load_profile(profile)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise SoupError(f"bad number of seeds {seeds!r}: --seeds; give 1 or more")
    folders, times = Folders(out=out, root=root), {}
    where = str(folders.base) if out else ""
    common = {"profile": profile, "seeds": seeds, "out": where, "force": force, "train": train}
    sources = choose(folders.project / "notebooks", only, start_from)
    plan = parameters_of(sources, common, parameters or {})
    ensure_folder(folders.notebooks)
    load = psutil.getloadavg()[0]  # processes that computed in the last minute
    if load > (os.cpu_count() or 1) / 2 and "OMP_NUM_THREADS" not in os.environ:
        print(f"other work on this machine (load {load:.1f}): threads wait for each other, up to "
              "ten times as long; OMP_NUM_THREADS=1 avoids it")  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        kernels = _kernels(scratch, folders.project)
        for position, (source, given) in enumerate(plan.items(), start=1):
            name, started = source.stem, time.monotonic()
            _run(source, given, folders, kernels, {"desc": f"[{position}/{len(plan)}] {name}"})
            times[name] = time.monotonic() - started
    for name, seconds in {**times, "total": sum(times.values())}.items():
        print(f"{name:24}{seconds:8.1f} s")
    for study in (s for source in plan if train for s in RESULTS_OF.get(int(source.stem[:2]), ())):
        seen = {row["seed"] for row in load_results(loaded.name, study, folders.base)["rows"]}
        if (n := len(seen - {None})) < seeds:
            path = results_path(loaded.name, study, folders.base)
            raise SoupError(f"results of {n} seeds, {seeds} were asked for: {path}; run 01 again")
    return times


def choose(folder: Path, only: str | None, start_from: str | None) -> list[Path]:
    """The notebooks ``NN_name.ipynb`` of a folder, in order, or those that the options name."""
    series = sorted(p for p in folder.glob("*.ipynb") if re.fullmatch(r"\d\d_\w+", p.stem))
    if not series:
        raise SoupError(f"no notebooks NN_name.ipynb: {folder}; run inside a clone")
    if only and start_from:
        raise SoupError("--only and --from exclude each other: command line; give one of them")

    def position(name: str) -> int:
        for i, path in enumerate(series):
            if name in (path.stem, path.name, path.stem[:2], str(int(path.stem[:2]))):
                return i
        names = ", ".join(path.stem for path in series)
        raise SoupError(f"unknown notebook: {name!r}; there are {names}")

    if only:
        return [series[i] for i in sorted({position(name.strip()) for name in only.split(",")})]
    return series[position(start_from) if start_from else 0 :]


def parameters_of(sources: list[Path], common: Mapping, extra: Mapping) -> dict[Path, dict]:
    """What each notebook is given, checked before anything runs (papermill would only warn).

    Every notebook must declare those of ``common``, some notebook those of ``extra``. A value that
    equals the notebook's own default is not passed: a default run injects no cell.
    """
    declared = {path: declared_parameters(read_notebook(path), path) for path in sources}
    known = sorted(set().union(*declared.values()))
    for name in extra:
        if name in common:
            raise SoupError(f"{name!r} has an option of its own: --parameter; use --{name}")
        if name not in known:
            where = ", ".join(path.stem for path in sources)
            raise SoupError(f"unknown parameter {name!r}: {where}; there are {', '.join(known)}")
    for path, defaults in declared.items():
        if missing := [name for name in common if name not in defaults]:
            every = ", ".join(common)
            raise SoupError(f"no parameter {missing[0]!r}: {path}; every notebook declares {every}")
    given = {**common, **extra}.items()
    return {
        path: {k: v for k, v in given if k in defaults and repr(v) != repr(defaults[k])}
        for path, defaults in declared.items()
    }


def declared_parameters(notebook: NotebookNode, where: Path) -> dict[str, Any]:
    """Names and defaults in the cell tagged ``parameters``.

    Read from the syntax tree: papermill's ``inspect_notebook`` misses ``name: int | None = 3`` and
    strings with ``=`` or ``#``. Raises SoupError unless there is one such cell that holds nothing
    but ``name = literal`` (a derived value would keep the default when papermill sets the others).
    """
    cells = [cell for cell in notebook.cells if "parameters" in tags(cell)]
    if len(cells) != 1:
        raise SoupError(f"{len(cells)} cells tagged 'parameters': {where}; exactly one is needed")
    parameters, line = {}, None
    try:
        for line in ast.parse(cells[0].source).body:
            [target] = line.targets if isinstance(line, ast.Assign) else [line.target]
            parameters[target.id] = ast.literal_eval(line.value)
    except (SyntaxError, ValueError, TypeError, AttributeError) as error:
        what = f"not of the form name = literal ({ast.unparse(line) if line else error})"
        cure = "derive values in the next cell"
        raise SoupError(f"{what}: {where}, cell tagged 'parameters'; {cure}") from error
    return parameters


class SameInterpreter(AsyncKernelManager):
    """Starts ``sys.executable -m ipykernel_launcher``, whatever kernelspecs are installed.

    A kernelspec ``python3`` may be absent, of another Python, or say just ``python``.
    """

    environment: ClassVar[dict[str, str]] = {}

    @property
    def kernel_spec(self) -> KernelSpec:
        # its log shares our terminal and reports the interrupt before every normal end as an error
        how = get_kernel_dict(extra_arguments=["--log-level=50"])
        return KernelSpec(**how | {"env": self.environment})

    @default("transport_encryption")
    def _encrypt(self) -> str:
        """On shared machines others could listen (ipykernel 7 warns of it at every start)."""
        return "auto" if zmq.has("curve") else "disabled"

    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """As usual; but at once after Ctrl-C, else a busy kernel is waited for, and complains."""
        interrupted = isinstance(sys.exception(), KeyboardInterrupt)
        await super().shutdown_kernel(now=now or interrupted, restart=restart)


def _kernels(scratch: str, project: Path) -> type[SameInterpreter]:
    """Kernels with what they do not inherit from our environment."""
    environment = {name: os.environ.get(name, value) for name, value in IN_KERNELS.items()}
    paths = (str(project / "notebooks"), os.environ.get("PYTHONPATH"))  # as in Jupyter: `checks`
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    environment["IPYTHONDIR"] = scratch  # the user's start-up scripts must not change a run
    environment["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # shows the figures
    return type("Kernels", (SameInterpreter,), {"environment": environment})


def _run(source: Path, parameters: dict, folders: Folders, kernels: type, bar: dict) -> None:
    """Execute one notebook. Unless it succeeds its target stays as it was."""
    target, name, cause = folders.notebooks / source.name, source.stem, None
    running = target.with_name(f".{name}.running.ipynb")
    failed = target.with_name(f"{name}.failed.ipynb")
    notebook = read_notebook(source)
    notebook.cells = [cell for cell in notebook.cells if INJECTED not in tags(cell)]

    def keep(path: Path) -> None:
        executed = clean(read_notebook(running), folders.project, folders.base)
        if parameters.keys() <= {"out"}:  # the place alone: as the notebook itself says
            _drop_injected(executed)
        nbformat.validate(executed)
        write_text_atomic(path, nbformat.writes(executed).rstrip("\n") + "\n")

    try:
        try:
            papermill.execute_notebook(
                notebook,
                # papermill fills {name} in paths from the parameters: ours are meant literally
                str(running).replace("{", "{{").replace("}", "}}"),
                parameters=parameters, kernel_name="python3", language="python",
                kernel_manager_class=kernels, coalesce_streams=True,
                progress_bar=bar, cwd=str(folders.project),
            )  # fmt: skip
            trouble = trouble_in(read_notebook(running))
        except Exception as error:
            trouble, cause = _explain(error), error
        if not trouble:
            keep(target)
            failed.unlink(missing_ok=True)
            return
        with suppress(SoupError):  # nothing was written, or a full disk cut it
            keep(failed)
        raise SoupError(
            f"notebook {name} failed, {trouble}: {failed if failed.exists() else target};"
            f" correct it and go on with --from {name[:2]} (finished stages are reused)"
        ) from cause
    finally:
        running.unlink(missing_ok=True)


def _drop_injected(notebook: NotebookNode) -> None:
    """Without papermill's cell, in place; the numbers of the cells after it close up."""
    for at, cell in enumerate(notebook.cells):
        if INJECTED in tags(cell):
            del notebook.cells[at]
            for later in notebook.cells[at:]:
                for part in (later, *later.get("outputs", [])):
                    if part.get("execution_count"):
                        part.execution_count -= 1
            return


def trouble_in(notebook: NotebookNode) -> str:
    """What papermill lets pass, e.g. ``sys.exit(0)`` in the middle; "" if there is nothing."""
    skipped = []
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return _line(f"{output.ename}: {output.evalue}") + f" in cell {index}"
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
            skipped.append(str(index))
    return f"cells {', '.join(skipped)} were not executed" if skipped else ""


def _explain(error: Exception) -> str:
    if isinstance(error, PapermillExecutionError):
        return _line(f"{error.ename} at In [{error.exec_count}], {error.evalue}")
    if isinstance(error, DeadKernelError):
        return "its kernel died (killed from outside, or by the system for lack of memory)"
    return _line(f"{type(error).__name__}, {error}")


def _line(text: str) -> str:
    """The first line of a message, at most 300 characters."""
    return text.strip().partition("\n")[0][:300]


def read_notebook(path: Path) -> NotebookNode:
    """Raises SoupError if the file is no notebook."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat lets JSON, validation and its own errors through
        what = f"not a readable notebook ({type(error).__name__})"
        raise SoupError(f"{what}: {path}; restore it from git") from error


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def clean(notebook: NotebookNode, *here: Path) -> NotebookNode:
    """Make an executed notebook fit to be kept, in place.

    Papermill's metadata goes, widget state, time stamps and paths of this machine: those of
    ``here`` become ``.``, the environment ``<python>``, the home folder ``~``.
    """
    hidden, language = _path_replacer(*here), NotebookNode(name="python")
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(KERNELSPEC), language_info=language)
    for cell in notebook.cells:
        if INJECTED in tags(cell):
            cell.id = INJECTED  # papermill draws a random one: needless differences in git
        for name in ("papermill", "execution", "collapsed", *(() if tags(cell) else ("tags",))):
            cell.metadata.pop(name, None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGETS, None)
            for part in (output, output.get("data", {})):
                for key, value in part.items():
                    if key in ("text", "evalue", "traceback") or key.startswith("text/"):
                        part[key] = [*map(hidden, value)] if key == "traceback" else hidden(value)
    return notebook


def _path_replacer(*folders: Path) -> Callable[[str], str]:
    temporary = tempfile.gettempdir()
    names = {temporary: "<tmp>", str(Path.home()): "~", sys.base_prefix: "<python>"}
    names |= {sys.prefix: "<python>"} | {str(folder): "." for folder in folders}
    ordered = sorted((name for name in names if len(name) > 3), key=len, reverse=True)
    paths = re.compile("(" + "|".join(map(re.escape, ordered)) + r")(?![\w.-])")
    cell_file = re.compile(re.escape(temporary) + r"[/\\]ipykernel_\d+[/\\]\d+\.py(:\d+)?")
    return lambda text: paths.sub(lambda m: names[m[1]], cell_file.sub("<cell>", text))
