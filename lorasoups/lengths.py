"""How many tokens the rows of a profile's tasks have: counted on a sample, or assumed."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorasoups.errors import SoupError
from lorasoups.profiles import Profile

SAMPLE = 200
CHARACTERS_PER_TOKEN = 3.3
"""Of English and code, a rough guess: answers of GSM8K have 2.6 and of CodeAlpaca 3.1 under
SmolLM2's tokenizer (which splits numbers into digits; 300 rows each), plain prose has more."""
TEMPLATE = 20
"""Tokens of a prompt template around a question."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of a task's rows.

    Attributes:
        prompt, answer: means.
        longest: of the sample, prompt and answer together.
        longest_prompt: of the sample.
        rows: how many there are (None: as many as are asked for).
        counted: ``counted`` (the base's own tokenizer), ``characters`` (from a local mirror, by
            characters per token) or ``assumed``.
    """

    prompt: float
    answer: float
    longest: int
    longest_prompt: int
    rows: int | None = None
    counted: str = "assumed"

    @property
    def total(self) -> float:
        """Mean tokens of a training example."""
        return self.prompt + self.answer


ASSUMED = {
    ("math", "train"): Lengths(88, 95, 417, 230),
    ("math", "test"): Lengths(91, 97, 436, 230),
    ("code", "train"): Lengths(68, 75, 414, 300),
    ("gsm_hard", "test"): Lengths(122, 120, 334, 214),
    ("metamath", "train"): Lengths(110, 140, 512, 300),
}
"""Real tasks: 300 rows counted with SmolLM2's tokenizer on 2026-11-23 from a mirror of GSM8K,
GSM-Hard and a stand-in of CodeAlpaca. MetaMathQA could not be counted here: a guess."""
UNKNOWN = Lengths(150, 100, 512, 400)
"""Any other real task: a guess."""


def lengths_of(profile: Profile, tokenizer_file: Path | None = None) -> dict[tuple, Lengths]:
    """Lengths of all tasks that a profile trains on (``train``) or takes as tests (``test``).

    Args:
        profile: its generated tasks are sampled; real ones are looked up in a mirror, if
            ``LORASOUPS_HUB_MIRROR`` names one, else assumed. Nothing is downloaded.
        tokenizer_file: the base's ``tokenizer.json``, needed to count.

    Returns:
        by ``(task, split)``.
    """
    wanted = [(skill, "train") for skill in profile.skills]
    wanted += [(task, "test") for task in profile.n_test]
    if profile.source == "hub":
        return {key: _real(*key, profile.max_length) for key in wanted}
    return {key: _generated(profile, *key, tokenizer_file) for key in wanted}


def _generated(profile: Profile, task: str, split: str, tokenizer_file: Path | None) -> Lengths:
    from tokenizers import Tokenizer

    if profile.source == "pages":
        from lorasoups.pages.tasks import dataset
    else:
        from lorasoups.world.tasks import dataset
    items = dataset(task, split, SAMPLE, 0)
    if tokenizer_file is None or not tokenizer_file.is_file():
        return _by_characters(items, "prompt", None, 0)
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    prompts = [len(tokenizer.encode(item["prompt"]).ids) for item in items]
    answers = [len(tokenizer.encode(item["answer"]).ids) + 1 for item in items]
    return _means(prompts, answers, None, "counted")


def _real(task: str, split: str, max_length: int) -> Lengths:
    found = replace(ASSUMED.get((task, split), UNKNOWN), rows=_declared_rows(task, split))
    try:
        found = _mirrored(task, split) or found
    except SoupError:  # the doctor tells of missing data elsewhere
        pass
    if split == "train":  # longer examples are left out
        total = min(found.total, 0.8 * max_length)
        share = total / found.total
        return replace(
            found,
            prompt=found.prompt * share,
            answer=found.answer * share,
            longest=min(found.longest, max_length),
            longest_prompt=min(found.longest_prompt, max_length),
        )
    return found


def _declared_rows(task: str, split: str) -> int | None:
    """Rows of a task's part as its set is on the Hub (``real_sets.toml``); None: not known."""
    from lorasoups.real_sets import catalogue

    found = catalogue()
    if task not in found.tasks:
        return None
    rows = found.set_of(task).rows
    if split == "test" and "test" in rows:
        return rows["test"]
    whole = rows.get("train")
    if whole is None or split != "train":
        return whole and whole // 20
    return whole * (19 if "test" in rows else 18) // 20


def _mirrored(task: str, split: str) -> Lengths | None:
    from lorasoups.hub import MIRROR_VARIABLE

    if not os.environ.get(MIRROR_VARIABLE):
        return None
    from lorasoups import real_tasks

    items, _ = real_tasks.items(task, split)
    return _by_characters(items[:SAMPLE], "question", len(items), TEMPLATE)


def _by_characters(items: Sequence[dict], asked: str, rows: int | None, more: int) -> Lengths:
    prompts = [more + len(item[asked]) / CHARACTERS_PER_TOKEN for item in items]
    answers = [1 + len(item["answer"]) / CHARACTERS_PER_TOKEN for item in items]
    return _means(prompts, answers, rows, "characters")


def _means(prompts: list, answers: list, rows: int | None, counted: str) -> Lengths:
    n = len(prompts)
    longest = max(p + a for p, a in zip(prompts, answers, strict=True))
    return Lengths(
        sum(prompts) / n, sum(answers) / n, round(longest), round(max(prompts)), rows, counted
    )
