"""The learning rate of the alphas, from 1e-4 to 1, with how far they move from their start."""

from lorasoups.study.ablations.base import OUR_CAT, Ablation, Variant, learned
from lorasoups.study.stages import Experiment

RATES = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 1.0)
NORMALISE = ("none", "softmax")


def _at(normalise: str, lr: float):
    def make(experiment: Experiment, seed: int):
        options = experiment.options(normalise, "uniform", lr)
        rows = experiment.alpha_rows(seed)
        return learned(experiment, seed, experiment.pair(seed), rows, options)

    return make


def _variants(experiment: Experiment) -> list[Variant]:
    rates = RATES if experiment.profile.name != "smoke" else (1e-4, 1e-1)
    return [
        OUR_CAT,
        *(
            Variant(f"{n}/{lr:g}", f"{n}, lr {lr:g}", _at(n, lr), curve=n, x=lr)
            for n in NORMALISE
            for lr in (rates if n == "none" else rates[1:6:2])
        ),
    ]


ABLATION = Ablation("lr_sweep", "learning rate of the alphas", _variants)
