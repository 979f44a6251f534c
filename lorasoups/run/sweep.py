"""A sweep: seeds x methods x tasks of some studies, handed to an engine that exists.

The engine is submitit: it gives Slurm and a local executor one interface and needs nothing that
runs all the time, whereas Ray needs a running cluster with an open port on every node. Our stages
talk through files alone (the artifact store), so all that is asked of an engine is to start a
command somewhere and to say where its log is.

Jobs come in three rounds, for each study: one per seed trains (skills, mixes, alphas), some per
seed evaluate methods, one writes the results file. Within a round jobs that need the same artifact
wait at its lock; what is in the store is not made again, so a second call goes on where the first
one stopped. The store (``--out``) must lie in a folder that all machines share.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorasoups.errors import SoupError
from lorasoups.files import ensure_folder
from lorasoups.paths import Folders
from lorasoups.run.sweep_job import STAGES, Job, run

ENGINES = ("local", "slurm", "debug")
LOST = "killed before its end, often for want of memory (lower --jobs) or of time (raise --time)"
_POLL_S = 0.2


@dataclass(frozen=True)
class Engine:
    """Where jobs run.

    Attributes:
        name: ``local``, ``slurm``, or ``debug`` (one job after the other, in this process;
            an error starts Python's debugger).
        jobs: how many may run at a time.
        gpus: per job; from 2 on a job is split over as many processes. On ``local`` job slot i has
            the GPUs i * gpus and following.
        minutes: after which a job is ended.
        partition: of Slurm.
    """

    name: str = "local"
    jobs: int = 1
    gpus: int = 0
    minutes: int = 24 * 60
    partition: str | None = None


@dataclass(frozen=True)
class Failure:
    """A job that failed: which, why (one line), and where its log is."""

    job: Job
    why: str
    log: Path


def plan(
    profile: str,
    studies: Sequence[str] = ("hard_math",),
    seeds: int = 1,
    methods: Sequence[str] = (),
    *,
    out: str | Path = "",
    jobs: int = 1,
    processes: int = 1,
    real: Mapping[str, Any] | None = None,
) -> list[list[Job]]:
    """The three rounds of jobs.

    Args:
        profile, studies, seeds, methods: what to run; methods empty: those of the profile.
        out: folder for results and store, as for `Experiment`.
        jobs: evaluation is cut so that about as many jobs can run at a time; a method is never cut.
        processes: per job.
        real: options of `small.small_profile` for profiles with a real base.

    Raises:
        SoupError: unknown profile, study or method; bad numbers; options that mean nothing.
    """
    from lorasoups.study.profiles import REAL, get_profile
    from lorasoups.study.recipes import recipes_for

    if seeds < 1 or jobs < 1:
        raise SoupError(f"nothing to run: --seeds {seeds}, --jobs {jobs}; give at least 1 of both")
    if real and profile not in REAL:
        raise SoupError(f"--{next(iter(real))} means nothing here: profile {profile}; leave it out")
    rounds: list[list[Job]] = [[], [], []]
    parts = -(-jobs // (len(studies) * seeds))
    for study in dict.fromkeys(studies):
        found = get_profile(profile, study)
        known = recipes_for(found.skills)
        unknown = [name for name in methods if name not in known]
        if unknown:
            raise SoupError(
                f"unknown method {unknown[0]!r}: study {study}; choose from {', '.join(known)}"
            )
        chosen = list(methods) or list(found.methods) or list(known)
        chosen = list(dict.fromkeys(["base", *found.skills, "cat", *chosen]))
        whole = Job("train", profile, study, seeds, str(out), methods=tuple(methods),
                    real=dict(real or {}), processes=processes)  # fmt: skip
        for seed in range(seeds):
            rounds[0].append(replace(whole, seed=seed))
            for part in range(min(parts, len(chosen))):
                own = tuple(chosen[part::parts])
                rounds[1].append(replace(whole, stage="evaluate", seed=seed, own=own))
        rounds[2].append(replace(whole, stage="assemble"))
    return rounds


def execute(rounds: Sequence[Sequence[Job]], engine: Engine, logs: Path) -> list[Failure]:
    """Run the rounds one after the other; returns what failed.

    A failed job ends no other, but no later round is started for its study.

    Args:
        rounds: of `plan`.
        engine: where.
        logs: folder for logs and pickles, on the shared disk.

    Raises:
        SoupError: the engine is not to be had here.
    """
    make = _executors(engine, ensure_folder(logs))
    failures: list[Failure] = []
    for jobs in rounds:
        broken = {failure.job.study for failure in failures}
        ready = [job for job in jobs if job.study not in broken]
        if ready:
            print(f"{STAGES.index(ready[0].stage) + 1}/{len(STAGES)} {ready[0].stage}: "
                  f"{len(ready)} job(s), {engine.jobs} at a time", flush=True)  # fmt: skip
            failures += _round(ready, make, engine.jobs)
    return failures


def _round(jobs: Sequence[Job], make: Any, slots: int) -> list[Failure]:
    """At most ``slots`` at a time. Ctrl-C cancels what runs (finished stages stay)."""
    waiting, running, failures = list(jobs), {}, []
    try:
        while waiting or running:
            for slot in [slot for slot, (_, handle) in running.items() if handle.done()]:
                job, handle = running.pop(slot)
                failure = _failure(job, handle)
                print(f"  {'FAILED' if failure else 'done'} {job.name}", flush=True)
                failures += [failure] if failure else []
            for slot in [slot for slot in range(slots) if slot not in running][: len(waiting)]:
                job = waiting.pop(0)
                running[slot] = (job, make(slot).submit(run, job))
            time.sleep(_POLL_S)
    except BaseException:
        for _, handle in running.values():
            handle.cancel(check=False)
        raise
    return failures


def _failure(job: Job, handle: Any) -> Failure | None:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        error = handle.exception()
    except Exception as lost:
        error = lost
    if error is None:
        return None
    if isinstance(error, UncompletedJobError) and not isinstance(error, FailedJobError):
        return Failure(job, LOST, Path(handle.paths.stderr))
    lines = [line.strip() for line in str(error).splitlines() if line.strip().strip("-")]
    told = [line for line in lines if "Error" in line]
    why = (told or lines or [type(error).__name__])[-1]
    return Failure(job, why[:300], Path(handle.paths.stderr))


def _executors(engine: Engine, logs: Path) -> Any:
    """slot -> submitit executor."""
    if engine.name not in ENGINES:
        raise SoupError(f"unknown engine {engine.name!r}: choose one of {', '.join(ENGINES)}")
    try:
        import submitit
    except ModuleNotFoundError:
        raise SoupError(
            "package submitit is missing, it runs sweeps; pip install 'lorasoups[sweep]'"
        ) from None
    if engine.name == "slurm" and not shutil.which("sbatch"):
        raise SoupError("no sbatch here: --engine slurm; start it on a login node, or use local")

    def make(slot: int) -> Any:
        if engine.name == "debug":
            return submitit.DebugExecutor(logs)
        if engine.name == "local":
            executor = submitit.LocalExecutor(logs)
            executor.update_parameters(
                timeout_min=engine.minutes, gpus_per_node=engine.gpus,
                visible_gpus=_gpus_of(slot, engine),
            )  # fmt: skip
            return executor
        executor = submitit.AutoExecutor(logs, cluster="slurm")
        executor.update_parameters(
            name="lorasoups", timeout_min=engine.minutes, gpus_per_node=engine.gpus or None,
            tasks_per_node=1, nodes=1, slurm_partition=engine.partition,
        )  # fmt: skip
        return executor

    return make


def _gpus_of(slot: int, engine: Engine) -> list[int]:
    if not engine.gpus:
        return []
    gpus = _visible()[slot * engine.gpus : (slot + 1) * engine.gpus]
    if len(gpus) < engine.gpus:
        raise SoupError(
            f"{engine.jobs} jobs of {engine.gpus} GPUs: this machine has fewer; "
            "lower --jobs or --gpus"
        )
    return gpus


def _visible() -> list[int]:
    """Numbers of the GPUs that this process may use."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [int(number) for number in told.split(",") if number.strip().isdigit()]
    import torch

    return list(range(torch.cuda.device_count()))


def logs_folder(out: str | Path) -> Path:
    """Beside the store of a run."""
    return Folders(out=out).cache.with_name("sweep")
