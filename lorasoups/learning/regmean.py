"""RegMean: a LoRA counts where its own skill's inputs are large (Jin et al., arXiv 2212.09849)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lorasoups.learning.cat import applied
from lorasoups.lora.linalg import concatenate
from lorasoups.lora.lora import Factors, LoRA, module_names
from lorasoups.models.generation import linear_layer

KEPT = 0.9  # off the diagonal of a Gram matrix, as in the paper


@torch.no_grad()
def regmean(model, loras: Sequence[LoRA], rows: Sequence[Sequence[dict]]) -> LoRA:
    """The LoRA of delta ``(sum_i delta_i G_i) (sum_i G_i)^-1`` in every module, of rank sum r_i.

    G_i, float64 [in, in], is the Gram matrix of what the module sees of skill i's ``rows``
    (encoded, a list per LoRA) with LoRA i in place; entries off the diagonal count `KEPT`. This
    is the closed form of the paper's equation 2, for deltas. The model comes back unchanged.
    """
    grams = [_grams(model, lora, of_skill, module_names(list(loras)))
             for lora, of_skill in zip(loras, rows, strict=True)]  # fmt: skip
    modules = {}
    for name in module_names(list(loras)):
        total, parts = sum(of[name] for of in grams), []
        for lora, of in zip(loras, grams, strict=True):
            if name in lora.modules:
                factors = lora.modules[name]
                A = torch.linalg.lstsq(total, of[name] @ factors.A.double().T, driver="gelsd")
                parts.append(Factors(A.solution.T.float(), factors.B))
        modules[name] = concatenate(parts, torch.ones(len(parts)))
    return LoRA(modules, loras[0].base_model, {"method": "regmean"})


def _grams(model, lora: LoRA, rows: Sequence[dict], names: Sequence[str]) -> dict[str, Tensor]:
    grams: dict[str, Tensor] = {}

    def watch(name: str):
        def add(_, inputs) -> None:
            x = inputs[0].double().flatten(0, -2)
            grams[name] = grams.get(name, 0) + x.T @ x

        return add

    shapes = {name: model.get_submodule(name).weight.shape for name in names}
    hooks = [linear_layer(model, name, tuple(shapes[name])).register_forward_pre_hook(watch(name))
             for name in names]  # fmt: skip
    try:
        with applied(model, lora) as soup:
            for row in rows:
                ids = torch.tensor([row["input_ids"]], device=soup.device)
                soup(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: gram * KEPT + gram.diag().diag() * (1 - KEPT) for name, gram in grams.items()}
