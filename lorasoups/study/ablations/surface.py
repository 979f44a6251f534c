"""The plane of one alpha per LoRA: held-out skill loss and solved target problems on a grid."""

from lorasoups.lora.merging import merge
from lorasoups.study.ablations.base import Ablation, Soup, Variant
from lorasoups.study.stages import Experiment

FROM, TO, POINTS = 0.0, 1.6, 9


def _at(first: float, second: float):
    def make(experiment: Experiment, seed: int) -> Soup:
        soup = merge(experiment.pair(seed), "cat", weights=[first, second])
        loss = experiment.held_out_loss(soup)
        return Soup(soup, {"alpha_1": first, "alpha_2": second, "heldout_loss": loss})

    return make


def _variants(experiment: Experiment) -> list[Variant]:
    points = POINTS if experiment.profile.name != "smoke" else 2
    axis = [FROM + (TO - FROM) * i / (points - 1) for i in range(points)]
    return [
        Variant(f"{a:.2f} {b:.2f}", f"alphas {a:.2f} and {b:.2f}", _at(a, b))
        for a in axis
        for b in axis
    ]


ABLATION = Ablation(
    "surface", "loss and solved problems over the two alphas", _variants, quick=True, items=100,
    seeds=1,
)  # fmt: skip
