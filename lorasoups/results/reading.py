"""Reading the results file: what figures, tables and sentences pick out of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lorasoups.results import stats
from lorasoups.results.file import find, unpack_verdicts
from lorasoups.study.recipes import (
    CAT,
    CONTROLS,
    GROUPS,
    MIX,
    RECIPES,
    SEARCH,
    SKILLS,
    STATIC_MERGES,
)

Results = Mapping[str, Any]
STATIC = STATIC_MERGES
__all__ = ["CAT", "CONTROLS", "GROUPS", "MIX", "SEARCH", "SKILLS", "STATIC"]
RESAMPLES = 2000  # for intervals of single methods, of which a table has dozens


def percent(share: float) -> str:
    """``62.4``, of a share of 1."""
    return f"{100 * share:.1f}"


def label(method: str, results: Results | None = None) -> str:
    """What a figure or table calls a method: what the results say, else its recipe, else its id."""
    labels = results.get("config", {}).get("labels", {}) if results else {}
    if method in labels:
        return labels[method]
    return RECIPES[method].label if method in RECIPES else method


def group(method: str, results: Results | None = None) -> str:
    """The group of `GROUPS` that a method belongs to; unknown ones count as static merges."""
    groups = results.get("config", {}).get("groups", {}) if results else {}
    if method in groups:
        return groups[method]
    return RECIPES[method].group if method in RECIPES else STATIC_MERGES


def target(results: Results) -> str:
    """The task that needs both skills."""
    return results["config"]["target"]


def skills(results: Results) -> list[str]:
    """The skills, in the order of CAT's alphas; a skill's task and its LoRA bear its name."""
    return list(results["config"]["skills"])


def test_of(results: Results, skill: str) -> str:
    """The task on which a skill alone is tested (its own name, where nothing else is said)."""
    return results["config"].get("tests", {}).get(skill, skill)


def rows(results: Results, **filters: Any) -> list[Mapping[str, Any]]:
    """Rows of the target on all its problems, or of what ``filters`` say."""
    return find(results["rows"], **{"task": target(results), "view": "all"} | filters)


def methods(results: Results, **filters: Any) -> dict[str, list[str]]:
    """The methods that have such rows, by group, both in their fixed order."""
    present = dict.fromkeys(row["method"] for row in rows(results, **filters))
    order = list(results["config"].get("labels", RECIPES))
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

    One seed: Wilson's interval over problems. Several: over new seeds and new problems
    (`stats.paired` against always wrong); where that cannot be had (a view without verdicts) or has
    no width (all right or all wrong), the hull of the seeds' Wilson intervals.
    """
    task = task or target(results)
    own = rows(results, task=task, view=view, method=method)
    if not own:
        return None
    accuracies = tuple(row["accuracy"] for row in own)
    lo, hi = min(row["ci"][0] for row in own), max(row["ci"][1] for row in own)
    packed = results["items"].get(task, {}).get(method, {})
    if view == "all" and len(own) > 1 and len(packed) == len(own):
        verdicts = np.stack([unpack_verdicts(text, own[0]["n"]) for text in packed.values()])
        if verdicts.any() and not verdicts.all():
            against_nothing = stats.paired(verdicts, np.zeros_like(verdicts), resamples=RESAMPLES)
            lo, hi = against_nothing.lo, against_nothing.hi
    return Estimate(float(np.mean(accuracies)), lo, hi, accuracies, own[0]["n"])
