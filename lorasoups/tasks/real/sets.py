"""The real data sets and tasks of ``sets.toml``, read and checked; templates over a row's columns.

A template is a text with ``{column}`` or ``{column|filter}``. Values are put in as they are: braces
in a row's text are text.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

from lorasoups.errors import SoupError

FILE = Path(__file__).with_name("sets.toml")
SPLITS = ("train", "validation", "test")
FIELD = re.compile(r"\{(\w+)(?:\|(\w+))?\}")
NOTHING = ("", "<noinput>", "no input")  # ways of the Alpaca sets to write "there is no input"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Where rows are, and what is known of them (see the head of ``sets.toml``)."""

    name: str
    licence: str
    source: str
    columns: tuple[str, ...]
    repo: str = ""
    config: str = "default"
    splits: dict[str, str] = field(default_factory=dict)  # our train, test -> the Hub's split
    rows: dict[str, int] = field(default_factory=dict)  # the Hub's split -> its rows
    notes: str = ""
    hub: bool = True  # False: only a mirror has it
    file: bool = False  # True: it is the text file that the user names
    drop_rows: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is asked of a set's rows (see the head of ``sets.toml``)."""

    name: str
    set: str
    used_for: str
    judge: str = ""
    question: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    chunk_words: int = 160
    splits: tuple[str, ...] = SPLITS
    key: tuple[str, ...] = ()
    ranked: bool = False
    test_part: bool = False
    where: dict[str, list] = field(default_factory=dict)
    keep: dict[str, str] = field(default_factory=dict)
    view: tuple[str, ...] = ()
    compare: tuple[str, ...] = ()
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
        SoupError: no TOML file; an unknown or missing key; a value of the wrong type. The message
            names file and key. (A test checks that what the shipped file names exists.)
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        for kind, form in (("templates", Template), ("sets", DataSet), ("tasks", Task)):
            tables = content.get(kind, {}).items()
            content[kind] = {n: _read(f"{kind}.{n}", form, table, name=n) for n, table in tables}
        return _read("the file", Catalogue, content)
    except (OSError, ValueError, AttributeError) as error:
        raise SoupError(f"cannot read the data sets ({error}): {path}; correct the file") from error


def _read(where: str, form: type, table: dict[str, Any], **more: str) -> Any:
    """A table as a dataclass; a text counts as a list of one. ValueError: a wrong key or type."""
    values = {}
    try:
        for key, value in table.items():
            kind = form.__annotations__.get(key, object)
            if get_origin(kind) is tuple:
                value = tuple(filter(None, [value]) if isinstance(value, str) else value)
            if not _fits(value, kind):
                raise TypeError(f"{key} is {value!r}, not of type {kind}")
            values[key] = value
        return form(**values, **more)
    except (TypeError, AttributeError) as error:  # Python names a key that is unknown or missing
        raise ValueError(f"{where}: {error}") from None


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value, with what it holds, is of an annotated type."""
    if get_origin(kind) is tuple:
        return all(isinstance(one, get_args(kind)[0]) for one in value)
    if get_origin(kind) is dict:
        inner = get_args(kind)[1]
        return isinstance(value, dict) and all(isinstance(one, inner) for one in value.values())
    return isinstance(value, kind)


# --- templates ----------------------------------------------------------------------------------


def _gsm8k_answer(answer: str) -> int | float:
    """The number after ``####`` in a GSM8K answer."""
    number = float(answer.rpartition("####")[2].strip().replace(",", ""))
    return int(number) if number.is_integer() else number


def _worked(answer: str) -> str:
    steps, _, number = re.sub(r"<<[^<>]*>>", "", answer).rpartition("####")
    return f"{steps.strip()}\nThe answer is {number.strip()}."


def _quoted(instruction: str) -> str:
    sentence = re.search(r"'(.*)'\. How many", instruction, re.DOTALL)
    return sentence[1] if sentence else instruction


FILTERS: dict[str, Callable[[Any], Any]] = {
    "worked": _worked,  # a GSM8K answer without calculator marks, ending in "The answer is N."
    "gsm8k_number": _gsm8k_answer,
    "first": lambda answers: (answers["text"] or [""])[0],  # SQuAD's first answer, if any
    "answerable": lambda answers: "answerable" if answers["text"] else "unanswerable",
    "number": lambda answer: int(re.search(r"-?\d+", answer)[0]),  # 3, of "answer3"
    "quoted": _quoted,  # the sentence that task161 asks about
}
"""What a template may do to a column before it is put in."""


def fill(templates: tuple[str, ...], row: Mapping, phrases: Mapping, strip: bool = True) -> Any:
    """Put a row's columns into the first template whose columns all say something, else the last.

    A column says nothing if it is empty or a way of writing "no input". Templates may name a phrase
    like a column. With ``strip`` texts lose the blanks at their ends. Without a template the text
    is empty; a template that is a single field gives the value itself, e.g. a number.
    """

    def look_up(column: str, name: str | None = "") -> Any:
        value = phrases[column] if column in phrases else row[column]
        value = FILTERS[name](value) if name else value
        return value.strip() if strip and isinstance(value, str) else value

    def says_something(template: str) -> bool:
        values = [look_up(*one) for one in FIELD.findall(template)]
        return not any(isinstance(v, str) and v.strip().lower() in NOTHING for v in values)

    last = templates[-1] if templates else ""
    template = next(filter(says_something, templates), last)
    if whole := FIELD.fullmatch(template):
        return look_up(*whole.groups())
    return FIELD.sub(lambda one: str(look_up(*one.groups())), template)
