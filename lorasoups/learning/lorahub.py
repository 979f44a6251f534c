"""LoraHub: one weight per LoRA, found without gradients (Huang et al. 2023, arXiv 2307.13269).

The search is the released one (sail-sg/lorahub): nevergrad's NGOpt, started at 0, weights within
+-1.5, objective = loss + 0.05 * mean |w|; here for causal LMs. The released loss depends on batch
size; ours is the mean cross-entropy per labelled token, so that 0.05 always means the same.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorasoups.errors import Diverged, SoupError
from lorasoups.learning.cat import applied
from lorasoups.learning.fit import compiled_layers
from lorasoups.lora.lora import Factors, LoRA, module_names
from lorasoups.lora.merging import merge
from lorasoups.models.batching import count_tokens, heldout_loss

BUDGET_PER_LORA = 50
"""Up to here NGOpt is COBYLA; beyond, nevergrad 1.0.12 takes a model that numpy >= 2.4 breaks."""


@dataclass(frozen=True, eq=False)
class Hub:
    """LoraHub's result."""

    weights: list[float]  # one per LoRA, of the lowest objective that was evaluated
    lora: LoRA  # the LoRAs merged with these weights, exact
    history: list[dict]  # {step, loss (nats per labelled token), objective, weights: [k]}


def lorahub(
    model, loras: Sequence[LoRA], rows: Sequence[dict], *, on: str = "delta", budget: int = 40,
    seed: int = 0, regularisation: float = 0.05, bound: float = 1.5,
) -> Hub:  # fmt: skip
    """Search one weight per LoRA that lowers the loss of ``rows``; the model comes back unchanged.

    Args:
        model: a causal LM, its linear layers quantised or not.
        loras: k adapters.
        rows: dicts ``input_ids``, ``labels`` (lists of int; -100 where nothing is asked).
        on: "delta": the true sum ``sum_i w_i delta_i``. "factors": as released, A and B summed
            apart with the same w on both, hence ``w_i w_j B_i A_j`` for all pairs: a weight of 0.5
            leaves a quarter of a LoRA, and a lone LoRA loses its sign. Needs equal ranks.
        budget: evaluations of the loss, at most 50 per LoRA.
        seed: of nevergrad; COBYLA, which NGOpt is within the budget, draws no random numbers.
        regularisation, bound: mean |w| times this is added to the loss; |w| <= bound.

    Raises:
        Diverged: a loss that is not finite.
        SoupError: no LoRA, no rows, bad options, LoRAs of another base or of unequal ranks.
    """
    if not rows:
        raise SoupError("no data to search on: rows is empty; give the rows CAT gets")
    merge(loras, "linear", on=on)  # refuses what does not belong together
    most = BUDGET_PER_LORA * len(loras)
    if not 1 <= budget <= most:
        raise SoupError(f"budget is {budget}: LoraHub with {len(loras)} LoRAs; give 1 to {most}")
    history: list[dict] = []

    def objective(weights: list[float]) -> float:
        with applied(model, _merged(loras, weights, on)) as soup:
            loss = heldout_loss(soup, list(rows))
        if not math.isfinite(loss):
            raise Diverged(f"loss is {loss}: LoraHub, weights {weights}; check rows and LoRAs")
        value = loss + regularisation * sum(map(abs, weights)) / len(weights)
        step = len(history) + 1
        history.append({"step": step, "loss": loss, "objective": value, "weights": weights})
        return value

    with compiled_layers(model, budget * count_tokens(rows)):
        _search(objective, len(loras), budget, seed, bound)
    best = min(history, key=lambda entry: entry["objective"])
    merged = _merged(loras, best["weights"], on)
    options = {"budget": budget, "seed": seed, "regularisation": regularisation, "bound": bound}
    provenance = {"method": "lorahub", "on": on, "weights": best["weights"], "options": options}
    provenance["sources"] = [lora.provenance for lora in loras]
    return Hub(best["weights"], LoRA(merged.modules, merged.base_model, provenance), history)


def _search(objective: Callable, k: int, budget: int, seed: int, bound: float) -> None:
    """``budget`` evaluations where NGOpt asks for them."""
    import nevergrad  # takes seconds, and only this method needs it

    space = nevergrad.p.Array(init=[0.0] * k, lower=[-bound] * k, upper=[bound] * k)
    space.random_state.seed(seed)
    optimizer = nevergrad.optimizers.NGOpt(space, budget=budget)
    try:
        with warnings.catch_warnings():  # COBYLA's about its own tolerance
            warnings.filterwarnings("ignore", message="COBYLA")
            for _ in range(budget):
                asked = optimizer.ask()
                optimizer.tell(asked, objective([float(w) for w in asked.value]))
    finally:
        del optimizer  # ends its thread, which would otherwise keep Python from exiting


def _merged(loras: Sequence[LoRA], weights: list[float], on: str) -> LoRA:
    if on == "delta":
        return merge(loras, "cat", weights=weights)
    modules = {}
    for name in module_names(list(loras)):
        pairs = [(w, lora.modules.get(name)) for w, lora in zip(weights, loras, strict=True)]
        weighted = [(w * factors.A, w * factors.B) for w, factors in pairs if factors is not None]
        modules[name] = Factors(*map(sum, zip(*weighted, strict=True)))
    return LoRA(modules, next((lora.base_model for lora in loras if lora.base_model), ""))
