"""The tasks on real data: items of each, disjoint splits, and how a question becomes a prompt.

``sets.toml`` declares the sets and what is asked of them. No skill example answers a word problem
with a program, and targets (GSM-Hard, ...) are never trained on.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cache

from lorasoups.errors import SoupError
from lorasoups.models.rows import chat_prompt
from lorasoups.tasks.real import hub
from lorasoups.tasks.real.prepare import PREPARE
from lorasoups.tasks.real.sets import DataSet, Task, catalogue, fill

USE_PYTHON = catalogue().phrases["use_python"]
_SHARE = 20  # every 20th question is for validation; without a file for the test another for it


def items(task: str, split: str, max_words: int | None = None) -> tuple[list[dict], list[dict]]:
    """All items of a task's split, and the info of the files that were read (`hub.load_split`).

    ``train``, ``validation`` and ``test`` share no question (or no value of the declared key, e.g.
    an article). The hash of a question decides the split of a row of a training file; such items
    come in the order of their hashes. Items of a test file keep its order.

    ``max_words``: the most words of a chunk of plain text, if fewer than declared.

    Items are ``{question, answer, target, id}``: what the user says (`render` makes the prompt; ""
    for plain text), a text, a number or text or None, and a name of the row. Where declared also
    ``source_question`` (without the request for a program), ``view`` (the part of the test) and
    ``compare`` (the content without its form, see `decontamination`). Raises SoupError: unknown
    task or split, a target asked for training, or data that are not there.
    """
    declared = catalogue()
    if task not in declared.tasks:
        raise SoupError(f"unknown task {task!r}; choose one of {', '.join(declared.tasks)}")
    chosen = declared.tasks[task]
    if split not in chosen.splits:
        raise SoupError(f"task {task} has no split {split!r}; use {' or '.join(chosen.splits)}")
    data, stand_in_for = declared.sets[chosen.set], None
    if chosen.stand_in and not _available(data):
        stand_in_for, chosen = data.repo, declared.tasks[chosen.stand_in]
        data = declared.sets[chosen.set]
    if split == "test" and "test" in data.splits and not chosen.test_part:
        rows, info = _read(data, "test", stand_in_for)
        return [item for _, item in _made(chosen, data, rows, "test", max_words)], [info]
    rows, info = _read(data, "train", stand_in_for)
    made, infos, tested = list(_made(chosen, data, rows, "train", max_words)), [info], set()
    if "test" in data.splits:
        rows, info = _read(data, "test", stand_in_for)
        infos.append(info)
        tested = {_hash(_key(chosen, row)) for row in rows}
    return _split(chosen, made, split, tested), infos


def render(tokenizer, question: str, template: str = "same", split: str = "test") -> str:
    """The prompt for a question, up to where the answer begins; "" for plain text.

    Made by the tokenizer's chat template (a single user turn), or a plain template if it has none.
    ``template`` is a name of ``[templates]`` in ``sets.toml``; ``released`` has one text for
    training and one for the test. Raises SoupError: no such template.
    """
    templates = catalogue().templates
    if template not in templates:
        raise SoupError(f"no such template: {template!r}; choose one of {', '.join(templates)}")
    if not question:
        return ""
    if text := templates[template].test if split == "test" else templates[template].train:
        return text.replace("{question}", question)
    if not getattr(tokenizer, "chat_template", None):
        return f"### Instruction:\n{question}\n\n### Response:\n"
    return chat_prompt(tokenizer, [{"role": "user", "content": question}])


def _available(data: DataSet) -> bool:
    """Whether a set needs no stand-in: the mirror, if there is one, has its splits."""
    folder = hub.mirror_folder()
    files = (hub.mirror_file(data.repo, data.config, split) for split in data.splits.values())
    return not (folder and folder.is_dir()) or all((folder / file).is_file() for file in files)


def _read(data: DataSet, split: str, stand_in_for: str | None) -> tuple[list[dict], dict]:
    if not data.hub and hub.mirror_folder() is None:
        raise SoupError(f"not on the Hub, only in a mirror: {data.repo}; {hub.MIRROR_OPTION}")
    place = data.repo, data.config, data.splits[split]
    return hub.load_split(*place, columns=data.columns, stand_in_for=stand_in_for)


def _made(
    task: Task, data: DataSet, rows: Sequence[dict], split: str, max_words: int | None
) -> Iterator[tuple[str, dict]]:
    """Key and item of every row that the task uses, in the file's order."""
    file = f"{data.repo.rpartition('/')[2]}/{data.splits.get(split, split)}"
    words = min(task.chunk_words, max_words or task.chunk_words)
    prepared = map(PREPARE[data.prepare], rows) if data.prepare else rows
    for i, row in enumerate(prepared):
        if row is None or (split == "test" and i in data.drop_rows):
            continue
        if any(row[column] not in wanted for column, wanted in task.where.items()):
            continue
        name = (task.id or f"{file}/{{row}}").replace("{row}", str(i))
        if not task.text:
            yield from _question(task, row, name)
            continue
        for j, text in enumerate(chunks(_fill(task, "text", row), words)):
            yield text, {"question": "", "answer": text, "target": None, "id": f"{name}/{j}"}


def _question(task: Task, row: dict, name: str) -> Iterator[tuple[str, dict]]:
    """Key and item of a row, unless its question or its answer is empty."""
    question, answer = _fill(task, "question", row), _fill(task, "answer", row)
    if not question or (task.answer and not answer):
        return
    target = _fill(task, "target", row) if task.target else None
    item = {"question": question, "answer": answer, "target": target, "id": name}
    item |= {new: row[column] for new, column in task.keep.items()}
    item |= {what: _fill(task, what, row) for what in ("view", "compare") if getattr(task, what)}
    yield _key(task, row), item


def _fill(task: Task, what: str, row: dict):
    return fill(getattr(task, what), row, catalogue().phrases, strip=not task.verbatim)


def _key(task: Task, row: dict) -> str:
    return _fill(task, "key" if task.key else "question", row)


def chunks(text: str, max_words: int) -> list[str]:
    """Pieces of a text, in order, each of at most ``max_words`` words (at least 1).

    Whole paragraphs are put together as long as they fit. A longer paragraph is cut at its
    sentences, a longer sentence between words. No word is lost or repeated.
    """
    done: list[str] = []
    for joint, piece in _pieces(text, max_words):
        if done and len(done[-1].split()) + len(piece.split()) <= max_words:
            done[-1] += joint + piece
        else:
            done.append(piece)
    return done


def _pieces(text: str, max_words: int) -> Iterator[tuple[str, str]]:
    """The blanks before a piece, and the piece itself."""
    for paragraph in filter(None, map(str.strip, re.split(r"\n\s*\n", text))):
        joint, fits = "\n\n", len(paragraph.split()) <= max_words
        for sentence in [paragraph] if fits else re.split(r"(?<=[.!?])\s+", paragraph):
            words = sentence.split()
            cut = [" ".join(words[i : i + max_words]) for i in range(0, len(words), max_words)]
            for piece in [sentence] if len(cut) == 1 else cut:
                yield joint, piece
                joint = " "


def _split(task: Task, made: list[tuple[str, dict]], split: str, tested: set[int]) -> list[dict]:
    """The items of a training file that belong to a split; a key of ``tested`` belongs to none."""
    has_test = "test" in task.splits and (task.test_part or not tested)
    first = 1 + task.test_slots  # slots of 20: validation, then the test, then training
    parts = {"validation": {0}, "test": set(range(1, first))}
    wanted = parts.get(split, set(range(first if has_test else 1, _SHARE)))
    keys = sorted({_hash(key) for key, _ in made})
    by_place = task.ranked or bool(task.text)  # few keys: their place among all hashes decides
    slots = {key: (place if by_place else key) % _SHARE for place, key in enumerate(keys)}
    once: dict[int, dict] = {}  # each question (of plain text: the text)
    for key, item in made:
        if _hash(key) not in tested and slots[_hash(key)] in wanted:
            once.setdefault(_hash(item["question"] or item["answer"]), item)
    return [once[key] for key in sorted(once)]


@cache
def _hash(text: str) -> int:
    plain = " ".join(text.lower().split())
    return int.from_bytes(hashlib.sha256(plain.encode()).digest()[:8], "big")
