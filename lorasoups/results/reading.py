"""Reading a results file: what figures, tables and sentences pick out of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from lorasoups.errors import SoupError
from lorasoups.results import stats
from lorasoups.results.file import find, unpack_verdicts

Results = Mapping[str, Any]
SKILLS, MIX, CAT, CONTROLS, SEARCH, STATIC = GROUPS = (
    "base and single skills",
    "trained on the data of all skills",
    "CAT",
    "controls: other alphas, a new LoRA",
    "learned otherwise",
    "static merges",
)
"""What tables and figures put methods under, in this order."""
RESAMPLES = 2000  # for intervals of single methods, of which a table has dozens


def percent(share: float) -> str:
    """``62.4``, of a share of 1."""
    return f"{100 * share:.1f}"


def interval(lo: float | None, hi: float | None, sign: str = "") -> str:
    """``[58.1, 66.0]`` in percent or points; a dash where there is none."""
    return "-" if lo is None or hi is None else f"[{100 * lo:{sign}.1f}, {100 * hi:{sign}.1f}]"


def label(method: str, results: Results) -> str:
    """What figures and tables call a method: what the results say, else its id."""
    return results["config"].get("labels", {}).get(method, method)


def group(method: str, results: Results) -> str:
    """The group of `GROUPS` that a method belongs to; unknown ones count as static merges."""
    return results["config"].get("groups", {}).get(method, STATIC)


def target(results: Results) -> str:
    """The task that needs all skills."""
    return results["config"]["target"]


def skills(results: Results) -> list[str]:
    """The skills, in the order of CAT's alphas; a skill's task and its LoRA bear its name."""
    return list(results["config"]["skills"])


def test_of(results: Results, skill: str) -> str:
    """The task on which a skill alone is tested: its own name, unless the results name another."""
    return results["config"].get("tests", {}).get(skill, skill)


def rows(results: Results, **filters: Any) -> list[Mapping[str, Any]]:
    """Rows of the target on all its problems, or of what ``filters`` say."""
    return find(results["rows"], **{"task": target(results), "view": "all"} | filters)


def methods(results: Results, **filters: Any) -> dict[str, list[str]]:
    """The methods that have such rows, by group, both in their fixed order."""
    present = dict.fromkeys(row["method"] for row in rows(results, **filters))
    order = results["config"].get("labels", {})
    ordered = [m for m in order if m in present] + [m for m in present if m not in order]
    grouped = {name: [m for m in ordered if group(m, results) == name] for name in GROUPS}
    return {name: members for name, members in grouped.items() if members}


def seeds_text(results: Results) -> str:
    """``one seed`` or ``5 seeds``: how many the target was evaluated with."""
    n = len({row["seed"] for row in rows(results)})
    return "one seed" if n == 1 else f"{n} seeds"


@dataclass(frozen=True)
class Estimate:
    """Accuracy of a method: mean over seeds, 95 % interval, accuracy of each seed, problems."""

    mean: float
    lo: float
    hi: float
    per_seed: tuple[float, ...]
    n: int


def estimate(
    results: Results, method: str, task: str | None = None, view: str = "all"
) -> Estimate | None:
    """Accuracy with its interval; None where the method was not evaluated.

    Several seeds: over new seeds and new problems (`stats.paired` against always wrong). One seed,
    a view, or all right or all wrong: the hull of the seeds' Wilson intervals.
    """
    task = task or target(results)
    of_seeds = rows(results, task=task, view=view, method=method)
    if not of_seeds:
        return None
    accuracies, n = tuple(row["accuracy"] for row in of_seeds), of_seeds[0]["n"]
    lo, hi = min(row["ci"][0] for row in of_seeds), max(row["ci"][1] for row in of_seeds)
    packed = results["items"].get(task, {}).get(method, {})
    if view == "all" and len(of_seeds) > 1 and len(packed) == len(of_seeds):
        verdicts = np.stack([unpack_verdicts(text, n) for text in packed.values()])
        if verdicts.any() and not verdicts.all():
            against_wrong = stats.paired(verdicts, np.zeros_like(verdicts), RESAMPLES)
            lo, hi = against_wrong.lo, against_wrong.hi
    return Estimate(float(np.mean(accuracies)), lo, hi, accuracies, n)


def matrix(
    results: Results, task: str, method: str, view: str = "all", seeds: Iterable[str] = ()
) -> np.ndarray:
    """Verdicts on a view's items, bool [seeds, items]; default all seeds. Raises SoupError."""
    packed = results["items"].get(task, {}).get(method, {})
    seeds = list(seeds) or sorted(packed, key=int)
    if not packed or any(seed not in packed for seed in seeds):
        raise SoupError(f"no verdicts: {method} on {task}; evaluate it with all seeds")
    n = find(results["rows"], task=task, method=method, view="all")[0]["n"]
    table = np.stack([unpack_verdicts(packed[seed], n) for seed in seeds])
    if view == "all":
        return table
    chosen = results.get("views", {}).get(task, {}).get(view)
    if chosen is None:
        raise SoupError(f"items not listed: view {view!r} of {task}; write the file's 'views'")
    return table[:, unpack_verdicts(chosen, n)]


def pair(results: Results, task: str, a: str, b: str) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts of two methods, bool [seeds, items] each, of the same seeds. Raises SoupError."""
    seeds = [set(results["items"].get(task, {}).get(m, {})) for m in (a, b)]
    if all(seeds) and seeds[0] != seeds[1]:
        raise SoupError(f"different seeds: {a} and {b} on {task}; evaluate both with all seeds")
    return matrix(results, task, a), matrix(results, task, b)


def against_all(results: Results, task: str) -> dict[str, stats.Paired]:
    """CAT minus every other method on any test. Raises SoupError like `pair`."""
    others = [method for method in results["items"].get(task, {}) if method != "cat"]
    if not others:
        raise SoupError(f"no verdicts: {task}; tests are {', '.join(results['items'])}")
    return {other: stats.paired(*pair(results, task, "cat", other)) for other in others}


def extras(results: Results, method: str, name: str) -> list[float]:
    """A further number of a method's rows on the target, where they have it."""
    return [row["extra"][name] for row in rows(results, method=method) if name in row["extra"]]


def places(results: Results) -> dict[str, list[tuple[float, str]]]:
    """Curve of an ablation -> its points (x, method), by x."""
    curves: dict[str, list[tuple[float, str]]] = {}
    for method, place in results["config"]["places"].items():
        curves.setdefault(place["curve"], []).append((place["x"], method))
    return {curve: sorted(points) for curve, points in curves.items()}


def alphas_by_seed(results: Results, preset: str = "ours") -> np.ndarray:
    """Alphas [seeds, modules, k], modules in the order of their names."""
    seeds: dict[int, dict[str, list]] = {}
    for e in results["alphas"]:
        if e["preset"] == preset:
            seeds.setdefault(e["seed"], {})[e["module"]] = e["values"]
    return np.array([[values for _, values in sorted(of.items())] for of in seeds.values()])


def correlations(results: Results, preset: str = "ours") -> list[list[float]]:
    """Per LoRA Spearman's rank correlation over modules, for every pair of seeds."""
    return [
        [float(spearmanr(a, b).statistic) for a, b in combinations(of_lora, 2)]
        for of_lora in np.moveaxis(alphas_by_seed(results, preset), -1, 0)
    ]
