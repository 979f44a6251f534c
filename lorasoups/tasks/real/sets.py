"""The real data sets and tasks of ``sets.toml``, read and checked; templates over a row's columns.

A template is a text with ``{column}`` or ``{column|filter}``. Values are put in as they are: braces
in a row's text are text.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from lorasoups.errors import SoupError

FILE = Path(__file__).with_name("sets.toml")
SPLITS = ("train", "validation", "test")
FIELD = re.compile(r"\{(\w+)(?:\|(\w+))?\}")
STRICT = ConfigDict(extra="forbid", strict=False)
NOTHING = ("", "<noinput>", "no input")  # ways of the Alpaca sets to write "there is no input"


def _as_texts(value: Any) -> Any:
    """A text counts as a list of one, an empty text as none."""
    return tuple(filter(None, [value])) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_texts)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataSet:
    """Where rows are, and what is known of them (see the head of ``sets.toml``)."""

    name: str
    licence: str
    source: str
    columns: Texts
    repo: str
    config: str = "default"
    splits: dict[str, str] = field(default_factory=dict)  # our train, test -> the Hub's split
    rows: dict[str, int] = field(default_factory=dict)  # the Hub's split -> its rows
    notes: str = ""
    hub: bool = True  # False: only a mirror has it
    drop_rows: tuple[int, ...] = ()
    prepare: str = ""  # a name of `prepare.PREPARE`


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Task:
    """What is asked of a set's rows (see the head of ``sets.toml``)."""

    name: str
    set: str
    used_for: str
    judge: str = ""
    question: Texts = ()
    answer: Texts = ()
    target: Texts = ()
    text: Texts = ()
    chunk_words: int = 160
    splits: Texts = SPLITS
    key: Texts = ()
    ranked: bool = False
    test_part: bool = False
    test_slots: int = 1  # of 20
    where: dict[str, list] = field(default_factory=dict)
    keep: dict[str, str] = field(default_factory=dict)
    view: Texts = ()
    compare: Texts = ()
    verbatim: bool = False
    id: str = ""
    stand_in: str = ""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Template:
    """How a question becomes a prompt; without texts as `tasks.render` does it."""

    name: str
    train_on: str
    train: str = ""
    test: str = ""
    notes: str = ""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Catalogue:
    """Everything that the file declares, by name."""

    phrases: dict[str, str] = field(default_factory=dict)
    templates: dict[str, Template] = field(default_factory=dict)
    sets: dict[str, DataSet] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)


@cache
def catalogue(path: Path = FILE) -> Catalogue:
    """Read a file of sets, by default the package's own.

    Raises SoupError, naming file and key: no TOML file; an unknown or missing key; a value of the
    wrong type. (A test checks that what the shipped file names exists.)
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        for kind in ("templates", "sets", "tasks"):
            content[kind] = {n: table | {"name": n} for n, table in content.get(kind, {}).items()}
        return TypeAdapter(Catalogue).validate_python(content)
    except ValidationError as error:
        wrong = error.errors()[0]
        key = ".".join(map(str, wrong["loc"]))
        raise SoupError(f"{key}: {wrong['msg']}: {path}; correct the file") from error
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise SoupError(f"cannot read the data sets ({error}): {path}; correct the file") from error


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


def fill(templates: Texts, row: Mapping, phrases: Mapping, strip: bool = True) -> Any:
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
