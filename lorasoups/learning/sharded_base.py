"""A base in pieces while something small is trained on it (FSDP), whole again afterwards.

What is trained here (LoRA factors, alphas, a gate) is small and lies on every process; what is
large is the frozen base. So the base alone is cut (torch's ``fully_shard``, one unit per decoder
layer): layers are put together when they are needed and dropped again. It is done to a twin of the
model, because FSDP changes modules for good, and because merging, folding and generation want
whole weights: the original waits in the host's memory, gets the trained numbers, and comes back.

Accelerate's own FSDP would not do: it cuts the very modules that are evaluated next, wants one
dtype per unit (alphas are float32 in a bfloat16 base), and with "RAM efficient loading" leaves all
processes but one without weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial

import torch
from torch import nn

from lorasoups.errors import SoupError
from lorasoups.learning.cat import CatLinear, CatModel


def twin_of(model: nn.Module) -> nn.Module:
    """The same modules with other Parameter objects over the same numbers (no copy of weights).

    Raises:
        SoupError: quantised weights, which are more than their numbers.
    """
    odd = next((p for p in model.parameters() if type(p) is not nn.Parameter), None)
    if odd is not None or any(not p.is_floating_point() for p in model.parameters()):
        raise SoupError(
            "FSDP with a quantised base: it cannot be cut; launch with accelerate/ddp.yaml instead"
        )
    shared = {
        id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in model.parameters()
    }
    twin = deepcopy(model, shared)
    if isinstance(twin, CatModel):  # its layers read their alphas through functions of the original
        for name, row in twin._row.items():
            layer = twin.model.get_submodule(name)
            assert isinstance(layer, CatLinear)
            layer._alphas = partial(twin._alpha, row)
    return twin


def shard(model: nn.Module, layer: str, device: torch.device, checkpointing: bool) -> None:
    """Cut what is frozen over all processes, layer by layer; the rest goes to ``device`` whole.

    Args:
        model: with its frozen parameters anywhere.
        layer: class name of a decoder layer, e.g. ``LlamaDecoderLayer``.
        device: of this process.
        checkpointing: keep each layer's input alone and compute it again for the backward pass.

    Raises:
        SoupError: the model has no such layer.
    """
    from torch.distributed.algorithms._checkpoint import checkpoint_wrapper as checkpoints
    from torch.distributed.fsdp import fully_shard

    layers = [module for module in model.modules() if type(module).__name__ == layer]
    if not layers:
        raise SoupError(f"the model has no layer {layer!r}: fsdp_config; name its decoder layer")
    trained = {p for p in model.parameters() if p.requires_grad}
    for parameter in trained:
        parameter.data = parameter.data.to(device)
    already = any(getattr(own, "gradient_checkpointing", False) for own in layers)
    if checkpointing and (not already or isinstance(model, CatModel)):  # CAT's base is in eval mode
        checkpoints.apply_activation_checkpointing(
            model, check_fn=lambda module: any(module is own for own in layers)
        )
    for module in [*layers, model]:
        fully_shard(module, ignored_params=trained)


@contextmanager
def in_pieces(
    model: nn.Module, layer: str, device: torch.device, checkpointing: bool
) -> Iterator[nn.Module]:
    """A cut twin of ``model`` to train; what is trained is in ``model`` afterwards.

    `bring_back` does the same at any time in between.
    """
    before = next(model.parameters()).device
    model.to("cpu")
    twin = twin_of(model)
    shard(twin, layer, device, checkpointing)
    try:
        yield twin
        bring_back(twin, model)
    finally:
        del twin
        model.to(before)


def bring_back(twin: nn.Module, model: nn.Module) -> None:
    """Copy what is trained from the twin into the original."""
    ours = [p for p in model.parameters() if p.requires_grad]
    theirs = [p for p in twin.parameters() if p.requires_grad]
    for own, trained in zip(ours, theirs, strict=True):
        own.data.copy_(trained.data)
