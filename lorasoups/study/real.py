"""``lorasoups reproduce --profile small`` or ``paper``: a study on a real model and real data.

Same stages and same results file as the embedded worlds. On a CPU the run is cut down to a few
steps: it shows the path, not what the whole profile gives, and says so in the results.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import torch

from lorasoups.errors import SoupError
from lorasoups.results.file import results_path
from lorasoups.study import run as headline
from lorasoups.study.profiles import AlphaTraining, Profile, get_profile
from lorasoups.study.recipes import recipes_for
from lorasoups.study.stages import Experiment
from lorasoups.tasks.real import decontamination
from lorasoups.tasks.real import tasks as real_tasks

ALL = 100_000
"""More problems than any test has."""
CPU_STEPS = 6
CPU_LIMIT = 20
STAGES = ("skill", "alphas", "merge", "lorahub", "xlora", "evaluate")
LARGE_GPU = 40 * 2**30
"""Bytes of GPU memory above which evaluation takes five times the batch."""


def cpu_note(steps: int) -> str:
    """What a reader of a run on a CPU must know."""
    return (
        f"CPU run, cut down to {steps} training steps per skill: it shows that the path works, "
        "not what the whole profile would give"
    )


def small_profile(
    base: str | None,
    limit: int | None,
    device: str,
    name: str = "small",
    *,
    study: str = "hard_math",
    steps: int | None = None,
    methods: str | None = None,
    tests: str | None = None,
    template: str | None = None,
    eval_batch: int | None = None,
    checkpointing: bool = False,
    four_bit: bool = False,
    gpu_bytes: int = 0,
) -> Profile:
    """A profile with a real base (``small``, ``paper``) for this machine.

    Args:
        base: another base model (folder, GGUF file, wheel or Hub id).
        limit: problems to solve of each test; default all (on a CPU 20).
        device: ``cpu`` cuts everything down, so that 135M parameters take some minutes.
        name: of the profile.
        study: which composed task.
        steps: other training steps per skill.
        methods: ``all`` or names of recipes, with commas.
        tests: further test tasks for the main methods, with commas, e.g. ``mawps``.
        template: ``same`` or ``released``.
        eval_batch: another number of prompts per batch.
        checkpointing: gradient checkpointing.
        four_bit: load the base in four bits.
        gpu_bytes: memory of the GPU.

    Raises:
        SoupError: a limit or steps below 1, an unknown method, profile or study.
    """
    for option, value in (("limit", limit), ("steps", steps), ("eval-batch", eval_batch)):
        if value is not None and value < 1:
            raise SoupError(f"not at least 1: --{option} {value}; give a positive number")
    profile = get_profile(name, study)
    if device == "cpu":
        limit, profile = limit or CPU_LIMIT, _cut(profile, steps or CPU_STEPS)
    elif steps:
        training = replace(profile.training, steps=steps)
        profile = profile.override(training=training, epochs=0.0, by_skill={})
    if gpu_bytes > LARGE_GPU and name == "small":
        profile = profile.override(eval_batch=5 * profile.eval_batch)
    if methods:
        profile = profile.override(methods=_methods(methods, profile))
    if eval_batch:
        profile = profile.override(eval_batch=eval_batch)
    profile = profile.override(
        four_bit=four_bit or profile.four_bit,
        gradient_checkpointing=checkpointing or profile.gradient_checkpointing,
    )
    if tests:
        profile = _with_tests(profile, tests.split(","))
    if template:
        profile = profile.override(template=template)
    sizes = {task: min(n, limit or n) for task, n in profile.n_test.items()}
    return profile.override(base=base or profile.base, n_test=sizes)


def _with_tests(profile: Profile, tests: Sequence[str]) -> Profile:
    for task in tests:
        if task not in real_tasks.TASKS or not real_tasks.judge_of(task):
            known = ", ".join(t for t in real_tasks.TASKS if real_tasks.judge_of(t))
            raise SoupError(f"no such test {task!r}: --tests; choose of {known}")
    return profile.override(
        n_test=profile.n_test | dict.fromkeys(tests, ALL),
        extras=(*profile.extras, *tests),
        judges=profile.judges | {task: real_tasks.judge_of(task) for task in tests},
    )


def _cut(profile: Profile, steps: int) -> Profile:
    """What a CPU can do in minutes: short examples, small batches, one point of the grid."""
    batch = 2 if steps <= CPU_STEPS else 4
    training = replace(
        profile.training, steps=steps, batch_size=batch, warmup_steps=max(1, steps // 10)
    )
    return profile.override(
        training=training,
        epochs=0.0,
        by_skill={},
        n_train=max(40, steps * batch),
        max_length=128 if steps <= CPU_STEPS else min(256, profile.max_length),
        alphas=AlphaTraining(
            epochs=1.0 if steps <= CPU_STEPS else 3.0,
            batch_size=batch,
            grid=(("none", "ones", 0.01),),
            n_held_out=4 if steps <= CPU_STEPS else 16,
        ),
        methods=("linear@delta",),
        extras=(),
        n_test={task: n for task, n in profile.n_test.items() if task not in profile.extras},
        max_new_tokens=min(96, profile.max_new_tokens),
        eval_batch=10 if steps <= CPU_STEPS else 50,
        note=cpu_note(steps),
    )


def _methods(names: str, profile: Profile) -> tuple[str, ...]:
    known = recipes_for(profile.skills)
    wanted = tuple(known) if names == "all" else tuple(filter(None, names.split(",")))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SoupError(f"unknown method {unknown[0]!r}: --methods; choose of {', '.join(known)}")
    return wanted


def run(arguments: argparse.Namespace) -> int:
    """Run the profile and print its table. Data come from the mirror `hub` is told of, or the Hub.

    Args:
        arguments: of the command line: ``profile``, ``study``, ``base``, ``limit``, ``steps``,
            ``methods``, ``tests``, ``template``, ``eval_batch``, ``checkpointing``,
            ``four_bit``, ``seeds``, ``out``, ``force``.

    Returns:
        0; anything wrong is a SoupError.
    """
    if arguments.seeds < 1:
        raise SoupError(f"no seeds: --seeds {arguments.seeds}; give at least 1")
    gpu = torch.cuda.is_available()
    profile = small_profile(
        arguments.base,
        arguments.limit,
        "cuda" if gpu else "cpu",
        arguments.profile,
        study=arguments.study,
        steps=arguments.steps,
        methods=arguments.methods,
        tests=arguments.tests,
        template=arguments.template,
        eval_batch=arguments.eval_batch,
        checkpointing=arguments.checkpointing,
        four_bit=arguments.four_bit,
        gpu_bytes=torch.cuda.get_device_properties(0).total_memory if gpu else 0,
    )
    if profile.note:
        print(f"NOTE: {profile.note}.", flush=True)
    fresh = STAGES if arguments.force else ()
    experiment = Experiment(profile, arguments.seeds, arguments.out or "", fresh)
    results = headline.run(experiment)
    print(summary(results))
    path = results_path(profile.name, profile.study, experiment.folders.base)
    print(f"written: {path}")
    return 0


def summary(results: dict) -> str:
    """The rows of a results file as lines of text, with what is to be known of model and data."""
    config = results["config"]
    base = config["base_info"]
    stored = f", stored as {base['quantisation']}" if base["quantisation"] else ""
    lines = [f"base: {base['name']} ({base['parameters'] / 1e6:.1f}M parameters{stored})"]
    for data in config["data"]:
        kept = f", STAND-IN for {data['stand_in_for']}" if data.get("stand_in_for") else ""
        kept += f", NOT THE WHOLE SET: {data['note']}" if data["complete"] is False else ""
        lines.append(f"data: {data['repo']} {data['split']}, {data['rows']} rows{kept}")
    lines.append(f"device: {results['provenance']['device']}")
    lines.append(f"{'task':9} {'view':18} {'method':14} seed  right  outcomes")
    for row in results["rows"]:
        outcomes = ", ".join(f"{name} {n}" for name, n in row["outcomes"].items())
        what = f"{row['task']:9} {row['view']:18} {row['method']:14} {row['seed']:4}"
        right = f"{row['correct']}/{row['n']}"
        lines.append(f"{what} {right:>6}  {outcomes}")
    if results.get("decontamination"):
        lines.append(decontamination.table(results["decontamination"]))
    if config["note"]:
        lines.append(f"NOTE: {config['note']}.")
    return "\n".join(lines)
