"""The notebook series: what a reader finds in the files, and that all of it runs headless."""

import hashlib
import re
from pathlib import Path

import nbformat
import pytest

from lorasoups.results.file import load_results
from lorasoups.run.notebooks import (
    INJECTED,
    KERNELSPEC,
    declared_parameters,
    reproduce,
    tags,
    trouble_in,
)

FOLDER = Path(__file__).resolve().parent.parent.parent / "notebooks"
NOTEBOOKS = sorted(p for p in FOLDER.glob("[0-9]*.ipynb") if not p.stem.endswith(".failed"))
COMMON = {"profile": "mini", "seeds": 1, "out": "runs/local", "force": False, "train": False}
MAX_LINES, MAX_BYTES = 15, 500_000
MACHINE_PATH = re.compile(r"(?<![\w.:/~-])/(work|tmp|home|root|Users|opt|var)/\S*")

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code" and cell.source.strip()]


def texts(path):
    """Sources and text outputs (pictures are no text)."""
    for cell in read(path).cells:
        yield cell.source
        for output in cell.get("outputs", []):
            yield output.get("text", "")
            for mime, value in output.get("data", {}).items():
                if not mime.startswith("image/"):
                    yield str(value)


def test_there_is_a_series_of_numbered_notebooks():
    assert NOTEBOOKS, "no notebooks in notebooks/"
    numbers = [path.stem[:2] for path in NOTEBOOKS]
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem) for path in NOTEBOOKS)
    assert len(set(numbers)) == len(numbers)
    assert numbers == [f"{n:02}" for n in range(11)]


@each
def test_file_is_valid_and_small_enough_to_be_shown(path):
    nbformat.validate(read(path))
    assert path.stat().st_size <= MAX_BYTES


@each
def test_first_cell_tells_goal_minutes_memory_and_device(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    for word in ("goal", "minute", "memory", "device"):
        assert re.search(rf"\b{word}", first.source, re.IGNORECASE), word


@each
def test_the_last_code_cell_prints_versions(path):
    last = code_cells(path)[-1]
    assert "version" in last.source
    shown = "".join(o.get("text", "") + str(o.get("data", "")) for o in last.outputs)
    assert re.search(r"\d+\.\d+", shown), "the versions are not shown"


@each
def test_parameters_are_literals_that_are_used_and_none_is_injected(path):
    declared = declared_parameters(read(path), path)
    assert {name: declared.get(name) for name in COMMON} == COMMON
    assert not any(INJECTED in tags(cell) for cell in read(path).cells)
    code = "\n".join(c.source for c in code_cells(path) if "parameters" not in tags(c))
    unused = [name for name in declared if not re.search(rf"\b{name}\b", code)]
    told = "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    assert not [name for name in unused if f"`{name}`" not in told]


@each
def test_nothing_is_printed_in_red(path):
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


@each
def test_words_and_mechanism(path):
    """Words come before cells. A notebook shows the idea: few cells only call the package."""
    cells = read(path).cells
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    assert 500 <= words <= 2200, words


@each
def test_code_cells_are_short(path):
    long = {c.execution_count: c.source.count("\n") + 1 for c in code_cells(path)}
    assert not {count: lines for count, lines in long.items() if lines > MAX_LINES}


@each
def test_kernel_is_python3_and_no_runner_metadata_is_left(path):
    notebook = read(path)
    assert notebook.metadata.kernelspec == KERNELSPEC
    assert not {"papermill", "widgets"} & set(notebook.metadata)
    assert not any({"papermill", "execution"} & set(cell.metadata) for cell in notebook.cells)
    assert "application/vnd.jupyter.widget" not in path.read_text(encoding="utf-8")


@each
def test_every_cell_was_executed_once_and_in_order(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    assert not trouble_in(read(path))


@each
def test_nothing_tells_of_the_machine_it_ran_on(path):
    found = [match[0] for text in texts(path) for match in MACHINE_PATH.finditer(text)]
    assert not found


@pytest.mark.notebooks
def test_whole_series_runs_in_profile_smoke(tmp_path):
    assert NOTEBOOKS, "no notebooks in notebooks/"
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in NOTEBOOKS}
    times = reproduce("smoke", out=tmp_path, root=FOLDER.parent, train=True)
    assert list(times) == [path.stem for path in NOTEBOOKS]
    for path in NOTEBOOKS:
        assert not trouble_in(read(tmp_path / "notebooks" / path.name))
    assert load_results("smoke", root=tmp_path)["complete"]
    assert before == {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in NOTEBOOKS}
