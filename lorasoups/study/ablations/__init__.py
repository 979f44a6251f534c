"""Controls and ablations of notebook 07, by name. A new one is a file here and an entry below."""

from lorasoups.study.ablations import (
    alpha_data,
    alphas,
    k_skills,
    lr_sweep,
    random_loras,
    sizes,
    surface,
)
from lorasoups.study.ablations.base import Ablation, Soup, Variant

ABLATIONS: dict[str, Ablation] = {
    ablation.name: ablation
    for ablation in (
        alphas.ABLATION,
        random_loras.ABLATION,
        lr_sweep.ABLATION,
        alpha_data.ABLATION,
        sizes.LENGTH,
        sizes.RANK,
        k_skills.MORE,
        k_skills.THREE,
        surface.ABLATION,
    )
}

__all__ = ["ABLATIONS", "Ablation", "Soup", "Variant"]
