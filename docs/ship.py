"""Write ``data/adapters``: of every study the skills' adapters and CAT's alphas of seed 0.

Notebooks start from them, so that nobody waits for training. ``python docs/ship.py [OUT]`` trains
what OUT (default: runs/local) does not hold yet, about half an hour on two cores. The alphas are
learned at the point of the grid that the committed results chose. ``index.json`` has a sha256 of
every file.
"""

import sys

import torch

from lorasoups.files import sha256_file, write_json_atomic
from lorasoups.lora.adapters import WEIGHTS, save_lora
from lorasoups.lora.lora import LoRA
from lorasoups.paths import Folders
from lorasoups.results.file import load_results
from lorasoups.study.profile import STUDIES, load_profile
from lorasoups.study.stages import Stages


def ship(out: str) -> None:
    """Train, or take from ``out``, and write."""
    folder = Folders().adapters
    for study in STUDIES:
        experiment = Stages(load_profile("mini", study), 1, out)
        for skill in experiment.profile.skills:
            lora = experiment.skill(skill, 0).lora
            lora = LoRA(lora.modules, experiment.source.name, lora.provenance)
            save_lora(lora, folder / study / skill, dtype=torch.float16, overwrite=True)
        experiment.profile = experiment.profile.shipped(folder)
        chosen = next(e for e in load_results("mini", study)["sweep"] if e["chosen"])
        options = experiment.alpha_options(chosen)
        rows = experiment.alpha_rows(0)
        alphas, loss = experiment.learn(experiment.loras(0), rows, options, 0)
        alphas.to_json(folder / study / "alphas.json")
        print(study, "held-out skill loss", round(loss, 4), flush=True)
    files = sorted(f for f in folder.rglob("*") if f.name in (WEIGHTS, "alphas.json"))
    digests = {f.relative_to(folder).as_posix(): sha256_file(f) for f in files}
    write_json_atomic(folder / "index.json", {"made by": "python docs/ship.py", "sha256": digests})


if __name__ == "__main__":
    ship(sys.argv[1] if len(sys.argv) > 1 else "runs/local")
