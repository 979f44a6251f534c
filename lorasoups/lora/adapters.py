"""LoRA values from and to PEFT adapter folders (safetensors only)."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from lorasoups import __version__
from lorasoups.errors import DiskError, SoupError
from lorasoups.files import disk_errors, json_text, new_folder, read_json, sha256_file
from lorasoups.lora.linalg import compress
from lorasoups.lora.lora import Dense, Factors, LoRA
from lorasoups.lora.peft_config import check_supported, config_of, rank_and_scale
from lorasoups.lora.serving import vllm_max_lora_rank

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PROVENANCE = "soup.json"
_FACTOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_NO_FACTOR = {
    "lora_embedding": "is a LoRA on an embedding, which cannot be merged",
    "lora_magnitude_vector": "belongs to DoRA, which cannot be merged exactly",
    ".lora_B.bias": "is a LoRA bias (lora_bias), which cannot be merged exactly",
}
_UNKNOWN = "is not a LoRA factor of a linear layer"


def load_lora(path: str | os.PathLike, *, device: str | torch.device = "cpu") -> LoRA:
    """Read a PEFT LoRA folder (``adapter_config.json`` + ``adapter_model.safetensors``).

    Honours r, lora_alpha, rank_pattern, alpha_pattern and use_rslora. Tensors of any float type
    become float32, on ``device``; ``provenance`` holds the folder's name and its weights' sha256.

    Raises SoupError, naming the file, for one that is missing, damaged or pickled, and for what
    cannot be merged exactly: DoRA, biases, embeddings, modules_to_save, initialisations that change
    the base, other adapter types, unknown tensors.
    """
    folder = Path(path)
    if not folder.is_dir():
        problem = "not a folder" if folder.exists() else "no such adapter folder"
        raise SoupError(f"{problem}: {folder}; give a local PEFT folder (download Hub ones first)")
    config = read_json(folder / CONFIG, "is this a sound PEFT adapter folder? save it again")
    check_supported(config, str(folder / CONFIG))
    tensors = _read_tensors(folder)
    provenance = {"source": folder.resolve().name, "sha256": sha256_file(folder / WEIGHTS)}
    if (folder / PROVENANCE).exists():
        notes = read_json(folder / PROVENANCE, "save the adapter again, or remove the file")
        provenance["made"] = notes.get("provenance")
    return _to_lora(tensors, config, str(folder / WEIGHTS), provenance).to(device)


def from_peft(model, adapter: str = "default") -> LoRA:
    """A copy of one LoRA adapter of a live ``PeftModel``, under the same rules as `load_lora`."""
    where = f"adapter {adapter!r} of the given model"
    if adapter not in model.peft_config:
        raise SoupError(f"no such adapter: {where}; it has {', '.join(model.peft_config)}")
    config = model.peft_config[adapter].to_dict()
    check_supported(config, where)
    ours = re.compile(rf"(.*\.lora_\w+)\.{re.escape(adapter)}(\..+)?")
    matches = ((ours.fullmatch(key), tensor) for key, tensor in model.state_dict().items())
    tensors = {m[1] + (m[2] or ""): tensor.detach().clone() for m, tensor in matches if m}
    return _to_lora(tensors, config, where, {"source": where})


def save_lora(
    lora: LoRA, path: str | os.PathLike, rank: int | None = None, *,
    dtype: torch.dtype = torch.float32, overwrite: bool = False,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Path:  # fmt: skip
    """Write a plain PEFT adapter that stock ``PeftModel.from_pretrained`` reloads exactly.

    The folder appears whole or not at all, with provenance and ranks in ``soup.json``.
    rank: cut every module to this rank first; default: keep all. dtype: as stored; 16 bits round.
    overwrite: replace an adapter folder. more: further text files. Raises SoupError for a folder
    with content (``overwrite``: that is no adapter), a number that does not fit ``dtype``, and
    what the disk refuses.
    """
    target = Path(path).resolve()
    check_target(target, overwrite, (target / CONFIG).is_file(), "adapter")
    if rank is not None:
        cut = lora.each(lambda factors: compress(factors, rank))
        lora = LoRA(cut.modules, lora.base_model, {**lora.provenance, "saved_rank": rank})
    serve = {"rank": lora.max_rank, "vllm_max_lora_rank": vllm_max_lora_rank(lora)}
    notes = {"lorasoups": __version__, "serve": serve, "provenance": lora.provenance}
    config = config_of(lora)
    files = {
        CONFIG: json_text(config, target / CONFIG, 2).encode(),
        PROVENANCE: json_text(notes, target / PROVENANCE, 2).encode(),
        WEIGHTS: _weights(_to_tensors(lora, dtype, target), config["lora_alpha"]),
    } | {name: text.encode() for name, text in more.items()}
    with new_folder(target) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
    return Path(path)


def check_target(
    target: Path, overwrite: bool, replaceable: bool, kind: str, inputs: Sequence[str] = ()
) -> None:
    """SoupError for a file or a full folder; ``overwrite`` allows a ``replaceable`` ``kind``, but
    never one of the ``inputs``."""
    if any(target.resolve() == Path(place).resolve() for place in inputs):
        raise SoupError(f"is one of the adapters: {target}; choose another folder for the soup")
    with disk_errors(target):
        if target.exists() and not target.is_dir():
            raise SoupError(f"a file of this name exists: {target}; choose another name")
        if not target.is_dir() or not any(target.iterdir()):
            return
    if not overwrite:
        raise SoupError(f"folder exists and is not empty: {target}; choose another or overwrite it")
    if not replaceable:
        raise SoupError(f"will not overwrite what is no {kind}: {target}; choose another folder")


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    file, pickle = folder / WEIGHTS, folder / "adapter_model.bin"
    if not file.exists() and pickle.exists():
        cure = "PeftModel.from_pretrained(base, folder).save_pretrained(new_folder)"
        raise SoupError(f"only pickled weights, which can run code: {pickle}; convert them: {cure}")
    cure = f"{file}; save or download the adapter again"
    try:
        return safetensors.torch.load_file(file, device="cpu")
    except FileNotFoundError as error:
        raise DiskError(f"missing file: {cure}") from error
    except OSError as error:
        raise DiskError(f"cannot read ({error.strerror or error}): {cure}") from error
    except SafetensorError as error:
        raise SoupError(f"damaged safetensors file ({error}): {cure}") from error


def _to_lora(tensors: Mapping[str, Tensor], config: Mapping, where: str, provenance: dict) -> LoRA:
    sides: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        match = _FACTOR.fullmatch(key)
        if match is None:
            why = next((why for part, why in _NO_FACTOR.items() if part in key), _UNKNOWN)
            raise SoupError(f"tensor {key!r} {why}: {where}; train without it")
        if not tensor.is_floating_point():
            raise SoupError(f"tensor {key!r} is {tensor.dtype}: {where}; expected a float type")
        sides[match["module"]][match["side"]] = tensor.float()
    if not sides:
        raise SoupError(f"no LoRA tensors at all: {where}; save or download the adapter again")
    modules = {name: _to_factors(name, pair, config, where) for name, pair in sides.items()}
    return LoRA(modules, config.get("base_model_name_or_path") or "", provenance)


def _to_factors(module: str, pair: dict[str, Tensor], config: Mapping, where: str) -> Factors:
    """The factors of one module; `Dense` again if one of them is the identity."""
    for side in set("AB") - set(pair):
        raise SoupError(f"lora_{side} of module {module!r} is missing: {where}; save it again")
    r, scale = rank_and_scale(config, module, where)
    try:
        factors = Factors(pair["A"], pair["B"] * scale, scale)
    except SoupError as error:
        raise SoupError(f"{error}: module {module!r}, {where}") from error
    if factors.rank != r:
        ranks = f"module {module!r} has rank {factors.rank}, its config says {r}"
        raise SoupError(f"{ranks}: {where}; weights and {CONFIG} do not belong together")
    wide = factors.shape[0] <= factors.shape[1]
    matrix, other = (factors.A, factors.B) if wide else (factors.B, factors.A)
    if scale == 1 and r == min(factors.shape) and torch.equal(other, torch.eye(r).to(other)):
        return Dense(matrix)
    return factors


def _weights(tensors: dict[str, Tensor], lora_alpha: float) -> bytes:
    """A safetensors file, always the same for the same tensors; SGLang reads lora_alpha in it."""
    content = safetensors.torch.save(tensors, {"format": "pt"})
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"]["lora_alpha"] = str(lora_alpha)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]


def _to_tensors(lora: LoRA, dtype: torch.dtype, target: Path) -> dict[str, Tensor]:
    tensors = {}
    for name, factors in lora.modules.items():
        for side, factor in (("A", factors.A), ("B", factors.B)):
            stored = factor.to("cpu", dtype).clone(memory_format=torch.contiguous_format)
            if not torch.isfinite(stored).all():
                raise SoupError(f"too large for {dtype}: {name!r}, {target}; save as float32")
            tensors[f"base_model.model.{name}.lora_{side}.weight"] = stored
    return tensors
