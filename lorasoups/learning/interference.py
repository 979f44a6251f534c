"""Do LoRAs get in each other's way? Numbers per module, from the factors and on texts.

``<delta_i, delta_j>`` (Frobenius) is ``sum((B_i^T B_j) * (A_i A_j^T))``: no dense delta is made.
Whether they predict what a soup keeps is looked at in docs/howto/own.md.
"""

from collections.abc import Sequence
from functools import partial
from itertools import combinations

import torch
from torch import Tensor

from lorasoups.errors import SoupError
from lorasoups.lora.lora import Factors, LoRA, module_names
from lorasoups.models.generation import linear_layer, read_rows, watched

SAMPLE = 4096  # entries of a delta whose signs are compared
MEANS = {
    "cosine": "of the deltas: 0 where they are orthogonal",
    "norm_ratio": "size of the second delta to the first: far from 1, one LoRA dominates a sum",
    "energy": "of the sum over that of its parts: 1 where orthogonal, 2 where equal",
    "columns": "overlap of what they write to, 0 to 1",
    "rows": "overlap of what they read, 0 to 1; LoRAs that start from one seed overlap anyway",
    "sign_conflict": "share of entries with opposite signs: 0.5 by chance",
}
NUMBERS = tuple(MEANS)
UNTESTED = (
    "Whether these numbers predict what a soup keeps is not established: over 9 skills of four "
    "small studies the norm ratio and cross-activation did not, the others hardly differ within a "
    "study (docs/howto/own.md). Measure the soup: lorasoups fit."
)


def interference(loras: Sequence[LoRA]) -> dict:
    """Compare every pair of LoRAs, per module and in total.

    Returns ``{modules, pairs, norms, stable_ranks}``: ``pairs`` has, for LoRAs i < j, ``{i, j,
    total, by_module}``; ``total`` and each module's entry give the numbers of `MEANS` (overlaps are
    mean squared cosines of the principal angles between two spaces). ``norms`` (Frobenius) and
    ``stable_ranks`` (squared Frobenius over squared spectral norm) are per LoRA and module. In
    total, the first three are of all modules together, the others means over modules. Modules of
    one LoRA alone do not count in a pair. Raises SoupError for fewer than two LoRAs, none in
    common, or a zero delta.
    """
    if len(loras) < 2:
        raise SoupError(f"{len(loras)} LoRA: nothing to compare; give two or more")
    names = module_names(list(loras))
    norms, stable_ranks = [{} for _ in loras], [{} for _ in loras]
    by_module = {pair: {} for pair in combinations(range(len(loras)), 2)}
    grams = {pair: torch.zeros(2, 2, dtype=torch.float64) for pair in by_module}
    draws = {pair: torch.Generator().manual_seed(0) for pair in by_module}
    for name in names:  # one by one: all bases of a 7B pair would fill gigabytes
        here = {i: lora.modules[name] for i, lora in enumerate(loras) if name in lora.modules}
        bases = {}
        for i, factors in here.items():
            bases[i], norms[i][name], stable_ranks[i][name] = _parts(factors)
        for i, j in combinations(here, 2):
            gram = _gram(here[i], here[j])
            grams[i, j] += gram
            numbers = _of_gram(gram) | {side: _overlap(bases[i][side], bases[j][side])
                                        for side in ("columns", "rows")}  # fmt: skip
            numbers["sign_conflict"] = _sign_conflict(here[i], here[j], draws[i, j])
            by_module[i, j][name] = numbers
    for i, lora in enumerate(loras):
        if not any(norms[i].values()):
            raise SoupError(f"all deltas are zero (untrained?): LoRA {i + 1}, {lora!r}; train it")
    pairs = []
    for (i, j), of in by_module.items():
        if not of:
            raise SoupError(f"LoRAs {i + 1} and {j + 1} share no module: they cannot interfere")
        means = {key: sum(numbers[key] for numbers in of.values()) / len(of) for key in NUMBERS[3:]}
        pairs.append({"i": i, "j": j, "total": _of_gram(grams[i, j]) | means, "by_module": of})
    return {"modules": names, "pairs": pairs, "norms": norms, "stable_ranks": stable_ranks}


@torch.no_grad()
def cross_activation(model, loras: Sequence[LoRA], rows: Sequence[list[dict]]) -> list[list[float]]:
    """How much LoRA j adds on skill i's inputs, over what LoRA i adds there itself: ``[k][k]``.

    The sizes are root sums of ``|B_j A_j x|^2`` over modules and tokens, where x is what the module
    of the plain base sees. Above 1, LoRA j is louder than skill i's own on i's texts. ``rows``: of
    each skill encoded rows (``input_ids``). Raises SoupError for modules that the base lacks.
    """
    device, sums = model.device, torch.zeros(len(loras), dtype=torch.float64)

    def add(j: int, A: Tensor, gram: Tensor, x: Tensor) -> None:
        low = x.float() @ A.T
        sums[j] += float(((low @ gram) * low).sum())

    layers, found = [], []
    for j, lora in enumerate(loras):
        for name, f in lora.modules.items():
            parts = (f.A.to(device), (f.B.T @ f.B).to(device))
            layer = linear_layer(model, name, f.shape, plain=False)
            layers.append((layer, partial(add, j, *parts)))
    with watched(layers):
        for i, own in enumerate(rows):
            sums.zero_()
            read_rows(model, own)
            found.append((sums / sums[i]).sqrt().tolist())
    return found


def _parts(factors: Factors) -> tuple[dict[str, Tensor], float, float]:
    """Orthonormal bases of a delta's column and row space, its norm and its stable rank."""
    columns, Rb = torch.linalg.qr(factors.B.double())
    rows, Ra = torch.linalg.qr(factors.A.double().T)
    U, S, Vh = torch.linalg.svd(Rb @ Ra.T)
    n, norm = int((S > 1e-10 * S[0]).sum()), S.norm()  # of padded factors some are null
    stable_rank = norm**2 / S[0].clamp(min=1e-300) ** 2
    spaces = {"columns": columns @ U[:, :n], "rows": rows @ Vh[:n].T}
    return spaces, float(norm), float(stable_rank)


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
        "norm_ratio": (other / one) ** 0.5 if one else None,
        "energy": (one + 2 * both + other) / (one + other) if one + other else 1.0,
    }


def _overlap(one: Tensor, other: Tensor) -> float:
    """Mean squared cosine of the principal angles between two spaces, given orthonormal bases."""
    return float((one.T @ other).square().sum() / max(1, min(one.shape[1], other.shape[1])))


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
        if cross := compared.get("cross_activation"):
            for i, j in ((pair["i"], pair["j"]), (pair["j"], pair["i"])):
                lines.append(f"  on {names[i]}'s rows {names[j]} adds {cross[i][j]:.2f} of what "
                             f"{names[i]} adds")  # fmt: skip
    return "\n".join([*lines, UNTESTED])
