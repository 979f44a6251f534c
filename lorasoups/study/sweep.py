"""Studies x seeds as jobs, on this machine or on Slurm, through submitit.

A job evaluates one study on one seed into the store; a last job per study writes the results file.
Nothing is made twice: jobs wait at an artifact's lock, and a second call goes on from there.
"""

import json
import os
import re
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
from lorasoups.study.run import adapted_profile, jobs_of, open_experiment, run_study

ENGINES = ("local", "slurm", "debug")
KILLED = "killed before its end, often for lack of memory (lower --jobs) or time (raise --time)"


@dataclass(frozen=True)
class Job:
    """What one job does; plain values, so that it can be sent to another machine."""

    profile: str
    study: str
    seeds: int
    out: str = ""
    seed: int | None = None  # the one to evaluate; None: write the results file
    options: dict = field(default_factory=dict)  # of `Profile.adapted`
    gpus: int = 0  # from 2 on the job is split over as many processes
    visible: str = ""  # the GPUs of this machine to use, e.g. "2,3"

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.study} " + ("results" if self.seed is None else f"seed {self.seed}")


@dataclass(frozen=True)
class Failure:
    """A job that failed: which, why (one line), and where its log is."""

    job: Job
    why: str
    log: Path


def sweep(
    profile: str = "mini", studies: Sequence[str] = ("hard_math",), seeds: int = 1,
    engine: str = "local", jobs: int = 1, gpus: int = 0, minutes: int = 24 * 60,
    partition: str | None = None, out: str | Path = "", **options,
) -> list[Failure]:  # fmt: skip
    """Run studies x seeds as jobs; returns what failed (its study gets no results file).

    Args:
        engine: ``local``, ``slurm``, or ``debug`` (one job after the other, in this process).
        jobs, gpus: at most so many jobs at a time; GPUs per job, on ``local`` its own.
        minutes, partition: after which a job is ended; of Slurm.
        out: folder for results, store and logs, as for `Experiment`.
        options: of `Profile.adapted`; all but ``methods`` need a profile with a real base.

    Raises:
        SoupError: unknown profile, study or method; bad numbers; an engine that is not here.
    """
    if seeds < 1 or jobs < 1:
        raise SoupError(f"nothing to run: --seeds {seeds}, --jobs {jobs}; give at least 1 of both")
    options = {name: value for name, value in options.items() if value not in (None, False)}
    files = []
    for study in dict.fromkeys(studies):
        real = adapted_profile(profile, study, **options).real
        if not real and (odd := options.keys() - {"methods"}):
            option = odd.pop().replace("_", "-")
            raise SoupError(f"--{option} means nothing here: profile {profile}; leave it out")
        files.append(Job(str(profile), study, seeds, str(out), None, options, gpus))
    executor = _executor(engine, minutes, gpus, jobs, partition, out)
    each = [replace(job, seed=seed) for job in files for seed in range(seeds)]
    at_once = jobs if engine == "local" else len(each)  # Slurm counts by itself
    failures = _run(executor, each, at_once, engine)
    broken = {failure.job.study for failure in failures}
    ready = [job for job in files if job.study not in broken]
    return failures + _run(executor, ready, at_once, engine)


def _executor(engine: str, minutes: int, gpus: int, jobs: int, partition: str | None, out) -> Any:
    if engine not in ENGINES:
        raise SoupError(f"unknown engine {engine!r}: choose one of {', '.join(ENGINES)}")
    if engine == "slurm" and not shutil.which("sbatch"):
        raise SoupError("no sbatch here: --engine slurm; start it on a login node, or use local")
    if engine == "local" and gpus * jobs > len(_visible_gpus()):
        raise SoupError(f"fewer than {jobs} x {gpus} GPUs here; lower --jobs or --gpus")
    try:
        import submitit
    except ModuleNotFoundError:
        raise SoupError("submitit is missing: sweep; pip install 'lorasoups[sweep]'") from None
    logs = ensure_folder(Folders(out=out).cache.with_name("sweep"))
    executor = submitit.AutoExecutor(logs, cluster=engine)
    slurm = {"gpus_per_node": gpus or None, "tasks_per_node": 1, "nodes": 1,
             "slurm_partition": partition, "slurm_array_parallelism": jobs}  # fmt: skip
    more = slurm if engine == "slurm" else {}
    executor.update_parameters(name="lorasoups", timeout_min=minutes, **more)
    return executor


def _visible_gpus() -> list[str]:
    """Numbers of the GPUs that this process may use."""
    every = ",".join(map(str, range(torch.cuda.device_count())))
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", every)
    return [number for number in listed.split(",") if number.strip().isdigit()]


def _run(executor: Any, queue: list[Job], at_once: int, engine: str) -> list[Failure]:
    """Run jobs, so many together, and wait for all. Ctrl-C cancels them; finished stages stay."""
    failures = []
    while queue:
        jobs, queue = queue[:at_once], queue[at_once:]
        if engine == "local":
            free = iter(_visible_gpus())
            jobs = [replace(j, visible=",".join(next(free) for _ in range(j.gpus))) for j in jobs]
        handles = executor.map_array(run_job, jobs)
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
    try:
        error = handle.exception()
    except Exception as lost:
        error = lost
    if error is None:
        return ""
    first = f"{type(error).__name__}: {error}".splitlines()[0]
    # submitit puts the job's own traceback into the message of its error
    named = re.findall(r"^[\w.]*(?:Error|Diverged): .*", str(error), re.MULTILINE)
    why = [first, *named][-1][:300]
    return KILLED if why.startswith("UncompletedJobError") else why


def run_job(job: Job) -> None:
    """Carry a job out here, over several processes if it has several GPUs."""
    if job.visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.visible
    if job.gpus > 1:  # torch's launcher ends all processes when one fails
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={job.gpus}"]
        module = ["-m", "lorasoups.study.sweep", json.dumps(asdict(job))]
        subprocess.run([sys.executable, "-m", *launcher, *module], check=True)
        return
    experiment = open_experiment(job.profile, job.study, job.seeds, job.out, **job.options)
    if job.seed is None:
        run_study(experiment, progress=False)
        return
    for method, task in jobs_of(experiment.profile):
        method.answers(experiment, task, job.seed)


if __name__ == "__main__":
    run_job(replace(Job(**json.loads(sys.argv[1])), gpus=0, visible=""))
    processes.leave()
