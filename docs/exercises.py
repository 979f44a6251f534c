"""The notebooks for a class: ``students`` without solutions, or ``solved`` with each filled in.

``python docs/exercises.py students|solved OUT``. One source: the cells tagged ``exercise`` and the
hidden solution in the cell after each.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from lorasoups.files import ensure_folder, write_text_atomic

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
SOLUTION = re.compile(r"<details>\s*<summary>Solution</summary>.*?```python\n(.*?)```", re.DOTALL)


def exercises(notebook: NotebookNode) -> Iterator[tuple[int, int, str]]:
    """Number, position of the stub, and code of the solution, of every exercise of a notebook.

    The text is in the cell before the stub. Raises ValueError for an exercise without solution.
    """
    for at, cell in enumerate(notebook.cells):
        if "exercise" in cell.metadata.get("tags", []):
            number = re.search(r"checks\.ex_(\d+)\(", cell.source)
            solution = SOLUTION.search(notebook.cells[at + 1].source)
            if not (number and solution):
                raise ValueError(f"cell {at} is an exercise without check or solution")
            yield int(number[1]), at, solution[1].strip()


def version(notebook: NotebookNode, solved: bool) -> NotebookNode:
    """A notebook with its exercises solved, or without their solutions; in place, not executed."""
    for _, at, solution in reversed(list(exercises(notebook))):
        if solved:
            notebook.cells[at].source = solution
        del notebook.cells[at + 1]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("students", "solved"):
        sys.exit("python docs/exercises.py students|solved OUT")
    out = ensure_folder(Path(sys.argv[2]))
    if out.resolve() == FOLDER:
        sys.exit(f"error: the source itself: {out}; give another folder")
    shutil.copy(FOLDER / "checks.py", out)
    for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb")):
        made = version(nbformat.read(path, as_version=4), sys.argv[1] == "solved")
        write_text_atomic(out / path.name, nbformat.writes(made) + "\n")
    print(f"{out}: {len(list(out.glob('*.ipynb')))} notebooks, {sys.argv[1]}")
