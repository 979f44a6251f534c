"""The doctor's estimates beside what a run really took."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lorasoups import hardware
from lorasoups.errors import SoupError
from lorasoups.estimates import Speed
from lorasoups.lengths import Lengths, lengths_of
from lorasoups.local_models import find_base, tokenizer_file
from lorasoups.machine import Machine
from lorasoups.plan import Device, Plan
from lorasoups.profiles import AlphaTraining, Profile, get_profile
from lorasoups.shapes import ModelShape, from_config
from lorasoups.training import SkillTraining


@dataclass(frozen=True)
class Compared:
    """One quantity; ``unit`` is ``s``, ``tokens/s`` or ``bytes``."""

    name: str
    unit: str
    estimated: float
    measured: float

    @property
    def error(self) -> float:
        """Relative: +0.1 where the estimate is 10 % above the measurement."""
        return self.estimated / self.measured - 1 if self.measured else math.inf


SpeedOf = Callable[[Plan], Speed]


def compare(
    path: Path, machine: Machine, project: Path, speed_of: SpeedOf
) -> tuple[list[Compared], list[str]]:
    """Estimates and measurements of a results file, or of a file that `measure` wrote.

    Args:
        path: ``data/results/<profile>/<study>.json`` or ``data/results/speed/measure_*.json``.
        machine: this machine's facts.
        project: the clone.
        speed_of: measures what this device reaches (`calibration.calibrate`).

    Returns:
        What was compared, and notes: above all where the file was made on another machine.

    Raises:
        SoupError: no such file, or not of these two kinds.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SoupError(f"no file of results ({error}): {path}; give another") from error
    try:
        if "timings" in content:
            return _results(content, machine, project, speed_of)
        if "stages" in content and "shape" in content:
            return _measure(content, machine, speed_of)
    except (KeyError, TypeError, AttributeError) as error:
        raise SoupError(f"not a sound results file ({error!r}): {path}; make it again") from error
    raise SoupError(f"neither results nor a measurement: {path}; give another file")


def table(compared: list[Compared], notes: list[str]) -> str:
    """As text: estimated, measured, relative error."""
    lines = [f"{'':24} {'estimated':>12} {'measured':>12} {'error':>7}"]
    for c in compared:
        lines.append(
            f"{c.name:24} {_number(c.estimated, c.unit):>12} {_number(c.measured, c.unit):>12} "
            f"{c.error:>+7.0%}"
        )
    return "\n".join([*lines, *(f"note      {note}" for note in notes)])


def _number(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e9:.2f} GB"
    return f"{value:,.1f} {unit}" if value < 100 else f"{value:,.0f} {unit}"


# --- a results file -----------------------------------------------------------------------------


def profile_in(config: Mapping[str, Any]) -> Profile:
    """The profile that a results file's ``config`` records."""
    names = {field.name for field in fields(Profile)}
    own = {name: value for name, value in config.items() if name in names}
    training = own["training"]
    own["training"] = SkillTraining(
        **training | {"target_modules": tuple(training["target_modules"])}
    )
    alphas = own["alphas"]
    own["alphas"] = AlphaTraining(
        **alphas | {"grid": tuple(tuple(point) for point in alphas["grid"])}
    )
    for name in ("skills", "extras", "methods"):
        own[name] = tuple(own[name])
    return Profile(**own)


def _results(
    content: Mapping[str, Any], machine: Machine, project: Path, speed_of: SpeedOf
) -> tuple[list[Compared], list[str]]:
    config, made = content["config"], content["provenance"]
    profile = profile_in(config)
    shape = find_base(profile.base, project).shape or _shape_by_count(config)
    on_gpu = made["device"] != "cpu"
    lengths = lengths_of(profile, tokenizer_file(profile.base, project))
    plan = Plan(profile, shape, _device(made["device"], machine), lengths, len(config["seeds"]))
    _fill_speed(plan, made["device"], machine, speed_of)
    stages = {stage.name: stage for stage in plan.stages()}
    compared = [
        Compared(name, "s", stages[name].seconds, seconds)
        for name, seconds in content["timings"].items()
        if name in stages
    ]
    runs = content.get("skills", [])
    for name, seconds in (stages["skill"].parts if "skill" in stages else {}).items():
        own = [run["seconds"] for run in runs if run["name"] == name]
        if own:
            once = seconds / plan.seeds
            compared.append(Compared(f"  {name}, one seed", "s", once, sum(own) / len(own)))
    notes = [f"speed: {plan.device.speed.source}"]
    here = {"cpu": machine.cpu, "cores": machine.cores, "threads": machine.threads}
    other = [f"{k} {made.get(k)}, here {v}" for k, v in here.items() if made.get(k) != v]
    if other and not on_gpu:
        notes.append(f"the file was made on another machine: {'; '.join(other)}")
    for name in {run["name"] for run in runs}:
        own = [run["seconds"] for run in runs if run["name"] == name]
        if max(own) > 1.5 * min(own):
            notes.append(
                f"the measured runs of {name} differ by {max(own) / min(own):.1f}x among "
                "themselves: that machine did other work as well"
            )
    return compared, sorted(notes)


def _shape_by_count(config: Mapping[str, Any]) -> ModelShape:
    """A known shape with exactly the number of parameters that the results record."""
    from lorasoups.shapes import KNOWN

    count = config["base_info"]["parameters"]
    for shape in KNOWN.values():
        if shape.parameters == count:
            return shape
    raise SoupError(
        f"the shape of base {config['base']} is not known here: {count} parameters; "
        "put its config.json into the Hub's cache"
    )


def _device(name: str, machine: Machine) -> Device:
    zero = Speed(1.0, 1.0, 1.0, 1.0, 1.0)
    if name == "cpu" or name == machine.cpu:
        return Device("cpu", machine.cpu, machine.memory or 0, machine.cpu_bf16, zero)
    own = next((gpu for gpu in machine.gpus if gpu.name == name), None)
    if own:
        return Device("cuda", name, own.memory, own.bf16, zero)
    try:
        card = hardware.find(name)
    except SoupError:  # another CPU
        return Device("cpu", name, machine.memory or 0, machine.cpu_bf16, zero)
    return Device("cuda", name, card.memory, card.bf16, zero)


def _fill_speed(plan: Plan, name: str, machine: Machine, speed_of: SpeedOf) -> None:
    away = plan.device.kind == "cuda" and all(gpu.name != name for gpu in machine.gpus)
    speed = hardware.assumed_speed(hardware.find(name)) if away else speed_of(plan)
    plan.device = replace(plan.device, speed=speed)


# --- a file of `measure` ------------------------------------------------------------------------


def _measure(
    content: Mapping[str, Any], machine: Machine, speed_of: SpeedOf
) -> tuple[list[Compared], list[str]]:
    """One training step's rate and memory per stage, at the file's own batch and length."""
    from lorasoups.measure import SHAPES

    numbers = SHAPES[content["shape"]]
    shape = replace(from_config(numbers, content["shape"]), layers=content["layers"])
    length, batch, steps = content["length"], content["batch"], content["steps"]
    profile = get_profile(content["profile"])
    evaluated = content["stages"].get("evaluate", {})
    prompts = evaluated.get("prompts", profile.eval_batch)
    first = profile.skills[0]
    profile = profile.override(
        training=replace(profile.training, r=content["rank"], batch_size=batch, steps=steps),
        by_skill={}, epochs=0.0, skills=profile.skills[:2], methods=("linear@delta",),
        n_test={profile.target: prompts}, extras=(), eval_batch=prompts,
        max_new_tokens=content["new_tokens"], gradient_checkpointing=content["checkpointing"],
        alphas=replace(profile.alphas, batch_size=batch),
    )  # fmt: skip
    row = Lengths(length / 2, length / 2, length, length, steps * batch)
    lengths = {(skill, "train"): row for skill in profile.skills}
    lengths[profile.target, "test"] = Lengths(128, 1, 129, 128, prompts)  # `measure` takes 128
    plan = Plan(profile, shape, _device(content["device"], machine), lengths)
    plan.setup = replace(plan.setup, dtype=content["dtype"])  # bfloat16 on a CPU as well
    _fill_speed(plan, content["device"], machine, speed_of)
    stages = {stage.name: stage for stage in plan.stages()}
    tokens, compared = steps * batch * length, []
    rates = {
        "skill": tokens / stages["skill"].parts[first],
        "alphas": plan.alpha_tokens_per_s(),
        "evaluate": prompts * content["new_tokens"] / plan.generation_s(profile.target),
    }
    for name, measured in content["stages"].items():
        if "error" in measured or name not in stages:
            continue
        if "tokens_per_s" in measured:
            rate = measured["tokens_per_s"]
            compared.append(Compared(name, "tokens/s", rates[name], rate))
        if "peak_bytes" in measured and plan.device.kind == "cuda":
            asked = stages[name].memory.parts
            own = sum(asked.values()) - asked["process"] - asked["allocator"]
            compared.append(Compared(f"  {name}, peak", "bytes", own, measured["peak_bytes"]))
    return compared, [f"speed: {plan.device.speed.source}"]
