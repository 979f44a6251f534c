"""A LoRA beside the base's layers, for bases whose weights cannot take a sum (four bits)."""

from collections.abc import Iterator
from contextlib import contextmanager

from lorasoups.learning.cat import CatModel
from lorasoups.lora.lora import LoRA
from lorasoups.models.generation import folded


@contextmanager
def attached(model, lora: LoRA | None) -> Iterator:
    """The base with ``lora`` computed beside its layers: two narrow products more per module.

    Args:
        model: a causal LM, its linear layers quantised or not.
        lora: an adapter value; None leaves the base as it is.

    Raises:
        SoupError: a module that the model does not have, or of another shape.
    """
    if lora is None:
        yield model
        return
    with CatModel(model, [lora], normalise="none", init="ones"):
        yield model


def applied(model, lora: LoRA | None):
    """The base with ``lora``: folded into its weights where they are plain numbers, else beside."""
    return (attached if getattr(model, "is_quantized", False) else folded)(model, lora)
