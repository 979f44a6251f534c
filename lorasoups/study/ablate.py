"""Run ablations: every variant on the same items, one results file per ablation.

``python -m lorasoups ablate`` runs all; what is in the store is not run again.
"""

from collections.abc import Iterable

from tqdm import tqdm

from lorasoups.errors import SoupError
from lorasoups.results.file import results_path, write_results
from lorasoups.study.ablations import ABLATIONS, Ablation
from lorasoups.study.record import Record
from lorasoups.study.stages import Experiment


def run(experiment: Experiment, name: str, progress: bool = True) -> dict:
    """Evaluate one ablation and write ``data/results/<profile>/<name>.json``.

    Args:
        experiment: the study (hard math) with its seeds.
        name: of `ABLATIONS`.
        progress: a bar on stderr with an estimate of what remains.

    Raises:
        SoupError: unknown name.
    """
    if name not in ABLATIONS:
        raise SoupError(f"unknown ablation {name!r}: choose from {', '.join(ABLATIONS)}")
    ablation = ABLATIONS[name]
    own = _on_target(experiment, ablation)
    variants = ablation.variants(own)
    seeds = own.seeds[: ablation.seeds or None]
    record = Record(own, name)
    jobs = [(seed, variant) for seed in seeds for variant in variants]
    task = own.profile.target
    for seed, variant in tqdm(jobs, desc=name, disable=not progress, mininterval=10):
        soup = variant.make(own, seed)
        if soup.lora is None:
            verdicts = [{"outcome": "diverged"}] * len(own.items(task))
        else:
            verdicts = own.evaluate_adapter(soup.lora, task)
        record.add(task, variant.name, seed, verdicts, label=variant.label, extra=soup.facts)
    places = {v.name: {"curve": v.curve, "x": v.x} for v in variants if v.curve}
    results = record.results(superlinearity={})
    results["config"] |= {"ablation": ablation.title, "places": places}
    write_results(results_path(own.profile.name, name, own.folders.base), results)
    return results


def _on_target(experiment: Experiment, ablation: Ablation) -> Experiment:
    p = experiment.profile
    target = ablation.target or p.target
    n = p.n_test[p.target]
    n = min(n, ablation.items or n)
    if target == p.target and n == p.n_test[target]:
        return experiment
    other = experiment.variant(target=target, n_test=p.n_test | {target: n})
    other.sweep = experiment.sweep
    return other


def run_all(experiment: Experiment, names: Iterable[str] = (), progress: bool = True) -> list[str]:
    """Run several ablations (default: all) in the registry's order; returns their names."""
    wanted = list(names) or list(ABLATIONS)
    for name in wanted:
        run(experiment, name, progress)
    return wanted
