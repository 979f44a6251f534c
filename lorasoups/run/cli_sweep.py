"""``lorasoups sweep``: seeds x methods x tasks as jobs, here or on Slurm (see `sweep`)."""

from __future__ import annotations

import argparse
import os
import sys


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``sweep``."""
    command = commands.add_parser(
        "sweep",
        help="run studies as jobs, several at a time, on this machine or on Slurm; resumable",
        description="Runs studies as jobs through submitit. Finished stages are taken from the "
        "store, so the same command goes on where it stopped.",
    )
    command.add_argument(
        "--profile", default="mini", help="smoke, mini, small or paper; default mini"
    )
    command.add_argument("--studies", nargs="+", default=["hard_math"], metavar="STUDY")
    command.add_argument("--seeds", type=int, default=1, metavar="N", help="default 1")
    command.add_argument("--methods", nargs="+", default=[], metavar="NAME",
                         help="default: those of the profile")  # fmt: skip
    command.add_argument(
        "--engine", default="local", help="local (default), slurm or debug (in turn, with pdb)"
    )
    command.add_argument("--jobs", type=int, default=1, metavar="N", help="at a time; default 1")
    command.add_argument("--gpus", type=int, default=0, metavar="N",
                         help="per job; from 2 on a job is split over them")  # fmt: skip
    command.add_argument("--time", type=int, default=24 * 60, metavar="MIN",
                         help="minutes after which a job is ended; default one day")  # fmt: skip
    command.add_argument("--slurm-partition", metavar="NAME")
    command.add_argument("--out", default="", metavar="DIR",
                         help="results and store; on Slurm a shared folder")  # fmt: skip
    command.add_argument("--hub-mirror", metavar="DIR", help="local mirror of Hub data")
    real = command.add_argument_group("profiles small and paper, as for reproduce")
    real.add_argument("--base", metavar="MODEL")
    real.add_argument("--limit", type=int, metavar="N")
    real.add_argument("--steps", type=int, metavar="N")
    real.add_argument("--tests", metavar="TASKS")
    real.add_argument("--template", choices=("same", "released"))
    real.add_argument("--four-bit", action="store_true", default=None)
    command.set_defaults(run=_sweep)


def _sweep(arguments: argparse.Namespace) -> int:
    from lorasoups.study.sweep import sweep

    if arguments.hub_mirror:  # jobs inherit the environment, on Slurm too
        os.environ["LORASOUPS_HUB_MIRROR"] = os.path.abspath(arguments.hub_mirror)
    names = ("base", "limit", "steps", "tests", "template", "four_bit")
    failures = sweep(
        arguments.profile, arguments.studies, arguments.seeds, arguments.engine, arguments.jobs,
        arguments.gpus, arguments.time, arguments.slurm_partition,
        os.path.abspath(arguments.out) if arguments.out else "",
        **{name: getattr(arguments, name) for name in names},
        methods=",".join(arguments.methods) or None,
    )  # fmt: skip
    for failure in failures:
        print(f"error: {failure.job.name}: {failure.why}; log {failure.log}", file=sys.stderr)
    if failures:
        print("finished stages are kept: the same command goes on from there", file=sys.stderr)
    return 1 if failures else 0
