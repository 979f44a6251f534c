"""``lorasoups reproduce --profile small``: the headline on a real pretrained model and real data.

Same stages and same results file as the embedded world. On a CPU the run is cut down to a few
steps: it proves the path, not the quality, and says so on the screen and in the results.
"""

import argparse
from dataclasses import replace

import torch

from lorasoups import headline
from lorasoups.errors import SoupError
from lorasoups.experiment import Experiment
from lorasoups.profiles import AlphaTraining, Profile, get_profile
from lorasoups.results import results_path

CPU_NOTE = (
    "CPU run, cut down to a few training steps: it proves that the path works, "
    "it says nothing about the quality of any method"
)
CPU_LIMIT = 20
STAGES = ("skill", "alphas", "evaluate")


def small_profile(base: str | None, limit: int | None, device: str) -> Profile:
    """The profile ``small`` for this machine.

    Args:
        base: another base model (folder, GGUF file or Hub id).
        limit: GSM-Hard problems to solve, and at most as many GSM8K problems; default all (on a
            CPU 20).
        device: ``cpu`` cuts everything down, so that 135M parameters take some minutes.

    Raises:
        SoupError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise SoupError(f"no problems: --limit {limit}; give at least 1")
    profile = get_profile("small")
    if device == "cpu":
        limit = limit or CPU_LIMIT
        profile = profile.override(
            training=replace(profile.training, steps=6, batch_size=2, warmup_steps=1),
            n_train=40,
            max_length=128,
            alphas=AlphaTraining(
                epochs=1.0, batch_size=2, grid=(("none", "ones", 0.01),), n_held_out=4
            ),
            methods=("linear@delta",),
            max_new_tokens=96,
            eval_batch=10,
            note=CPU_NOTE,
        )
    tests = {task: min(n, limit or n) for task, n in profile.n_test.items()}
    return profile.override(base=base or profile.base, n_test=tests)


def run(arguments: argparse.Namespace) -> int:
    """Run the profile and print its table. Data come from the mirror `hub` is told of, or the Hub.

    Args:
        arguments: of the command line: ``base``, ``limit``, ``seeds``, ``out``, ``force``.

    Returns:
        0; anything wrong is a SoupError.
    """
    if arguments.seeds < 1:
        raise SoupError(f"no seeds: --seeds {arguments.seeds}; give at least 1")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    profile = small_profile(arguments.base, arguments.limit, device)
    if profile.note:
        print(f"NOTE: {profile.note}.", flush=True)
    fresh = STAGES if arguments.force else ()
    experiment = Experiment(profile, arguments.seeds, arguments.out or "", fresh)
    results = headline.run(experiment)
    print(summary(results))
    print(f"written: {results_path(profile.name, root=experiment.folders.base)}")
    return 0


def summary(results: dict) -> str:
    """The rows of a results file as lines of text, with what is to be known of model and data."""
    config = results["config"]
    base = config["base_info"]
    stored = f", stored as {base['quantisation']}" if base["quantisation"] else ""
    lines = [f"base: {base['name']} ({base['parameters'] / 1e6:.1f}M parameters{stored})"]
    for data in config["data"]:
        kept = f", NOT THE WHOLE SET: {data['note']}" if data["complete"] is False else ""
        lines.append(f"data: {data['repo']} {data['split']}, {data['rows']} rows{kept}")
    lines.append(f"{'task':9} {'view':18} {'method':14} seed  right  outcomes")
    for row in results["rows"]:
        outcomes = ", ".join(f"{name} {n}" for name, n in row["outcomes"].items())
        what = f"{row['task']:9} {row['view']:18} {row['method']:14} {row['seed']:4}"
        right = f"{row['correct']}/{row['n']}"
        lines.append(f"{what} {right:>6}  {outcomes}")
    if config["note"]:
        lines.append(f"NOTE: {config['note']}.")
    return "\n".join(lines)
