"""Where a profile's base model and data come from: the embedded world, or the Hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lorasoups.base_models import load_base
from lorasoups.profiles import Profile
from lorasoups.world.tasks import dataset


@dataclass
class Source:
    """A frozen base model with its tokenizer and a way to get a task's items.

    Attributes:
        model, tokenizer: of the base; the model is in eval mode and needs no gradients.
        sha256: of what the base is made of (weights and tokenizer).
        info: provenance of the base (kind, files, revision).
    """

    model: Any
    tokenizer: Any
    sha256: str
    info: dict

    def items(self, task: str, split: str, n: int) -> list[dict]:
        """``n`` items ``{prompt, answer, target}`` of the embedded world."""
        return dataset(task, split, n, seed=0)

    def views(self, task: str, n: int) -> dict[str, np.ndarray]:
        """Masks over the ``n`` test items of a task; the embedded world has only ``all``."""
        return {"all": np.ones(n, dtype=bool)}


def open_source(profile: Profile, project: Path) -> Source:
    """Load a profile's base; a relative folder lies in the project.

    Raises:
        SoupError: the base is missing, damaged, or not to be had offline.
    """
    inside = project / profile.base
    spec = str(inside) if inside.exists() else profile.base
    model, tokenizer, info = load_base(spec, attn_implementation="eager")
    model.eval().requires_grad_(False)
    return Source(model, tokenizer, info["sha256"], info)
