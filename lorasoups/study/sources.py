"""Where a profile's base model and data come from: an embedded world, or real datasets."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lorasoups.models.base import load_base
from lorasoups.models.devices import native_bf16
from lorasoups.study.profile import Profile
from lorasoups.tasks.real.source import RealTasks
from lorasoups.tasks.worlds import mini, pages
from lorasoups.tasks.worlds.mini.tasks import dataset as mini_dataset
from lorasoups.tasks.worlds.pages.tasks import dataset as pages_dataset

WORLDS = {"world": (mini_dataset, mini.VERSION), "pages": (pages_dataset, pages.VERSION)}
"""Generated languages: how their items are drawn, and the version of their generators."""


class WorldTasks:
    """Items and views of an embedded world; as `RealTasks`, but no data files are read."""

    def __init__(self, dataset: Callable[[str, str, int, int], list[dict]]):
        self.items = cache(lambda task, split, n, draw=None: dataset(task, split, n, draw or 0))

    def views(self, task: str, n: int) -> dict[str, np.ndarray]:
        """Masks over the test items of a task: ``all``, and the parts that the items name."""
        names = [item.get("view") for item in self.items(task, "test", n)]
        parts = dict.fromkeys(filter(None, names))
        masks = {part: np.array([name == part for name in names]) for part in parts}
        return {"all": np.ones(len(names), dtype=bool)} | (masks if len(masks) > 1 else {})


@dataclass
class Source:
    """A frozen base model (in eval mode) with its tokenizer and its tasks."""

    model: Any
    tokenizer: Any
    info: dict  # provenance of the base: kind, files, revision, sha256
    name: str  # what adapters and results call the base; no path of this machine
    tasks: WorldTasks | RealTasks
    key: str  # what determines the base's numbers; names artifacts

    def items(self, task: str, split: str, n: int, draw: int | None = None) -> list[dict]:
        """The first ``n`` items ``{prompt, answer, target, ...}`` of a task's split, of a draw."""
        return self.tasks.items(task, split, n, draw)


def dtype_of(profile: Profile) -> str:
    """The dtype of the base's weights on this machine, as `load_base` takes it."""
    gpu = profile.real and torch.cuda.is_available()
    return profile.dtype or ("bfloat16" if gpu and native_bf16("cuda") else "float32")


def open_source(profile: Profile, project: Path) -> Source:
    """Load a profile's base; a relative folder lies in the project.

    A real model goes to the GPU if there is one, in four bits where the profile says so.
    Raises SoupError for a base that is missing, damaged or gated.
    """
    inside, gpu = project / profile.base, profile.real and torch.cuda.is_available()
    dtype = dtype_of(profile)
    # on a CPU torch's fused attention is slow backwards: of small models, and in bfloat16
    plain = not profile.real or (dtype == "bfloat16" and not gpu)
    how = {"attn_implementation": "eager" if plain else None}
    how |= {"dtype": dtype, "four_bit": profile.four_bit} if profile.real else {}
    spec = str(inside) if inside.exists() else profile.base
    model, tokenizer, info = load_base(spec, **how)
    if gpu and not profile.four_bit:  # bitsandbytes has put it where it belongs
        model.to("cuda")
    model.eval().requires_grad_(False)
    if not profile.real:
        tasks = WorldTasks(WORLDS[profile.source][0])
        return Source(model, tokenizer, info, profile.base, tasks, info["sha256"])
    if profile.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    tasks = RealTasks(tokenizer, profile.max_length, profile.template)
    packed = "/nf4" if getattr(model, "is_quantized", False) else ""
    # each dtype rounds differently, and each device
    key = f"{info['sha256']}/{model.dtype}/{model.device.type}{packed}"
    return Source(model, tokenizer, info, info["name"], tasks, key)
