"""CAT, learnable concatenation: k frozen LoRAs on a frozen base, one alpha per module and LoRA.

    y = W x + sum_i alpha_i s_i B_i A_i x        (paper, "LoRA Soups", arXiv 2410.13025, section 3)

The alphas here are CAT's; LoRA's own ``lora_alpha`` is part of the scale s_i, which a `LoRA` value
holds folded into B. Only the alphas are trained. The k adapters of a module run as one pair of
matmuls: their A stacked to [sum r_i, in], their B to [out, sum r_i], alpha scaling the rank axis.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lorasoups.adapters import from_peft
from lorasoups.errors import SoupError
from lorasoups.linalg import concatenate
from lorasoups.lora import LoRA, module_names

NORMALISE = ("none", "softmax", "sigmoid")
INITS = ("uniform", "ones", "randn")
GRANULARITIES = ("module", "layer", "global")


def start_logits(normalise: str, init: str, groups: int, k: int, seed: int = 0) -> Tensor:
    """The logits theta [groups, k], float32, that an init stands for.

    ``uniform``: every alpha is 1/k. ``ones``: every alpha is 1 (softmax knows no such point: there
    it is the same as uniform). ``randn``: theta is standard normal, drawn with ``seed``.

    Raises:
        SoupError: unknown names; ``sigmoid`` from ``ones``, or from ``uniform`` with one LoRA (a
            sigmoid never reaches 1).
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
    """One adapted linear layer inside a `CatModel`.

    Holds the wrapped layer, the stacked factors in its compute dtype, and which LoRA every column
    of the rank axis belongs to. The alphas are read from the owner at every call.
    """

    def __init__(self, layer: nn.Module, A: Tensor, B: Tensor, owner_of: Tensor, alphas):
        super().__init__()
        self.layer = layer
        weight = layer.weight
        kind = weight.dtype if weight.is_floating_point() else _compute_dtype(layer)
        self.register_buffer("A", A.to(weight.device, kind), persistent=False)
        self.register_buffer("B", B.to(weight.device, kind), persistent=False)
        self.register_buffer("owner_of", owner_of.to(weight.device), persistent=False)
        self._alphas = alphas  # a function, so that this module owns no parameter

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        hidden = F.linear(x.to(self.A.dtype), self.A)
        alpha = self._alphas()[self.owner_of]
        hidden = (hidden * alpha).to(hidden.dtype)
        y = self.layer(x)
        return y + F.linear(hidden, self.B).to(y.dtype)


def _compute_dtype(layer: nn.Module) -> torch.dtype:
    """What a quantised layer (bitsandbytes Linear4bit) computes in."""
    return getattr(layer, "compute_dtype", None) or torch.bfloat16


class CatModel(nn.Module):
    """k frozen LoRAs on a frozen causal LM; the only trainable tensor is ``logits`` [groups, k].

    Use it as a context manager, or call `remove`: then the model is what it was, bit for bit, and
    its parameters require gradients as before.

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
        layers = {name: _layer(model, name, loras) for name in self.names}
        device, dtype = _where(next(iter(layers.values())))
        self.logits = nn.Parameter(logits.to(device, torch.promote_types(dtype, torch.float32)))
        self.model = model
        self._frozen = [(p, p.requires_grad) for p in model.parameters()]
        self._replaced: list[tuple[nn.Module, str, nn.Module]] = []
        for parameter, _ in self._frozen:
            parameter.requires_grad_(False)
        for name, layer in layers.items():
            self._install(name, layer, loras)
        left = [n for n, m in model.named_modules() if hasattr(m, "lora_A")]
        if left:
            self.remove()
            raise SoupError(f"another PEFT adapter is active on {left[0]!r}; unload it first")

    @classmethod
    def from_peft(cls, peft_model, adapters: Sequence[str], **options) -> "CatModel":
        """Wrap a live ``PeftModel``: its named adapters become the k LoRAs, in this order.

        PEFT's own layers step aside until `remove`, and with them LoRA dropout.
        """
        loras = [from_peft(peft_model, name) for name in adapters]
        return cls(peft_model.get_base_model(), loras, **options)

    def _install(self, name: str, layer: nn.Module, loras: Sequence[LoRA]) -> None:
        own = [(i, lora.modules[name]) for i, lora in enumerate(loras) if name in lora.modules]
        stacked = concatenate([factors for _, factors in own], torch.ones(len(own)))
        owner_of = torch.cat([torch.full((factors.rank,), i) for i, factors in own])
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
        return self.model(input_ids=input_ids, labels=labels, attention_mask=attention_mask)

    def train(self, mode: bool = True) -> "CatModel":
        """Always eval mode: dropout, where the base has any, is off while alphas are learned."""
        return super().train(False)

    def weights(self) -> dict[str, Tensor]:
        """Effective alphas per module: float32 [k], detached, on the CPU."""
        alphas = effective(self.logits.detach(), self.normalise).float().cpu()
        return {name: alphas[row].clone() for name, row in self._row.items()}

    def remove(self) -> None:
        """Put every original layer back; the alphas stay readable."""
        while self._replaced:
            parent, child, original = self._replaced.pop()
            setattr(parent, child, original)
        for parameter, required in self._frozen:
            parameter.requires_grad_(required)

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


def _layer(model: nn.Module, name: str, loras: Sequence[LoRA]) -> nn.Module:
    """The plain linear layer under ``name``, inside PEFT's wrapper if there is one."""
    try:
        found = model.get_submodule(name)
    except AttributeError:
        raise SoupError(
            f"the model has no module {name!r}: LoRA of another base; check it"
        ) from None
    if getattr(found, "merged", False):
        raise SoupError(f"a PEFT adapter is merged into {name!r}; call unmerge_adapter() first")
    layer = getattr(found, "base_layer", found)
    if not hasattr(layer, "in_features"):
        raise SoupError(f"{name!r} is a {type(layer).__name__}: CAT adapts linear layers only")
    shape = (layer.out_features, layer.in_features)
    for lora in loras:
        if name in lora.modules and lora.modules[name].shape != shape:
            raise SoupError(
                f"{name!r} is {shape} in the model but {lora.modules[name].shape} in the LoRA; "
                "it was trained on another base"
            )
    return layer


def _where(layer: nn.Module) -> tuple[torch.device, torch.dtype]:
    weight = layer.weight
    return weight.device, weight.dtype if weight.is_floating_point() else torch.float32
