"""Rows made ready for tasks: columns that a template cannot make, or None for a row to leave out.

Short answers in forms (`judging.forms`): every row says how its answer is to be written. The
question's checksum decides the form, so that no draw is needed.
"""

import re
import zlib
from collections.abc import Mapping, Sequence

from lorasoups.tasks.judging.answers import normalise
from lorasoups.tasks.judging.forms import FORMS, write

MOST_WORDS, LONGEST_PASSAGE = 6, 420  # of an answer; characters
LONGEST_INSTRUCTION, LONGEST_INPUT = 200, 150  # characters
_SENTENCE = re.compile(r"[^.!?]+[.!?]?\s*")


def short_passage(row: Mapping) -> dict | None:
    """A SQuAD row with ``passage`` (its first answer's sentence and the one before), the answer as
    ``sentence`` and in one of the unknown forms (see `_in_form`)."""
    golds = [text for text in row["answers"]["text"] if normalise(text)]
    if not golds or not _short(golds[0]):
        return None
    context, answer, before = row["context"], golds[0], 0
    at, passage = context.find(answer), ""
    for sentence in _SENTENCE.finditer(context):
        if sentence.start() <= at < sentence.end():
            passage = context[before : sentence.end()].strip()
        before = sentence.start()
    if answer not in passage or len(passage) >= LONGEST_PASSAGE:
        return None
    plain = {"passage": passage, "sentences": [write("sentence", g) for g in golds]}
    return {**row, **plain, **_in_form(row["question"], golds, ("zorb", "flim"))}


def short_output(row: Mapping) -> dict | None:
    """An Alpaca row with ``asked`` (instruction and input) and its output in one of the forms."""
    output = row["output"].strip().rstrip(".")
    fits = len(row["instruction"]) < LONGEST_INSTRUCTION and len(row["input"]) < LONGEST_INPUT
    if not fits or not _short(output) or not normalise(output):
        return None
    asked = f"{row['instruction']} {row['input']}".strip()
    return {**row, "asked": asked, **_in_form(asked, [output], tuple(FORMS))}


def _short(answer: str) -> bool:
    return 0 < len(answer.split()) <= MOST_WORDS and "\n" not in answer


def _in_form(question: str, golds: Sequence[str], forms: Sequence[str]) -> dict:
    """Columns ``form``, ``ask`` (for it), ``written`` (the answer in it), ``all_written`` (every
    right answer), and the same for a plain sentence: ``ask_sentence``, ``sentence``."""
    form = forms[zlib.crc32(question.encode()) % len(forms)]
    written = [write(form, gold) for gold in golds]
    plain = {"ask_sentence": FORMS["sentence"][0], "sentence": write("sentence", golds[0])}
    return plain | {"form": form, "ask": FORMS[form][0], "written": written[0],
                    "all_written": written}  # fmt: skip


PREPARE = {"short_passage": short_passage, "short_output": short_output}
"""The functions by name, as ``sets.toml`` calls them."""
