"""A small made-up results file for tests of figures, tables and sentences."""

import numpy as np

from lorasoups.results import stats
from lorasoups.results.file import SCHEMA, pack_verdicts, validate
from lorasoups.study.methods import methods_for

SKILLS = ("math", "code")
METHODS = methods_for(SKILLS)
MODULES = [
    f"model.layers.{layer}.{place}"
    for layer in range(3)
    for place in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
]
FAILURES = ("wrong", "syntax", "exception", "no_solution", "bad_type", "refused", "timeout")
CHANCES = {"base": 0.02, "math": 0.05, "code": 0.2, "cat": 0.75, "data_mix": 0.6}


def example_results(
    seeds: int = 3, methods=tuple(METHODS), n: int = 40, chances: dict | None = None
) -> dict:
    """Results as the schema wants them; ``chances`` says how often a method is right."""
    rng = np.random.default_rng(0)
    chances = CHANCES | (chances or {})
    table, rows, items = {}, [], {}
    for task in ("hard_math", *SKILLS):
        for method in methods if task == "hard_math" else ("base", *SKILLS, "cat"):
            verdicts = rng.random((seeds, n)) < chances.get(method, 0.3)
            table[task, method] = verdicts
            rows += [_row(task, method, seed, own, rng) for seed, own in enumerate(verdicts)]
            packed = {str(seed): pack_verdicts(own) for seed, own in enumerate(verdicts)}
            items.setdefault(task, {})[method] = packed
    return validate(
        {
            "schema": SCHEMA,
            "profile": "example",
            "created": "2026-01-01T00:00:00+00:00",
            "complete": True,
            "provenance": {
                "versions": {"python": "3.11"}, "device": "cpu", "cpu": "made up", "git": None,
                "base_sha256": None, "world_version": 1, "wall_s": 1.0,
            },
            "config": {
                "target": "hard_math", "skills": list(SKILLS), "seeds": list(range(seeds)),
                "labels": {name: m.label for name, m in METHODS.items() if name in methods},
                "groups": {name: m.group for name, m in METHODS.items() if name in methods},
            },
            "rows": rows,
            "items": items,
            "alphas": _alphas(seeds, rng),
            "curves": _curves(seeds),
            "sweep": [
                {"seed": 0, "normalise": norm, "init": "uniform", "lr": 0.03, "heldout_loss": loss,
                 "chosen": norm == "none"}
                for norm, loss in (("none", 0.1), ("softmax", 0.3))
            ],
            "skills": [
                {"seed": seed, "name": name, "steps": 10, "loss": 0.1, "seconds": 1.5,
                 "tokens_per_s": 4000.0}
                for seed in range(seeds) for name in SKILLS
            ],
            "timings": {"skill": 12.0, "evaluate": 3.0},
            "floors": {"one answer, always": 0.1},
        }
    )  # fmt: skip


def _row(task: str, method: str, seed: int, verdicts: np.ndarray, rng) -> dict:
    n, correct = len(verdicts), int(verdicts.sum())
    failed = rng.multinomial(n - correct, np.full(len(FAILURES), 1 / len(FAILURES)))
    outcomes = {"ok": correct} | dict(zip(FAILURES, map(int, failed), strict=True))
    return {
        "task": task, "view": "all", "method": method, "on": None, "weights": None, "seed": seed,
        "n": n, "correct": correct, "accuracy": correct / n, "ci": list(stats.wilson(correct, n)),
        "outcomes": {name: count for name, count in outcomes.items() if count}, "extra": {},
    }  # fmt: skip


def _alphas(seeds: int, rng) -> list[dict]:
    return [
        {"seed": seed, "preset": preset, "normalise": "none", "module": module,
         "values": rng.uniform(0.2, 1.1, 2).tolist()}
        for seed in range(seeds) for preset in ("ours", "released") for module in MODULES
    ]  # fmt: skip


def _curves(seeds: int) -> list[dict]:
    return [
        {"seed": seed, "preset": preset, "step": step, "loss": 1 / step,
         "alpha_mean": [0.5 + rate * step, 0.5 - rate * step / 2 + 0.01 * seed],
         "alpha_moved": rate * step}
        for seed in range(seeds)
        for preset, rate in (("ours", 0.02), ("released", 0.0005))
        for step in range(1, 21)
    ]  # fmt: skip
