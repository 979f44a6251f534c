"""Sentences that people wrote: ``data/claims.json`` names each with what it asserts.

An entry has ``id``, ``where`` (a file of the project), ``text`` (the sentence or the part of it
that stands there; in a notebook: in a Markdown cell), ``experiment``, and one of

* a relation: ``a``, ``b``, ``says`` (method a is ``above``, ``below`` or - ``open`` - not told
  apart from b: where the paired 95 % interval lies), optionally ``seeds_won`` ``[k, n]``;
* a number: ``metric`` with ``min``, ``max`` or both. With ``method``: its ``accuracy`` (a share of
  1) or a field of its rows' ``extra``, ``over`` seeds (``mean``, the default, ``min`` or ``max``).
  Without: a path into the file, such as ``provenance.wall_s``.

``task`` (default: the target) and ``view`` (default: all items) are optional.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lorasoups.errors import SoupError
from lorasoups.paths import Folders
from lorasoups.results import stats
from lorasoups.results.check import Finding
from lorasoups.results.items import pair
from lorasoups.results.reading import Results, label, rows
from lorasoups.run.notebook_files import read_notebook

SIGNS = {"above": ">", "below": "<", "open": "not told apart from"}
OVER = {"mean": np.mean, "min": np.min, "max": np.max}
_NEEDED = {"id", "where", "text", "experiment"}
_RELATION = {"a", "b", "says"}
_METRIC = {"metric", "method", "over", "min", "max"}
_OPTIONAL = {"task", "view", "seeds_won"}


def written(folders: Folders, known: Mapping[str, Results]) -> Iterator[Finding]:
    """A finding per entry of ``data/claims.json``; one that fails if the file cannot be read."""
    path = folders.data / "claims.json"
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(listed, list):
            raise ValueError("no list")
    except (OSError, ValueError) as error:
        yield Finding("data/claims.json can be read", False, f"{error}; restore it from git")
        return
    for position, claim in enumerate(listed):
        trouble = _malformed(claim)
        if trouble:
            yield Finding(f"claim {position} of data/claims.json", False, trouble)
        else:
            yield _claim(folders, known, claim)


def _malformed(claim: Any) -> str:
    """Why an entry asserts nothing; empty where it does."""
    if not isinstance(claim, dict):
        return "not a JSON object"
    missing = sorted(_NEEDED - claim.keys())
    kind = _RELATION if claim.keys() & _RELATION else {"metric"}
    missing += sorted(kind - claim.keys())
    known = _NEEDED | _OPTIONAL | (_RELATION if kind is _RELATION else _METRIC)
    unknown = sorted(claim.keys() - known)
    if missing or unknown:
        named = {"missing": missing, "meaningless here": unknown}
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in named.items() if names)
    if not str(claim["text"]).strip():
        return "an empty text stands everywhere"
    if claim.get("says", "open") not in SIGNS:
        return f"says {claim['says']!r}, not one of {', '.join(SIGNS)}"
    if claim.get("over", "mean") not in OVER:
        return f"over {claim['over']!r}, not one of {', '.join(OVER)}"
    bounds = [claim[name] for name in ("min", "max") if name in claim]
    if kind is not _RELATION and not (bounds and all(isinstance(b, int | float) for b in bounds)):
        return "a metric needs numbers min or max"
    if not isinstance(claim.get("seeds_won", []), list):
        return "seeds_won is no list [k, n]"
    return ""


def _claim(folders: Folders, known: Mapping[str, Results], claim: Mapping[str, Any]) -> Finding:
    what = f"{claim['id']} ({claim['where']}, {claim['text']!r})"
    try:
        text = _prose(folders.project / claim["where"])
    except (OSError, SoupError) as error:
        return Finding(what, False, f"the file cannot be read, {error}")
    if " ".join(claim["text"].split()) not in " ".join(text.split()):
        return Finding(what, False, "the sentence is not there")
    if claim["experiment"] not in known:
        return Finding(what, False, f"no results of {claim['experiment']}")
    results = known[claim["experiment"]]
    try:
        holds, says = (_relation if "says" in claim else _number)(results, claim)
    except SoupError as error:
        return Finding(what, False, str(error))
    return Finding(what, holds, says)


def _prose(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    return "\n".join(c.source for c in read_notebook(path).cells if c.cell_type == "markdown")


def _place(results: Results, claim: Mapping[str, Any]) -> tuple[str, str, str]:
    """Task, view, and both in words."""
    task, view = claim.get("task", results["config"]["target"]), claim.get("view", "all")
    words = task.replace("_", " ") + (f" ({view})" if view != "all" else "")
    return task, view, words


def _relation(results: Results, claim: Mapping[str, Any]) -> tuple[bool, str]:
    task, view, words = _place(results, claim)
    ours, theirs = pair(results, task, claim["a"], claim["b"], view)
    found = stats.paired(ours, theirs)
    relation = "above" if found.lo > 0 else "below" if found.hi < 0 else "open"
    seeds, lost = len(ours), int(np.sum(ours.sum(axis=1) < theirs.sum(axis=1)))
    a, b = (label(claim[side], results) for side in ("a", "b"))
    count = f"in {lost if relation == 'below' else found.wins} of {seeds} seeds"
    if relation == "open":
        count = f"(ahead {count})"
    points = f"{100 * found.diff:+.1f} points [{100 * found.lo:+.1f}, {100 * found.hi:+.1f}]"
    won = list(claim.get("seeds_won", [found.wins, seeds])) == [found.wins, seeds]
    says = f"{a} {SIGNS[relation]} {b} on {words} {count}, {points}"
    if relation == claim["says"] and not won:
        says += f"; ahead in {found.wins} of {seeds} seeds, not {claim['seeds_won']}"
    return relation == claim["says"] and won, says


def _number(results: Results, claim: Mapping[str, Any]) -> tuple[bool, str]:
    if "method" in claim:
        value, name = _of_method(results, claim)
    else:
        value, name = _at(results, claim["metric"]), claim["metric"]
    bounds = {"at least": claim.get("min"), "at most": claim.get("max")}
    holds = all(
        bound is None or (value >= bound if text == "at least" else value <= bound)
        for text, bound in bounds.items()
    )
    asked = " and ".join(f"{text} {b:g}" for text, b in bounds.items() if b is not None)
    return holds, f"{name} is {value:.4g}; claimed: {asked}"


def _of_method(results: Results, claim: Mapping[str, Any]) -> tuple[float, str]:
    task, view, words = _place(results, claim)
    metric, over = claim["metric"], claim.get("over", "mean")
    own = rows(results, task=task, view=view, method=claim["method"])
    values = [row["accuracy"] if metric == "accuracy" else row["extra"].get(metric) for row in own]
    if not values or None in values:
        raise SoupError(f"no {metric} of every seed: {claim['method']} on {words}; evaluate it")
    name = f"{metric} of {label(claim['method'], results)} on {words} ({over} of {len(own)} seeds)"
    return float(OVER[over](values)), name


def _at(results: Results, path: str) -> float:
    value: Any = results
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SoupError(f"no number: {path} in the results; correct the claim's metric")
    return float(value)
