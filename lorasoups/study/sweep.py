"""Studies x seeds as jobs, on this machine or on Slurm, through submitit.

A job evaluates one study on one seed into the store; a last job per study writes the results file.
Jobs wait at an artifact's lock, and a second call goes on from there: nothing is made twice.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from fnmatch import filter as matching
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from lorasoups.errors import SoupError
from lorasoups.files import ensure_folder
from lorasoups.models.base import optional
from lorasoups.paths import Folders
from lorasoups.study.profile import study_names
from lorasoups.study.run import adapted_profile, evaluated, jobs_of, open_experiment, run_study

KILLED = "killed before its end, often for lack of memory (lower --jobs) or time (raise --time)"


class Job(NamedTuple):
    """One seed of a study to evaluate; without a seed, its results file to write."""

    profile: str
    study: str
    seeds: int
    out: str = ""
    seed: int | None = None
    options: Mapping = {}  # of `Profile.adapted`

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.study} " + ("results" if self.seed is None else f"seed {self.seed}")


class Failure(NamedTuple):
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

    ``studies`` are names or `fnmatch` patterns; ``engine`` is ``local``, ``slurm`` or ``debug``
    (here, in turn). At most ``jobs`` run at a time, each for ``minutes``; on Slurm in a
    ``partition``, with ``gpus`` each. Results, store and logs go to ``out``. ``options`` are those
    of `Profile.adapted`; all but ``methods`` need a real base.
    Raises SoupError: unknown profile, study, method or engine; bad numbers; no Slurm here.
    """
    if seeds < 1 or jobs < 1:
        raise SoupError(f"nothing to run: --seeds {seeds}, --jobs {jobs}; give at least 1 of both")
    options = {name: value for name, value in options.items() if value not in (None, False)}
    known = study_names(profile)
    chosen = [name for pattern in studies for name in matching(known, pattern) or [pattern]]
    last = [Job(str(profile), s, seeds, str(out), None, options) for s in dict.fromkeys(chosen)]
    for job in last:
        real = adapted_profile(profile, job.study, **options).real
        if not real and (odd := options.keys() - {"methods"}):
            option = odd.pop().replace("_", "-")
            raise SoupError(f"--{option} means nothing here: profile {profile}; leave it out")
    executor = _executor(engine, minutes, gpus, jobs, partition, out)
    each = [job._replace(seed=seed) for job in last for seed in range(seeds)]
    at_once = len(each) if engine == "slurm" else jobs  # Slurm counts by itself
    failures = _run(executor, each, at_once)
    broken = {failure.job.study for failure in failures}
    return failures + _run(executor, [job for job in last if job.study not in broken], at_once)


def _executor(engine: str, minutes: int, gpus: int, jobs: int, partition: str | None, out) -> Any:
    if engine not in ("local", "slurm", "debug"):
        raise SoupError(f"unknown engine {engine!r}: choose one of local, slurm, debug")
    if engine == "slurm" and not shutil.which("sbatch"):
        raise SoupError("no sbatch here: --engine slurm; start it on a login node, or use local")
    if gpus and engine != "slurm":
        raise SoupError(f"only Slurm gives out GPUs: --gpus {gpus}; set CUDA_VISIBLE_DEVICES")
    logs = ensure_folder(Folders(out=out).cache.with_name("sweep"))
    executor = optional("submitit", "sweep").AutoExecutor(logs, cluster=engine)
    executor.update_parameters(
        name="lorasoups", timeout_min=minutes, nodes=1, tasks_per_node=1,
        gpus_per_node=gpus or None, slurm_partition=partition, slurm_array_parallelism=jobs,
    )  # fmt: skip
    return executor


def _run(executor: Any, queue: list[Job], at_once: int) -> list[Failure]:
    """Run jobs, so many together, and wait for all. Ctrl-C cancels them; finished stages stay."""
    failures, bar = [], tqdm(total=len(queue), desc="jobs", disable=len(queue) < 2)
    while queue:
        jobs, queue = queue[:at_once], queue[at_once:]
        handles = executor.map_array(run_job, jobs)
        try:
            for job, handle in zip(jobs, handles, strict=True):
                why = _error(handle)
                bar.write(f"  {'FAILED' if why else 'done'} {job.name}")
                bar.update()
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
    text = f"{type(error).__name__}: {error}"
    # submitit puts the job's own traceback into the message of its error
    named = re.findall(r"^[\w.]*(?:Error|Diverged): .*", text, re.MULTILINE)
    why = [text.splitlines()[0], *named][-1][:300]
    return KILLED if why.startswith("UncompletedJobError") else why


def run_job(job: Job) -> None:
    """Carry a job out in this process."""
    experiment = open_experiment(job.profile, job.study, job.seeds, job.out, **job.options)
    if job.seed is None:
        run_study(experiment, progress=False)
        return
    for method, task in jobs_of(experiment.profile):
        evaluated(experiment, method, task, job.seed)
