"""The exact sum of LoRAs with one weight for all of them, fitted by loss."""

from collections.abc import Sequence

from scipy.optimize import minimize_scalar

from lorasoups.errors import SoupError
from lorasoups.learning.cat import applied
from lorasoups.lora.lora import LoRA
from lorasoups.lora.merging import merge
from lorasoups.models.batching import heldout_loss

LARGEST, CLOSE = 2.0, 0.02  # weights are searched up to here, to within so much


def tuned_weight(
    model, loras: Sequence[LoRA], rows: Sequence[dict], batch_size: int = 25, close: float = CLOSE
) -> tuple[float, list[dict]]:
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

    minimize_scalar(loss_at, bounds=(0, LARGEST), method="bounded", options={"xatol": close})
    return min(tried, key=lambda entry: entry["loss"])["weight"], tried
