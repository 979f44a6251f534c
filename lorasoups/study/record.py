"""Verdicts of a run, collected into a results file: rows, items, paired comparisons."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from lorasoups.results import stats
from lorasoups.results.file import SCHEMA, pack_verdicts, provenance
from lorasoups.study.sources import WORLDS
from lorasoups.study.stages import Experiment
from lorasoups.tasks.judging.answers import abstention

SOUP = "cat"


class Record:
    """Collects the verdicts of one experiment.

    Args:
        experiment: whose items and views are meant.
        name: of the experiment: its results file.
    """

    def __init__(self, experiment: Experiment, name: str):
        self.experiment, self.name = experiment, name
        self.rows: list[dict] = []
        self.labels: dict[str, str] = {}
        self.groups: dict[str, str] = {}
        self._table: dict[tuple[str, str], dict[int, np.ndarray]] = {}
        self._started = time.perf_counter()

    def add(
        self,
        task: str,
        method: str,
        seed: int,
        verdicts: Sequence[Mapping],
        *,
        label: str = "",
        group: str = "",
        on: str | None = None,
        weights: Any = None,
        extra: Mapping[str, float] | None = None,
    ) -> None:
        """One method's answers to one test: a row per view, and the items' verdicts.

        ``label`` and ``group`` are what figures and tables call it and put it under; ``extra``
        are further numbers about it.
        """
        right = np.array([v["outcome"] == "ok" for v in verdicts])
        self._table.setdefault((task, method), {})[seed] = right
        self.labels.setdefault(method, label or method)
        if group:
            self.groups.setdefault(method, group)
        targets = [item["target"] for item in self.experiment.items(task)]
        for view, chosen in self.experiment.views(task).items():
            own = [v for v, c in zip(verdicts, chosen, strict=True) if c]
            correct, n = int(right[chosen].sum()), len(own)
            asked = [t for t, c in zip(targets, chosen, strict=True) if c]
            self.rows.append({
                "task": task, "view": view, "method": method, "on": on, "weights": weights,
                "seed": seed, "n": n, "correct": correct, "accuracy": correct / n,
                "ci": list(stats.wilson(correct, n)),
                "outcomes": dict(sorted(Counter(v["outcome"] for v in own).items())),
                "extra": _extra(own, asked if view == "all" else []) | dict(extra or {}),
            })  # fmt: skip

    def matrix(self, task: str, method: str) -> np.ndarray:
        """Verdicts [seeds, items] of a method."""
        return np.stack([right for _, right in sorted(self._table[task, method].items())])

    def methods(self, task: str) -> list[str]:
        """The methods that took a test, in the order in which they came."""
        return list(dict.fromkeys(m for t, m in self._table if t == task))

    def comparisons(self, task: str, soup: str = SOUP) -> list[dict]:
        """``soup`` against every other method on a test, paired over seeds and problems.

        Holm's correction runs over all of them.
        """
        if (task, soup) not in self._table:
            return []
        ours, found = self.matrix(task, soup), []
        for name in self.methods(task):
            if name == soup:
                continue
            pair = stats.paired(ours, self.matrix(task, name))
            found.append({"task": task, "a": soup, "b": name, "diff": pair.diff, "lo": pair.lo,
                          "hi": pair.hi, "p": pair.p, "wins": pair.wins,
                          "t_lo": pair.t_lo, "t_hi": pair.t_hi})  # fmt: skip
        for entry, p in zip(found, stats.holm([e["p"] for e in found]), strict=True):
            entry["p_holm"] = p
        return found

    def superlinearity(self, task: str) -> dict:
        """Gain of CAT over the base against the sum of two skills' gains; {} for other k."""
        names = ("base", *self.experiment.profile.skills, SOUP)
        if len(names) != 4 or any((task, name) not in self._table for name in names):
            return {}
        found = stats.superlinearity(*(self.matrix(task, name) for name in names))
        return {"gain_soup": found.gain_soup, "sum_of_gains": found.sum_of_gains,
                "diff": found.diff, "lo": found.lo, "hi": found.hi}  # fmt: skip

    def _views(self, tasks) -> dict[str, dict[str, str]]:
        """Which items the parts of a test are: packed masks by task and view, without ``all``."""
        masks = {task: self.experiment.views(task) for task in tasks}
        return {
            task: {view: pack_verdicts(mask) for view, mask in own.items() if view != "all"}
            for task, own in masks.items()
            if len(own) > 1
        }

    def results(self, soup: str = SOUP, **more) -> dict:
        """The content of the results file (see `results`); ``more`` fills or replaces fields."""
        experiment, task = self.experiment, self.experiment.profile.target
        items: dict[str, dict] = {}
        for (own_task, method), seeds in self._table.items():
            packed = {str(seed): pack_verdicts(right) for seed, right in sorted(seeds.items())}
            items.setdefault(own_task, {})[method] = packed
        config = experiment.config() | {"labels": self.labels, "groups": self.groups}
        return {
            "schema": SCHEMA,
            "experiment": self.name,
            "profile": experiment.profile.name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "complete": True,
            "provenance": provenance(
                base_sha256=experiment.source.sha256,
                world_version=WORLDS.get(experiment.profile.source, (None, None))[1],
                wall_s=round(time.perf_counter() - self._started, 1),
            ),
            "config": config,
            "rows": self.rows,
            "items": items,
            "views": self._views(items),
            "comparisons": self.comparisons(task, soup),
            "superlinearity": self.superlinearity(task),
            "alphas": [],
            "curves": [],
            "sweep": [],
            "skills": [],
            "timings": experiment.timings(),
            "artifacts": experiment.artifacts(),
        } | more


def _extra(verdicts: Sequence[Mapping], targets: Sequence) -> dict[str, float]:
    """Means of the further numbers of the verdicts; precision and recall of abstaining."""
    keys = [k for k in ("f1", "right_form") if verdicts and k in verdicts[0]]
    extra = {k: float(np.mean([v[k] for v in verdicts])) for k in keys}
    if keys and targets:
        found = abstention([v["value"] for v in verdicts], targets)
        due = found["recall"] is not None
        extra |= {f"abstention_{k}": x for k, x in found.items() if due and x is not None}
    return extra
