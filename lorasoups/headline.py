"""The headline experiment: every method on the target, with intervals, into one results file."""

import time
from collections import Counter
from datetime import UTC, datetime

import numpy as np
from tqdm import tqdm

from lorasoups import stats
from lorasoups.experiment import Experiment
from lorasoups.recipes import RECIPES, Recipe
from lorasoups.results import SCHEMA, pack_verdicts, provenance, results_path, write_results
from lorasoups.world import VERSION as WORLD_VERSION

SOUP = "cat"


def recipes_of(experiment: Experiment) -> list[Recipe]:
    """The methods of the profile, in the table's order: all, or those it names.

    The base, the skills and CAT are always among them: the comparisons need them.
    """
    p = experiment.profile
    wanted = {*p.methods, "base", *p.skills, SOUP} if p.methods else set(RECIPES)
    return [recipe for name, recipe in RECIPES.items() if name in wanted]


def tasks_of(experiment: Experiment, recipe: Recipe) -> list[str]:
    """The tests a method takes: all take the target, the main ones also what is told apart.

    A task without a number of test problems in the profile has no test (real code has none).
    """
    p = experiment.profile
    tasks = [p.target, *p.skills, *p.extras] if recipe.main else [p.target]
    return [task for task in tasks if task in p.n_test]


def run(experiment: Experiment, progress: bool = True) -> dict:
    """Evaluate everything that is not in the cache yet and write the results file.

    Args:
        experiment: profile, seeds and folders.
        progress: a bar on stderr.

    Returns:
        The results as written to ``data/results/<profile>.json`` (see `results`).
    """
    started = time.perf_counter()
    jobs = [
        (recipe, task, seed)
        for seed in experiment.seeds
        for recipe in recipes_of(experiment)
        for task in tasks_of(experiment, recipe)
    ]
    table: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    rows = []
    for recipe, task, seed in tqdm(jobs, desc="evaluate", disable=not progress, mininterval=10):
        verdicts = experiment.evaluate(recipe.name, task, seed)
        right = np.array([v["outcome"] == "ok" for v in verdicts])
        table.setdefault((task, recipe.name), {})[seed] = right
        rows += _rows(experiment, recipe, task, seed, verdicts, right)
    results = {
        "schema": SCHEMA,
        "profile": experiment.profile.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "complete": True,
        "provenance": provenance(
            base_sha256=experiment.source.sha256,
            world_version=WORLD_VERSION if experiment.profile.source == "world" else None,
            wall_s=round(time.perf_counter() - started, 1),
        ),
        "config": experiment.config(),
        "rows": rows,
        "items": _items(table),
        "comparisons": comparisons(experiment, table),
        "superlinearity": superlinearity(experiment, table),
        "alphas": _alphas(experiment),
        "curves": _curves(experiment),
        "sweep": _sweep(experiment),
        "skills": _skills(experiment),
        "timings": experiment.timings(),
    }
    path = results_path(experiment.profile.name, experiment.folders.base)
    write_results(path, results)
    return results


def _rows(experiment, recipe: Recipe, task: str, seed: int, verdicts, right) -> list[dict]:
    """One row per view of the test set (``all``; GSM-Hard has three)."""
    rows = []
    for view, chosen in experiment.views(task).items():
        own = [v for v, c in zip(verdicts, chosen, strict=True) if c]
        correct, n = int(right[chosen].sum()), len(own)
        rows.append({
            "task": task, "view": view, "method": recipe.name, "on": recipe.on or None,
            "weights": recipe.weight, "seed": seed, "n": n, "correct": correct,
            "accuracy": correct / n, "ci": list(stats.wilson(correct, n)),
            "outcomes": dict(sorted(Counter(v["outcome"] for v in own).items())), "extra": {},
        })  # fmt: skip
    return rows


def _items(table) -> dict:
    items: dict[str, dict] = {}
    for (task, method), seeds in table.items():
        packed = {str(seed): pack_verdicts(right) for seed, right in seeds.items()}
        items.setdefault(task, {})[method] = packed
    return items


def _matrix(table, task: str, method: str) -> np.ndarray:
    """Verdicts [seeds, items] of a method."""
    return np.stack([right for _, right in sorted(table[task, method].items())])


def comparisons(experiment: Experiment, table) -> list[dict]:
    """CAT against every other method on the target, paired over seeds and problems."""
    task = experiment.profile.target
    soup = _matrix(table, task, SOUP)
    found = []
    for name in [recipe.name for recipe in recipes_of(experiment)]:
        if name == SOUP:
            continue
        pair = stats.paired(soup, _matrix(table, task, name))
        found.append({"task": task, "a": SOUP, "b": name, "diff": pair.diff, "lo": pair.lo,
                      "hi": pair.hi, "p": pair.p, "wins": pair.wins,
                      "t_lo": pair.t_lo, "t_hi": pair.t_hi})  # fmt: skip
    for entry, p in zip(found, stats.holm([e["p"] for e in found]), strict=True):
        entry["p_holm"] = p
    return found


def superlinearity(experiment: Experiment, table) -> dict:
    """Gain of CAT over the base against the sum of the two skills' gains, on the target."""
    task = experiment.profile.target
    first, second = (_matrix(table, task, name) for name in experiment.profile.skills)
    found = stats.superlinearity(
        _matrix(table, task, "base"), first, second, _matrix(table, task, SOUP)
    )
    return {"gain_soup": found.gain_soup, "sum_of_gains": found.sum_of_gains,
            "diff": found.diff, "lo": found.lo, "hi": found.hi}  # fmt: skip


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
