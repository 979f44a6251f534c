"""Rivals that search or learn something else than alphas: LoraHub and X-LoRA."""

import json
from pathlib import Path

from lorasoups.files import write_json_atomic
from lorasoups.learning import lorahub, xlora
from lorasoups.lora.adapters import load_lora, save_lora
from lorasoups.lora.lora import LoRA
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
        loras, rows = stages.loras(seed), stages.alpha_rows(seed)
        how = {"on": self.on, "budget": stages.profile.budget}

        def make(folder: Path, scratch: Path) -> None:
            best = lorahub.lorahub(stages.source.model, loras, rows, seed=seed, **how)
            save_lora(best.lora, folder / "adapter")
            search = {"weights": best.weights, "history": best.history}
            write_json_atomic(folder / "search.json", search)

        return stages.build("lorahub", stages.soup_inputs(loras, rows, seed) | how, make)


class XLora(Method):
    """A mixture of the skills' LoRAs, token by token, by a trained gate."""

    def answers(self, stages: Stages, task: str, seed: int) -> list[dict]:
        model, loras, folder = stages.source.model, stages.loras(seed), self._gate(stages, seed)
        gate, more = xlora.XLora.load(folder), {"mixture": folder.name}
        return stages.answers(task, None, lambda: xlora.mixed(model, loras, gate), more=more)

    def _gate(self, stages: Stages, seed: int) -> Path:
        loras, rows = stages.loras(seed), stages.alpha_rows(seed)
        how = {k: getattr(stages.profile.alphas, k) for k in ("epochs", "batch_size")}

        def make(folder: Path, scratch: Path) -> None:
            run = {"seed": seed, "checkpoints": scratch}
            xlora.train_xlora(stages.source.model, loras, rows, **run, **how).save(folder)

        return stages.build("xlora", stages.soup_inputs(loras, rows, seed) | how, make)
