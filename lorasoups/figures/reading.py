"""What the figures show, picked out of the results file."""

from collections.abc import Mapping
from typing import Any

from lorasoups.figures import style
from lorasoups.recipes import RECIPES
from lorasoups.results import find

# name of a group of methods -> fill and hatch: the hatch tells groups apart in grey
GROUPS = {
    "base and single skills": (style.SKY, ""),
    "trained on the data of both skills": (style.ORANGE, "///"),
    "CAT": (style.BLUE, ""),
    "controls: alphas not really learned": (style.PURPLE, "\\\\\\"),
    "static merges": (style.GREY, "..."),
}
_BY_KIND = dict(
    zip(("base", "mix", "cat", "control", "static"), GROUPS, strict=True), skill=next(iter(GROUPS))
)


def label(method: str) -> str:
    """What a figure or table calls a method."""
    return RECIPES[method].label if method in RECIPES else method


def group(method: str) -> str:
    """The group of `GROUPS` that a method belongs to; unknown ones count as static merges."""
    kind = RECIPES[method].kind if method in RECIPES else "static"
    if kind in ("learned", "random"):
        kind = "cat" if method == "cat" else "control"
    return _BY_KIND[kind]


def target(results: Mapping[str, Any]) -> str:
    """The task that needs both skills."""
    return results["config"]["target"]


def skills(results: Mapping[str, Any]) -> list[str]:
    """The skills, in the order of CAT's alphas."""
    return list(results["config"]["skills"])


def rows(results: Mapping[str, Any], **filters: Any) -> list[Mapping[str, Any]]:
    """Rows of the target on all its problems, or of what ``filters`` say."""
    return find(results["rows"], **{"task": target(results), "view": "all"} | filters)


def methods(results: Mapping[str, Any], **filters: Any) -> dict[str, list[str]]:
    """The methods that have such rows, by group, both in their fixed order."""
    present = dict.fromkeys(row["method"] for row in rows(results, **filters))
    ordered = [name for name in RECIPES if name in present]
    ordered += [name for name in present if name not in RECIPES]
    grouped = {name: [m for m in ordered if group(m) == name] for name in GROUPS}
    return {name: members for name, members in grouped.items() if members}


def number_of_seeds(results: Mapping[str, Any]) -> int:
    """How many seeds the target was evaluated with."""
    return len({row["seed"] for row in rows(results)})


def seeds_text(results: Mapping[str, Any]) -> str:
    """``one seed`` or ``5 seeds``."""
    n = number_of_seeds(results)
    return "one seed" if n == 1 else f"{n} seeds"
