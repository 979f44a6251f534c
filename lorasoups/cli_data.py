"""The sub-commands ``data`` and ``decontaminate``: what data are at hand, and what they share."""

import argparse
import os

from lorasoups.errors import SoupError


def add_commands(subparsers: argparse._SubParsersAction) -> None:
    """Add both commands; each sets ``run``, a function of the parsed arguments."""
    listing = subparsers.add_parser(
        "data", help="list the real data sets: licence, size, whether they are here, stand-ins"
    )
    _add_mirror(listing)
    listing.set_defaults(run=_data)
    command = subparsers.add_parser(
        "decontaminate",
        help="what the skills' training data share with the test items",
        description="Words in a row that training data and test items share, and equal questions.",
    )
    command.add_argument("--profile", default="small", help="its skills and tests; default small")
    command.add_argument("--study", metavar="NAME", help="a study of real_sets.toml instead")
    command.add_argument("--skills", nargs="+", metavar="TASK", help="other training sets")
    command.add_argument("--tests", nargs="+", metavar="TASK", help="other test sets")
    command.add_argument("--n", type=int, default=8, help="words of an n-gram; default 8")
    command.add_argument("--json", metavar="FILE", help="write the whole report there too")
    command.add_argument("--manual", metavar="FILE", help="your own text, for the task manual")
    _add_mirror(command)
    command.set_defaults(run=_decontaminate)


def _add_mirror(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--hub-mirror",
        metavar="DIR",
        help="local mirror of Hub data (or set LORASOUPS_HUB_MIRROR)",
    )


def _use_mirror(arguments: argparse.Namespace) -> None:
    if arguments.hub_mirror:
        os.environ["LORASOUPS_HUB_MIRROR"] = os.path.abspath(arguments.hub_mirror)


def _data(arguments: argparse.Namespace) -> int:
    from lorasoups.data_listing import listing, table
    from lorasoups.hub import mirror_folder

    _use_mirror(arguments)
    folder = mirror_folder()
    if folder is not None and not folder.is_dir():
        raise SoupError(f"no such mirror folder: {folder}; check --hub-mirror")
    print(table(listing()))
    return 0


def _decontaminate(arguments: argparse.Namespace) -> int:
    from lorasoups import decontamination, real_tasks
    from lorasoups.files import write_json_atomic

    _use_mirror(arguments)
    skills, tests = _sets(arguments)
    files: dict[tuple, dict] = {}

    def items(task: str, split: str) -> list[dict]:
        found, read = real_tasks.items(task, split, arguments.manual)
        files.update({(f["repo"], f["split"], f["stand_in_for"]): f for f in read})
        return found

    report = decontamination.report(
        {task: items(task, "train") for task in skills},
        {task: items(task, "test") for task in tests},
        arguments.n,
    )
    print(decontamination.table(report))
    for info in files.values():
        if info["stand_in_for"]:
            print(f"stand-in for {info['stand_in_for']}: {info['repo']} {info['split']}")
    if arguments.json:
        write_json_atomic(arguments.json, {**report, "data": list(files.values())})
        print(f"written: {arguments.json}")
    return 0


def _sets(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Names of the training sets and of the test sets, each once."""
    from lorasoups.real_sets import catalogue

    if arguments.study:
        studies = catalogue().studies
        if arguments.study not in studies:
            raise SoupError(
                f"unknown study {arguments.study!r}: choose one of {', '.join(studies)}"
            )
        study = studies[arguments.study]
        skills, tests = study.skills, study.targets
    elif arguments.skills and arguments.tests:
        skills, tests = (), ()
    else:
        from lorasoups.profiles import get_profile

        profile = get_profile(arguments.profile)
        if profile.source != "hub":
            raise SoupError(
                f"profile {profile.name!r} has generated data: nothing to compare; "
                "use --profile small"
            )
        skills, tests = profile.skills, tuple(profile.n_test)
    chosen = arguments.skills or skills, arguments.tests or tests
    return tuple(list(dict.fromkeys(names)) for names in chosen)
