"""Merge LoRA adapters into one: CAT ("LoRA Soups", arXiv 2410.13025) and the static methods."""

import warnings
from importlib import import_module
from typing import Any

# tqdm's, when transformers is imported in a notebook; our bars are text on purpose
warnings.filterwarnings("ignore", message="IProgress not found")

__version__ = "0.2.0"
__all__ = ["METHODS", "learn_alphas", "load_lora", "merge", "save_lora"]  # noqa: F822
_HOME = {  # imported when first used, so that `import lorasoups` is quick
    "METHODS": "lorasoups.lora.methods",
    "learn_alphas": "lorasoups.learning.alphas",
    "load_lora": "lorasoups.lora.adapters",
    "merge": "lorasoups.lora.merging",
    "save_lora": "lorasoups.lora.adapters",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
