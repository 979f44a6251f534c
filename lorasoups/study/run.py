"""A study: every method on the target, with intervals, into one results file."""

from collections import Counter

from tqdm import tqdm

from lorasoups.results.file import results_path, write_results
from lorasoups.study.recipes import Recipe
from lorasoups.study.record import SOUP, Record
from lorasoups.study.stages import Experiment

MAJORITY = "majority"


def recipes_of(experiment: Experiment) -> list[Recipe]:
    """The methods of the profile, in the table's order: all, or those it names.

    The base, the skills and CAT are always among them: the comparisons need them.
    """
    p = experiment.profile
    wanted = {*p.methods, "base", *p.skills, SOUP} if p.methods else set(experiment.recipes)
    return [recipe for name, recipe in experiment.recipes.items() if name in wanted]


def tasks_of(experiment: Experiment, recipe: Recipe) -> list[str]:
    """The tests a method takes: all take the target, the main ones also what is told apart.

    A task without a number of test problems in the profile has no test (real code has none).
    """
    p = experiment.profile
    tests = [p.test_of(skill) for skill in p.skills]
    tasks = [p.target, *tests, *p.extras] if recipe.main else [p.target]
    return [task for task in tasks if task in p.n_test]


def run(experiment: Experiment, progress: bool = True) -> dict:
    """Evaluate everything that is not in the cache yet and write the results file.

    Args:
        experiment: profile, seeds and folders.
        progress: a bar on stderr.

    Returns:
        The results as written to ``data/results/<profile>/<study>.json`` (see `results`).
    """
    jobs = [
        (recipe, task, seed)
        for seed in experiment.seeds
        for recipe in recipes_of(experiment)
        for task in tasks_of(experiment, recipe)
    ]
    record = Record(experiment, experiment.profile.study)
    for recipe, task, seed in tqdm(jobs, desc="evaluate", disable=not progress, mininterval=10):
        verdicts = experiment.evaluate(recipe.name, task, seed)
        record.add(task, recipe.name, seed, verdicts, label=recipe.label, group=recipe.group,
                   on=recipe.on or None, weights=recipe.weight)  # fmt: skip
    if experiment.profile.study == "formats":
        _majority(record)
    results = record.results(
        **_shared(experiment),
        alphas=_alphas(experiment),
        curves=_curves(experiment),
        sweep=_sweep(experiment),
        skills=_skills(experiment),
        timings=experiment.timings(),
    )
    path = results_path(experiment.profile.name, record.name, experiment.folders.base)
    write_results(path, results)
    return results


def _majority(record: Record) -> None:
    """The most common answer of the training data, given always."""
    experiment = record.experiment
    p = experiment.profile
    seen = Counter(
        item["target"]
        for skill in p.skills
        for item in experiment.source.items(skill, "train", p.n_train)
    )
    answer = seen.most_common(1)[0][0]
    lines = [
        {"outcome": "ok" if item["target"] == answer else "wrong"}
        for item in experiment.items(p.target)
    ]
    for seed in experiment.seeds:
        record.add(p.target, MAJORITY, seed, lines, label=f"always {answer} (majority)",
                   group=experiment.recipes["base"].group)  # fmt: skip


def _shared(experiment: Experiment) -> dict:
    """What training and test items share, where there is anything to tell."""
    p = experiment.profile
    found = experiment.source.decontamination(dict.fromkeys(p.skills, p.n_train), p.n_test)
    return {"decontamination": found} if found else {}


def _presets(experiment: Experiment) -> list[str]:
    """The learned soups whose alphas are told; those of lr = 0 say nothing."""
    return [r.preset for r in recipes_of(experiment) if r.kind == "learned" and r.preset != "lr0"]


def _alphas(experiment: Experiment) -> list[dict]:
    return [
        {"seed": seed, "preset": preset, "normalise": learned.normalise, "module": module,
         "values": [round(float(a), 6) for a in values]}
        for seed in experiment.seeds
        for preset in _presets(experiment)
        for learned in [experiment.alphas(seed, preset)]
        for module, values in learned.weights.items()
    ]  # fmt: skip


def _curves(experiment: Experiment) -> list[dict]:
    return [
        {"seed": seed, "preset": preset, "step": e["step"], "loss": round(e["loss"], 5),
         "alpha_mean": [round(a, 5) for a in e["alpha_mean"]],
         "alpha_moved": round(e["alpha_moved"], 6)}
        for seed in experiment.seeds
        for preset in _presets(experiment)
        for e in experiment.alphas(seed, preset).history
    ]  # fmt: skip


def _sweep(experiment: Experiment) -> list[dict]:
    """The sweep, and what each entry solves of the target - looked at after the choice was made."""
    found = []
    for entry in experiment.sweep:
        soup = experiment.swept_soup(entry)
        verdicts = experiment.evaluate_adapter(soup, experiment.profile.target)
        right = sum(v["outcome"] == "ok" for v in verdicts)
        found.append(entry | {"target_accuracy": right / len(verdicts)})
    return found


def _skills(experiment: Experiment) -> list[dict]:
    keep = ("steps", "loss", "seconds", "tokens_per_s")
    return [
        {"seed": seed, "name": name, **{k: experiment.skill(name, seed).log[k] for k in keep}}
        for seed in experiment.seeds
        for name in [r.name for r in recipes_of(experiment) if r.kind in ("skill", "mix")]
    ]
