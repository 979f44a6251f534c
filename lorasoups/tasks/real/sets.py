"""The real data sets and tasks as ``real_sets.toml`` declares them, read and checked."""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lorasoups.errors import SoupError
from lorasoups.models.encoding import ANSWER, EVERYTHING
from lorasoups.tasks.real import templates as row_templates

FILE = Path(__file__).with_name("sets.toml")
SPLITS = ("train", "validation", "test")
JUDGES = ("", "program", "words", "answer")  # of judges.JUDGES, which would load torch here
_TEXTS = (str, list)


@dataclass(frozen=True)
class DataSet:
    """Where rows are, and what is known of them. See the head of ``real_sets.toml``.

    Attributes:
        splits: our ``train`` and ``test`` -> the split of that name in the repository.
        rows: split of the repository -> rows on the Hub.
        source: who says so, and the paper.
        hub: False: only a mirror has it. file: a text file that the user names.
    """

    name: str
    licence: str
    source: str
    columns: tuple[str, ...]
    repo: str = ""
    config: str = "default"
    splits: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    notes: str = ""
    hub: bool = True
    file: bool = False
    drop_rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Task:
    """What is asked of a set's rows. See the head of ``real_sets.toml``."""

    name: str
    set: str
    used_for: str
    judge: str
    question: str | tuple[str, ...] = ""
    answer: str | tuple[str, ...] = ""
    target: str | tuple[str, ...] = ()
    text: str = ""
    chunk_words: int = 160
    splits: tuple[str, ...] = SPLITS
    key: str = ""
    ranked: bool = False
    test_part: bool = False
    where: Mapping[str, tuple] = field(default_factory=dict)
    keep: Mapping[str, str] = field(default_factory=dict)
    view: str = ""
    compare: str = ""
    verbatim: bool = False
    id: str = ""
    stand_in: str = ""


@dataclass(frozen=True)
class Template:
    """How a question becomes a prompt; without texts as `real_tasks.render` does it."""

    name: str
    train_on: str
    train: str = ""
    test: str = ""
    notes: str = ""


@dataclass(frozen=True)
class Study:
    """A composed task on real data: skills in the order of CAT's alphas, and targets."""

    name: str
    skills: tuple[str, ...]
    targets: tuple[str, ...]
    tests: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""


@dataclass(frozen=True)
class Catalogue:
    """Everything that the file declares, by name."""

    phrases: Mapping[str, str]
    templates: Mapping[str, Template]
    sets: Mapping[str, DataSet]
    tasks: Mapping[str, Task]
    studies: Mapping[str, Study]

    def set_of(self, task: str) -> DataSet:
        return self.sets[self.tasks[task].set]


@cache
def catalogue(path: Path = FILE) -> Catalogue:
    """Read and check a file of sets, by default the package's own.

    Raises:
        SoupError: no such file, no TOML, an unknown or missing key, a value of the wrong type, or
            a name (set, column, filter, judge, task) that does not exist; says file and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except FileNotFoundError:
        raise SoupError(f"no such file: {path}; the package declares its data there") from None
    except (OSError, ValueError) as error:
        raise SoupError(f"no TOML ({error}): {path}; correct the file") from error
    unknown = set(content) - {"phrases", "templates", "sets", "tasks", "studies"}
    if unknown:
        raise _bad(path, f"unknown table {min(unknown)!r}", "use phrases, templates, sets, tasks")
    found = Catalogue(
        MappingProxyType(_phrases(path, content.get("phrases", {}))),
        _all(path, "templates", Template, content),
        _all(path, "sets", DataSet, content),
        _all(path, "tasks", Task, content),
        _all(path, "studies", Study, content),
    )
    for own in found.templates.values():
        _check_template(path, own)
    for own in found.sets.values():
        _check_set(path, own)
    for own in found.tasks.values():
        _check_task(path, own, found)
    for own in found.studies.values():
        for name in (*own.skills, *own.targets, *own.tests, *own.tests.values()):
            _known(path, f"studies.{own.name}", "task", name, found.tasks)
    return found


# --- reading ------------------------------------------------------------------------------------


def _bad(path: Path, what: str, cure: str) -> SoupError:
    return SoupError(f"{what}: {path}; {cure}")


def _phrases(path: Path, table: Any) -> dict[str, str]:
    for name, text in table.items():
        if not isinstance(text, str):
            raise _bad(path, f"phrases.{name} is no text", "write it in quotes")
    return table


def _all(path: Path, kind: str, form: type, content: dict) -> Mapping[str, Any]:
    tables = content.get(kind, {})
    return MappingProxyType({n: _one(path, f"{kind}.{n}", form, n, t) for n, t in tables.items()})


def _one(path: Path, where: str, form: type, name: str, table: Any) -> Any:
    """A table as a dataclass: known keys only, none missing, each of its type."""
    if not isinstance(table, dict):
        raise _bad(path, f"{where} is no table", f"begin it with [{where}]")
    known = {f.name: f for f in fields(form) if f.name != "name"}
    for key in table:
        if key not in known:
            raise _bad(path, f"unknown key {where}.{key}", f"use one of {', '.join(known)}")
    for key, own in known.items():
        if own.default is MISSING and own.default_factory is MISSING and key not in table:
            raise _bad(path, f"missing key {where}.{key}", "add it")
    return form(
        name=name, **{k: _value(path, f"{where}.{k}", known[k], v) for k, v in table.items()}
    )


def _value(path: Path, where: str, own: Any, value: Any) -> Any:
    """A value of a key, checked against the field's type; lists as tuples."""
    kinds = {
        str: str,
        bool: bool,
        int: int,
        tuple[str, ...]: [str],
        tuple[int, ...]: [int],
        str | tuple[str, ...]: _TEXTS,
        Mapping[str, str]: {str},
        Mapping[str, int]: {int},
        Mapping[str, tuple]: {list},
    }
    kind = kinds[own.type]
    if kind is _TEXTS:
        kind = str if isinstance(value, str) else [str]
    if isinstance(kind, type):
        right = type(value) is kind
    elif isinstance(kind, list):
        right = isinstance(value, list) and bool(value) and all(type(v) is kind[0] for v in value)
    else:
        (inner,) = kind
        right = isinstance(value, dict) and all(type(v) is inner for v in value.values())
    if not right:
        raise _bad(path, f"{where} is {value!r}", "it is of another type; see the file's head")
    if isinstance(value, dict):
        inner = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        return MappingProxyType(inner)
    return tuple(value) if isinstance(value, list) else value


# --- checking -----------------------------------------------------------------------------------


def _known(path: Path, where: str, what: str, name: str, known: Any) -> None:
    if name not in known:
        told = ", ".join(repr(k) for k in known)
        raise _bad(path, f"unknown {what} {name!r} in {where}", f"use one of {told}")


def _check_template(path: Path, own: Template) -> None:
    _known(path, f"templates.{own.name}.train_on", "value", own.train_on, (ANSWER, EVERYTHING))
    if bool(own.train) != bool(own.test):
        raise _bad(path, f"templates.{own.name} has train or test alone", "give both or none")
    for split in filter(None, (own.train, own.test)):
        if row_templates.fields(split) != [("question", "")]:
            raise _bad(path, f"templates.{own.name} needs one {{question}}", "put it in")


def _check_set(path: Path, own: DataSet) -> None:
    where = f"sets.{own.name}"
    if own.file == bool(own.repo) or own.file == bool(own.splits):
        raise _bad(path, f"{where} needs a repo and splits, or file = true", "add what is missing")
    for split in own.splits:
        _known(path, f"{where}.splits", "split", split, ("train", "test"))


def _check_task(path: Path, own: Task, found: Catalogue) -> None:
    where = f"tasks.{own.name}"
    _known(path, f"{where}.set", "set", own.set, found.sets)
    _known(path, f"{where}.judge", "judge", own.judge, JUDGES)
    if own.stand_in:
        _known(path, f"{where}.stand_in", "task", own.stand_in, found.tasks)
        for split in own.splits:
            other = found.tasks[own.stand_in].splits
            _known(path, f"{where}.stand_in", "split", split, other)
    for split in own.splits:
        _known(path, f"{where}.splits", "split", split, SPLITS)
    if bool(own.question) == bool(own.text):
        raise _bad(path, f"{where} needs either a question or a text", "give one of them")
    rows = found.sets[own.set]
    trains = rows.file or "train" in rows.splits
    for split in own.splits:
        if not trains and (split != "test" or "test" not in rows.splits):
            raise _bad(path, f"{where}.splits: set {own.set} has no {split}", "take it out")
    if own.chunk_words < 1:
        raise _bad(path, f"{where}.chunk_words is {own.chunk_words}", "give at least 1")
    if own.judge and not own.target:
        raise _bad(path, f"{where}.judge has no target to judge by", "give a target, or no judge")
    for key in ("question", "answer", "target", "text", "key", "view", "compare"):
        templates = getattr(own, key)
        for template in (templates,) if isinstance(templates, str) else templates:
            for column, name in row_templates.fields(template):
                known = (*rows.columns, *found.phrases)
                _known(path, f"{where}.{key}", "column", column, known)
                if name:
                    _known(path, f"{where}.{key}", "filter", name, row_templates.FILTERS)
    for column in (*own.where, *own.keep.values()):
        _known(path, f"{where}.where or keep", "column", column, rows.columns)
