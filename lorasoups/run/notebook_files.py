"""Notebooks as documents: made ready for a run, and cleaned after it."""

from __future__ import annotations

import ast
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from lorasoups.errors import SoupError
from lorasoups.files import write_text_atomic

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
INJECTED = "injected-parameters"
_ERROR_MARKER = "papermill-error-cell-tag"
_WIDGETS = "application/vnd.jupyter.widget-view+json"


def read_notebook(path: Path) -> NotebookNode:
    """Raises SoupError if the file is no notebook."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat lets JSON, validation and its own errors through
        raise SoupError(
            f"not a readable notebook ({type(error).__name__}): {path}; restore it from git"
        ) from error


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """Validate and write in one step."""
    nbformat.validate(notebook)
    write_text_atomic(path, nbformat.writes(notebook).rstrip("\n") + "\n")


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def declared_parameters(notebook: NotebookNode, where: Path) -> dict[str, Any]:
    """Names and defaults in the cell tagged ``parameters``.

    Read from the syntax tree: papermill's own ``inspect_notebook`` goes line by line and misses
    ``name: int | None = 3`` and strings with ``=`` or ``#``.

    Raises:
        SoupError: if there is not exactly one such cell, or it holds anything but
            ``name = literal`` (a value derived in this cell would keep the default when papermill
            sets the others).
    """
    cells = [cell for cell in notebook.cells if "parameters" in tags(cell)]
    if len(cells) != 1:
        raise SoupError(f"{len(cells)} cells tagged 'parameters': {where}; exactly one is needed")
    source = cells[0].source
    try:
        return dict(_name_and_literal(line) for line in ast.parse(source).body)
    except (SyntaxError, ValueError) as error:
        raise SoupError(
            f"not of the form name = literal ({error}): {where}, cell tagged 'parameters'; "
            "derive values in the next cell"
        ) from error


def _name_and_literal(line: ast.stmt) -> tuple[str, Any]:
    if isinstance(line, ast.Assign | ast.AnnAssign):
        targets = line.targets if isinstance(line, ast.Assign) else [line.target]
        if len(targets) == 1 and isinstance(targets[0], ast.Name):
            with suppress(ValueError, TypeError):  # no literal, no value
                return targets[0].id, ast.literal_eval(line.value)
    raise ValueError(ast.unparse(line))


def prepare(notebook: NotebookNode) -> NotebookNode:
    """Take away everything that an earlier run left, in place: the source alone remains."""
    notebook.cells = [
        cell for cell in notebook.cells if not {INJECTED, _ERROR_MARKER} & set(tags(cell))
    ]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
    return _strip_metadata(notebook)


def clean(notebook: NotebookNode, here: Path, *more: Path) -> NotebookNode:
    """Make an executed notebook fit to be kept, in place.

    Papermill's metadata goes (it calls cells completed that never ran), widget state, time stamps
    and paths of this machine: ``here`` and ``more`` become ``.``, the environment ``<python>``,
    the home folder ``~``.
    """
    replace = _path_replacer(here, *more)
    for cell in notebook.cells:
        if INJECTED in tags(cell):
            cell.id = INJECTED  # papermill draws a random one: needless differences in git
        for output in cell.get("outputs", []):
            _clean_output(output, replace)
    return _strip_metadata(notebook)


def unexecuted(notebook: NotebookNode) -> list[int]:
    """Indices of code cells with source that have no execution count."""
    return [
        index
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None
    ]


def error_in(notebook: NotebookNode) -> tuple[int, str] | None:
    """Index of the first cell with an error output, and "Name: message"."""
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return index, f"{output.ename}: {output.evalue}"
    return None


def _strip_metadata(notebook: NotebookNode) -> NotebookNode:
    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(KERNELSPEC), language_info=NotebookNode(name="python")
    )
    for cell in notebook.cells:
        for name in ("papermill", "execution", "collapsed"):
            cell.metadata.pop(name, None)
        if not tags(cell):
            cell.metadata.pop("tags", None)
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
    names = {str(folder): "." for folder in folders}
    names.setdefault(sys.prefix, "<python>")
    names.setdefault(sys.base_prefix, "<python>")
    names.setdefault(str(Path.home()), "~")
    names.setdefault(tempfile.gettempdir(), "<tmp>")
    ordered = sorted((name for name in names if len(name) > 3), key=len, reverse=True)
    paths = re.compile("(" + "|".join(map(re.escape, ordered)) + r")(?![\w.-])")
    cell_file = re.compile(
        re.escape(tempfile.gettempdir()) + r"[/\\]ipykernel_\d+[/\\]\d+\.py(:\d+)?"
    )
    return lambda text: paths.sub(lambda m: names[m[1]], cell_file.sub("<cell>", text))
