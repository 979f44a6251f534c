"""One job of a sweep: a share of a study's stages, from the store or into it.

A job says what it is in plain values, so that it can be pickled to another machine, or handed to
the processes of one: ``python -m lorasoups.run.sweep_job '{"stage": "train", ...}'``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field

STAGES = ("train", "evaluate", "assemble")


@dataclass(frozen=True)
class Job:
    """What one job does.

    Attributes:
        stage: ``train`` (skills, mixes, alphas of one seed), ``evaluate`` (some methods of one
            seed on all their tests), or ``assemble`` (the study's results file).
        profile, study, seeds, out: of the experiment, see `experiment.Experiment`.
        seed: of ``train`` and ``evaluate``.
        methods: names of recipes: of the study's profile (empty: the profile's own).
        own: the methods of this job (``evaluate``).
        real: options of `small.small_profile` (``base``, ``limit``, ``steps``, ...), for profiles
            with a real base.
        processes: over which the job is split (GPUs of one machine).
    """

    stage: str
    profile: str
    study: str
    seeds: int
    out: str = ""
    seed: int = 0
    methods: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    real: dict = field(default_factory=dict)
    processes: int = 1

    @property
    def name(self) -> str:
        """For people: what it is."""
        seed = "" if self.stage == "assemble" else f" seed {self.seed}"
        return f"{self.stage} {self.study}{seed}" + (f": {' '.join(self.own)}" if self.own else "")


def run(job: Job) -> None:
    """Carry a job out here; over several processes if it says so.

    Raises:
        Exception: whatever goes wrong; what was finished before stays in the store.
    """
    if job.processes == 1:
        return _work(job)
    # torch's launcher ends all processes when one fails; a task manager would leave them waiting
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={job.processes}"]
    own = ["-m", "lorasoups.run.sweep_job", json.dumps(asdict(job))]
    subprocess.run([sys.executable, "-m", *launcher, *own], check=True)


def _work(job: Job) -> None:
    from lorasoups.study import run as headline
    from lorasoups.study.stages import Experiment

    experiment = Experiment(_profile(job), job.seeds, job.out)
    if job.stage == "train":
        _train(experiment, job.seed)
    elif job.stage == "evaluate":
        for recipe in headline.recipes_of(experiment):
            for task in headline.tasks_of(experiment, recipe) if recipe.name in job.own else ():
                experiment.evaluate(recipe.name, task, job.seed)
    else:
        headline.run(experiment, progress=False)


def _profile(job: Job):
    """Made where the job runs: `small` is another profile on a machine without a GPU."""
    from lorasoups.study.profiles import REAL, get_profile

    if job.profile in REAL:
        import torch

        from lorasoups.study.real import small_profile

        gpu = torch.cuda.is_available()
        profile = small_profile(
            job.real.get("base"),
            job.real.get("limit"),
            "cuda" if gpu else "cpu",
            job.profile,
            study=job.study,
            gpu_bytes=torch.cuda.get_device_properties(0).total_memory if gpu else 0,
            **{name: value for name, value in job.real.items() if name not in ("base", "limit")},
        )
    else:
        profile = get_profile(job.profile, job.study)
    return profile.override(methods=job.methods) if job.methods else profile


def _train(experiment, seed: int) -> None:
    """What several methods of a seed need: skills, mixes, a new LoRA, every preset's alphas."""
    from lorasoups.study import run as headline

    experiment.pair(seed)
    for recipe in headline.recipes_of(experiment):
        if recipe.kind in ("mix", "fresh"):
            experiment.adapter(recipe.name, seed)
        if recipe.kind == "learned":
            experiment.alphas(seed, recipe.preset)


if __name__ == "__main__":
    from lorasoups.models import processes as distributed

    given = json.loads(sys.argv[1])
    lists = {name: tuple(given[name]) for name in ("methods", "own")}
    _work(Job(**given | lists))
    distributed.leave()
