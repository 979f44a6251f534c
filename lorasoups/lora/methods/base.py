"""What a merge method is, and the one way in which tensor-wise methods are applied.

A method is a function ``fn(loras, weights, *, on, **options) -> dict[str, Factors]``:
loras: k >= 2 adapters whose shapes agree; weights: module name -> float64 ``[k]``, for every module
of the union; on, options: checked. A new one is a file here and an entry in ``__init__.py``.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lorasoups.errors import SoupError
from lorasoups.lora.lora import Dense, Factors, LoRA, module_names

Weights = Mapping[str, Tensor]
Rule = Callable[[list[Tensor], Tensor], Tensor]
"""k tensors of one shape, to overwrite at will, and weights float32 ``[k]`` -> a new one."""


@dataclass(frozen=True)
class Option:
    """One keyword of a method: its default, which values are allowed, and how errors say that."""

    default: Any
    allowed: Callable[[Any], bool]
    expects: str


@dataclass(frozen=True)
class Method:
    """A merge method: name, function, one-line summary, paper, options, and what it can work on."""

    name: str
    fn: Callable[..., dict[str, Factors]]
    summary: str
    paper: str
    options: Mapping[str, Option] = field(default_factory=dict)
    on: tuple[str, ...] = ("delta", "factors")

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The given options with the defaults filled in; SoupError for an unknown or bad one."""
        where = f"method {self.name!r}"
        for name, value in given.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise SoupError(f"{where} has no option {name!r}; its options: {known}")
            option = self.options[name]
            if not option.allowed(value):
                raise SoupError(f"{name} is {value!r} for {where}; give {option.expects}")
        return {name: option.default for name, option in self.options.items()} | dict(given)


def is_number(value: Any) -> bool:
    """True for int and float, not for bool (True would pass as density 1)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# fmt: off
RANK = Option(None, lambda value: value is None or (type(value) is int and value > 0),
              "a positive integer, or None for the largest rank of any LoRA")
DENSITY = Option(0.75, lambda value: is_number(value) and 0 < value <= 1,
                 "a number in (0, 1], the fraction of entries to keep")
# fmt: on
SEED = Option(0, lambda value: type(value) is int and value >= 0, "an integer >= 0")


def present(loras: list[LoRA], weights: Weights, name: str) -> tuple[list[Factors], Tensor]:
    """The factors of the n adapters that have module ``name``; their weights, float64 ``[n]``."""
    having = [i for i, lora in enumerate(loras) if name in lora.modules]
    return [loras[i].modules[name] for i in having], weights[name][having]


def apply_rule(
    rule: Rule, loras: list[LoRA], weights: Weights, on: str, order: Iterable[str] | None = None
) -> dict[str, Factors]:
    """Apply a tensor-wise rule to every module, in ``order`` (default: sorted by name).

    on="delta": the rule merges the delta weights; the result is exact and dense.
    on="factors": the rule merges the A's and then the B's, each weighted by ``sqrt|w s|`` with the
    sign of ``w s`` on the A side, s being the LoRA scale (PEFT 0.21.2, ``tuners/lora/model.py``,
    ``_generalized_task_arithmetic_weighted_adapter``). The product of such sums has cross terms
    B_i A_j; it is what PEFT users and the paper's baselines get. SoupError for unequal ranks.
    """
    every = [f for lora in loras for f in lora.modules.values()]
    size = max(math.prod(f.shape) for f in every) if on == "delta" else 0
    rooms = torch.empty(len(loras), size, device=every[0].device)  # mapped once: new memory is slow
    merged = {}
    for name in module_names(loras) if order is None else order:
        factors, w = present(loras, weights, name)
        if on == "delta":
            used = zip(factors, rooms[:, : math.prod(factors[0].shape)], strict=False)
            merged[name] = Dense(rule([f.delta(room.view(f.shape)) for f, room in used], w.float()))
            continue
        if len(ranks := sorted({f.rank for f in factors})) > 1:
            raise SoupError(f'ranks differ {ranks}: module {name!r}, on="factors"; use on="delta"')
        scaled = w * torch.tensor([f.scale for f in factors], dtype=torch.float64)
        root = scaled.abs().sqrt()
        A = rule([f.A.clone() for f in factors], torch.where(scaled >= 0, root, -root).float())
        B = rule([f.B / f.scale for f in factors], root.float())
        merged[name] = Factors(A, B)
    return merged
