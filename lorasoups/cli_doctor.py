"""``lorasoups doctor``: what is here, whether a profile fits, and what to do if not."""

import argparse
import json


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    """Add ``doctor``."""
    command = subparsers.add_parser(
        "doctor",
        help="what this machine has, whether a profile fits, time and memory per stage",
        description="Looks, calibrates for some seconds, and downloads nothing. Exit code 0: the "
        "profile fits; 1: it does not, and the report says what to do; 2: bad input.",
    )
    command.add_argument("--profile", default="mini", help="smoke, mini, small or paper")
    command.add_argument("--study", default="hard_math", help="which composed task")
    command.add_argument("--base", metavar="MODEL", help="another base: folder, GGUF or Hub id")
    command.add_argument("--hub-mirror", metavar="DIR", help="local mirror of Hub data")
    command.add_argument("--seeds", type=int, default=1, metavar="N", help="default 1")
    command.add_argument("--limit", type=int, metavar="N", help="problems (small and paper)")
    command.add_argument("--four-bit", action="store_true", help="base in four bits")
    command.add_argument(
        "--gpu", metavar="NAME", help="plan for a card that is not here, e.g. H100, L4, 'RTX 4090'"
    )
    command.add_argument(
        "--measured",
        nargs="?",
        const="",
        metavar="FILE",
        help="compare estimates with a results file (default: the profile's own), or with what "
        "`lorasoups measure` wrote",
    )
    command.add_argument("--json", action="store_true", help="everything as JSON")
    command.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from lorasoups.doctor import Question, diagnose, hub_state
    from lorasoups.doctor_text import text
    from lorasoups.machine import facts
    from lorasoups.paths import Folders
    from lorasoups.profiles import get_profile

    get_profile(arguments.profile, arguments.study)  # refuses unknown names before it looks around
    folders = Folders()
    machine = facts(folders.cache)
    if arguments.measured is not None:
        return _compare(arguments, machine, folders)
    question = Question(
        arguments.profile,
        arguments.study,
        arguments.base,
        arguments.hub_mirror,
        arguments.seeds,
        arguments.limit,
        arguments.four_bit,
        arguments.gpu,
    )
    report = diagnose(question, machine, hub_state(), folders.project)
    print(json.dumps(report, indent=1) if arguments.json else text(report))
    return 0 if report["fits"] else 1


def _compare(arguments: argparse.Namespace, machine, folders) -> int:
    from pathlib import Path

    from lorasoups.calibration import calibrate
    from lorasoups.measured import compare, table
    from lorasoups.results import results_path

    path = (
        Path(arguments.measured)
        if arguments.measured
        else results_path(arguments.profile, arguments.study, folders.project)
    )
    compared, notes = compare(path, machine, folders.project, lambda plan: calibrate(plan).speed)
    if arguments.json:
        rows = [vars(c) | {"error": c.error} for c in compared]
        print(json.dumps({"compared": rows, "notes": notes}, indent=1))
    else:
        print(table(compared, notes))
    return 0
