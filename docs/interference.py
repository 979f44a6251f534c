"""Do the numbers of ``lorasoups inspect`` predict what a sum keeps of a skill? Writes the table of
``docs/howto/own.md``.

``python docs/interference.py [OUT]`` trains what OUT (default: runs/local) does not hold yet: the
skills of the four mini studies, 3 seeds, about an hour on two cores. What the plain sum and the
average keep of a skill is read from ``data/results/mini``. Spearman's rank correlation over skills
and seeds; the interval draws skills anew, 2,000 times, as the seeds of one skill are alike.
"""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from lorasoups.files import write_text_atomic
from lorasoups.learning.interference import MEANS, cross_activation, interference
from lorasoups.results.file import find, load_results
from lorasoups.study.profile import STUDIES, load_profile
from lorasoups.study.stages import Stages

SEEDS, ROWS, DRAWS = 3, 50, 2000
PAGE = Path(__file__).parent / "howto" / "own.md"
KEPT = {"linear@delta/w1": "kept by the sum", "linear@delta": "kept by the average"}
LOUD = "cross_activation"


def measured(out: str) -> pd.DataFrame:
    """One row per study, seed and skill: means over the other skills, and what is kept."""
    lines = []
    for study in STUDIES:
        experiment, results = (
            Stages(load_profile("mini", study), SEEDS, out), load_results("mini", study),
        )  # fmt: skip
        skills, test_of = experiment.profile.skills, experiment.profile.test_of
        texts = [experiment.encoded(s, split="validation", n=ROWS) for s in skills]
        for seed in experiment.seeds:
            loras = experiment.loras(seed)
            pairs = {(p["i"], p["j"]): p["total"] for p in interference(loras)["pairs"]}
            loud = cross_activation(experiment.source.model, loras, texts)
            for i, skill in enumerate(skills):
                others = [j for j in range(len(skills)) if j != i]
                of = [pairs[min(i, j), max(i, j)] for j in others]
                line = {"skill": f"{study} {skill}", "seed": seed}
                line |= {name: np.mean([p[name] for p in of]) for name in MEANS}
                turned = [1 if i < j else -1 for j in others]
                ratios = [p["norm_ratio"] ** t for p, t in zip(of, turned, strict=True)]
                line |= {"norm_ratio": np.mean(ratios), LOUD: np.mean([loud[i][j] for j in others])}
                rows = find(results["rows"], task=test_of(skill), view="all", seed=seed)
                solved = {row["method"]: row["accuracy"] for row in rows}
                line |= {name: solved[method] / solved[skill] for method, name in KEPT.items()}
                lines.append(line)
    return pd.DataFrame(lines)


def table(frame: pd.DataFrame) -> str:
    """Correlations with intervals, as Markdown."""
    skills, draw = sorted(frame["skill"].unique()), np.random.default_rng(0)
    draws = [draw.choice(skills, len(skills)) for _ in range(DRAWS)]
    groups = {skill: own for skill, own in frame.groupby("skill")}
    lines = [f"| number | {' | '.join(KEPT.values())} |", "| --- | --- | --- |"]
    again = [pd.concat([groups[s] for s in chosen]) for chosen in draws]
    for name in (*MEANS, LOUD):
        cells = []
        for kept in KEPT.values():
            rho = frame[name].corr(frame[kept], "spearman")
            drawn = [one[name].corr(one[kept], "spearman") for one in again]
            lo, hi = np.nanpercentile(drawn, [2.5, 97.5])
            cells.append(f"{rho:+.2f} [{lo:+.2f}, {hi:+.2f}]")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    found = measured(sys.argv[1] if len(sys.argv) > 1 else "runs/local")
    text = PAGE.read_text(encoding="utf-8")
    marks = r"(<!-- interference[^\n]*-->\n)[\s\S]*?(<!-- end of interference -->)"
    write_text_atomic(PAGE, re.sub(marks, rf"\g<1>{table(found)}\n\g<2>", text))
