"""Soups that a few rows decide without a gradient.

The weight of a sum; how far CAT's alphas go towards 1; and RegMean, where a LoRA counts as its own
skill's inputs are large (Jin et al. 2022, arXiv 2212.09849).
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from lorasoups.errors import SoupError
from lorasoups.learning.cat import applied
from lorasoups.learning.fit import compiled_layers
from lorasoups.lora.linalg import concatenate
from lorasoups.lora.lora import Factors, LoRA
from lorasoups.lora.merging import merge
from lorasoups.models.batching import AT_ONCE, count_tokens, heldout_loss
from lorasoups.models.generation import linear_layer, read_rows, watched

LARGEST, CLOSE = 2.0, 0.02  # weights are searched up to here, to within so much
TRIED = 12  # weights that this takes, at most
MARGIN = 0.05  # of CAT's loss on a skill: so much more counts as nearly as good
HALVINGS = 6
ANCHORINGS = HALVINGS + 2  # soups whose losses `anchored` takes, at most
KEPT = 0.9  # off the diagonal of a Gram matrix, as in the paper (RegMean)


def tuned_weight(
    model, loras: Sequence[LoRA], rows: Sequence[dict], batch_size: int = AT_ONCE,
    close: float = CLOSE,
) -> tuple[float, list[dict]]:  # fmt: skip
    """The weight lambda in [0, 2] of the sum ``lambda * sum_i delta_i`` with the least loss.

    Args:
        model: a causal LM; it comes back unchanged.
        loras: k adapters.
        rows: see `batching.encode_all`; the loss is the mean over their labelled tokens (nats).
        batch_size: rows at a time.
        close: how near to the best weight the search ends.

    Returns lambda and what was tried, ``{weight, loss}`` each, by Brent's bounded search. Raises
    SoupError for no rows.
    """
    if not rows:
        raise SoupError("no data to fit a weight on: rows is empty; give the rows CAT gets")
    tried: list[dict] = []

    def loss_at(weight: float) -> float:
        with applied(model, merge(loras, "cat", weights=[float(weight)] * len(loras))) as soup:
            loss = heldout_loss(soup, list(rows), batch_size)
        tried.append({"weight": float(weight), "loss": loss})
        return loss

    with compiled_layers(model, TRIED * count_tokens(rows)):
        minimize_scalar(loss_at, bounds=(0, LARGEST), method="bounded", options={"xatol": close})
    return min(tried, key=lambda entry: entry["loss"])["weight"], tried


def anchored(
    model, loras: Sequence[LoRA], alphas: Mapping[str, Tensor], rows: Sequence[Sequence[dict]]
) -> tuple[dict[str, list[float]], float]:
    """The alphas nearest to 1 on the line from CAT's to all ones that keep every skill (our rule).

    On a skill's own rows the other LoRAs only disturb, so learned alphas are smaller than a target
    that needs all of them would want (notebook 06).

    A skill is kept where the mean loss of its ``rows`` (encoded, one list per skill) is at most
    `MARGIN` above what it is under ``alphas`` (module -> [k]). The model comes back unchanged.
    Returns the alphas, and how far along the line they are, 0 (CAT) to 1 (the plain sum).
    """

    def at(share: float) -> dict[str, list[float]]:
        return {name: (a + share * (1 - a)).tolist() for name, a in alphas.items()}

    def losses(share: float) -> list[float]:
        with applied(model, merge(loras, "cat", weights=at(share))) as soup:
            return [heldout_loss(soup, list(of_skill)) for of_skill in rows]

    with compiled_layers(model, ANCHORINGS * sum(map(count_tokens, rows))):
        most = [(1 + MARGIN) * loss for loss in losses(0.0)]

        def keeps(share: float) -> bool:
            return all(loss <= bound for loss, bound in zip(losses(share), most, strict=True))

        if keeps(1.0):
            return at(1.0), 1.0
        kept, lost = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (kept + lost) / 2
            kept, lost = (middle, lost) if keeps(middle) else (kept, middle)
        return at(kept), kept


@torch.no_grad()
def regmean(model, loras: Sequence[LoRA], rows: Sequence[Sequence[dict]]) -> LoRA:
    """The LoRA of delta ``(sum_i delta_i G_i) (sum_i G_i)^-1`` in every module, of rank sum r_i.

    G_i, float64 [in, in], is the Gram matrix of what the module sees of skill i's ``rows``
    (encoded, a list per LoRA) with LoRA i in place; entries off the diagonal count `KEPT`. This
    is the closed form of the paper's equation 2, for deltas. The model comes back unchanged.
    """
    shapes = {name: f.shape for lora in loras for name, f in lora.modules.items()}
    grams = [_grams(model, *pair, shapes) for pair in zip(loras, rows, strict=True)]
    modules = {}
    for name in sorted(shapes):
        total, parts = sum(of[name] for of in grams), []
        for lora, of in zip(loras, grams, strict=True):
            if name in lora.modules:
                factors = lora.modules[name]
                A = torch.linalg.lstsq(total, of[name] @ factors.A.double().T, driver="gelsd")
                parts.append(Factors(A.solution.T.float(), factors.B))
        modules[name] = concatenate(parts, torch.ones(len(parts)))
    return LoRA(modules, loras[0].base_model, {"method": "regmean"})


def _grams(model, lora: LoRA, rows: Sequence[dict], shapes: Mapping) -> dict[str, Tensor]:
    grams: dict[str, Tensor] = dict.fromkeys(shapes, 0)

    def add(name: str, x: Tensor) -> None:
        x = x.double().flatten(0, -2)
        grams[name] = grams[name] + x.T @ x

    layers = [(linear_layer(model, n, shape), partial(add, n)) for n, shape in shapes.items()]
    with watched(layers), applied(model, lora) as soup:
        read_rows(soup, rows)
    return {name: gram * KEPT + gram.diag().diag() * (1 - KEPT) for name, gram in grams.items()}
