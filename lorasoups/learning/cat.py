"""CAT, learnable concatenation: k frozen LoRAs on a frozen base, one alpha per module and LoRA.

    y = W x + sum_i alpha_i s_i B_i A_i x        (paper, "LoRA Soups", arXiv 2410.13025, section 3)

The alphas here are CAT's; LoRA's own ``lora_alpha`` is part of the scale s_i, which a `LoRA` value
holds folded into B. Only the alphas are trained. The k adapters of a module run as one pair of
matmuls: their A stacked to [sum r_i, in], their B to [out, sum r_i], alpha scaling the rank axis.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from lorasoups.errors import SoupError
from lorasoups.lora.adapters import from_peft
from lorasoups.lora.linalg import concatenate
from lorasoups.lora.lora import LoRA, module_names
from lorasoups.models.generation import folded

NORMALISE = ("none", "softmax", "sigmoid")
INITS = ("uniform", "ones", "randn")
GRANULARITIES = ("module", "layer", "global")


def start_logits(normalise: str, init: str, groups: int, k: int, seed: int = 0) -> Tensor:
    """The logits theta [groups, k], float32, that an init stands for.

    ``uniform``: every alpha is 1/k. ``ones``: every alpha is 1 (with softmax, which has no such
    point, 1/k). ``randn``: theta is standard normal, drawn with ``seed``. A sigmoid never reaches
    1, so that ``sigmoid`` from ``ones`` raises SoupError, as unknown names do.
    """
    if normalise not in NORMALISE or init not in INITS:
        raise SoupError(
            f"unknown normalise {normalise!r} or init {init!r}: choose from {NORMALISE} and {INITS}"
        )
    if init == "randn":
        return torch.randn(groups, k, generator=torch.Generator().manual_seed(seed))
    if normalise == "softmax":
        return torch.zeros(groups, k)
    start = 1.0 if init == "ones" else 1.0 / k
    if normalise == "none":
        return torch.full((groups, k), start)
    if start == 1.0:
        raise SoupError("sigmoid alphas cannot start at 1: init; use init='uniform' with k >= 2")
    return torch.logit(torch.full((groups, k), start))


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
            and not layer._forward_hooks
            and not layer._forward_pre_hooks
            and not layer._backward_hooks
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


class CatModel(nn.Module):
    """k frozen LoRAs on a frozen causal LM; the only trainable tensor is ``logits`` [groups, k].

    Use it as a context manager, or call `remove`: the model is then what it was, bit for bit.

    Args:
        model: a causal LM with linear layers under the LoRAs' module names (float32, bfloat16, or
            4-bit), plain or the base of a PEFT model.
        loras: k >= 1 adapters; ranks may differ, a module that one lacks counts as zero.
        normalise: ``none`` | ``softmax`` | ``sigmoid``: how alphas come from the logits.
        init, seed: where the logits start, see `start_logits`.
        granularity: one row of alphas per ``module``, per ``layer``, or one for all (``global``).

    Raises:
        SoupError: no LoRA, unknown options, a module that the model lacks or of another shape.
    """

    def __init__(
        self,
        model: nn.Module,
        loras: Sequence[LoRA],
        *,
        normalise: str = "none",
        init: str = "uniform",
        seed: int = 0,
        granularity: str = "module",
    ):
        super().__init__()
        if not loras:
            raise SoupError("no LoRA given: CAT needs at least one adapter")
        if granularity not in GRANULARITIES:
            raise SoupError(f"unknown granularity {granularity!r}: choose from {GRANULARITIES}")
        self.k, self.normalise = len(loras), normalise
        self.names = module_names(loras)
        groups = [_group(name, granularity) for name in self.names]
        rows = {group: i for i, group in enumerate(dict.fromkeys(groups))}
        self._row = {name: rows[group] for name, group in zip(self.names, groups, strict=True)}
        logits = start_logits(normalise, init, len(rows), self.k, seed)
        layers = {name: linear_layer(model, name, loras) for name in self.names}
        weight = next(iter(layers.values())).weight
        double = weight.dtype == torch.float64
        self.logits = nn.Parameter(logits.to(weight.device, torch.float64 if double else None))
        self.model = model
        self._restore = flags_of(model)
        self._replaced: list[tuple[nn.Module, str, nn.Module]] = []
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for name, layer in layers.items():
            self._install(name, layer, loras)
        active = [n for n, m in model.named_modules() if hasattr(m, "lora_A")]
        if active:
            self.remove()
            raise SoupError(f"another PEFT adapter is active on {active[0]!r}; unload it first")

    @classmethod
    def from_peft(cls, peft_model, adapters: Sequence[str], **options) -> "CatModel":
        """Wrap a live ``PeftModel``: its named adapters become the k LoRAs, in this order.

        PEFT's own layers step aside until `remove`, and with them LoRA dropout.
        """
        loras = [from_peft(peft_model, name) for name in adapters]
        return cls(peft_model.get_base_model(), loras, **options)

    def _install(self, name: str, layer: nn.Module, loras: Sequence[LoRA]) -> None:
        adapting = [(i, lora.modules[name]) for i, lora in enumerate(loras) if name in lora.modules]
        stacked = concatenate([factors for _, factors in adapting], torch.ones(len(adapting)))
        owner_of = torch.cat([torch.full((factors.rank,), i) for i, factors in adapting])
        row = self._row[name]
        wrapped = CatLinear(layer, stacked.A, stacked.B, owner_of, lambda: self._alpha(row))
        parent = self.model.get_submodule(name.rpartition(".")[0])
        child = name.rpartition(".")[2]
        self._replaced.append((parent, child, getattr(parent, child)))
        setattr(parent, child, wrapped)

    def _alpha(self, row: int) -> Tensor:
        return effective(self.logits[row], self.normalise)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, attention_mask=None):
        """The model's own output; right-padded batches need no mask."""
        batch = {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}
        return self.model(**batch, use_cache=False)

    def train(self, mode: bool = True) -> "CatModel":
        """Eval mode whatever ``mode`` is: the base's dropout stays off, see `recompute`."""
        super().train(False)
        recompute(self.model, mode)
        return self

    def weights(self) -> dict[str, Tensor]:
        """Effective alphas per module: float32 [k], detached, on the CPU."""
        alphas = effective(self.logits.detach(), self.normalise).float().cpu()
        return {name: alphas[row].clone() for name, row in self._row.items()}

    def remove(self) -> None:
        """Put every original layer back; the alphas stay readable."""
        while self._replaced:
            parent, child, original = self._replaced.pop()
            setattr(parent, child, original)
        self._restore()

    def __enter__(self) -> "CatModel":
        return self

    def __exit__(self, *_) -> None:
        self.remove()

    def _apply(self, fn, recurse: bool = True):
        """Moves go to model and alphas; a cast goes to the model alone (alphas stay float32)."""
        self.model._apply(fn)
        device = fn(self.logits.detach()).device
        self.logits.data = self.logits.data.to(device)
        return self


def _group(name: str, granularity: str) -> str:
    if granularity == "module":
        return name
    layer = re.search(r"\.(\d+)\.", name)
    return f"layer {layer[1]}" if granularity == "layer" and layer else "all"


def linear_layer(model: nn.Module, name: str, loras: Sequence[LoRA]) -> nn.Module:
    """The plain linear layer under ``name``, inside PEFT's wrapper if there is one.

    Raises SoupError where there is none, or none of the LoRAs' shape.
    """
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise SoupError(f"the model has no module {name!r}: LoRA of another base") from None
    if getattr(module, "merged", False):
        raise SoupError(f"a PEFT adapter is merged into {name!r}; call unmerge_adapter() first")
    layer = getattr(module, "base_layer", module)
    if not hasattr(layer, "in_features"):
        raise SoupError(f"{name!r} is a {type(layer).__name__}: LoRAs adapt linear layers only")
    shape = (layer.out_features, layer.in_features)
    shapes = {lora.modules[name].shape for lora in loras if name in lora.modules}
    if shapes - {shape}:
        raise SoupError(
            f"{name!r} is {shape} in the model but {(shapes - {shape}).pop()} in the LoRA; "
            "it was trained on another base"
        )
    return layer


def flags_of(model: nn.Module) -> Callable[[], None]:
    """A function that gives parameters ``requires_grad`` and modules their mode back."""
    frozen = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]

    def restore() -> None:
        for parameter, required in frozen:
            parameter.requires_grad_(required)
        for module, training in modes:
            module.training = training

    return restore


def recompute(model: nn.Module, training: bool) -> None:
    """Let gradient checkpointing work although everything is in eval mode.

    transformers recomputes layers in training mode only. So they are, and their parts are not.
    """
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
            module.training = training


@contextmanager
def attached(model, lora: LoRA | None) -> Iterator:
    """The base with ``lora`` computed beside its layers, quantised or not; None: the base alone.

    Raises SoupError for a module that the model does not have, or of another shape.
    """
    if lora is None:
        yield model
        return
    with CatModel(model, [lora], normalise="none", init="ones"):
        yield model


def applied(model, lora: LoRA | None):
    """The base with ``lora``: folded into its weights where they are plain numbers, else beside."""
    return (attached if getattr(model, "is_quantized", False) else folded)(model, lora)
