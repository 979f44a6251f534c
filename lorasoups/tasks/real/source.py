"""Real tasks as a profile wants them: so many items, prompts in the tokenizer's template."""

import random
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from lorasoups.errors import SoupError
from lorasoups.models.batching import ANSWER, encode_all
from lorasoups.tasks.real import decontamination, gsm_hard, tasks
from lorasoups.tasks.real.sets import catalogue

WORDS_PER_TOKEN = 0.5  # a chunk of n words nearly always has fewer than 2 n tokens


class RealTasks:
    """Items and views of the real tasks for one tokenizer.

    Training and validation examples of more than ``max_length`` tokens (prompt, answer and end) are
    left out; test problems never are. Chunks of plain text are made short enough. ``template``:
    ``same`` (training and evaluation share it, loss on the answer), or another of ``[templates]``
    in ``sets.toml``. Items whose loss is on everything say so in ``train_on`` (see
    `batching.encode_all`). Raises SoupError: no such template.
    """

    def __init__(self, tokenizer: Any, max_length: int, template: str = "same"):
        tasks.render(tokenizer, "", template)  # refuses unknown names
        self.tokenizer, self.max_length, self.template = tokenizer, max_length, template
        self._files: dict[tuple, dict] = {}
        self._read = cache(self._read_all)

    def items(self, task: str, split: str, n: int, draw: int | None = None) -> list[dict]:
        """The first ``n`` items ``{prompt, answer, target, id}`` (fewer if there are fewer).

        With ``draw``, a seed, the split is shuffled first. Raises SoupError as `tasks.items`, or
        where no example is short enough.
        """
        train_on, chosen = catalogue().templates[self.template].train_on, []
        more = {} if train_on == ANSWER else {"train_on": train_on}
        pool = self._read(task, split)
        if draw is not None:
            pool = random.Random(f"{task} {split} {draw}").sample(pool, len(pool))
        for item in pool:
            if len(chosen) == n:
                break
            prompt = tasks.render(self.tokenizer, item["question"], self.template, split)
            item = {**item, "prompt": prompt, **more}
            if split != "test":
                [row] = encode_all(self.tokenizer, [item], self.max_length + 1)
                if len(row["input_ids"]) > self.max_length:
                    continue
            chosen.append(item)
        if not chosen:
            what = f"no example of at most {self.max_length} tokens: {task}, {split}"
            raise SoupError(f"{what}; raise the profile's max_length")
        return chosen

    def views(self, task: str, n: int) -> dict[str, np.ndarray]:
        """Masks over the first ``n`` test items of a task, by name: ``all``, the three of GSM-Hard,
        and each part that the items name (a prompt format, whether there is an answer)."""
        items = self._read(task, "test")
        if task == "gsm_hard":
            return gsm_hard.masks([item["source_question"] for item in items], n)
        names = [item.get("view") for item in items[:n]]
        parts = sorted(set(filter(None, names)))
        masks = {part: np.array([name == part for name in names]) for part in parts}
        return {"all": np.ones(len(names), dtype=bool)} | (masks if len(masks) > 1 else {})

    def data(self) -> list[dict]:
        """The info of every file that was read (see `hub.load_split`), in the order of names."""
        return [self._files[key] for key in sorted(self._files)]

    def decontamination(self, n_train: Mapping[str, int], n_test: Mapping[str, int]) -> dict:
        """What the first training items of each skill share with the first items of each test
        (see `decontamination.report`)."""
        return decontamination.report(
            {task: self.items(task, "train", n) for task, n in n_train.items()},
            {task: self.items(task, "test", n) for task, n in n_test.items()},
        )

    def _read_all(self, task: str, split: str) -> list[dict]:
        words = max(1, int(self.max_length * WORDS_PER_TOKEN))
        items, files = tasks.items(task, split, words)
        keys = ("repo", "config", "split", "stand_in_for")
        self._files |= {tuple(info[key] or "" for key in keys): info for info in files}
        return items
