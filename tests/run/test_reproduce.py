"""The runner with tiny notebooks: what counts as success, and what a failure leaves behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from processes import child

from lorasoups.errors import SoupError
from lorasoups.results.file import results_path
from lorasoups.run.notebooks import clean, declared_parameters, reproduce

PARAMETERS = 'profile = "mini"\nseeds = 1\nout = ""\nforce = False\ntrain = True'


def notebook(*sources, parameters=PARAMETERS):
    cells = [new_markdown_cell("# Title"), new_code_cell(parameters)]
    cells[1].metadata["tags"] = ["parameters"]
    cells += [new_code_cell(textwrap.dedent(source)) for source in sources]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernelspec})


@pytest.fixture
def project(tmp_path):
    """A clone with nothing in it; ``add(name, *cells)`` puts a notebook there."""
    root = tmp_path / "a {clone} with spaces"
    (root / "notebooks").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    return root


def add(project: Path, name: str, *sources, **options) -> Path:
    path = project / "notebooks" / f"{name}.ipynb"
    nbformat.write(notebook(*sources, **options), path)
    return path


def run(project, *args, profile="smoke", **options):
    return reproduce(profile, *args, root=project, **options)


def text_of(path: Path) -> str:
    """All that the code cells printed or showed."""
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            parts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return "\n".join(parts)


def names(project: Path) -> list[str]:
    return sorted(path.name for path in (project / "notebooks").iterdir())


RESULTS = """
    import json, pathlib
    row = dict(task="t", view="all", method="m", on=None, weights=None, seed=SEED, n=1, correct=1,
               accuracy=1.0, ci=[0, 1], outcomes={}, extra={})
    provenance = dict(versions={}, device="cpu", cpu="", git=None, base_sha256=None,
                      world_version=1, wall_s=1)
    lists = {name: [] for name in "alphas curves sweep skills".split()}
    folder = pathlib.Path(out or ".") / "data" / "results" / profile
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hard_math.json").write_text(json.dumps(dict(
        schema=1, profile=profile, created="", complete=COMPLETE, provenance=provenance,
        config={}, rows=[row], items={}, timings={}, **lists)))
"""


def results_cell(complete=True, seed=0):
    return RESULTS.replace("COMPLETE", str(complete)).replace("SEED", str(seed))


# --- success ------------------------------------------------------------------------------------


def test_series_runs_in_order_with_its_parameters_in_the_project_root(project, capfd):
    first = add(project, "00_first", "import os, sys; print(seeds, profile, repr(out), force)")
    second = add(
        project, "01_second", "from pathlib import Path; Path('seen').touch()", "print('two')"
    )
    times = reproduce("smoke", 2, root=project)
    assert list(times) == ["00_first", "01_second"]
    assert "2 smoke '' False" in text_of(first) and "two" in text_of(second)
    assert (project / "seen").exists()
    printed = capfd.readouterr()
    assert "01_second" in printed.out and "total" in printed.out and "2/2" in printed.err
    assert "WARNING" not in printed.err
    assert names(project) == ["00_first.ipynb", "01_second.ipynb"]


@pytest.mark.parametrize("load", [0.0, 1e6], ids=["quiet", "busy"])
def test_a_busy_machine_is_told_with_what_to_do(project, monkeypatch, capfd, load):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("psutil.getloadavg", lambda: (load, 0.0, 0.0))
    add(project, "00_first")
    reproduce("smoke", root=project)
    assert ("OMP_NUM_THREADS=1 avoids it" in capfd.readouterr().out) == bool(load)


def test_kernel_is_this_interpreter_whatever_kernelspecs_say(project, tmp_path, monkeypatch):
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        json.dumps({"argv": ["false"], "display_name": "trap", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PATH", "")
    path = add(project, "00_first", "import sys; print(sys.executable == open('exe').read())")
    (project / "exe").write_text(sys.executable)
    run(project)
    assert "True" in text_of(path)


def test_executed_notebook_is_clean(project):
    path = add(
        project,
        "00_first",
        "import os, pathlib, sys, tempfile",
        "for word in 'abc':\n    print(word, flush=True)",
        "print(os.getcwd(), pathlib.Path.home() / 'x', sys.prefix + '/lib', tempfile.gettempdir())",
        "import warnings; warnings.warn('careful')",
        "os.path.join(os.getcwd(), 'data')",
    )
    run(project)
    notebook = nbformat.read(path, as_version=4)
    raw = path.read_text()
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))[: len(counts)]
    assert "papermill" not in notebook.metadata and "widgets" not in notebook.metadata
    assert '"papermill"' not in raw and "iopub" not in raw
    for folder in (project, Path.home() / "x", sys.prefix, f"{tempfile.gettempdir()}/ipykernel"):
        assert str(folder) not in raw
    assert "a\nb\nc\n" in [
        o.text for c in notebook.cells for o in c.get("outputs", []) if "text" in o
    ]
    assert "./data" in raw and "careful" in raw


def test_default_run_injects_no_cell_and_a_second_run_changes_no_byte(project):
    path = add(project, "00_first", "print(1)", "seeds + 1")
    run(project, profile="mini")
    first = path.read_bytes()
    assert b"injected" not in first
    run(project, profile="mini")
    assert path.read_bytes() == first
    run(project, 3, profile="mini")
    assert "seeds = 3" in path.read_text()
    run(project, profile="mini")
    assert path.read_bytes() == first


def test_the_place_alone_injects_no_cell(project, tmp_path):
    """A committed notebook holds its own parameters, whichever folder its figures went to."""
    add(project, "00_first", "print(repr(out))", "seeds + 1")
    run(project, profile="mini", out=tmp_path)
    executed = nbformat.read(tmp_path / "notebooks" / "00_first.ipynb", as_version=4)
    assert str(tmp_path) not in str(executed.cells) and "'.'" in text_of(
        tmp_path / "notebooks" / "00_first.ipynb"
    )
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3]
    assert code[-1].outputs[0].execution_count == 3 and len(executed.cells) == 4


def test_without_training_no_results_are_asked_for(project):
    path = add(project, "05_hard", "print(train)", parameters=PARAMETERS)
    run(project, train=False)
    assert "False" in text_of(path)


def test_out_takes_everything_and_leaves_the_project_alone(project, tmp_path):
    path = add(project, "05_hard", results_cell())
    before = path.read_bytes()
    out = tmp_path / "elsewhere"
    run(project, out=out)
    assert path.read_bytes() == before
    assert sorted(p.name for p in project.iterdir()) == ["notebooks", "pyproject.toml"]
    assert (out / "notebooks" / "05_hard.ipynb").exists()
    assert results_path("smoke", root=out).exists()


def test_only_and_from_choose_notebooks(project):
    for name in ("00_a", "01_b", "02_c"):
        add(project, name, "1")
    assert list(run(project, only="01")) == ["01_b"]
    assert list(run(project, only="2,00_a")) == ["00_a", "02_c"]
    assert list(run(project, start_from="01")) == ["01_b", "02_c"]


def test_mirror_and_offline_reach_the_kernel(project, monkeypatch):
    path = add(
        project,
        "00_first",
        """
        import os
        print(os.environ["LORASOUPS_HUB_MIRROR"].endswith("mirror"), os.environ["HF_HUB_OFFLINE"])
        from tqdm import tqdm
        print("bars", [*tqdm([2])])
        """,
    )
    monkeypatch.setenv("LORASOUPS_HUB_MIRROR", "a/mirror")
    before = dict(os.environ)
    run(project)
    assert "True 1" in text_of(path)
    assert "bars [2]" in text_of(path) and "it/s" not in text_of(path)
    assert dict(os.environ) == before


def test_further_parameters_go_to_the_notebooks_that_declare_them(project):
    one = add(project, "00_a", "print('n is', n)", parameters=PARAMETERS + "\nn: int | None = 5")
    add(project, "01_b", "1")
    run(project, parameters={"n": 7})
    assert "n is 7" in text_of(one)


# --- failure ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cells, told",
    [
        (["print('start')", "1 / 0", "print('never')"], "ZeroDivisionError at In .4., division"),
        (["print('start')", "import os\nos.kill(os.getpid(), 9)", "1"], "its kernel died"),
        (["print('start')", "import sys\nsys.exit(0)", "print('never')"], "SystemExit"),
        (["print('start')", "import sys\nsys.exit(0)"], "SystemExit"),
        (["print('start')", "import os\nos._exit(0)"], "its kernel died"),
    ],
    ids=["exception", "killed", "exit midway", "exit in the last cell", "os._exit"],
)
def test_failed_notebook_is_reported_and_the_committed_one_untouched(project, cells, told):
    path = add(project, "01_bad", *cells)
    later = add(project, "02_later", "print('ran')")
    before = path.read_bytes()
    with pytest.raises(SoupError, match=f"notebook 01_bad failed, .*{told}.*--from 01") as caught:
        run(project)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert names(project) == ["01_bad.failed.ipynb", "01_bad.ipynb", "02_later.ipynb"]
    partial = path.with_name("01_bad.failed.ipynb")
    assert "start" in text_of(partial) and "never\n" not in text_of(partial)
    assert text_of(later) == ""
    no_kernels_left()


def test_success_removes_what_an_earlier_failure_left(project):
    path = add(project, "01_bad", "assert open('good').read()")
    with pytest.raises(SoupError):
        run(project)
    (project / "good").write_text("yes")
    run(project)
    assert names(project) == [path.name]


def test_cell_that_is_skipped_is_no_success(project):
    path = add(project, "01_bad", "1", "2")
    source = nbformat.read(path, as_version=4)
    source.cells[-1].metadata["tags"] = ["skip-execution"]
    nbformat.write(source, path)
    with pytest.raises(SoupError, match="cells 3 were not executed"):
        run(project, profile="mini")


@pytest.mark.parametrize(
    "cell, told",
    [
        ("1", "missing file: .*hard_math"),
        (results_cell(complete=False), "not complete"),
        (results_cell(seed=None), "results of 0 seeds, 1 were asked for"),
    ],
)
def test_series_without_complete_results_is_no_success(project, cell, told):
    add(project, "05_hard", cell)
    with pytest.raises(SoupError, match=told):
        run(project)


def test_every_study_needs_a_results_file_of_its_own(project):
    add(project, "02_soups", "1")
    add(project, "05_hard", results_cell())
    add(project, "08_manual", "1")
    assert list(run(project, only="02")) == ["02_soups"]
    with pytest.raises(SoupError, match=r"missing file: .*manual_qa\.json"):
        run(project)


@pytest.mark.parametrize(
    "options, told",
    [
        ({"only": "07"}, "unknown notebook: '07'; there are 00_a, 01_b"),
        ({"start_from": "x"}, "unknown notebook: 'x'"),
        ({"only": "00", "start_from": "01"}, "exclude each other"),
        ({"parameters": {"sedes": 1}}, "unknown parameter 'sedes': 00_a, 01_b"),
        ({"parameters": {"seeds": 2}}, "'seeds' has an option of its own"),
        ({"profile": "tiny"}, "tiny"),
        ({"seeds": 0}, "bad number of seeds 0"),
        ({"seeds": True}, "bad number of seeds True"),
    ],
)
def test_wrong_names_are_refused_before_anything_runs(project, options, told):
    for name in ("00_a", "01_b"):
        add(project, name, "open('ran', 'w')")
    options = {"profile": "smoke", "seeds": 1} | options
    with pytest.raises(SoupError, match=told):
        reproduce(root=project, **options)
    assert not (project / "ran").exists()


@pytest.mark.parametrize(
    "parameters, told",
    [
        ('profile = "mini"\nseeds = 1\nout = ""', "no parameter 'force'.*01_b"),
        (PARAMETERS + "\ntwice = 2 * seeds", "name = literal.*twice = 2 . seeds.*01_b"),
        (PARAMETERS + "\nprint(1)", "name = literal.*01_b"),
    ],
)
def test_notebook_with_bad_parameters_stops_the_series_before_it_starts(project, parameters, told):
    add(project, "00_a", "open('ran', 'w')")
    add(project, "01_b", "1", parameters=parameters)
    with pytest.raises(SoupError, match=told):
        run(project)
    assert not (project / "ran").exists()


def test_no_notebooks_and_no_notebook_are_told(project):
    with pytest.raises(SoupError, match="no notebooks NN_name.ipynb"):
        run(project)
    (project / "notebooks" / "00_a.ipynb").write_text('{"cells": [')
    with pytest.raises(SoupError, match="not a readable notebook"):
        run(project)


def test_file_in_place_of_the_out_folder(project, tmp_path):
    add(project, "00_a", "1")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SoupError, match="a file stands where a folder is needed"):
        run(project, out=tmp_path / "out")


# --- interruption -------------------------------------------------------------------------------


def no_kernels_left(seconds: float = 8) -> None:
    end = time.monotonic() + seconds
    while kernels := [
        p for p in psutil.Process().children(recursive=True) if p.status() != "zombie"
    ]:
        assert time.monotonic() < end, kernels
        time.sleep(0.05)


@pytest.mark.parametrize(
    "name, code", [("SIGINT", 130), ("SIGTERM", -15), ("SIGKILL", -9)], ids=str
)
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupted_run_leaves_no_kernel_and_no_changed_notebook(project, name, code):
    path = add(
        project,
        "00_a",
        "import os, time\nopen('p', 'w').write(str(os.getpid()))\nos.rename('p', 'pid')",
        "while True: time.sleep(0.01)",
    )
    before = path.read_bytes()
    with child(
        [sys.executable, "-m", "lorasoups", "reproduce", "--profile", "smoke"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        end = time.monotonic() + 60
        while not (project / "pid").exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        kernel = psutil.Process(int((project / "pid").read_text()))
        process.send_signal(getattr(signal, name))
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == code, stderr
    _, alive = psutil.wait_procs([kernel], timeout=8)
    assert not alive
    assert path.read_bytes() == before
    if name == "SIGINT":
        assert stderr.strip().endswith("interrupted") and "Traceback" not in stderr
        assert names(project) == [path.name]


# --- parts --------------------------------------------------------------------------------------


def test_nothing_of_an_earlier_run_is_left(project):
    path = add(project, "00_a", "1 / 0", "print('never')")
    source = nbformat.read(path, as_version=4)
    source.cells[3].outputs = [nbformat.v4.new_output("stream", text="old")]
    source.cells[3].execution_count = 9
    injected = {"tags": ["injected-parameters"]}
    source.cells.insert(2, new_code_cell("seeds = 9", metadata=injected))
    source.cells.insert(0, new_markdown_cell("**error**"))
    source.cells[0].metadata["tags"] = ["papermill-error-cell-tag"]
    source.metadata["papermill"] = {"exception": None}
    nbformat.write(source, path)
    with pytest.raises(SoupError):
        run(project, profile="mini")
    failed = nbformat.read(path.with_name("00_a.failed.ipynb"), as_version=4)
    assert "**error**" not in [cell.source for cell in failed.cells]
    assert [cell.source for cell in failed.cells if cell.cell_type == "code"] == [
        PARAMETERS, "1 / 0", "print('never')",
    ]  # fmt: skip
    assert failed.cells[-1].outputs == [] and failed.cells[-1].execution_count is None
    assert set(failed.metadata) == {"kernelspec", "language_info"}


def test_clean_hides_paths_but_not_their_look_alikes(tmp_path):
    home = str(Path.home())
    source = notebook("1")
    source.cells[2].outputs = [
        nbformat.v4.new_output("stream", text=f"{tmp_path}/a {tmp_path}x {home}/b {home}-c"),
        nbformat.v4.new_output(
            "display_data",
            data={"application/vnd.jupyter.widget-view+json": {}, "image/png": "aGVsbG8="},
        ),
    ]
    first, second = clean(source, tmp_path).cells[2].outputs
    assert first.text.startswith("./a ") and first.text.endswith(f"~/b {home}-c")
    assert list(second.data) == ["image/png"]


def test_declared_parameters_reads_what_papermill_overlooks():
    source = 'url = "http://a/?b=c#d"  # help\nn: int | None = None\nlrs = [1e-3, -2]'
    declared = declared_parameters(notebook(parameters=source), Path("x.ipynb"))
    assert declared == {"url": "http://a/?b=c#d", "n": None, "lrs": [1e-3, -2]}
