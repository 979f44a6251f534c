"""Where a profile's base model and data come from: an embedded world, or real datasets."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lorasoups.models.base import load_base
from lorasoups.models.devices import hardware_bf16
from lorasoups.study.profiles import Profile
from lorasoups.tasks.real.source import RealTasks
from lorasoups.tasks.worlds import mini as world
from lorasoups.tasks.worlds import pages
from lorasoups.tasks.worlds.mini.tasks import dataset as world_dataset
from lorasoups.tasks.worlds.pages.tasks import dataset as pages_dataset

WORLDS = {"world": (world_dataset, world.VERSION), "pages": (pages_dataset, pages.VERSION)}
"""Generated languages: how their items are drawn, and the version of their generators."""


@dataclass
class Source:
    """A frozen base model with its tokenizer and a way to get a task's items.

    Attributes:
        model, tokenizer: of the base; the model is in eval mode and needs no gradients.
        sha256: of what the base is made of (weights and tokenizer).
        info: provenance of the base (kind, files, revision).
        name: what adapters and results call the base; no path of this machine.
        dataset: draws items of the embedded world the base belongs to (None for real data).
    """

    model: Any
    tokenizer: Any
    sha256: str
    info: dict
    name: str
    dataset: Callable[[str, str, int, int], list[dict]] | None = world_dataset
    _drawn: dict[tuple, list[dict]] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> str:
        """What determines the base's numbers: names artifacts."""
        return self.sha256

    def items(self, task: str, split: str, n: int) -> list[dict]:
        """``n`` items ``{prompt, answer, target}`` of the embedded world."""
        name = (task, split, n)
        if name not in self._drawn:
            self._drawn[name] = self.dataset(*name, 0)
        return self._drawn[name]

    def views(self, task: str, n: int) -> dict[str, np.ndarray]:
        """Masks over the test items of a task: ``all``, and the parts that the items name."""
        names = [item.get("view") for item in self.items(task, "test", n)]
        parts = dict.fromkeys(name for name in names if name)
        masks = {name: np.array([own == name for own in names]) for name in parts}
        return {"all": np.ones(len(names), dtype=bool)} | (masks if len(masks) > 1 else {})

    def data(self) -> list[dict]:
        """Provenance of the data files that were read; the embedded worlds have none."""
        return []

    def decontamination(self, n_train: dict[str, int], n_test: dict[str, int]) -> dict:
        """What training and test share; {} for embedded worlds, which are disjoint by design."""
        return {}


@dataclass
class RealSource(Source):
    """A pretrained model and real datasets, from the Hub or a mirror (see `hub`)."""

    tasks: RealTasks | None = None

    @property
    def key(self) -> str:
        """The base, and what it computes in: bfloat16 on a GPU rounds differently."""
        packed = "/nf4" if getattr(self.model, "is_quantized", False) else ""
        return f"{self.sha256}/{self.model.dtype}/{self.model.device.type}{packed}"

    def items(self, task: str, split: str, n: int) -> list[dict]:
        """The first ``n`` items ``{prompt, answer, target, id}`` of a task's split."""
        return self.tasks.items(task, split, n)

    def views(self, task: str, n: int) -> dict[str, np.ndarray]:
        """Masks over the first ``n`` test items; GSM-Hard has three (see `gsm_hard`)."""
        return self.tasks.views(task, n)

    def data(self) -> list[dict]:
        """Provenance of the data files that were read, each with its note (a stand-in, a part)."""
        return self.tasks.data()

    def decontamination(self, n_train: dict[str, int], n_test: dict[str, int]) -> dict:
        """N-grams that training and test items share (see `decontamination.report`)."""
        return self.tasks.decontamination(n_train, n_test)


def open_source(profile: Profile, project: Path) -> Source:
    """Load a profile's base; a relative folder lies in the project.

    A real model goes to the GPU if there is one, in bfloat16 where that is native there, in four
    bits where the profile says so.

    Raises:
        SoupError: the base is missing, damaged, not to be had offline, or gated.
    """
    inside = project / profile.base
    spec = str(inside) if inside.exists() else profile.base
    if profile.source in WORLDS:
        model, tokenizer, info = load_base(spec, attn_implementation="eager")
        model.eval().requires_grad_(False)
        draw = WORLDS[profile.source][0]
        return Source(model, tokenizer, info["sha256"], info, profile.base, draw)
    gpu = torch.cuda.is_available()
    dtype = "bfloat16" if gpu and hardware_bf16("cuda") else "float32"
    model, tokenizer, info = load_base(spec, dtype=dtype, four_bit=profile.four_bit)
    if not profile.four_bit:  # bitsandbytes has put it where it belongs
        model.to("cuda" if gpu else "cpu")
    model.eval().requires_grad_(False)
    if profile.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    tasks = RealTasks(tokenizer, profile.max_length, profile.template)
    return RealSource(model, tokenizer, info["sha256"], info, info["name"], None, tasks=tasks)
