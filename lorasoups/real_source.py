"""Real tasks as a profile wants them: so many items, prompts in the tokenizer's template."""

from functools import cache
from typing import Any

import numpy as np

from lorasoups import gsm_hard, real_tasks
from lorasoups.errors import SoupError


class RealTasks:
    """Items and views of `real_tasks` for one tokenizer.

    Args:
        tokenizer: gives the prompt template and the length of examples.
        max_length: training and validation examples with more tokens (prompt, answer and end) are
            left out; test problems never are.
    """

    def __init__(self, tokenizer: Any, max_length: int):
        self.tokenizer, self.max_length = tokenizer, max_length
        self._files: dict[tuple, dict] = {}
        self._read = cache(self._read_all)

    def items(self, task: str, split: str, n: int) -> list[dict]:
        """The first ``n`` items ``{prompt, answer, target, id}`` (fewer if there are fewer).

        Raises:
            SoupError: see `real_tasks.items`; or not a single example is short enough.
        """
        chosen = []
        for item in self._read(task, split):
            if len(chosen) == n:
                break
            item = {**item, "prompt": real_tasks.render(self.tokenizer, item["question"])}
            if split == "test" or self._length(item) <= self.max_length:
                chosen.append(item)
        if not chosen:
            raise SoupError(
                f"no example of at most {self.max_length} tokens: {task}, {split}; "
                "raise the profile's max_length"
            )
        return chosen

    def views(self, task: str, n: int) -> dict[str, np.ndarray]:
        """Masks over the first ``n`` test items of a task, by name."""
        found = self._read(task, "test")
        if task != "gsm_hard":
            return {"all": np.ones(len(found[:n]), dtype=bool)}
        return gsm_hard.masks([item["source_question"] for item in found], n)

    def data(self) -> list[dict]:
        """`hub.Rows.info` of every file that was read, in the order of their names."""
        return [self._files[key] for key in sorted(self._files)]

    def _read_all(self, task: str, split: str) -> list[dict]:
        found, files = real_tasks.items(task, split)
        for info in files:
            self._files[info["repo"], info["config"], info["split"]] = info
        return found

    def _length(self, item: dict) -> int:
        answer = self.tokenizer(item["answer"], add_special_tokens=False).input_ids
        return len(self.tokenizer(item["prompt"]).input_ids) + len(answer) + 1
