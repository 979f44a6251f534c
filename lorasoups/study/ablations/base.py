"""What an ablation is: variants of one study that differ in one thing, on the same items."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lorasoups.errors import SoupError
from lorasoups.learning.alphas import Alphas
from lorasoups.lora.lora import LoRA
from lorasoups.lora.merging import merge
from lorasoups.study.stages import Experiment

OURS = "cat"


@dataclass(frozen=True)
class Soup:
    """What a variant gives: an adapter (None: it could not be made) and facts about it."""

    lora: LoRA | None
    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """One line of an ablation.

    Attributes:
        name: id in the results file; ``cat`` is our own setting, which all are compared with.
        label: what figures and tables call it.
        make: ``(experiment, seed) -> Soup``.
        curve: which line of a figure it belongs to; "" for a single bar.
        x: where on the figure's axis.
    """

    name: str
    label: str
    make: Callable[[Experiment, int], Soup]
    curve: str = ""
    x: float | None = None


@dataclass(frozen=True)
class Ablation:
    """An experiment of notebook 07.

    Attributes:
        name: of its results file.
        title: one line: what is varied.
        variants: for an experiment (its profile decides how many points a sweep has).
        quick: cheap enough for the notebook itself; the others belong to ``lorasoups ablate``.
        target: another target than the study's.
        items: only so many problems of the target; 0: all.
        seeds: only the first so many seeds; 0: all.
    """

    name: str
    title: str
    variants: Callable[[Experiment], Sequence[Variant]]
    quick: bool = False
    target: str = ""
    items: int = 0
    seeds: int = 0


def learned(
    experiment: Experiment, seed: int, loras: Sequence[LoRA], rows: list[dict], options: dict
) -> Soup:
    """Learn alphas and merge; the facts: held-out loss of the skills and how far alphas moved.

    A run that ends in a loss that is not finite gives no adapter: all its answers count as wrong.
    """
    try:
        alphas, loss = experiment.learn(loras, rows, options, seed)
    except SoupError as error:
        if "loss is" not in str(error):
            raise
        return Soup(None, {"diverged": 1.0})
    return Soup(merge(loras, OURS, weights=alphas), _facts(alphas) | {"heldout_loss": loss})


def _facts(alphas: Alphas) -> dict[str, float]:
    moved = alphas.history[-1]["alpha_moved"] if alphas.history else 0.0
    values = list(alphas.weights.values())
    means = sum(values) / len(values)
    return {"alpha_moved": float(moved)} | {
        f"alpha_{i + 1}": float(mean) for i, mean in enumerate(means)
    }


def ours(experiment: Experiment, seed: int) -> Soup:
    """CAT as in the study's own table."""
    options = experiment.alpha_options("ours")
    return learned(experiment, seed, experiment.pair(seed), experiment.alpha_rows(seed), options)


OUR_CAT = Variant(OURS, "CAT (ours)", ours)


def weighted(weight: float) -> Callable[[Experiment, int], Soup]:
    """The exact sum with one weight for all LoRAs."""

    def make(experiment: Experiment, seed: int) -> Soup:
        loras = experiment.pair(seed)
        soup = merge(loras, "cat", weights=[weight] * len(loras))
        return Soup(soup, {"heldout_loss": experiment.held_out_loss(soup)})

    return make
