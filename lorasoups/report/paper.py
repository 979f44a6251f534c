"""What is known of the paper's own setting and numbers, beside this kit's.

Only what could be checked is quoted: the abstract and the released scripts (reliability high), and
one set of secondary notes that fits the abstract (medium, marked ``*``).
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lorasoups.results import reading
from lorasoups.results.reading import Results, estimate, percent

# accuracy on GSM-Hard in percent: secondary notes, medium
GSM_HARD = {"cat": 21.11, "data_mix": 18.8, "math": 14.18, "code": 8.04}


def against_paper(results: Results) -> pd.DataFrame:
    """The table "paper / this kit / why different"; the middle column comes from the results."""
    lines = [*_setting(results["config"], results["skills"]), *_numbers(results)]
    return pd.DataFrame(lines, columns=["what", "paper", "this kit", "why different"])


def _setting(config: Mapping[str, Any], trained: list) -> list[tuple[str, str, str, str]]:
    steps = {e["name"]: e["steps"] for e in trained if e["name"] in config["skills"]}
    training, alphas = config["training"], config["alphas"]
    world = config["source"] == "world"
    base = config["base"]
    size = "runs on a laptop without network" if world else "runs on one small machine"
    return [
        ("base model", "Llama-7B*", str(base), size),
        (
            "target task",
            "GSM-Hard by generated programs",
            f"{config['target']}, {config['n_test'][config['target']]} problems, programs are run",
            "generated world with the same structure" if world else "the same data",
        ),
        (
            "skill LoRAs",
            "released script: r 32, lora_alpha 64, lr 3e-4, 5 projections",
            f"r {training['r']}, lora_alpha {training['lora_alpha']}, lr {training['lr']:g}, "
            f"{len(training['target_modules'])} projections, steps: "
            + ", ".join(f"{name} {n}" for name, n in steps.items()),
            "smaller base; chosen by us, the README says how",
        ),
        (
            "data for the alphas",
            "5 %* of the skills' training data",
            f"{100 * alphas['share']:g} % of the skills' training data",
            "",
        ),
        (
            "schedule of the alphas",
            "released script: softmax of randn, lr 1e-4, warm-up 100, 1 epoch",
            f"chosen from {len(alphas['grid'])} on held-out skill loss, "
            f"{alphas['epochs']:g} epochs",
            "the released schedule is measured beside ours",
        ),
        (
            "density of TIES and DARE",
            "released script: 0.75, weights 1.0, factor-wise",
            f"{config['density']:g}, weights 1/k and 1.0, factor-wise and on the delta",
            "both variants are reported",
        ),
        ("seeds", "unknown", str(len(config["seeds"])), "an interval needs several"),
    ]


def _numbers(results: Results) -> list[tuple[str, str, str, str]]:
    why = "another base and task: compare the order, not the numbers"
    lines = []
    for method, accuracy in GSM_HARD.items():
        found = estimate(results, method)
        own = f"{percent(found.mean)} [{percent(found.lo)}, {percent(found.hi)}]" if found else "-"
        lines.append((f"{reading.label(method, results)}, % solved", f"{accuracy}*", own, why))
    mix, soup = estimate(results, "data_mix"), estimate(results, "cat")
    lines.append(
        (
            "CAT over data mixing",
            "+12 % (relative, average)",
            _relative(soup, mix),
            "the paper averages over its tasks",
        )
    )
    merges = [estimate(results, m) for m in reading.methods(results).get(reading.STATIC, [])]
    best = max(merges, key=lambda e: e.mean, default=None)
    lines.append(
        (
            "CAT over model merging",
            "+43 % (relative, average)",
            _relative(soup, best),
            "the paper averages over tasks and merges; here against the best static merge",
        )
    )
    return lines


def _relative(soup: reading.Estimate | None, other: reading.Estimate | None) -> str:
    """``+12 % (relative)``, or why there is no such number."""
    if soup is None or other is None:
        return "not evaluated"
    if other.mean == 0:
        return "none: the other solves nothing"
    return f"{100 * (soup.mean / other.mean - 1):+.0f} % (relative)"
