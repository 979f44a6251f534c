"""The speed figures: what is measured, what the goal is, and the file of one machine's results.

Measured by ``pytest tests/benchmarks`` (``make bench``).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorasoups.errors import SoupError
from lorasoups.files import write_json_atomic
from lorasoups.paths import Folders


@dataclass(frozen=True)
class Goal:
    """One figure.

    Attributes:
        label: what is divided by what, or the unit.
        goal: the bound; on a CPU ``cpu`` where it is another.
        at_least: True: not less than the goal; False: not more.
        unit: ``x`` (a ratio), ``s`` or ``GB``.
    """

    label: str
    goal: float
    at_least: bool
    cpu: float | None = None
    unit: str = "x"

    def bound(self, on_cpu: bool) -> float:
        """The goal on this kind of device."""
        return self.cpu if on_cpu and self.cpu is not None else self.goal

    def met(self, value: float, on_cpu: bool) -> bool:
        """Whether a measured value reaches the goal."""
        bound = self.bound(on_cpu)
        return value >= bound if self.at_least else value <= bound


GOALS = {
    "alpha_step": Goal("alpha step / forward + backward of the frozen base", 1.1, False),
    "alpha_steps": Goal("alpha steps to the loss that `released` ends at / its steps", 0.1, False),
    "soup_generation": Goal("merged-soup generation / base generation, tokens/s", 0.98, True),
    "evaluation": Goal("evaluation, problems/s / one prompt at a time", 20, True, cpu=6),
    "svd_time": Goal("PEFT's svd / ours, seconds", 50, True),
    "svd_memory": Goal("peak memory of our svd / PEFT's", 0.1, False),
    "merge_seconds": Goal("slowest 7B merge, pruning of deltas apart", 5, False, unit="s"),
    "prune_seconds": Goal("slowest pruning of a 7B pair's deltas", 60, False, unit="s"),
    "merge_memory": Goal("largest peak of a 7B merge", 6, False, unit="GB"),
    "training": Goal("LoRA training tokens/s / default Trainer + PEFT", 1.5, True, cpu=4),
    "training_135m": Goal("the same on SmolLM2-135M's shape", 1.8, True),
    "mfu": Goal("LoRA step of 7B shape / measured matmul peak", 0.5, True),
}
"""Name -> figure."""


def speed_path(device: str, root: Path | str = "") -> Path:
    """``data/results/speed/<device>.json``."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", device).strip("-").lower()
    return Folders(out=root).results / "speed" / f"{name}.json"


def save(found: dict[str, Any], root: Path | str = "") -> Path:
    """Write the figures of one machine.

    Args:
        found: ``{device, on_cpu, versions, load, figures: {name: {value, low, high, note, ...}}}``.
        root: what was ``--out``; default the project.

    Raises:
        SoupError: a figure that nobody knows.
    """
    unknown = set(found["figures"]) - set(GOALS)
    if unknown:
        raise SoupError(f"no such speed figure: {min(unknown)}; choose of {', '.join(GOALS)}")
    return write_json_atomic(speed_path(found["device"], root), {"schema": 1} | found)
