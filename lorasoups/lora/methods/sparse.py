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

from collections.abc import Iterator, Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from lorasoups.errors import SoupError
from lorasoups.lora.lora import Factors, LoRA, module_names
from lorasoups.lora.methods.base import DENSITY, SEED, Method, Option, Weights, apply_rule
from lorasoups.lora.methods.sums import weighted_sum

BLOCK = 1 << 20  # entries to work on at a time: few for the cache, many as threads wait for another
SIGN = Option("total", lambda value: value in ("total", "frequency"), '"total" or "frequency"')
ORDER = Option(None, lambda value: value is None or isinstance(value, (list, tuple)),
               "a list of all module names, or None: sorted")  # fmt: skip


def row_blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of all tensors, part after part, each of about BLOCK entries or one row."""
    parts = max(1, min(len(tensors[0]), tensors[0].numel() // BLOCK))
    return zip(*(tensor.tensor_split(parts) for tensor in tensors), strict=True)


def keep_largest(tensor: Tensor, density: float, scratch: Tensor | None = None) -> Tensor:
    """In place: the ``int(density * numel)`` largest magnitudes stay, the others become 0.

    tensor: float32 ``[m, n]``; scratch: one of its shape to overwrite. Of entries that tie at the
    cut the first ones stay, row by row.
    """
    if (cut := tensor.numel() - int(density * tensor.numel()) - 1) < 0:
        return tensor
    ordered = torch.abs(tensor, out=scratch).flatten()
    if ordered.is_cpu:  # floats >= 0 are ordered as their bits are, which partition faster
        ordered.numpy().view(np.int32).partition(cut)
    else:
        ordered = ordered.sort().values
    dropped = ordered[cut].item()  # the largest magnitude to drop
    tied = int((ordered[cut + 1 :] == dropped).count_nonzero())
    for (block,) in row_blocks(tensor):
        kept = torch.hardshrink(block, dropped)
        if tied:
            first = (block.abs() == dropped).nonzero()[:tied].unbind(1)
            kept[first] = block[first]
            tied -= len(first[0])
        block.copy_(kept)
    return tensor


def drop_and_rescale(tensor: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """In place: each entry times 1 / density with that probability, else times 0: unbiased.

    The masks are those of ``torch.bernoulli``, which takes longer for the same draws.
    """
    if density < 1:
        for (block,) in row_blocks(tensor):
            mask = torch.rand(block.shape, generator=generator).lt_(density)
            block.mul_(mask.to(block.device)).div_(density)
    return tensor


def elect_and_average(tensors: list[Tensor], weights: Tensor, majority_sign_method: str) -> Tensor:
    """Elect a sign per entry, average the weighted entries that have it (TIES 3.2-3.3), or 0."""
    stacked = torch.stack(tensors)
    votes = (stacked if majority_sign_method == "total" else stacked.sign()).sum(dim=0)
    agree = (stacked * votes.ge_(0).mul_(2).sub_(1)).gt_(0)  # 1.0 or 0.0: faster than bool
    total = torch.einsum("k,k...->...", weights.to(stacked.device), stacked.mul_(agree))
    return total.div_(reduce(torch.add, agree).clamp_(min=1))


def prune_and_combine(
    loras: list[LoRA], weights: Weights, *, on: str, density: float,
    majority_sign_method: str | None = None, seed: int | None = None,
    order: Sequence[str] | None = None,
) -> dict[str, Factors]:  # fmt: skip
    """All four methods: with a seed entries are dropped at random, without one the smallest are.

    With a sign method the rest is combined by elected signs, without one by the weighted sum.
    Raises SoupError if ``order`` is not all module names.
    """
    if order is not None and sorted(order) != module_names(loras):
        raise SoupError("order does not name every adapted module once; complete it or leave it")
    generator = None if seed is None else torch.Generator().manual_seed(seed)

    def rule(tensors: list[Tensor], w: Tensor) -> Tensor:
        merged = torch.empty_like(tensors[0])
        for tensor in tensors:
            if generator is None:
                keep_largest(tensor, density, scratch=merged)
            else:
                drop_and_rescale(tensor, density, generator)
        for rows, *blocks in row_blocks(merged, *tensors):
            if majority_sign_method is None:
                rows.copy_(weighted_sum(blocks, w))
            else:
                rows.copy_(elect_and_average(blocks, w, majority_sign_method))
        return merged

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
