"""Verdicts of a run, collected into a results file: rows and items."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import torch

from lorasoups.models.devices import cpu_name
from lorasoups.models.processes import is_main
from lorasoups.results import file, stats
from lorasoups.study.sources import WORLDS
from lorasoups.study.stages import Stages
from lorasoups.study.store import MANIFEST, digest
from lorasoups.tasks.judging.answers import abstention

CAT = "cat"


class Collector:
    """Collects the verdicts of one study or ablation for the results file ``name``."""

    def __init__(self, stages: Stages, name: str):
        self.stages, self.name = stages, name
        self.rows: list[dict] = []
        self.labels: dict[str, str] = {}
        self.groups: dict[str, str] = {}
        self._right: dict[tuple[str, str], dict[int, np.ndarray]] = {}
        self._started = time.perf_counter()

    def add(
        self, task: str, method: str, seed: int, verdicts: Sequence[Mapping], *, label: str,
        group: str = "", on: str | None = None, weight: float | None = None,
        extra: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        """One method's answers to one test; ``label`` and ``group`` are for figures and tables."""
        right = np.array([verdict["outcome"] == "ok" for verdict in verdicts])
        self._right.setdefault((task, method), {})[seed] = right
        self.labels.setdefault(method, label)
        if group:
            self.groups.setdefault(method, group)
        targets = [item["target"] for item in self.stages.items(task)]
        for view, mask in self.stages.views(task).items():
            part = [verdict for verdict, inside in zip(verdicts, mask, strict=True) if inside]
            correct, n = int(right[mask].sum()), len(part)
            self.rows.append({
                "task": task, "view": view, "method": method, "on": on, "weights": weight,
                "seed": seed, "n": n, "correct": correct, "accuracy": correct / n,
                "ci": list(stats.wilson(correct, n)),
                "outcomes": dict(sorted(Counter(v["outcome"] for v in part).items())),
                "extra": _means(part, targets if view == "all" else []) | dict(extra or {}),
            })  # fmt: skip

    def write(self, config: Mapping = {}, save: bool = True, **fields) -> dict:  # noqa: B006
        """Write (``save``) and return the results, with more ``config`` and ``fields``.

        A run that does not begin at seed 0 adds its seeds to those of the file that is there.
        """
        stages = self.stages
        items: dict[str, dict] = {}
        for (test, method), seeds in self._right.items():
            packed = {str(seed): file.pack_verdicts(right) for seed, right in sorted(seeds.items())}
            items.setdefault(test, {})[method] = packed
        made_by = file.provenance(
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            cpu=cpu_name(), threads=torch.get_num_threads(),
            base_sha256=stages.source.info["sha256"],
            world_version=WORLDS.get(stages.profile.source, (None, None))[1],
            wall_s=round(time.perf_counter() - self._started, 1),
        )  # fmt: skip
        config = stages.config() | {"labels": self.labels, "groups": self.groups} | config
        results = {
            "schema": file.SCHEMA, "experiment": self.name, "profile": stages.profile.name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"), "complete": True,
            "provenance": made_by, "config": config,
            "rows": self.rows, "items": items, "views": self._views(items),
            "floors": floors(stages.items(stages.profile.target)),
            "alphas": [], "curves": [], "sweep": [], "skills": [], **self._artifacts(),
        } | fields  # fmt: skip
        path = file.results_path(results["profile"], self.name, stages.folders.base)
        if stages.seeds[0] > 0 and path.exists():
            results = file.with_earlier_seeds(results, file.read_results(path), path.name)
        if save and is_main():
            file.write_results(path, results)
        return results

    def _views(self, tasks) -> dict[str, dict[str, str]]:
        """Which items the parts of a test are: packed masks by task and view, without ``all``."""
        return {
            task: {view: file.pack_verdicts(mask) for view, mask in views.items() if view != "all"}
            for task in tasks
            if len(views := self.stages.views(task)) > 1
        }

    def _artifacts(self) -> dict[str, dict]:
        """Per stage: seconds to build its artifacts (in whichever run), a short sha256 of each."""
        timings, artifacts = {}, {}
        for folder in sorted(self.stages.used):
            manifest = json.loads((folder / MANIFEST).read_text())
            stage, files = manifest["stage"], manifest["files"]
            timings[stage] = round(timings.get(stage, 0.0) + manifest["seconds"], 3)
            content = digest({name: facts["sha256"] for name, facts in files.items()})
            artifacts.setdefault(stage, {})[folder.name[:12]] = content[:12]
        return {"timings": timings, "artifacts": artifacts}


def floors(items: Sequence[Mapping]) -> dict[str, float]:
    """What a constant answer would solve, at best: the most common target's share. Where items
    name a ``kind`` (what is asked for), also the best constant answer per kind."""
    targets = [json.dumps(item["target"]) for item in items]
    kinds = [item.get("kind", "") for item in items]
    best = {"one answer, always": Counter(targets).most_common(1)[0][1]}
    if any(kinds):
        each = Counter(zip(kinds, targets, strict=True))
        most = {kind: max(n for (k, _), n in each.items() if k == kind) for kind in set(kinds)}
        best["one answer per kind of question"] = sum(most.values())
    return {name: n / len(items) for name, n in best.items()}


def _means(verdicts: Sequence[Mapping], targets: Sequence) -> dict[str, float]:
    """Means of the further numbers of the verdicts; precision and recall of abstaining."""
    keys = [k for k in ("f1", "right_form") if verdicts and k in verdicts[0]]
    means = {k: float(np.mean([v[k] for v in verdicts])) for k in keys}
    shares = abstention([v["value"] for v in verdicts], targets) if "f1" in keys and targets else {}
    if shares.get("recall") is not None:  # None: nothing to abstain from
        means |= {f"abstention_{k}": x for k, x in shares.items() if x is not None}
    return means
