"""Counting the words of a sentence that contain a letter, in ten prompt formats.

The task of the paper's prompt experiment (Natural Instructions, task 161): a format fixes the names
of the two fields and what separates them. The ten formats are our own, made by the same rules.
"""

from dataclasses import dataclass
from random import Random
from string import ascii_lowercase

from lorasoups.tasks.worlds import split_of
from lorasoups.tasks.worlds.pages import facts

_GLUE = ("a", "the", "near", "with", "and", "on", "under", "old", "new", "behind", "by", "some")
_SHOWN = (facts.RELATIONS[name] for name in ("color", "home", "food", "material", "size"))
WORDS = tuple(sorted({*facts.THINGS, *_GLUE, *(v for shown in _SHOWN for v in shown.values)}))


@dataclass(frozen=True)
class Count:
    """A sentence (words of `WORDS`) and a letter; ``answer`` is how many words contain it."""

    words: tuple[str, ...]
    letter: str

    @property
    def found(self) -> tuple[str, ...]:
        """The words that contain the letter, in order."""
        return tuple(w for w in self.words if self.letter in w)

    @property
    def answer(self) -> int:
        return len(self.found)

    @property
    def split(self) -> str:
        """Decided by the sentence alone: splits share no sentence, whatever the letter."""
        return split_of(self.words)

    @property
    def sentence(self) -> str:
        return " ".join(self.words)


def sample(rng: Random, split: str) -> Count:
    """Draw three to seven words and a letter; one time in four it is a letter that occurs."""
    while True:
        words = tuple(rng.choice(WORDS if i % 3 else _GLUE) for i in range(rng.randint(3, 7)))
        letters = ascii_lowercase if rng.random() < 0.75 else "".join(words)
        count = Count(words, rng.choice(letters))
        if count.split == split:
            return count


@dataclass(frozen=True)
class Format:
    """A prompt's layout."""

    field: str  # names of the two fields
    answer: str
    separator: str  # after a name
    between: str  # the fields

    def prompt(self, count: Count) -> str:
        """The whole prompt; formats differ only around the same words."""
        return (
            f"{self.field}{self.separator}{count.sentence}.{self.between}"
            f"How many words contain the letter {count.letter}?"
            f"{self.between}{self.answer}{self.separator.rstrip()}"
        )


FORMATS = {int(number): Format(*parts) for number, parts in facts.WORDS["formats"].items()}
TRAIN_FORMATS, TEST_FORMATS = (1, 2, 4), (3, 7, 8, 10)  # the paper's split by number


def in_format(count: Count, number: int) -> dict:
    """The item of a count in a format; the answer's wording is that of the paper's data."""
    return {
        "prompt": FORMATS[number].prompt(count), "target": count.answer, "key": count,
        "answer": f" the correct answer is {count.answer}", "view": f"format {number}",
    }  # fmt: skip
