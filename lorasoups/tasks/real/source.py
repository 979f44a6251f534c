"""Real tasks as a profile wants them: so many items, prompts in the tokenizer's template."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lorasoups.errors import SoupError
from lorasoups.models.encoding import ANSWER
from lorasoups.tasks.real import decontamination, gsm_hard
from lorasoups.tasks.real import tasks as real_tasks
from lorasoups.tasks.real.sets import catalogue

WORDS_PER_TOKEN = 0.5  # a chunk of n words nearly always has fewer than 2 n tokens


class RealTasks:
    """Items and views of `real_tasks` for one tokenizer.

    Args:
        tokenizer: gives the prompt template and the length of examples.
        max_length: training and validation examples with more tokens (prompt, answer and end) are
            left out; test problems never are. Plain text comes in chunks that are short enough.
        template: ``same`` (training and evaluation share the template, loss on the answer) or
            ``released`` (see ``[templates]`` in ``real_sets.toml``); items of a template with loss
            on everything say so by ``train_on`` (see `encoding.encode_all`).
        manual: the user's own text file, for the task ``manual``.

    Raises:
        SoupError: no such template.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        template: str = real_tasks.SAME,
        manual: str | Path | None = None,
    ):
        real_tasks.render(tokenizer, "", template)  # refuses unknown names
        self.tokenizer, self.max_length = tokenizer, max_length
        self.template, self.manual = template, manual
        self._files: dict[tuple, dict] = {}
        self._read = cache(self._read_all)

    def items(self, task: str, split: str, n: int) -> list[dict]:
        """The first ``n`` items ``{prompt, answer, target, id}`` (fewer if there are fewer).

        Raises:
            SoupError: see `real_tasks.items`; or not a single example is short enough.
        """
        chosen = []
        train_on = catalogue().templates[self.template].train_on
        more = {} if train_on == ANSWER else {"train_on": train_on}
        for item in self._read(task, split):
            if len(chosen) == n:
                break
            prompt = real_tasks.render(self.tokenizer, item["question"], self.template, split)
            item = {**item, "prompt": prompt, **more}
            if split == "test" or self._length(item) <= self.max_length:
                chosen.append(item)
        if not chosen:
            raise SoupError(
                f"no example of at most {self.max_length} tokens: {task}, {split}; "
                "raise the profile's max_length"
            )
        return chosen

    def views(self, task: str, n: int) -> dict[str, np.ndarray]:
        """Masks over the first ``n`` test items of a task, by name: ``all``; GSM-Hard's three; and
        where the items name their parts (a prompt format, whether there is an answer) each part."""
        found = self._read(task, "test")
        if task == "gsm_hard":
            return gsm_hard.masks([item["source_question"] for item in found], n)
        names = [item.get("view") for item in found[:n]]
        parts = sorted(set(filter(None, names)))
        masks = {part: np.array([name == part for name in names]) for part in parts}
        return {"all": np.ones(len(names), dtype=bool)} | (masks if len(masks) > 1 else {})

    def data(self) -> list[dict]:
        """`hub.Rows.info` of every file that was read, in the order of their names."""
        return [self._files[key] for key in sorted(self._files)]

    def decontamination(
        self, n_train: Mapping[str, int], n_test: Mapping[str, int], n: int = decontamination.N
    ) -> dict:
        """What the items of training and of the test share (see `decontamination.report`).

        Args:
            n_train: skill -> how many training items are used.
            n_test: test task -> how many test items are used.
            n: words of an n-gram.
        """
        return decontamination.report(
            {task: self.items(task, "train", count) for task, count in n_train.items()},
            {task: self.items(task, "test", count) for task, count in n_test.items()},
            n,
        )

    def _read_all(self, task: str, split: str) -> list[dict]:
        words = max(1, int(self.max_length * WORDS_PER_TOKEN))
        found, files = real_tasks.items(task, split, self.manual, words)
        for info in files:
            key = (info["repo"], info["config"], info["split"], info["stand_in_for"] or "")
            self._files[key] = info
        return found

    def _length(self, item: dict) -> int:
        answer = self.tokenizer(item["answer"], add_special_tokens=False).input_ids
        return len(self.tokenizer(item["prompt"]).input_ids) + len(answer) + 1
