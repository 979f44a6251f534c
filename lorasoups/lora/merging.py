"""``merge``: several LoRAs in, one LoRA out."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from lorasoups.errors import SoupError
from lorasoups.lora.linalg import compress
from lorasoups.lora.lora import LoRA, module_names
from lorasoups.lora.methods import METHODS


def merge(
    loras: Sequence[LoRA], method: str = "cat", *, weights: Any = None, on: str = "delta",
    rank: int | None = None, device: str | torch.device | None = None, **options: Any,
) -> LoRA:  # fmt: skip
    """Merge k >= 1 LoRAs of one base model into one LoRA; the inputs are never changed.

    weights: k finite numbers, negative ones allowed (default 1/k each); or a mapping module name ->
    k such numbers; or an object whose ``.weights`` is one (the learned alphas). A key may be a
    pattern (`matches`), for all modules that it matches; of several the last counts, and a module's
    own name before all.
    on: "delta": the method works on the true delta weights; "factors": on A and B apart, as PEFT
    0.21.2's ``add_weighted_adapter``, which needs equal ranks.
    rank: cut the result to this rank (QR + SVD). The default keeps it exact: of rank sum r_i for
    cat and linear, r for factor-wise methods, min(out, in) for methods that prune the delta itself.
    device: where to compute and to leave the result (``auto``: a GPU if any); default: as given.
    options: see ``METHODS[method].options``.

    A module that some LoRA does not touch counts as zero there. One LoRA alone comes back times its
    weight under every method, unpruned, as in PEFT.
    Raises SoupError for unknown or bad arguments, different base models, shapes or devices.
    """
    loras = _check_loras(loras, device)
    if method not in METHODS:
        raise SoupError(f"unknown merge method {method!r}; choose one of: {', '.join(METHODS)}")
    chosen = METHODS[method]
    if on not in chosen.on:
        choices = " or ".join(f'on="{choice}"' for choice in chosen.on)
        raise SoupError(f"method {method!r} does not work on {on!r}; use {choices}")
    if rank is not None and "rank" in chosen.options:
        options["rank"] = rank
    complete = chosen.complete(options)
    by_module = _weights_by_module(weights, loras)
    if len(loras) == 1:
        single = loras[0].modules.items()
        modules = {name: factors.scaled(float(by_module[name])) for name, factors in single}
    else:
        modules = chosen.fn(loras, by_module, on=on, **complete)
    provenance = {"method": method, "on": on, "rank": rank, "options": complete}
    rows = {name: row.tolist() for name, row in by_module.items()}
    shared = not isinstance(getattr(weights, "weights", weights), Mapping)
    provenance["weights"] = next(iter(rows.values())) if shared else rows
    provenance["sources"] = [lora.provenance for lora in loras]
    merged = LoRA(modules, _common_base(loras), provenance)
    return merged if rank is None else merged.each(lambda factors: compress(factors, rank))


def _check_loras(loras: Sequence[LoRA], device: str | torch.device | None) -> list[LoRA]:
    loras = list(loras)
    if not loras:
        raise SoupError("nothing to merge: the list of LoRAs is empty; give at least one")
    for position, lora in enumerate(loras):
        if not isinstance(lora, LoRA):
            kind = type(lora).__name__
            raise SoupError(f"input {position} is a {kind}, not a LoRA; use load_lora(folder)")
    _common_base(loras)
    for name in module_names(loras):
        shapes = {lora.modules[name].shape for lora in loras if name in lora.modules}
        if len(shapes) > 1:
            shown = " and ".join(str(list(shape)) for shape in sorted(shapes))
            what = f"delta weights of different shape {shown}: module {name!r}"
            raise SoupError(f"{what}; merge LoRAs of one base")
    if device is not None:
        loras = [lora.to(device) for lora in loras]
    places = sorted({str(f.device) for lora in loras for f in lora.modules.values()})
    if len(places) > 1:
        raise SoupError(f"LoRAs on different devices: {' and '.join(places)}; give merge a device")
    return loras


def _common_base(loras: list[LoRA]) -> str:
    bases = sorted({lora.base_model.rstrip("/") for lora in loras if lora.base_model})
    if len(bases) > 1:
        shown = " and ".join(map(repr, bases))
        cure = "if these are one, write one base_model_name_or_path into their adapter_config.json"
        raise SoupError(f"LoRAs of different base models: {shown}; {cure}")
    return bases[0] if bases else ""


def _weights_by_module(weights: Any, loras: list[LoRA]) -> dict[str, Tensor]:
    """Module name -> float64 ``[k]``, on the CPU."""
    names, k = module_names(loras), len(loras)
    weights = getattr(weights, "weights", weights)
    if not isinstance(weights, Mapping):
        row = [1 / k] * k if weights is None else weights
        return dict.fromkeys(names, _row(row, k, "weights"))
    patterns = [key for key in weights if key not in names]
    keys = {}
    for name in names:
        fit = [name] if name in weights else [p for p in patterns if matches(p, name)]
        keys |= {name: fit[-1]} if fit else {}
    missing = sorted(set(names) - set(keys))
    unknown = [p for p in patterns if not any(matches(p, name) for name in names)]
    if unknown:
        raise SoupError(f"weights for module {unknown[0]!r}, which no LoRA touches; remove them")
    if missing:
        raise SoupError(f"no weights for module {missing[0]!r}; give {k} for each of {len(names)}")
    return {name: _row(weights[key], k, f"weights of module {key!r}") for name, key in keys.items()}


def matches(pattern: str, module: str) -> bool:
    """Whether some parts of a module's name, one after the other, match a pattern's parts.

    A part is a name with ``*`` and ``?``, or a range of layers: ``mlp``, ``layers.0-11``,
    ``layers.12-29.*.q_proj``.
    """
    wanted, parts = pattern.split("."), module.split(".")
    starts = range(len(parts) - len(wanted) + 1)
    return any(all(map(_part, wanted, parts[i : i + len(wanted)])) for i in starts)


def _part(wanted: str, part: str) -> bool:
    if (ends := re.fullmatch(r"(\d+)-(\d+)", wanted)) and part.isdigit():
        return int(ends[1]) <= int(part) <= int(ends[2])
    return fnmatchcase(part, wanted)


def _row(values: Any, k: int, what: str) -> Tensor:
    try:
        row = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise SoupError(f"{what}: {values!r} are not numbers; give {k}, one per LoRA") from error
    if row.shape != (k,):
        count = row.numel() if row.ndim == 1 else f"shape {list(row.shape)}"
        raise SoupError(f"{what}: got {count} for {k} LoRAs; give one per LoRA")
    if not torch.isfinite(row).all():
        raise SoupError(f"{what}: {row.tolist()} holds NaN or infinity; give finite numbers")
    return row
