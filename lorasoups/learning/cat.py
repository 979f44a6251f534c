"""CAT, learnable concatenation: k frozen LoRAs on a frozen base, one alpha per module and LoRA.

    y = W x + sum_i alpha_i s_i B_i A_i x        (paper, "LoRA Soups", arXiv 2410.13025, section 3)

The alphas here are CAT's; LoRA's own ``lora_alpha`` is part of the scale s_i, which a `LoRA` value
holds folded into B. Only the alphas are trained. The k adapters of a module run as one pair of
matmuls: their A stacked to [sum r_i, in], their B to [out, sum r_i], alpha scaling the rank axis.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from lorasoups.errors import SoupError
from lorasoups.lora.linalg import concatenate
from lorasoups.lora.lora import LoRA, module_names
from lorasoups.models.generation import folded, linear_layer

NORMALISE = ("none", "softmax", "sigmoid")
INITS = ("uniform", "ones", "randn")
GRANULARITIES = ("module", "layer", "global")


def start_logits(normalise: str, init: str, groups: int, k: int, seed: int = 0) -> Tensor:
    """The logits theta [groups, k], float32, that an init stands for.

    ``uniform``: every alpha is 1/k. ``ones``: every alpha is 1 (with softmax, 1/k). ``randn``:
    theta is standard normal, drawn with ``seed``.

    Raises SoupError for unknown names, and for ``ones`` with ``sigmoid``, which never reaches 1.
    """
    if normalise not in NORMALISE or init not in INITS:
        what = f"unknown normalise {normalise!r} or init {init!r}"
        raise SoupError(f"{what}: choose from {NORMALISE} and {INITS}")
    if init == "randn":
        return torch.randn(groups, k, generator=torch.Generator().manual_seed(seed))
    start = torch.full((groups, k), 1.0 if init == "ones" else 1.0 / k)
    if normalise == "softmax":
        return torch.zeros_like(start)
    if normalise == "none":
        return start
    if start[0, 0] == 1.0:
        raise SoupError("sigmoid alphas cannot start at 1: init; use init='uniform' with k >= 2")
    return torch.logit(start)


def effective(logits: Tensor, normalise: str) -> Tensor:
    """alpha from theta [..., k]: the identity, a softmax over the LoRAs, or a sigmoid of each."""
    if normalise == "softmax":
        return logits.softmax(-1)
    return logits.sigmoid() if normalise == "sigmoid" else logits


class CatLinear(nn.Module):
    """One adapted linear layer: the wrapped layer, the stacked factors in its compute dtype, and
    which LoRA every column of the rank axis belongs to (``owner_of``)."""

    def __init__(self, layer: nn.Module, A: Tensor, B: Tensor, owner_of: Tensor, alphas):
        super().__init__()
        self.layer = layer
        weight = layer.weight
        quantised = getattr(layer, "compute_dtype", None) or torch.bfloat16  # a Linear4bit's
        kind = weight.dtype if weight.is_floating_point() else quantised
        self.register_buffer("A", A.to(weight.device, kind), persistent=False)
        self.register_buffer("B", B.to(weight.device, kind), persistent=False)
        self.register_buffer("owner_of", owner_of.to(weight.device), persistent=False)
        self._alphas = alphas  # a function, so that this module owns no parameter

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        alpha = self._alphas().to(x.device)
        if self._fusable(x):
            weight, bias = self.layer.weight, self.layer.bias
            return _FrozenCat.apply(x, alpha, weight, bias, self.A, self.B, self.owner_of)
        hidden = F.linear(x.to(self.A.dtype), self.A)
        hidden = (hidden * alpha[self.owner_of]).to(hidden.dtype)
        y = self.layer(x)
        return y + F.linear(hidden, self.B).to(y.dtype)

    def _fusable(self, x: Tensor) -> bool:
        """A bare ``nn.Linear``: not quantised, no autocast, no hook that wants to see its call."""
        layer = self.layer
        return (
            type(layer) is nn.Linear
            and x.dtype == layer.weight.dtype == self.A.dtype
            and not layer.weight.requires_grad
            and not torch.is_autocast_enabled(x.device.type)
            and "forward" not in vars(layer)
            and not (layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)
        )


class _FrozenCat(torch.autograd.Function):
    """``x W' + b + (x A' * alpha) B'`` with gradients for x and alpha alone.

    Everything but x and alpha is frozen, so x itself need not be kept for the backward pass, only
    the narrow ``x A'`` [tokens, sum r_i], and both gradients share the one product ``g B``.
    """

    @staticmethod
    def forward(ctx, x, alpha, weight, bias, A, B, owner_of):
        flat = x.reshape(-1, x.shape[-1])
        hidden = flat @ A.T
        ranks = alpha[owner_of]
        y = F.linear(flat, weight, bias)
        y.addmm_((hidden * ranks).to(y.dtype), B.T)
        ctx.save_for_backward(hidden, ranks, weight, A, B, owner_of)
        ctx.k, ctx.shape = alpha.shape[0], x.shape
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        hidden, ranks, weight, A, B, owner_of = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        inner = grad @ B
        of_x = of_alpha = None
        if ctx.needs_input_grad[1]:
            per_rank = (inner * hidden).sum(0, dtype=ranks.dtype)
            of_alpha = ranks.new_zeros(ctx.k).index_add_(0, owner_of, per_rank)
        if ctx.needs_input_grad[0]:
            of_x = grad @ weight
            of_x.addmm_((inner * ranks).to(grad.dtype), A)
            of_x = of_x.view(ctx.shape)
        return of_x, of_alpha, None, None, None, None, None


class OnBase(nn.Module):
    """Layers of LoRAs in a base, until `remove` or the end of ``with``: it is then what it was.

    Raises SoupError for no LoRA, a module that the model lacks or of another shape, and PEFT
    adapters that are active on ``model``; of those on the LoRAs' modules, only with ``alone``.
    """

    def __init__(self, model: nn.Module, loras: Sequence[LoRA], method: str, alone: bool):
        super().__init__()
        if not loras:
            raise SoupError(f"no LoRA given: {method} needs at least one adapter")
        self.model, self.names = model, module_names(loras)
        parts = ((n, factors.shape) for lora in loras for n, factors in lora.modules.items())
        layers = {name: linear_layer(model, name, shape, plain=False) for name, shape in parts}
        self.layers = {name: layers[name] for name in self.names}
        for name, module in model.named_modules():
            if hasattr(module, "lora_A") and (alone or name not in self.layers):
                raise SoupError(f"another PEFT adapter is active on {name!r}; unload it first")
        self._originals = {name: model.get_submodule(name) for name in self.names}
        self._flags = [(p, "requires_grad", p.requires_grad) for p in model.parameters()]
        self._flags += [(module, "training", module.training) for module in model.modules()]

    def train(self, mode: bool = True) -> "OnBase":
        """Eval mode whatever ``mode`` is: the base's dropout stays off.

        transformers recomputes layers (gradient checkpointing) in training mode only. So they are
        in it, and their parts are not.
        """
        super().train(False)
        for module in self.model.modules():
            if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
                module.training = mode
        return self

    def remove(self) -> None:
        """Put every original layer back, and give parameters and modules their flags back."""
        while self._originals:
            self.model.set_submodule(*self._originals.popitem())
        for where, flag, value in self._flags:
            setattr(where, flag, value)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.remove()


class CatModel(OnBase):
    """k frozen LoRAs on a frozen causal LM; the only trainable tensor is ``logits`` [groups, k].

    Args:
        model: a causal LM with linear layers under the LoRAs' module names (float32, bfloat16, or
            4-bit), plain or the base of a PEFT model, whose own layers step aside. Use ``with``, or
            `remove`, to get it back.
        loras: k >= 1 adapters; ranks may differ, a module that one lacks counts as zero.
        normalise: ``none`` | ``softmax`` | ``sigmoid``: how alphas come from the logits.
        init, seed: where the logits start, see `start_logits`.
        granularity: one row of alphas per ``module``, per ``layer``, or one for all (``global``).

    Raises SoupError for unknown options, and as `OnBase`.
    """

    def __init__(
        self, model: nn.Module, loras: Sequence[LoRA], *, normalise: str = "none",
        init: str = "uniform", seed: int = 0, granularity: str = "module",
    ):  # fmt: skip
        super().__init__(model, loras, "CAT", alone=False)
        if granularity not in GRANULARITIES:
            raise SoupError(f"unknown granularity {granularity!r}: choose from {GRANULARITIES}")
        self.k, self.normalise = len(loras), normalise
        groups = [_group(name, granularity) for name in self.names]
        rows = list(dict.fromkeys(groups))
        self._row = {n: rows.index(group) for n, group in zip(self.names, groups, strict=True)}
        logits = start_logits(normalise, init, len(rows), self.k, seed)
        weight = self.layers[self.names[0]].weight
        double = weight.dtype == torch.float64
        self.logits = nn.Parameter(logits.to(weight.device, torch.float64 if double else None))
        model.requires_grad_(False)
        for name in self.names:
            self._install(name, loras)

    def _install(self, name: str, loras: Sequence[LoRA]) -> None:
        adapting = [(i, lora.modules[name]) for i, lora in enumerate(loras) if name in lora.modules]
        stacked = concatenate([factors for _, factors in adapting], torch.ones(len(adapting)))
        owner_of = torch.cat([torch.full((factors.rank,), i) for i, factors in adapting])

        def alphas() -> Tensor:
            return effective(self.logits[self._row[name]], self.normalise)

        wrapped = CatLinear(self.layers[name], stacked.A, stacked.B, owner_of, alphas)
        self.model.set_submodule(name, wrapped)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, attention_mask=None):
        """The model's own output; right-padded batches need no mask."""
        batch = {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}
        return self.model(**batch, use_cache=False)

    def weights(self) -> dict[str, Tensor]:
        """Effective alphas per module: float32 [k], detached, on the CPU; also after `remove`."""
        alphas = effective(self.logits.detach(), self.normalise).float().cpu()
        return {name: alphas[row].clone() for name, row in self._row.items()}

    def _apply(self, fn, recurse: bool = True):
        """Moves go to model and alphas; a cast goes to the model alone (alphas stay float32)."""
        self.model._apply(fn)
        self.logits.data = self.logits.data.to(fn(self.logits.detach()).device)
        return self


def _group(name: str, granularity: str) -> str:
    if granularity == "module":
        return name
    layer = re.search(r"\.(\d+)\.", name)
    return f"layer {layer[1]}" if granularity == "layer" and layer else "all"


@contextmanager
def attached(model, lora: LoRA | None) -> Iterator:
    """The base with ``lora`` computed beside its layers, quantised or not; None: the base alone.

    Raises SoupError as `OnBase`.
    """
    with nullcontext() if lora is None else CatModel(model, [lora], init="ones"):
        yield model


def applied(model, lora: LoRA | None):
    """The base with ``lora``: folded into its weights where they are plain numbers, else beside."""
    return (attached if getattr(model, "is_quantized", False) else folded)(model, lora)
