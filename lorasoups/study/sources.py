"""Where a profile's base model and data come from: an embedded world, or real datasets."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download

from lorasoups.errors import SoupError
from lorasoups.lora.adapters import load_lora
from lorasoups.lora.lora import LoRA
from lorasoups.models.base import load_base
from lorasoups.models.devices import hardware_bf16
from lorasoups.models.hub_errors import explain_hub_error
from lorasoups.study.profile import Profile
from lorasoups.tasks.real.source import RealTasks
from lorasoups.tasks.worlds import mini, pages
from lorasoups.tasks.worlds.mini.tasks import dataset as mini_dataset
from lorasoups.tasks.worlds.pages.tasks import dataset as pages_dataset

WORLDS = {"world": (mini_dataset, mini.VERSION), "pages": (pages_dataset, pages.VERSION)}
"""Generated languages: how their items are drawn, and the version of their generators."""


@dataclass
class Source:
    """A frozen base model with its tokenizer and a way to get a task's items.

    Attributes:
        model, tokenizer: of the base; the model is in eval mode and needs no gradients.
        info: provenance of the base (kind, files, revision, sha256).
        name: what adapters and results call the base; no path of this machine.
        dataset: draws items of the embedded world the base belongs to (None for real data).
    """

    model: Any
    tokenizer: Any
    info: dict
    name: str
    dataset: Callable[[str, str, int, int], list[dict]] | None = mini_dataset
    _drawn: dict[tuple, list[dict]] = field(default_factory=dict, repr=False)

    @property
    def sha256(self) -> str:
        """Of what the base is made of (weights and tokenizer)."""
        return self.info["sha256"]

    @property
    def key(self) -> str:
        """What determines the base's numbers: names artifacts."""
        return self.sha256

    def items(self, task: str, split: str, n: int) -> list[dict]:
        """``n`` items ``{prompt, answer, target}`` of the embedded world."""
        if (task, split, n) not in self._drawn:
            self._drawn[task, split, n] = self.dataset(task, split, n, 0)
        return self._drawn[task, split, n]

    def views(self, task: str, n: int) -> dict[str, np.ndarray]:
        """Masks over the test items of a task: ``all``, and the parts that the items name."""
        names = [item.get("view") for item in self.items(task, "test", n)]
        parts = dict.fromkeys(name for name in names if name)
        masks = {part: np.array([name == part for name in names]) for part in parts}
        return {"all": np.ones(len(names), dtype=bool)} | (masks if len(masks) > 1 else {})

    def data(self) -> list[dict]:
        """Provenance of the data files that were read; the embedded worlds have none."""
        return []

    def decontamination(self, n_train: dict[str, int], n_test: dict[str, int]) -> dict:
        """What training and test share; {} for embedded worlds, which are disjoint by design."""
        return {}


@dataclass
class RealSource(Source):
    """A pretrained model and real datasets, from the Hub or a mirror."""

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
    if not profile.real:
        model, tokenizer, info = load_base(spec, attn_implementation="eager")
        model.eval().requires_grad_(False)
        return Source(model, tokenizer, info, profile.base, WORLDS[profile.source][0])
    gpu = torch.cuda.is_available()
    dtype = "bfloat16" if gpu and hardware_bf16("cuda") else "float32"
    model, tokenizer, info = load_base(spec, dtype=dtype, four_bit=profile.four_bit)
    if not profile.four_bit:  # bitsandbytes has put it where it belongs
        model.to("cuda" if gpu else "cpu")
    model.eval().requires_grad_(False)
    if profile.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    tasks = RealTasks(tokenizer, profile.max_length, profile.template)
    return RealSource(model, tokenizer, info, info["name"], None, tasks=tasks)


def load_skill(place: str, source: Source) -> LoRA:
    """A skill LoRA that somebody else has trained, checked against the base.

    Args:
        place: a PEFT folder, or a Hub id ``organisation/name``, optionally ``@revision``.
        source: the base it must fit.

    Raises:
        SoupError: nothing there; it was trained on another base, or does not fit its modules.
    """
    name, _, revision = place.partition("@")
    folder = Path(place)
    if not folder.is_dir():
        try:
            files = ["adapter_config.json", "adapter_model.safetensors"]
            folder = snapshot_download(name, revision=revision or None, allow_patterns=files)
        except Exception as error:
            instead = "give the folder of a PEFT adapter"
            raise explain_hub_error(error, f"skill LoRA {place}", instead) from error
    lora = load_lora(folder)
    bases = [Path(base).name.lower() for base in (lora.base_model, source.name)]
    if bases[0] and bases[0] != bases[1]:
        raise SoupError(
            f"trained on {lora.base_model}, the study's base is {source.name}: skill LoRA {place}; "
            "if they are the same, correct base_model_name_or_path in its adapter_config.json"
        )
    layers = dict(source.model.named_modules())
    for module, factors in lora.modules.items():
        layer = layers.get(module)
        shape = (getattr(layer, "out_features", None), getattr(layer, "in_features", None))
        if shape != tuple(factors.shape):
            found = "not there" if layer is None else f"{shape[0]} x {shape[1]}"
            raise SoupError(
                f"does not fit the base: skill LoRA {place}, module {module!r} is {found} in "
                f"{source.name}, {factors.shape[0]} x {factors.shape[1]} in the adapter"
            )
    return lora
