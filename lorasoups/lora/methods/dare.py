"""DARE: drop entries at random and rescale the rest, then add (linear) or merge by signs (TIES).

Masks come from a generator of our own, seeded by ``seed``; the global one is never touched. They
are drawn on the CPU in this order: module by module (sorted by name, or as ``order`` says), per
module all adapters in turn (on="factors": all A's, then all B's). With ``order`` = the base model's
module order and ``seed`` = the global generator's, PEFT 0.21.2 draws the same masks (its
``add_weighted_adapter`` first uses up numbers to initialise the new adapter; seed after that).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lorasoups.errors import SoupError
from lorasoups.lora.lora import Factors, LoRA, module_names
from lorasoups.lora.methods.base import DENSITY, Method, Option, Weights, apply_rule
from lorasoups.lora.methods.linear import weighted_sum
from lorasoups.lora.methods.ties import SIGN, elect_and_average

SEED = Option(
    default=0,
    help="seed of the random masks",
    allowed=lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    expects="an integer >= 0",
)
ORDER = Option(
    default=None,
    help="module names in the order in which masks are drawn (default: sorted)",
    allowed=lambda value: value is None or isinstance(value, (list, tuple)),
    expects="a list of all module names, or None",
)


def drop_and_rescale(tensor: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Each entry kept with probability ``density`` and divided by it, else 0: unbiased."""
    if density >= 1:
        return tensor
    mask = torch.bernoulli(torch.full(tensor.shape, density), generator=generator)
    return tensor * mask.to(tensor.device) / density


def dare_linear(
    loras: list[LoRA],
    weights: Weights,
    *,
    on: str,
    density: float,
    seed: int,
    order: Sequence[str] | None,
) -> dict[str, Factors]:
    """``sum_i w_i drop_and_rescale(T_i)``, on the deltas or on A and B apart."""
    generator = torch.Generator().manual_seed(seed)

    def rule(tensors: list[Tensor], w: Tensor) -> Tensor:
        return weighted_sum([drop_and_rescale(t, density, generator) for t in tensors], w)

    return apply_rule(rule, loras, weights, on, _checked(order, loras))


def dare_ties(
    loras: list[LoRA],
    weights: Weights,
    *,
    on: str,
    density: float,
    majority_sign_method: str,
    seed: int,
    order: Sequence[str] | None,
) -> dict[str, Factors]:
    """Drop and rescale, then the sign election and disjoint mean of TIES."""
    generator = torch.Generator().manual_seed(seed)

    def rule(tensors: list[Tensor], w: Tensor) -> Tensor:
        dropped = [drop_and_rescale(tensor, density, generator) for tensor in tensors]
        return elect_and_average(dropped, w, majority_sign_method)

    return apply_rule(rule, loras, weights, on, _checked(order, loras))


def _checked(order: Sequence[str] | None, loras: list[LoRA]) -> Sequence[str] | None:
    if order is not None and sorted(order) != module_names(loras):
        raise SoupError(
            "order does not name every adapted module once; leave it out or complete it"
        )
    return order


DARE_LINEAR = Method(
    name="dare_linear",
    fn=dare_linear,
    summary="drop entries at random and rescale (density, seed), then the weighted sum",
    paper="DARE (Yu et al. 2023, arXiv 2311.03099)",
    options={"density": DENSITY, "seed": SEED, "order": ORDER},
)
DARE_TIES = Method(
    name="dare_ties",
    fn=dare_ties,
    summary="drop entries at random and rescale (density, seed), then merge by elected signs",
    paper="DARE (Yu et al. 2023, arXiv 2311.03099) with TIES (arXiv 2306.01708)",
    options={"density": DENSITY, "majority_sign_method": SIGN, "seed": SEED, "order": ORDER},
)
