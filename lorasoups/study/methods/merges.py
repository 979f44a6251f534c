"""Soups: the skills' LoRAs merged with learned, random or constant alphas, and static merges."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from lorasoups.files import write_json_atomic
from lorasoups.lora import methods
from lorasoups.lora.lora import LoRA, lora_digest
from lorasoups.lora.merging import merge
from lorasoups.results import reading
from lorasoups.study.methods.base import Method
from lorasoups.study.stages import Stages


@dataclass(frozen=True)
class Cat(Method):
    """CAT with learned alphas; ``preset`` says how they are learned (see `Stages.alphas`)."""

    preset: str = "ours"

    def adapter(self, stages: Stages, seed: int) -> LoRA:
        return merge(stages.loras(seed), "cat", weights=stages.alphas(seed, self.preset))


class RandomCat(Method):
    """CAT with random alphas."""

    def adapter(self, stages: Stages, seed: int) -> LoRA:
        loras = stages.loras(seed)
        return merge(loras, "cat", weights=random_alphas(loras, seed))


def random_alphas(loras: Sequence[LoRA], seed: int) -> dict[str, list[float]]:
    """Per module the softmax of standard normal numbers: where the released schedule starts."""
    drawn, names = torch.Generator().manual_seed(seed), {m for lora in loras for m in lora.modules}
    return {m: torch.randn(len(loras), generator=drawn).softmax(0).tolist() for m in sorted(names)}


@dataclass(frozen=True)
class Static(Method):
    """A merge method with one weight for all LoRAs: 1/k (None), or 1.0 as the released script."""

    merge_method: str = ""

    def adapter(self, stages: Stages, seed: int) -> LoRA:
        """The merge, which is remembered until another one is asked for."""
        loras, how = stages.loras(seed), self._options(stages, seed) | {"on": self.on}
        weights = self.weight and [self.weight] * len(loras)
        merged = partial(merge, loras, self.merge_method, weights=weights, **how)
        return stages.latest((self.name, seed), merged)

    def _options(self, stages: Stages, seed: int) -> dict:
        given = {"density": stages.profile.density, "seed": seed}
        if self.merge_method == "knots":  # keeps all, as its official code does
            del given["density"]
        taken = methods.METHODS[self.merge_method].options
        return {option: value for option, value in given.items() if option in taken}

    def answers(self, stages: Stages, task: str, seed: int) -> list[dict]:
        """Verdicts; the merge's digest is stored, so that a second run need not merge."""
        digests = [lora_digest(lora) for lora in stages.loras(seed)]
        inputs = {"loras": digests, "method": self.merge_method, "on": self.on,
                  "weight": self.weight, "options": self._options(stages, seed)}  # fmt: skip

        def make(folder: Path, scratch: Path) -> None:
            digest = lora_digest(self.adapter(stages, seed))
            write_json_atomic(folder / "digest.json", {"sha256": digest})

        stored = stages.build("merge", inputs, make) / "digest.json"
        digest = json.loads(stored.read_text())["sha256"]
        return stages.answers(task, digest, lambda: stages.with_adapter(self.adapter(stages, seed)))


def static() -> list[Method]:
    """Every registered merge method: on deltas and factors, weights 1/k and 1.0.

    The exact sum ``cat`` is left out: with these weights it is ``linear`` on deltas.
    """
    registered = [m for m in methods.METHODS.values() if m.name != "cat"]
    registered.sort(key=lambda method: len(method.on) == 1)  # those for both come first
    return [
        Static(
            name=f"{method.name}@{on}" + ("/w1" if weight else ""),
            label=f"{method.name} ({on}, {'1.0' if weight else '1/k'})",
            group=reading.STATIC,
            main=method.name == "linear" and on == "delta",
            on=on,
            weight=weight,
            merge_method=method.name,
        )
        for method in registered
        for on in method.on
        for weight in (None, 1.0)
    ]
