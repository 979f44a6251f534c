"""Whether a plan fits into memory and disk, and what would make it fit."""

from lorasoups import hardware
from lorasoups.estimates import BYTES, weight_bytes
from lorasoups.local_models import FoundBase
from lorasoups.machine import Machine
from lorasoups.plan import PRUNING, Plan
from lorasoups.units import gb

RESERVE = 0.95
"""Share of a device's free memory that an estimate may fill."""


def _limits(plan: Plan, machine: Machine, elsewhere: bool) -> dict[str, float]:
    ram = float("inf") if elsewhere else machine.free or machine.memory or float("inf")
    limits = {"cpu": RESERVE * ram}
    if plan.device.kind == "cuda":
        limits["cuda"] = RESERVE * plan.device.memory
    return limits


def look_at_memory(
    plan: Plan, machine: Machine, report: dict, problems: list, elsewhere: bool = False
) -> None:
    """Put the plan's stages into the report, and what does not fit into the problems.

    ``elsewhere``: the plan is for a card of another machine, whose RAM is not known.
    """
    limits = _limits(plan, machine, elsewhere)
    too_much: dict[str, float] = {}
    for stage in plan.stages():
        fits = stage.memory.total <= limits[stage.where]
        report["stages"].append({
            "name": stage.name, "what": stage.what, "seconds": stage.seconds,
            "peak_bytes": stage.memory.total, "where": stage.where, "fits": fits,
            "largest": stage.memory.largest,
            "bytes": {name: round(size) for name, size in stage.memory.parts.items()},
            "parts": stage.parts,
        })  # fmt: skip
        if not fits:
            too_much[stage.where] = max(too_much.get(stage.where, 0), stage.memory.total)
    for where, need in too_much.items():
        names = ", ".join(s["name"] for s in report["stages"]
                          if s["where"] == where and not s["fits"])  # fmt: skip
        kind = "GPU memory" if where == "cuda" else "RAM"
        problems.append({
            "what": f"{gb(need)} of {kind} needed ({names}), {gb(limits[where])} usable",
            "do": _way_out(plan, where, need, limits[where]),
        })  # fmt: skip


def _way_out(plan: Plan, where: str, need: float, limit: float) -> str:
    """What makes it fit: first what leaves the experiment as it is."""
    if where == "cpu" and plan.setup.where == "cuda":  # merges alone are on the CPU
        return (
            "a machine with more RAM, or --methods without those that prune delta weights "
            f"({', '.join(f'{method}@delta' for method in PRUNING)})"
        )
    ways = []
    for changes, said in _changes(plan, where):
        other = Plan(plan.profile.override(**changes), plan.shape, plan.device, plan.lengths)
        worst = max(s.memory.total for s in other.stages() if s.where == where)
        if worst <= limit:
            ways.append(f"{said} ({gb(worst)})")
            break
    if plan.profile.source == "hub" and where == "cuda":
        cards = [card.name for card in hardware.CARDS if card.memory * RESERVE >= need]
        if cards:
            ways.append(f"a GPU of at least {gb(need / RESERVE)} ({', '.join(cards[::-1])})")
    elif plan.profile.source == "hub":
        ways.append("a machine with more RAM, or a GPU")
    else:
        ways.append("close other programs")
    smaller = {"paper": "small", "small": "mini", "mini": "smoke"}.get(plan.profile.name)
    if smaller:
        ways.append(f"--profile {smaller}")
    return "; or ".join(ways)


def _changes(plan: Plan, where: str) -> list[tuple[dict, str]]:
    """Changes of the profile that save memory, mildest first, each with how to say it."""
    p, found = plan.profile, []
    batches, n = [p.eval_batch], p.eval_batch
    while n > 1:
        n //= 2
        batches.append(n)
    savers: list[tuple[dict, str]] = [({}, "")]
    if p.source == "hub":
        checkpoint = ({"gradient_checkpointing": True}, "--checkpointing")
        savers.append(checkpoint)
        if where == "cuda":
            packed = ({"four_bit": True}, "--four-bit")
            savers += [packed, ({**packed[0], **checkpoint[0]}, f"{packed[1]}, {checkpoint[1]}")]
    for changes, said in savers:
        for batch in batches:
            smaller = f"--eval-batch {batch}" if batch != p.eval_batch else ""
            words = ", ".join(filter(None, (said, smaller)))
            if words:
                found.append(({**changes, "eval_batch": batch}, words))
    return found


def look_at_disk(plan: Plan, base: FoundBase, machine: Machine, problems: list) -> None:
    """Adapters (results and the cache), and a base that is still to be downloaded."""
    training = plan.profile.training
    adapter = BYTES["float32"] * plan.shape.lora_parameters(training.target_modules, training.r)
    need = plan.seeds * len(plan.adapters()) * 2 * adapter + 0.2e9
    if base.kind == "hub" and not base.here:
        need += weight_bytes(plan.shape, "bfloat16")
    if machine.disk_free is not None and need > machine.disk_free:
        problems.append({
            "what": f"{gb(need)} of disk needed (adapters, downloads), {gb(machine.disk_free)} "
                    "free where the cache lies",
            "do": "make room, or write elsewhere with --out DIR (models: HF_HOME)",
        })  # fmt: skip
