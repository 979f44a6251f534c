"""Do LoRAs get in each other's way? Numbers per module, from the factors alone.

``<delta_i, delta_j>`` (Frobenius) is ``sum((B_i^T B_j) * (A_i A_j^T))``: no dense delta is made.
Whether any of these numbers predicts what a soup can do is a question for data.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from lorasoups.errors import SoupError
from lorasoups.lora.adapters import load_lora
from lorasoups.lora.lora import Factors, LoRA, module_names

SAMPLE = 4096  # entries of a delta whose signs are compared
MEANS = {
    "cosine": "of the deltas: 0 where they are orthogonal",
    "norm_ratio": "size of the second delta to the first: far from 1, one LoRA dominates a sum",
    "energy": "of the sum over that of its parts: 1 where orthogonal, 2 where equal",
    "columns": "overlap of what they write to, 0 to 1",
    "rows": "overlap of what they read, 0 to 1",
    "sign_conflict": "share of entries with opposite signs: 0.5 by chance",
}
NUMBERS = tuple(MEANS)
UNTESTED = "Whether these numbers predict what a soup can do is not established: measure the soup."


def interference(loras: Sequence[LoRA], seed: int = 0) -> dict:
    """Compare every pair of LoRAs, per module and in total.

    Returns ``{modules, pairs, norms, stable_ranks}``: ``pairs`` has, for LoRAs i < j, ``{i, j,
    total, by_module}``; ``total`` and each module's entry give ``cosine`` of the deltas,
    ``norm_ratio`` (of j's delta to i's), ``energy`` (of their sum, over the energies of the two: 1
    where they are orthogonal, 2 where equal), ``columns`` and ``rows`` (mean squared cosine of the
    principal angles between the column and the row spaces, 0 to 1) and ``sign_conflict`` (share of
    a sample of entries in which the signs differ). ``norms`` (Frobenius) and ``stable_ranks``
    (squared Frobenius over squared spectral norm) are per LoRA and module. In total, the first
    three are of all modules together, the others means over modules. Modules of one LoRA alone do
    not count in a pair. Raises SoupError for fewer than two LoRAs, none in common, or a zero delta.
    """
    if len(loras) < 2:
        raise SoupError(f"{len(loras)} LoRA: nothing to compare; give two or more")
    names = module_names(list(loras))
    parts = [{name: _parts(f) for name, f in lora.modules.items()} for lora in loras]
    for i, lora in enumerate(loras):
        if not any(float(part["norm"]) for part in parts[i].values()):
            raise SoupError(f"all deltas are zero (untrained?): LoRA {i + 1}, {lora!r}; train it")
    pairs = []
    for i, j in combinations(range(len(loras)), 2):
        common = [n for n in names if n in parts[i] and n in parts[j]]
        if not common:
            raise SoupError(f"LoRAs {i + 1} and {j + 1} share no module: they cannot interfere")
        draw = torch.Generator().manual_seed(seed)
        grams, by_module = torch.zeros(2, 2, dtype=torch.float64), {}
        for name in common:
            one, other = loras[i].modules[name], loras[j].modules[name]
            gram = _gram(one, other)
            grams += gram
            spaces = {side: _overlap(parts[i][name][side], parts[j][name][side])
                      for side in ("columns", "rows")}  # fmt: skip
            conflict = _sign_conflict(one, other, draw)
            by_module[name] = _of_gram(gram) | spaces | {"sign_conflict": conflict}
        means = {key: sum(m[key] for m in by_module.values()) / len(common) for key in NUMBERS[3:]}
        total = _of_gram(grams) | means
        pairs.append({"i": i, "j": j, "total": total, "by_module": by_module})
    return {
        "modules": names,
        "pairs": pairs,
        "norms": [{n: float(p["norm"]) for n, p in of.items()} for of in parts],
        "stable_ranks": [{n: float(p["stable_rank"]) for n, p in of.items()} for of in parts],
    }


def of_folders(folders: Sequence[str]) -> dict:
    """`interference` of PEFT folders."""
    return interference([load_lora(folder) for folder in folders])


def _parts(factors: Factors) -> dict[str, Tensor]:
    """Orthonormal bases of the spaces of a delta, its norm and its stable rank."""
    columns, Rb = torch.linalg.qr(factors.B.double())
    rows, Ra = torch.linalg.qr(factors.A.double().T)
    singular = torch.linalg.svdvals(Rb @ Ra.T)
    norm = singular.norm()
    stable = norm**2 / singular[0].clamp(min=1e-300) ** 2
    return {"columns": columns, "rows": rows, "norm": norm, "stable_rank": stable}


def _gram(one: Factors, other: Factors) -> Tensor:
    """``[[<1,1>, <1,2>], [<1,2>, <2,2>]]``, float64."""
    pair = [(f.A.double(), f.B.double()) for f in (one, other)]
    inner = [[((Bi.T @ Bj) * (Ai @ Aj.T)).sum() for Aj, Bj in pair] for Ai, Bi in pair]
    return torch.tensor(inner, dtype=torch.float64)


def _of_gram(gram: Tensor) -> dict[str, float]:
    one, both, other = float(gram[0, 0]), float(gram[0, 1]), float(gram[1, 1])
    size = (one * other) ** 0.5
    return {
        "cosine": both / size if size else 0.0,
        "norm_ratio": (other / one) ** 0.5 if one else float("inf"),
        "energy": (one + 2 * both + other) / (one + other) if one + other else 1.0,
    }


def _overlap(one: Tensor, other: Tensor) -> float:
    """Mean squared cosine of the principal angles between two spaces, given orthonormal bases."""
    return float((one.T @ other).square().sum() / min(one.shape[1], other.shape[1]))


def _sign_conflict(one: Factors, other: Factors, draw: torch.Generator) -> float:
    rows = torch.randint(one.shape[0], (SAMPLE,), generator=draw)
    columns = torch.randint(one.shape[1], (SAMPLE,), generator=draw)
    entries = [(f.B[rows] * f.A[:, columns].T).sum(1) for f in (one, other)]
    return float((entries[0] * entries[1] < 0).double().mean())


def text(compared: dict, names: Sequence[str]) -> str:
    """The totals of every pair, and the modules whose cosine is furthest from 0."""
    lines = []
    for pair in compared["pairs"]:
        lines.append(f"{names[pair['i']]} and {names[pair['j']]}, {len(pair['by_module'])} modules")
        lines += [f"  {key:14} {pair['total'][key]:8.3f}  {MEANS[key]}" for key in NUMBERS]
        ordered = sorted(pair["by_module"].items(), key=lambda entry: -abs(entry[1]["cosine"]))
        lines += [f"  {entry['cosine']:+.3f}  {name}" for name, entry in ordered[:3]]
    return "\n".join([*lines, UNTESTED])
