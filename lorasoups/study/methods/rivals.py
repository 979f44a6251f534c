"""Rivals that search or learn something else than alphas: LoraHub and X-LoRA."""

import json
from pathlib import Path

from lorasoups.files import write_json_atomic
from lorasoups.learning import lorahub, xlora
from lorasoups.lora.adapters import load_lora, save_lora
from lorasoups.lora.lora import LoRA
from lorasoups.results import reading
from lorasoups.study.methods.base import Method
from lorasoups.study.stages import Stages


class LoraHub(Method):
    """One weight per LoRA, found without gradients."""

    def adapter(self, stages: Stages, seed: int) -> LoRA:
        return load_lora(self._search(stages, seed) / "adapter")

    def weights(self, stages: Stages, seed: int) -> list[float]:
        """The weight of each LoRA."""
        return json.loads((self._search(stages, seed) / "search.json").read_text())["weights"]

    def _search(self, stages: Stages, seed: int) -> Path:
        loras, rows, budget = stages.loras(seed), stages.alpha_rows(seed), stages.profile.budget
        inputs = stages.soup_inputs(loras, rows, seed) | {"on": self.on, "budget": budget}

        def make(folder: Path, scratch: Path) -> None:
            best = lorahub.lorahub(
                stages.source.model, loras, rows, on=self.on, budget=budget, seed=seed
            )
            save_lora(best.lora, folder / "adapter")
            search = {"weights": best.weights, "history": best.history}
            write_json_atomic(folder / "search.json", search)

        return stages.build("lorahub", inputs, make)


class XLora(Method):
    """A mixture of the skills' LoRAs, token by token, by a trained gate."""

    def answers(self, stages: Stages, task: str, seed: int) -> list[dict]:
        folder = self._gate(stages, seed)
        gate = xlora.XLora.load(folder)
        return stages.answers(
            task,
            None,
            lambda: xlora.mixed(stages.source.model, stages.loras(seed), gate),
            more={"mixture": folder.name},
        )

    def _gate(self, stages: Stages, seed: int) -> Path:
        loras, rows = stages.loras(seed), stages.alpha_rows(seed)
        schedule = {k: getattr(stages.profile.alphas, k) for k in ("epochs", "batch_size")}

        def make(folder: Path, scratch: Path) -> None:
            gate = xlora.train_xlora(
                stages.source.model, loras, rows, seed=seed, checkpoints=scratch, **schedule
            )
            gate.save(folder)

        return stages.build("xlora", stages.soup_inputs(loras, rows, seed) | schedule, make)


def rivals() -> list[Method]:
    """LoraHub and X-LoRA, in the table's order."""
    return [
        LoraHub("lorahub@delta", "LoraHub (delta)", reading.SEARCH),
        LoraHub("lorahub@factors", "LoraHub (factors, as released)", reading.SEARCH, on="factors"),
        XLora("xlora", "X-LoRA (mixture of experts)", reading.SEARCH),
    ]
