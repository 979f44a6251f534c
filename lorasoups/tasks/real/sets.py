"""The real data sets and tasks of ``sets.toml``, read and checked; templates over a row's columns.

A template is a text with ``{column}`` or ``{column|filter}``. Values are put in as they are: braces
in a row's text are text.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from lorasoups.errors import SoupError
from lorasoups.models.batching import ANSWER, EVERYTHING
from lorasoups.tasks.judging.judges import JUDGES
from lorasoups.tasks.real.gsm_hard import gsm8k_answer

FILE = Path(__file__).with_name("sets.toml")
SPLITS = ("train", "validation", "test")
FIELD = re.compile(r"\{(\w+)(?:\|(\w+))?\}")
NOTHING = ("", "<noinput>", "no input")  # ways of the Alpaca sets to write "there is no input"

Templates = str | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Where rows are, and what is known of them (see the head of ``sets.toml``).

    Attributes:
        splits: our ``train`` and ``test`` -> the split of that name in the repository.
        rows: split of the repository -> rows on the Hub.
        hub: False: only a mirror has it. file: the text file that the user names.
    """

    name: str
    licence: str
    source: str
    columns: tuple[str, ...]
    repo: str = ""
    config: str = "default"
    splits: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    notes: str = ""
    hub: bool = True
    file: bool = False
    drop_rows: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is asked of a set's rows (see the head of ``sets.toml``)."""

    name: str
    set: str
    used_for: str
    judge: str = ""
    question: Templates = ""
    answer: Templates = ""
    target: Templates = ""
    text: str = ""
    chunk_words: int = 160
    splits: tuple[str, ...] = SPLITS
    key: str = ""
    ranked: bool = False
    test_part: bool = False
    where: dict[str, list] = field(default_factory=dict)
    keep: dict[str, str] = field(default_factory=dict)
    view: str = ""
    compare: str = ""
    verbatim: bool = False
    id: str = ""
    stand_in: str = ""


@dataclass(frozen=True, kw_only=True)
class Template:
    """How a question becomes a prompt; without texts as `tasks.render` does it."""

    name: str
    train_on: str
    train: str = ""
    test: str = ""
    notes: str = ""


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Everything that the file declares, by name."""

    phrases: dict[str, str] = field(default_factory=dict)
    templates: dict[str, Template] = field(default_factory=dict)
    sets: dict[str, DataSet] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)


@cache
def catalogue(path: Path = FILE) -> Catalogue:
    """Read and check a file of sets, by default the package's own.

    Raises:
        SoupError: no TOML file; an unknown or missing key; a value of the wrong type; a set,
            column, filter, judge or task that does not exist. The message names file and key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        for kind, form in (("templates", Template), ("sets", DataSet), ("tasks", Task)):
            tables = content.get(kind, {}).items()
            content[kind] = {name: _read(f"{kind}.{name}", form, name, t) for name, t in tables}
        declared = _read("the file", Catalogue, None, content)
        if problem := next(_problems(declared), None):
            raise ValueError(problem)
    except (OSError, ValueError, AttributeError) as error:
        raise SoupError(f"cannot read the data sets ({error}): {path}; correct the file") from error
    return declared


def _read(where: str, form: type, name: str | None, table: Any) -> Any:
    """A table as a dataclass; ValueError for a wrong key or type."""
    if not isinstance(table, dict):
        raise ValueError(f"{where} is not a table")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    try:
        made = form(**values, **({} if name is None else {"name": name}))
    except TypeError as error:  # Python names the key
        raise ValueError(f"{where}: {str(error).partition('() ')[2]}") from None
    for key, value in values.items():
        if not _fits(value, form.__annotations__[key]):
            raise ValueError(f"{where}.{key} is {value!r}, which is the wrong type or empty")
    return made


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type; a list must not be empty."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and bool(value) and all(_fits(v, inner[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(v, inner[1]) for v in value.values())
    return type(value) is kind


def _problems(declared: Catalogue) -> Iterator[str]:
    """What does not fit together; only the first one counts, later checks rely on earlier ones."""
    for name, template in declared.templates.items():
        yield from _unknown(f"templates.{name}.train_on", [template.train_on], [ANSWER, EVERYTHING])
        fields = [FIELD.findall(text) for text in (template.train, template.test)]
        if (template.train or template.test) and fields != [[("question", "")]] * 2:
            yield f"templates.{name} needs one {{question}} in train and in test, or neither text"
    for name, data in declared.sets.items():
        if data.file == bool(data.repo) or data.file == bool(data.splits):
            yield f"sets.{name} needs a repo and splits, or file = true"
        yield from _unknown(f"sets.{name}.splits", data.splits, ("train", "test"))
    for task in declared.tasks.values():
        yield from _task_problems(f"tasks.{task.name}", task, declared)


def _task_problems(where: str, task: Task, declared: Catalogue) -> Iterator[str]:
    yield from _unknown(f"{where}.set", [task.set], declared.sets)
    data = declared.sets[task.set]
    trains = data.file or "train" in data.splits
    yield from _unknown(f"{where}.splits", task.splits, SPLITS if trains else ["test"])
    yield from _unknown(f"{where}.judge", [task.judge], ["", *JUDGES])
    if task.stand_in:
        yield from _unknown(f"{where}.stand_in", [task.stand_in], declared.tasks)
        splits = declared.tasks[task.stand_in].splits
        yield from _unknown(f"{where}.stand_in", task.splits, splits)
    if bool(task.question) == bool(task.text):
        yield f"{where} needs either a question or a text"
    if task.chunk_words < 1:
        yield f"{where}.chunk_words is {task.chunk_words}, not at least 1"
    if task.judge and not task.target:
        yield f"{where}.judge has no target to judge by"
    for key in ("question", "answer", "target", "text", "key", "view", "compare"):
        for column, name in FIELD.findall("\n".join(_several(getattr(task, key)))):
            yield from _unknown(f"{where}.{key}", [column], [*data.columns, *declared.phrases])
            yield from _unknown(f"{where}.{key}", [name], ["", *FILTERS])
    yield from _unknown(f"{where}.where or keep", [*task.where, *task.keep.values()], data.columns)


def _unknown(where: str, names: Any, known: Any) -> Iterator[str]:
    for name in names:
        if name not in known:
            yield f"{where}: unknown {name!r}, use one of {', '.join(map(repr, known))}"


def _several(templates: Templates) -> tuple[str, ...]:
    return (templates,) if isinstance(templates, str) else templates


# --- templates ----------------------------------------------------------------------------------


def _worked(answer: str) -> str:
    steps, _, number = re.sub(r"<<[^<>]*>>", "", answer).rpartition("####")
    return f"{steps.strip()}\nThe answer is {number.strip()}."


def _quoted(instruction: str) -> str:
    sentence = re.search(r"'(.*)'\. How many", instruction, re.DOTALL)
    return sentence[1] if sentence else instruction


FILTERS: dict[str, Callable[[Any], Any]] = {
    "worked": _worked,  # a GSM8K answer without calculator marks, ending in "The answer is N."
    "gsm8k_number": gsm8k_answer,
    "first": lambda answers: (answers["text"] or [""])[0],  # SQuAD's first answer, if any
    "answerable": lambda answers: "answerable" if answers["text"] else "unanswerable",
    "number": lambda answer: int(re.search(r"-?\d+", answer)[0]),  # 3, of "answer3"
    "quoted": _quoted,  # the sentence that task161 asks about
}
"""What a template may do to a column before it is put in."""


def fill(templates: Templates, row: Mapping, phrases: Mapping[str, str], strip: bool = True) -> Any:
    """Fill in a row.

    Args:
        templates: one template, or several: the first whose columns all say something (are not
            empty, nor a way of writing "no input"), else the last.
        row: by column.
        phrases: texts that templates may name like a column; they always say something.
        strip: texts lose the blanks at their ends before they are put in.

    Returns:
        Text; or the value itself (e.g. a number) where the template is a single field.
    """

    def look_up(column: str, name: str = "") -> Any:
        value = phrases[column] if column in phrases else row[column]
        value = FILTERS[name](value) if name else value
        return value.strip() if strip and isinstance(value, str) else value

    def says_something(template: str) -> bool:
        values = [look_up(*one) for one in FIELD.findall(template)]
        return not any(isinstance(v, str) and v.strip().lower() in NOTHING for v in values)

    *first, last = _several(templates)
    template = next(filter(says_something, first), last)
    if whole := FIELD.fullmatch(template):
        return look_up(whole[1], whole[2] or "")
    return FIELD.sub(lambda one: str(look_up(one[1], one[2] or "")), template)
