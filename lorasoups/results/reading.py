"""Reading a results file: what figures, tables and sentences pick out of it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lorasoups.errors import SoupError
from lorasoups.results import stats
from lorasoups.results.file import find, unpack_verdicts

Results = Mapping[str, Any]
SKILLS, CEILING, MIX, CAT, CONTROLS, SEARCH, STATIC = GROUPS = (
    "base and single skills", "ceiling: trained on the target",
    "trained on the data of all skills", "CAT", "controls: other alphas, a new LoRA",
    "learned otherwise", "static merges",
)  # fmt: skip
"""What tables and figures put methods under, in this order."""
PAPER = ("ties@factors/w1", "dare_linear@factors/w1", "dare_ties@factors/w1", "lorahub@factors",
         "xlora")  # fmt: skip
"""The paper's baselines but DATA-MIX: merges of A and B apart, LoraHub, a mixture of experts."""
SUM, AVERAGE, TUNED, LORAHUB = "linear@delta/w1", "linear@delta", "tuned_sum", "lorahub@delta"
PLAIN = {SUM: "plain sum", AVERAGE: "average"}  # weights 1; weights 1/k
NO_FORM = ("no_solution", "syntax", "exception", "bad_type", "timeout", "memory", "refused",
           "wrong_form", "diverged")  # fmt: skip
"""Outcomes of answers that are not in the form: no program that returns a number, no brackets."""


def percent(share: float) -> str:
    """``62.4``, of a share of 1."""
    return f"{100 * share:.1f}"


def interval(lo: float | None, hi: float | None, sign: str = "") -> str:
    """``[58.1, 66.0]`` in percent or points; a dash where there is none."""
    return "-" if lo is None or hi is None else f"[{100 * lo:{sign}.1f}, {100 * hi:{sign}.1f}]"


def p_value(p: float, equals: str = "") -> str:
    """``0.012``, after ``equals`` where it is given; ``< 0.001``; four digits beside 0.05."""
    return "< 0.001" if p < 0.001 else f"{equals}{p:.{4 if round(p, 3) == 0.05 else 3}f}"


def label(method: str, results: Results) -> str:
    """What figures and tables call a method: a plain name, what the results say, or its id."""
    return PLAIN.get(method) or results["config"].get("labels", {}).get(method, method)


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


def methods(results: Results) -> dict[str, list[str]]:
    """The methods that were evaluated on the target, by group, both in their fixed order."""
    present = dict.fromkeys(row["method"] for row in rows(results))
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


def estimate(results: Results, method: str, task: str = "", view: str = "all") -> Estimate | None:
    """Accuracy with its interval; None where the method was not evaluated.

    Several seeds: over new seeds and new problems (`stats.contrast`). One seed, a view, or all
    right or all wrong: the hull of the seeds' Wilson intervals.
    """
    task = task or target(results)
    of_seeds = rows(results, task=task, view=view, method=method)
    if not of_seeds:
        return None
    accuracies, n = tuple(row["accuracy"] for row in of_seeds), of_seeds[0]["n"]
    lo, hi = min(row["ci"][0] for row in of_seeds), max(row["ci"][1] for row in of_seeds)
    packed = results["items"].get(task, {}).get(method, {})
    if view == "all" and len(of_seeds) > 1 and len(packed) == len(of_seeds):
        verdicts = matrix(results, task, method)
        if verdicts.any() and not verdicts.all():
            found = stats.contrast(verdicts.astype(float))
            lo, hi = max(0.0, found.lo), min(1.0, found.hi)
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


def against(
    results: Results, methods: Iterable[str] | None = None, task: str = ""
) -> dict[str, stats.Paired]:
    """CAT minus other methods (default: every one) on a test; those not evaluated are left out."""
    task = task or target(results)
    evaluated = results["items"].get(task, {})
    wanted = evaluated if methods is None else methods
    others = [m for m in wanted if m in evaluated and m != "cat" and "cat" in evaluated]
    return {other: stats.paired(*pair(results, task, "cat", other)) for other in others}


@dataclass(frozen=True)
class Primary:
    """A contrast that was named before the run: CAT minus something, with Holm's correction."""

    name: str  # minus what
    pair: stats.Paired
    p_holm: float  # over the study's primary contrasts


def primary(results: Results) -> list[Primary]:
    """CAT minus the mean of the paper's baselines, the fitted sum (else the plain one), DATA-MIX,
    and the better skill: those of them that were evaluated on the target."""
    task, evaluated = target(results), results["items"].get(target(results), {})
    paper = [m for m in PAPER if m in evaluated]
    of_skills = [m for m in skills(results) if m in evaluated]
    best = max(of_skills, key=lambda m: estimate(results, m).mean, default="")
    total = TUNED if TUNED in evaluated else SUM
    named = {f"the mean of the paper's baselines ({len(paper)})": paper}
    named |= {label(m, results): [m] for m in (total, "data_mix", best)}
    pairs = {
        name: stats.contrast(np.mean([a.astype(float) - b for a, b in tables], axis=0))
        for name, others in named.items()
        if others and "cat" in evaluated and all(m in evaluated for m in others)
        for tables in [[pair(results, task, "cat", other) for other in others]]
    }
    adjusted = stats.holm([found.p for found in pairs.values()])
    return [Primary(*entry, p) for entry, p in zip(pairs.items(), adjusted, strict=True)]


def superlinear(results: Results) -> stats.Superlinearity | None:
    """CAT's gain over the base against its two skills' gains; None for other k, or no verdicts."""
    task, names = target(results), ("base", *skills(results), "cat")
    if len(names) != 4 or not all(m in results["items"].get(task, {}) for m in names):
        return None
    return stats.superlinearity(*(matrix(results, task, name) for name in names))


def outcomes(results: Results, method: str) -> Counter:
    """How often each outcome came of a method on the target, over all its seeds."""
    return sum((Counter(row["outcomes"]) for row in rows(results, method=method)), Counter())


def form(results: Results, method: str) -> tuple[float, float] | None:
    """Share of a method's answers in the asked form, and of these the share that is right."""
    counts = outcomes(results, method)
    if not counts:
        return None
    formed = counts.total() - sum(counts[name] for name in NO_FORM)
    return formed / counts.total(), counts["ok"] / max(1, formed)


def kept(results: Results, method: str) -> list[float]:
    """Per skill the accuracy on its own test against its LoRA's alone; [] if a test is missing."""
    tests = {skill: test_of(results, skill) for skill in skills(results)}
    pairs = [(estimate(results, method, t), estimate(results, s, t)) for s, t in tests.items()]
    if not all(ours and alone and alone.mean for ours, alone in pairs):
        return []
    return [ours.mean / alone.mean for ours, alone in pairs]


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The Pareto front: none is better than these in one number and as good in the other."""
    return [
        name
        for name, (x, y) in points.items()
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points.values())
    ]


def kept_by_method(results: Results) -> tuple[dict[str, list[float]], list[str]]:
    """`kept` of every method on the target, and the front of target and the skill kept least."""
    shares = {method: kept(results, method) for method in order(results)}
    points = {m: (estimate(results, m).mean, min(of)) for m, of in shares.items() if of}
    return shares, front(points)


def order(results: Results) -> list[str]:
    """Every method that was evaluated on the target, in the order of tables."""
    return [m for members in methods(results).values() for m in members]


def extras(results: Results, method: str, name: str) -> list[float]:
    """A further number of a method's rows on the target, where they have it."""
    return [row["extra"][name] for row in rows(results, method=method) if name in row["extra"]]


def places(results: Results) -> dict[str, list[tuple[float, str]]]:
    """Curve of an ablation -> its points (x, method), by x."""
    curves: dict[str, list[tuple[float, str]]] = {}
    for method, place in results["config"]["places"].items():
        curves.setdefault(place["curve"], []).append((place["x"], method))
    return {curve: sorted(points) for curve, points in curves.items()}


def alphas_by_seed(results: Results) -> np.ndarray:
    """CAT's alphas [seeds, modules, k], modules in the order of their names."""
    seeds: dict[int, dict[str, list]] = {}
    for e in results["alphas"]:
        if e["preset"] == "ours":
            seeds.setdefault(e["seed"], {})[e["module"]] = e["values"]
    return np.array([[values for _, values in sorted(of.items())] for of in seeds.values()])
