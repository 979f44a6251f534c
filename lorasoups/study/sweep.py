"""Studies x seeds as jobs, on this machine or on Slurm, through submitit.

A job evaluates one study on one seed and leaves everything in the store; a last job per study
writes the results file. Jobs that need the same artifact wait at its lock, and what is in the store
is not made again: a second call goes on where the first one stopped. The store (``out``) must lie
in a folder that all machines share.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lorasoups.errors import SoupError
from lorasoups.files import ensure_folder
from lorasoups.models import processes
from lorasoups.paths import Folders
from lorasoups.study.methods import methods_of
from lorasoups.study.profile import load_profile
from lorasoups.study.run import jobs_of, open_experiment, run_study

ENGINES = ("local", "slurm", "debug")
KILLED = "killed before its end, often for lack of memory (lower --jobs) or time (raise --time)"


@dataclass(frozen=True)
class Job:
    """What one job does; plain values, so that it can be sent to another machine.

    Attributes:
        profile, study, seeds, out: of the `Experiment`.
        seed: the one to evaluate; None: write the results file.
        options: of `Profile.adapted`, for a real base.
        gpus: from 2 on the job is split over as many processes.
        visible: GPU numbers of this machine to use, e.g. ``"2,3"``; "": those that are visible.
    """

    profile: str
    study: str
    seeds: int
    out: str = ""
    seed: int | None = None
    options: dict = field(default_factory=dict)
    gpus: int = 0
    visible: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return (
            f"{self.study} results file" if self.seed is None else f"{self.study} seed {self.seed}"
        )


@dataclass(frozen=True)
class Failure:
    """A job that failed: which, why (one line), and where its log is."""

    job: Job
    why: str
    log: Path


def sweep(
    profile: str = "mini",
    studies: Sequence[str] = ("hard_math",),
    seeds: int = 1,
    engine: str = "local",
    jobs: int = 1,
    gpus: int = 0,
    minutes: int = 24 * 60,
    partition: str | None = None,
    out: str | Path = "",
    **options,
) -> list[Failure]:
    """Run studies x seeds as jobs; returns what failed.

    A failed job ends no other, but no results file is written for its study.

    Args:
        profile, studies, seeds: what to run.
        engine: ``local``, ``slurm``, or ``debug`` (one job after the other, in this process).
        jobs: at most so many at a time.
        gpus: per job; ``local`` gives every job at a time its own.
        minutes: after which a job is ended.
        partition: of Slurm.
        out: folder for results, store and logs, as for `Experiment`.
        options: of `Profile.adapted`, for a profile with a real base.

    Raises:
        SoupError: unknown profile, study or method; bad numbers; an engine that is not here.
    """
    if seeds < 1 or jobs < 1:
        raise SoupError(f"nothing to run: --seeds {seeds}, --jobs {jobs}; give at least 1 of both")
    options = {name: value for name, value in options.items() if value not in (None, False)}
    studies = list(dict.fromkeys(studies))
    for study in studies:
        loaded = load_profile(profile, study)
        odd = [name for name in options if name != "methods" and not loaded.real]
        if odd:
            name = odd[0].replace("_", "-")
            raise SoupError(f"--{name} means nothing here: profile {profile}; leave it out")
        methods_of(loaded.adapted(**options))  # refuses unknown methods
    executor = _executor(engine, minutes, gpus, jobs, partition, out)
    files = [Job(str(profile), study, seeds, str(out), None, options, gpus) for study in studies]
    rounds = [[replace(job, seed=seed) for job in files for seed in range(seeds)], files]
    failures: list[Failure] = []
    for round_ in rounds:
        broken = {failure.job.study for failure in failures}
        ready = [job for job in round_ if job.study not in broken]
        at_once = jobs if engine == "local" else max(1, len(ready))  # Slurm counts by itself
        for start in range(0, len(ready), at_once):
            failures += _run(executor, ready[start : start + at_once], engine)
    return failures


def _executor(
    engine: str, minutes: int, gpus: int, jobs: int, partition: str | None, out: str | Path
) -> Any:
    if engine not in ENGINES:
        raise SoupError(f"unknown engine {engine!r}: choose one of {', '.join(ENGINES)}")
    try:
        import submitit
    except ModuleNotFoundError:
        raise SoupError(
            "package submitit is missing, it runs sweeps; pip install 'lorasoups[sweep]'"
        ) from None
    if engine == "slurm" and not shutil.which("sbatch"):
        raise SoupError("no sbatch here: --engine slurm; start it on a login node, or use local")
    if engine == "local" and gpus * jobs > len(_visible_gpus()):
        raise SoupError(
            f"{jobs} jobs of {gpus} GPUs: this machine has fewer; lower --jobs or --gpus"
        )
    logs = ensure_folder(Folders(out=out).cache.with_name("sweep"))
    executor = submitit.AutoExecutor(logs, cluster=engine)
    executor.update_parameters(name="lorasoups", timeout_min=minutes)
    if engine == "slurm":
        executor.update_parameters(
            gpus_per_node=gpus or None, tasks_per_node=1, nodes=1, slurm_partition=partition,
            slurm_array_parallelism=jobs,
        )  # fmt: skip
    return executor


def _visible_gpus() -> list[str]:
    """Numbers of the GPUs that this process may use."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [str(number) for number in range(torch.cuda.device_count())]
    return [number for number in listed.split(",") if number.strip().isdigit()]


def _run(executor: Any, jobs: list[Job], engine: str) -> list[Failure]:
    """Submit jobs together and wait for all. Ctrl-C cancels them (finished stages stay)."""
    if engine == "local":
        own = [_visible_gpus()[i * job.gpus : (i + 1) * job.gpus] for i, job in enumerate(jobs)]
        jobs = [replace(job, visible=",".join(gpus)) for job, gpus in zip(jobs, own, strict=True)]
    handles = executor.map_array(run_job, jobs)
    failures = []
    try:
        for job, handle in zip(jobs, handles, strict=True):
            why = _error(handle)
            print(f"  {'FAILED' if why else 'done'} {job.name}", flush=True)
            failures += [Failure(job, why, Path(handle.paths.stderr))] if why else []
    except BaseException:
        for handle in handles:
            handle.cancel(check=False)
        raise
    return failures


def _error(handle: Any) -> str:
    """Waits for a job; why it failed, in one line, or ""."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        error = handle.exception()
    except Exception as lost:
        error = lost
    if error is None:
        return ""
    if isinstance(error, UncompletedJobError) and not isinstance(error, FailedJobError):
        return KILLED
    lines = [line.strip() for line in str(error).splitlines() if line.strip().strip("-")]
    named = [line for line in lines if "Error" in line]
    return (named or lines or [type(error).__name__])[-1][:300]


def run_job(job: Job) -> None:
    """Carry a job out here, over several processes if it has several GPUs."""
    if job.visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.visible
    if job.gpus < 2:
        return _work(job)
    # torch's launcher ends all processes when one fails
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={job.gpus}"]
    module = ["-m", "lorasoups.study.sweep", json.dumps(asdict(job))]
    subprocess.run([sys.executable, "-m", *launcher, *module], check=True)


def _work(job: Job) -> None:
    """The profile is adapted where the job runs: a machine without a GPU gets another one."""
    experiment = open_experiment(job.profile, job.study, job.seeds, job.out, **job.options)
    if job.seed is None:
        run_study(experiment, progress=False)
        return
    for method, task in jobs_of(experiment.profile):
        method.answers(experiment, task, job.seed)


if __name__ == "__main__":
    _work(Job(**json.loads(sys.argv[1])))
    processes.leave()
