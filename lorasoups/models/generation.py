"""Greedy generation in batches, new tokens only, with a soup folded into the base."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from lorasoups.errors import SoupError
from lorasoups.lora.lora import Factors, LoRA
from lorasoups.models import processes

READ_TOKENS = {"cpu": 2048, "gpu": 65536}  # of prompts that are read at once
KEEP_FROM = 0.75  # rows are dropped once fewer than this share go on
SHARED_FROM = 32  # so many tokens that all prompts begin with (demonstrations) are read only once


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


@contextmanager
def watched(layers: Iterable[tuple[nn.Module, Callable[[Tensor], None]]]) -> Iterator[None]:
    """Meanwhile each layer's own function is shown what goes into the layer."""
    with ExitStack() as hooks:
        for layer, see in layers:
            hook = layer.register_forward_pre_hook(lambda _, inputs, see=see: see(inputs[0]))
            hooks.enter_context(hook)
        yield


def read_rows(model, rows: Sequence[dict]) -> None:
    """Compute the model on encoded rows, one by one, for those who watch its layers."""
    for row in rows:
        model(input_ids=torch.tensor([row["input_ids"]], device=model.device), use_cache=False)


def add_delta(weight: Tensor, factors: Factors) -> Tensor:
    """A new tensor, weight + delta: added in float32, rounded once to the weight's dtype."""
    return (weight.float() + factors.delta().to(weight.device)).to(weight.dtype)


@torch.no_grad()
def generate(
    model, tokenizer, prompts, max_new_tokens: int = 96, batch_size: int = 256
) -> list[str]:
    """Greedy continuations of ``prompts``, in their order, without special tokens.

    Prompts are sorted by length; ``batch_size`` of them are continued together, which bounds the
    memory. Several processes share the batches, which are those of one process, and all get the
    same list. The model is put into eval mode. Raises SoupError for one that does not keep keys and
    values of every token (state space, linear attention).
    """
    model.eval()
    prompt_ids = tokenizer(list(prompts)).input_ids if prompts else []
    order = sorted(range(len(prompts)), key=lambda i: len(prompt_ids[i]))
    batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    texts: dict[int, str] = {}
    for chosen in batches[processes.rank() :: processes.size()]:
        new = _continued(model, [prompt_ids[i] for i in chosen], max_new_tokens)
        texts |= zip(chosen, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True)
    for part in processes.gather(texts):
        texts |= part
    return [texts[i] for i in range(len(prompts))]


def _continued(model, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
    """Token ids that greedily follow ``prompts`` (sorted by length), each to its end token.

    Prompts are read a few at a time, as a large batch leaves the processor's cache and is padded
    to its longest; then all go on together, and those that have ended are dropped now and then.
    """
    ends = model.generation_config.eos_token_id
    ends = torch.tensor(ends if ends is not None else [], device=model.device)
    shared = len(os.path.commonprefix([p[:-1] for p in prompts]))
    shared = shared if shared >= SHARED_FROM and len(prompts) > 1 else 0
    cache, token = _read(model, prompts, shared, max_new_tokens)
    longest, lengths = len(prompts[-1]), torch.tensor([len(p) for p in prompts])
    rows, position = torch.arange(len(prompts)), lengths[:, None].to(model.device)
    column = torch.arange(longest + max_new_tokens)  # what is shared, a gap, the rest of each
    mask = (column < shared) | (column >= (longest + shared - lengths)[:, None])
    mask = mask.long().to(model.device)
    new: list[list[int]] = [[] for _ in prompts]
    going = torch.ones_like(token, dtype=torch.bool)
    for step in range(1, max_new_tokens + 1):
        for row, value in zip(rows[going.cpu()].tolist(), token[going].tolist(), strict=True):
            new[row].append(value)
        going &= ~torch.isin(token, ends)
        if step == max_new_tokens or not going.any():
            break
        if going.float().mean() < KEEP_FROM:
            for layer in cache.layers:
                layer.keep(going)
            rows = rows[going.cpu()]
            position, token, mask = (each[going] for each in (position, token, mask))
            going = going[going]
        seen = {"attention_mask": mask[:, : longest + step], "position_ids": position}
        out = model(input_ids=token[:, None], past_key_values=cache, use_cache=True, **seen)
        token, position = out.logits[:, -1].argmax(-1), position + 1
    return new


def _read(model, prompts: list[list[int]], shared: int, room: int) -> tuple[Cache, Tensor]:
    """Keys and values of ``prompts``, with room for more tokens; the first new token of each. All
    prompts begin with the same ``shared`` tokens, which are read once."""
    longest, first, layers = len(prompts[-1]), [], []
    budget = READ_TOKENS["cpu" if model.device.type == "cpu" else "gpu"]

    def last_only(width: int) -> dict[str, Tensor]:
        """The last place alone, as an index: of a slice torch would copy the head for every row."""
        place = torch.tensor([width - 1], device=model.device)
        return {"logits_to_keep": place} if model._supports_logits_to_keep() else {}

    begun = DynamicCache()
    if shared:
        start = torch.tensor([prompts[0][:shared]], device=model.device)
        model(start, past_key_values=begun, use_cache=True, **last_only(shared))
    rests = [prompt[shared:] for prompt in prompts]
    start = 0
    while start < len(rests):
        end = start + 1
        while end < len(rests) and (end + 1 - start) * len(rests[end]) <= budget:
            end += 1
        width = len(rests[end - 1])
        padded = torch.zeros(2, end - start, width, dtype=torch.long)
        for row, ids in zip(padded.unbind(1), rests[start:end], strict=True):
            row[:, width - len(ids) :] = torch.tensor([ids, [1] * len(ids)])
        input_ids, mask = padded.to(model.device)
        position = (mask.cumsum(1) - 1).clamp(min=0) + shared
        seen = {"attention_mask": F.pad(mask, (shared, 0), value=1), "position_ids": position}
        cache = DynamicCache()
        for at, layer in enumerate(begun.layers):
            parts = (t.expand(end - start, -1, -1, -1) for t in (layer.keys, layer.values))
            cache.update(*parts, at)
        out = model(input_ids, past_key_values=cache, use_cache=True, **seen, **last_only(width))
        first.append(out.logits[:, -1].argmax(-1))
        if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
            what = "keeps no keys and values of every token"
            raise SoupError(f"{what}: {type(model).__name__}; give a base with plain attention")
        layers = layers or [_Roomy(like, len(prompts), longest + room) for like in cache.layers]
        for layer, read in zip(layers, cache.layers, strict=True):
            layer.fill(read, slice(start, end), shared, longest)
        start = end
    return Cache(layers=layers), torch.cat(first)


class _Roomy(DynamicLayer):
    """Keys and values of one layer in buffers [rows, heads, tokens, d] that need not grow."""

    def __init__(self, like: DynamicLayer, rows: int, room: int):
        super().__init__()
        pair = (like.keys, like.values)
        self.lazy_initialization(*pair)
        self.buffers = [t.new_zeros(rows, t.shape[1], room, t.shape[3]) for t in pair]

    def fill(self, read: DynamicLayer, rows: slice, shared: int, length: int) -> None:
        """Put in what was read of some rows: ``shared`` tokens, and the rest up to ``length``."""
        for buffer, part in zip(self.buffers, (read.keys, read.values), strict=True):
            buffer[rows, :, :shared] = part[:, :, :shared]
            buffer[rows, :, length - part.shape[2] + shared : length] = part[:, :, shared:]
        self._show(length)

    def keep(self, rows: Tensor) -> None:
        """Drop the other rows (bool [rows])."""
        self.buffers = [buffer[rows] for buffer in self.buffers]
        self._show(self.length)

    def update(self, key_states: Tensor, value_states: Tensor, *_, **__) -> tuple[Tensor, Tensor]:
        """Write behind what is there; returns views of all."""
        start = self.length
        self._show(start + key_states.shape[2])
        self.keys[:, :, start:], self.values[:, :, start:] = key_states, value_states
        return self.keys, self.values

    def _show(self, length: int) -> None:
        self.length = length
        self.keys, self.values = (buffer[:, :, :length] for buffer in self.buffers)
