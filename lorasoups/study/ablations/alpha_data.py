"""How much data the alphas need, and whose; always the same number of steps."""

import math
from dataclasses import replace

from lorasoups.study.ablations.base import OUR_CAT, Ablation, Variant, learned
from lorasoups.study.stages import Experiment

SHARES = (0.001, 0.01, 0.05, 0.25, 1.0)


def _steps(experiment: Experiment) -> int:
    """The steps of our own setting."""
    p = experiment.profile
    rows = len(p.skills) * max(1, round(p.alphas.share * p.n_train))
    return math.ceil(p.alphas.epochs * rows / p.alphas.batch_size)


def _on(share: float | None = None, skills: tuple[str, ...] = ()):
    def make(experiment: Experiment, seed: int):
        options = experiment.alpha_options("ours") | {"max_steps": _steps(experiment)}
        rows = experiment.alpha_rows(seed, share, skills)
        return learned(experiment, seed, experiment.pair(seed), rows, options)

    return make


def _variants(experiment: Experiment) -> list[Variant]:
    own = experiment.profile.alphas.share
    return [
        replace(OUR_CAT, curve="share", x=own),
        *(
            Variant(f"share_{s:g}", f"{100 * s:g} % of the data", _on(s), curve="share", x=s)
            for s in SHARES
            if s != own
        ),
        *(
            Variant(f"only_{name}", f"only the data of {name}", _on(skills=(name,)))
            for name in experiment.profile.skills
        ),
    ]


ABLATION = Ablation("alpha_data", "data that the alphas are learned on", _variants)
