"""Controls and ablations of notebook 07: every variant on the same items, one results file each."""

from collections.abc import Iterable

from tqdm import tqdm

from lorasoups.errors import SoupError
from lorasoups.study.ablations import alphas, skills
from lorasoups.study.ablations.alphas import Ablation
from lorasoups.study.collect import Collector
from lorasoups.study.stages import Stages

_ALL = (
    *(alphas.ALPHAS, alphas.RANDOM_LORAS, alphas.LR_SWEEP, alphas.ALPHA_DATA),
    *(skills.LENGTH, skills.RANK, skills.MORE, skills.THREE, alphas.SURFACE),
)
ABLATIONS: dict[str, Ablation] = {ablation.name: ablation for ablation in _ALL}


def run_ablation(stages: Stages, name: str, progress: bool = True) -> dict:
    """Evaluate one of `ABLATIONS` and write ``data/results/<profile>/<name>.json``.

    ``stages`` are those of hard math; ``progress`` shows a bar on stderr. Raises SoupError for an
    unknown name.
    """
    if name not in ABLATIONS:
        raise SoupError(f"unknown ablation {name!r}: choose from {', '.join(ABLATIONS)}")
    ablation = ABLATIONS[name]
    stages = _on_target(stages, ablation)
    variants, task = ablation.variants(stages), stages.profile.target
    seeds = stages.seeds[: ablation.seeds or None]
    collector = Collector(stages, name)
    jobs = [(seed, variant) for seed in seeds for variant in variants]
    for seed, variant in tqdm(jobs, desc=name, disable=not progress, mininterval=10):
        soup = variant.make(stages, seed)
        verdicts = [{"outcome": "diverged"}] * len(stages.items(task))
        if soup.lora is not None:
            verdicts = stages.evaluate_adapter(soup.lora, task)
        collector.add(task, variant.name, seed, verdicts, label=variant.label, extra=soup.facts)
    places = {v.name: {"curve": v.curve, "x": v.x} for v in variants if v.curve}
    config = {"ablation": ablation.title, "places": places}
    return collector.write(config=config, superlinearity={})


def run_ablations(stages: Stages, names: Iterable[str] = (), progress: bool = True) -> list[str]:
    """Run several ablations (default: all) in the registry's order; returns their names."""
    names = list(names) or list(ABLATIONS)
    for name in names:
        run_ablation(stages, name, progress)
    return names


def _on_target(stages: Stages, ablation: Ablation) -> Stages:
    p = stages.profile
    target, n = ablation.target or p.target, p.n_test[p.target]
    n_test = p.n_test | {target: min(n, ablation.items or n)}
    if (target, n_test) == (p.target, p.n_test):
        return stages
    return skills.same_alphas(stages, target=target, n_test=n_test)
