"""LoRA values from and to PEFT adapter folders (safetensors only)."""

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from lorasoups import __version__
from lorasoups.errors import SoupError
from lorasoups.files import disk_errors, fsync_folder, sha256_file
from lorasoups.lora.linalg import compress
from lorasoups.lora.lora import Factors, LoRA
from lorasoups.lora.peft_config import check_supported, config_of, rank_and_scale
from lorasoups.lora.serving import vllm_max_lora_rank

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PROVENANCE = "soup.json"

_FACTOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


def load_lora(path: str | os.PathLike) -> LoRA:
    """Read a PEFT LoRA folder (``adapter_config.json`` + ``adapter_model.safetensors``).

    Honours r, lora_alpha, rank_pattern, alpha_pattern and use_rslora. Tensors of any float type
    become float32. ``provenance`` holds the folder's name and the sha256 of its weights.

    Raises SoupError, naming the file, for a missing or damaged one, for weights that are not
    safetensors, and for everything that cannot be merged exactly: DoRA, biases, embeddings,
    modules_to_save, initialisations that change the base, other adapter types, unknown tensors.
    """
    folder = Path(path)
    if not folder.is_dir():
        problem = "not a folder" if folder.exists() else "no such adapter folder"
        raise SoupError(f"{problem}: {folder}; give a local PEFT folder (download Hub ones first)")
    config = _read_json(folder / CONFIG)
    check_supported(config, str(folder / CONFIG))
    tensors = _read_tensors(folder)
    provenance: dict[str, Any] = {
        "source": folder.resolve().name,
        "sha256": sha256_file(folder / WEIGHTS),
    }
    if (folder / PROVENANCE).exists():
        provenance["made"] = _read_json(folder / PROVENANCE).get("provenance")
    return _to_lora(tensors, config, str(folder / WEIGHTS), provenance)


def from_peft(model, adapter: str = "default") -> LoRA:
    """A copy of one LoRA adapter of a live ``PeftModel``, under the same rules as `load_lora`."""
    from peft import get_peft_model_state_dict

    where = f"adapter {adapter!r} of the given model"
    if adapter not in model.peft_config:
        raise SoupError(f"no such adapter: {where}; it has {', '.join(model.peft_config)}")
    config = model.peft_config[adapter].to_dict()
    check_supported(config, where)
    tensors = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    return _to_lora(copies, config, where, {"source": where})


def save_lora(
    lora: LoRA,
    path: str | os.PathLike,
    rank: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> Path:
    """Write a plain PEFT adapter that stock ``PeftModel.from_pretrained`` reloads exactly.

    rank: cut every module to this rank first (QR + SVD of the factors); default: keep all.
    dtype: of the stored tensors; float16 and bfloat16 halve the size and round.
    overwrite: replace an adapter folder that is already there.

    The folder appears whole or not at all; ``soup.json`` beside the weights holds the provenance
    and the rank that a server must allow.
    Raises SoupError if the folder exists and is not empty (or with ``overwrite`` is no adapter),
    if a number does not fit ``dtype``, and if the disk refuses.
    """
    target = Path(path).resolve()
    _check_target(target, overwrite)
    if rank is not None:
        modules = {name: compress(factors, rank) for name, factors in lora.modules.items()}
        lora = LoRA(modules, lora.base_model, {**lora.provenance, "saved_rank": rank})
    files = {
        CONFIG: _json_bytes(config_of(lora), target),
        PROVENANCE: _json_bytes(
            {
                "lorasoups": __version__,
                "serve": {"rank": lora.max_rank, "vllm_max_lora_rank": vllm_max_lora_rank(lora)},
                "provenance": lora.provenance,
            },
            target / PROVENANCE,
        ),
        WEIGHTS: safetensors.torch.save(_to_tensors(lora, dtype, target), {"format": "pt"}),
    }
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_folder(target, files)
    return Path(path)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SoupError(f"missing file: {file}; is this a PEFT adapter folder?") from error
    except OSError as error:
        raise SoupError(f"cannot read ({error.strerror}): {file}; check its permissions") from error
    except ValueError as error:
        raise SoupError(f"not valid JSON ({error}): {file}; save or download it again") from error
    if not isinstance(content, dict):
        raise SoupError(f"not a JSON object: {file}; save or download it again")
    return content


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    file = folder / WEIGHTS
    if not file.exists() and (folder / "adapter_model.bin").exists():
        raise SoupError(
            f"only pickled weights, which can run code when read: {folder / 'adapter_model.bin'}; "
            "convert with PEFT: PeftModel.from_pretrained(base, folder).save_pretrained(new_folder)"
        )
    try:
        return safetensors.torch.load_file(file, device="cpu")
    except FileNotFoundError as error:
        raise SoupError(f"missing file: {file}; save or download the adapter again") from error
    except OSError as error:
        raise SoupError(f"cannot read ({error.strerror or error}): {file}; check it") from error
    except SafetensorError as error:
        raise SoupError(
            f"damaged safetensors file ({error}): {file}; save or download it again"
        ) from error


def _to_lora(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], where: str, provenance: dict
) -> LoRA:
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _FACTOR.fullmatch(key)
        if match is None:
            raise SoupError(f"tensor {key!r} {_explain(key)}: {where}; train without it")
        if not tensor.is_floating_point():
            raise SoupError(f"tensor {key!r} is {tensor.dtype}: {where}; expected a float type")
        sides.setdefault(match["module"], {})[match["side"]] = tensor.float()
    if not sides:
        raise SoupError(f"no LoRA tensors at all: {where}; save or download the adapter again")
    modules = {}
    for module, pair in sides.items():
        if len(pair) < 2:
            missing = "A" if "B" in pair else "B"
            raise SoupError(
                f"lora_{missing} of module {module!r} is missing: {where}; save it again"
            )
        r, scale = rank_and_scale(config, module, where)
        try:
            factors = Factors(pair["A"], pair["B"] * scale, scale)
        except SoupError as error:
            raise SoupError(f"{error}: module {module!r}, {where}") from error
        if factors.rank != r:
            raise SoupError(
                f"module {module!r} has rank {factors.rank}, its config says {r}: {where}; "
                "weights and adapter_config.json do not belong together"
            )
        modules[module] = factors
    return LoRA(modules, config.get("base_model_name_or_path") or "", provenance)


def _explain(key: str) -> str:
    if "lora_embedding" in key:
        return "is a LoRA on an embedding, which cannot be merged"
    if "lora_magnitude_vector" in key:
        return "belongs to DoRA, which cannot be merged exactly"
    if key.endswith(".lora_B.bias"):
        return "is a LoRA bias (lora_bias), which cannot be merged exactly"
    return "is not a LoRA factor of a linear layer"


def _to_tensors(lora: LoRA, dtype: torch.dtype, target: Path) -> dict[str, Tensor]:
    tensors = {}
    for name, factors in lora.modules.items():
        for side, factor in (("A", factors.A), ("B", factors.B)):
            stored = factor.to("cpu", dtype).clone(memory_format=torch.contiguous_format)
            if not torch.isfinite(stored).all():
                raise SoupError(f"too large for {dtype}: {name!r}, {target}; save as float32")
            tensors[f"base_model.model.{name}.lora_{side}.weight"] = stored
    return tensors


def _json_bytes(value: Any, where: Path) -> bytes:
    try:
        return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise SoupError(f"provenance is not JSON ({error}): {where}; keep it plain") from error


def _check_target(target: Path, overwrite: bool) -> None:
    with disk_errors(target):
        if target.exists() and not target.is_dir():
            raise SoupError(f"a file of this name exists: {target}; choose another name")
        if not target.is_dir() or not any(target.iterdir()):
            return
        if not overwrite:
            raise SoupError(
                f"folder exists and is not empty: {target}; choose another or pass overwrite"
            )
        if not (target / CONFIG).is_file():
            raise SoupError(
                f"will not overwrite a folder that holds no adapter: {target}; choose another"
            )


def _write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Write ``files`` into a hidden sibling of ``target``, then rename. Raises OSError."""
    mark = uuid.uuid4().hex[:8]
    fresh = target.with_name(f".{target.name}.{mark}.tmp")
    old = target.with_name(f".{target.name}.{mark}.old")
    try:
        fresh.mkdir()
        for name, data in files.items():
            with open(fresh / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        fsync_folder(fresh)
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
        fsync_folder(target.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
