"""Random LoRAs in place of skills, and a new LoRA on exactly the alpha data.

Source: "The Appeal and Reality of Recycling LoRAs" (arXiv 2602.12323); merging-facts, section 5.
"""

from collections.abc import Callable

from lorasoups.learning.random_loras import gaussian_like, permuted_like
from lorasoups.lora.lora import LoRA
from lorasoups.study.ablations.base import OUR_CAT, Ablation, Soup, Variant, learned
from lorasoups.study.stages import Experiment


def _replaced(which: tuple[int, ...], draw: Callable[[LoRA, int], LoRA]):
    """Alphas learned as ours, with the LoRAs of some places replaced by random ones."""

    def make(experiment: Experiment, seed: int) -> Soup:
        loras = [
            draw(lora, 100 * seed + i) if i in which else lora
            for i, lora in enumerate(experiment.pair(seed))
        ]
        options = experiment.alpha_options("ours")
        return learned(experiment, seed, loras, experiment.alpha_rows(seed), options)

    return make


def _fresh(experiment: Experiment, seed: int) -> Soup:
    lora = experiment.fresh_lora(seed).lora
    return Soup(lora, {"heldout_loss": experiment.held_out_loss(lora)})


def _variants(experiment: Experiment) -> list[Variant]:
    first, second = experiment.profile.skills[:2]
    every = tuple(range(len(experiment.profile.skills)))
    return [
        OUR_CAT,
        Variant("random_both", "both random", _replaced(every, gaussian_like)),
        Variant("random_first", f"{first} random", _replaced((0,), gaussian_like)),
        Variant("random_second", f"{second} random", _replaced((1,), gaussian_like)),
        Variant("permuted_both", "both with A shuffled", _replaced(every, permuted_like)),
        Variant("fresh", "new LoRA on the alpha data", _fresh),
    ]


ABLATION = Ablation("random_loras", "random LoRAs in place of skills", _variants, quick=True)
