"""Greedy generation in batches, new tokens only, with a soup folded into the base."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lorasoups.errors import SoupError
from lorasoups.lora.lora import Factors, LoRA
from lorasoups.models import processes


@contextmanager
def folded(model, lora: LoRA | None) -> Iterator:
    """The base with ``lora`` (None: nothing) added to its weights, so that it costs no more.

    The original tensors are put back, without rounding. Raises SoupError as `linear_layer`.
    """
    kept: list[tuple[nn.Module, Tensor]] = []
    try:
        for name, factors in lora.modules.items() if lora else ():
            layer = linear_layer(model, name, factors.shape)
            kept.append((layer, layer.weight.data))
            layer.weight.data = add_delta(layer.weight.data, factors)
        yield model
    finally:
        for layer, weight in kept:
            layer.weight.data = weight


def linear_layer(model, name: str, shape: tuple[int, int], plain: bool = True) -> nn.Module:
    """The linear layer ``name`` of a base, inside PEFT's wrapper if there is one.

    Raises SoupError where there is none, it is not of the LoRA's ``shape`` (out, in), a PEFT
    adapter is merged into it, or it is quantised (``plain``).
    """
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise SoupError(f"the base has no module {name!r}: adapter of another base") from None
    if getattr(module, "merged", False):
        raise SoupError(f"a PEFT adapter is merged into {name!r}; call unmerge_adapter() first")
    layer = getattr(module, "base_layer", module)
    if not hasattr(layer, "in_features"):
        raise SoupError(f"{name!r} is a {type(layer).__name__}: LoRAs adapt linear layers only")
    if plain and not layer.weight.is_floating_point():
        raise SoupError(f"{name!r} is quantised: base model; give the unquantised one")
    if (own := (layer.out_features, layer.in_features)) != shape:
        shapes = f"{own} in the base, {shape} in the adapter"
        raise SoupError(f"{name!r} is {shapes}; the adapter was trained on another base")
    return layer


def add_delta(weight: Tensor, factors: Factors) -> Tensor:
    """A new tensor, weight + delta: added in float32, rounded once to the weight's dtype."""
    return (weight.float() + factors.delta().to(weight.device)).to(weight.dtype)


@torch.no_grad()
def generate(
    model, tokenizer, prompts, max_new_tokens: int = 96, batch_size: int = 256
) -> list[str]:
    """Greedy continuations of ``prompts``, in their order, without special tokens.

    Prompts are sorted by length and left-padded. Several processes share the batches, which are
    those of one process, and all get the same list.

    Args:
        model: causal LM; put into eval mode.
        tokenizer: its tokenizer, with a pad token.
        prompts: texts.
        max_new_tokens: limit per prompt.
        batch_size: prompts per batch; it matters to the result, since padding changes rounding.
    """
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    texts: dict[int, str] = {}
    for chosen in batches[processes.rank() :: processes.size()]:
        batch = tokenizer(
            [prompts[i] for i in chosen], padding=True, padding_side="left", return_tensors="pt"
        ).to(device)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        options = {"do_sample": False, "use_cache": True, "pad_token_id": tokenizer.pad_token_id}
        out = model.generate(**inputs, max_new_tokens=max_new_tokens, **options)
        new = out[:, batch["input_ids"].shape[1] :]
        decoded = tokenizer.batch_decode(new, skip_special_tokens=True)
        texts |= zip(chosen, decoded, strict=True)
    for part in processes.gather(texts):
        texts |= part
    return [texts[i] for i in range(len(prompts))]
