"""Methods that prune each LoRA and then combine what is left, tensor by tensor.

| | weighted sum | elect signs, then average |
|---|---|---|
| keep the largest entries | magnitude_prune | ties |
| drop entries at random and rescale | dare_linear | dare_ties |

All four follow PEFT 0.21.2 (``utils/merge_utils.py``). Its TIES trims each tensor apart (the paper:
the whole task vector), elects signs on the trimmed, *unweighted* tensors (mergekit: weighted) by
the sum of values or of signs ("total", "frequency"), counts a tie as +, then weights and takes the
mean over the *number* of agreeing tensors (mergekit: over their weights), without a factor lambda.
So weights 1/k give about 1/k of an average; the released LoRA-Soups script uses weights 1.0.

DARE draws its masks on the CPU, the same for every device, from a generator of its own: module by
module (sorted, or as ``order`` says), per module all adapters in turn (on="factors": all A's, then
all B's). PEFT draws the same masks with ``order`` = the base's module order and ``seed`` = the
global generator's, seeded after ``add_weighted_adapter`` has initialised the new adapter.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from lorasoups.errors import SoupError
from lorasoups.lora.lora import Factors, LoRA, module_names
from lorasoups.lora.methods.base import DENSITY, SEED, Method, Option, Weights, apply_rule
from lorasoups.lora.methods.sums import weighted_sum

SIGN = Option("total", lambda value: value in ("total", "frequency"), '"total" or "frequency"')
ORDER = Option(None, lambda value: value is None or isinstance(value, (list, tuple)),
               "a list of all module names, or None: sorted")  # fmt: skip


def keep_largest(tensor: Tensor, density: float) -> Tensor:
    """The ``int(density * numel)`` entries of largest magnitude, the others 0, nothing rescaled."""
    if density >= 1:
        return tensor
    flat = tensor.flatten()
    kept = flat.abs().topk(int(density * flat.numel()), sorted=False).indices  # not sorted: fast
    return torch.zeros_like(flat).scatter(0, kept, flat[kept]).view_as(tensor)


def drop_and_rescale(tensor: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Each entry kept with probability ``density`` and divided by it, else 0: unbiased."""
    if density >= 1:
        return tensor
    mask = torch.bernoulli(torch.full(tensor.shape, density), generator=generator)
    return tensor * mask.to(tensor.device) / density


def elect_and_average(tensors: list[Tensor], weights: Tensor, majority_sign_method: str) -> Tensor:
    """Elect a sign per entry, average the weighted entries that have it (TIES 3.2-3.3), or 0."""
    stacked = torch.stack(tensors)
    signs = stacked.sign()
    votes = (stacked if majority_sign_method == "total" else signs).sum(dim=0)
    agree = signs == torch.where(votes >= 0, 1.0, -1.0)
    total = torch.einsum("k,k...->...", weights.to(stacked.device), stacked * agree)
    return total / agree.sum(dim=0).clamp(min=1)


def prune_and_combine(
    loras: list[LoRA],
    weights: Weights,
    *,
    on: str,
    density: float,
    majority_sign_method: str | None = None,
    seed: int | None = None,
    order: Sequence[str] | None = None,
) -> dict[str, Factors]:
    """All four methods: with a seed entries are dropped at random, without one the smallest are.

    With a sign method the rest is combined by elected signs, without one by the weighted sum.
    Raises SoupError if ``order`` is not all module names.
    """
    if order is not None and sorted(order) != module_names(loras):
        raise SoupError("order does not name every adapted module once; complete it or leave it")
    prune = keep_largest
    if seed is not None:
        prune = partial(drop_and_rescale, generator=torch.Generator().manual_seed(seed))

    def rule(tensors: list[Tensor], w: Tensor) -> Tensor:
        pruned = [prune(tensor, density) for tensor in tensors]
        if majority_sign_method is None:
            return weighted_sum(pruned, w)
        return elect_and_average(pruned, w, majority_sign_method)

    return apply_rule(rule, loras, weights, on, order)


# fmt: off
_KEEP, _RANDOM = {"density": DENSITY}, {"seed": SEED, "order": ORDER}
_ELECT = {"majority_sign_method": SIGN}
MAGNITUDE_PRUNE = Method(
    "magnitude_prune", prune_and_combine, options=_KEEP,
    summary="keep the largest entries of each LoRA (density), then the weighted sum",
    paper="Magnitude pruning (Han et al. 2015, arXiv 1506.02626)")
TIES = Method(
    "ties", prune_and_combine, options=_KEEP | _ELECT,
    summary="trim to the largest entries, elect a sign per entry, average those that agree",
    paper="TIES-Merging (Yadav et al. 2023, arXiv 2306.01708)")
DARE_LINEAR = Method(
    "dare_linear", prune_and_combine, options=_KEEP | _RANDOM,
    summary="drop entries at random and rescale (density, seed), then the weighted sum",
    paper="DARE (Yu et al. 2023, arXiv 2311.03099)")
DARE_TIES = Method(
    "dare_ties", prune_and_combine, options=_KEEP | _ELECT | _RANDOM,
    summary="drop entries at random and rescale (density, seed), then merge by elected signs",
    paper="DARE (Yu et al. 2023, arXiv 2311.03099) with TIES (arXiv 2306.01708)")
# fmt: on
