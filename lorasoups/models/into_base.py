"""A soup folded into its base: a full model that needs no PEFT and no LoRA support to be served."""

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch

from lorasoups import __version__
from lorasoups.errors import SoupError
from lorasoups.files import disk_errors, fsync_folder, write_json_atomic
from lorasoups.lora.adapters import PROVENANCE
from lorasoups.lora.lora import LoRA
from lorasoups.models.base import load_base


def merge_into_base(
    lora: LoRA,
    base: str | Path,
    out: str | Path,
    *,
    dtype: str = "auto",
    any_base: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write ``base`` with the delta weights of ``lora`` added to its own.

    Args:
        lora: an adapter value.
        base: see `base_models.load_base`; a GGUF file is dequantised.
        out: a new folder. It appears whole or not at all, with ``soup.json`` beside the weights.
        dtype: of the written weights; ``auto``: what the base is stored in. Sums are formed in
            float32, one module after the other, and rounded once.
        any_base: do not compare the base's name with the one that the adapter was trained on.
        overwrite: replace a model that this function wrote.

    Returns:
        What ``soup.json`` holds.

    Raises:
        SoupError: another base, a module that it lacks, a quantised one, or a folder in the way.
    """
    target = Path(out).resolve()
    _check_target(target, overwrite)
    model, tokenizer, info = load_base(base, dtype=dtype)
    _check_base(lora, info, any_base)
    _fold(model, lora)
    content = {
        "lorasoups": __version__,
        "base": {key: info[key] for key in ("kind", "name", "revision", "sha256", "quantisation")},
        "dtype": str(model.dtype).removeprefix("torch."),
        "provenance": lora.provenance,
    }
    fresh = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    with disk_errors(target):
        fresh.mkdir(parents=True)
        try:
            model.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
            write_json_atomic(fresh / PROVENANCE, content)
            for file in fresh.iterdir():
                with open(file, "rb+") as opened:
                    os.fsync(opened.fileno())
            _replace(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return content


def _check_target(target: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise SoupError(f"a file of this name exists: {target}; choose another name")
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise SoupError(
            f"folder exists and is not empty: {target}; choose another or pass --overwrite"
        )
    try:
        ours = "base" in json.loads((target / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise SoupError(
            f"will not overwrite a folder that holds no merged model of ours: {target}; "
            "choose another"
        )


def _check_base(lora: LoRA, info: dict, any_base: bool) -> None:
    """By the last part of the name: a path and a Hub id of one model end alike."""
    ours, theirs = (
        str(name).rstrip("/").split("/")[-1] for name in (info["name"], lora.base_model)
    )
    if theirs and ours != theirs and not any_base:
        raise SoupError(
            f"trained on {lora.base_model!r}, not on {info['name']!r}: the adapter; "
            "give that base, or --any-base if the two are the same model"
        )


def _fold(model: Any, lora: LoRA) -> None:
    tied = model.get_output_embeddings() if model.config.tie_word_embeddings else None
    for name, factors in lora.modules.items():
        try:
            module = model.get_submodule(name)
        except AttributeError:
            raise SoupError(f"the base has no module {name!r}: adapter of another base") from None
        weight = getattr(module, "weight", None)
        if weight is None or not weight.is_floating_point():
            raise SoupError(f"{name!r} is quantised: base model; give the unquantised one")
        if module is tied:
            raise SoupError(
                f"{name!r} is tied to the input embedding: it cannot take a delta alone"
            )
        if tuple(weight.shape) != factors.shape:
            raise SoupError(
                f"{name!r} is {tuple(weight.shape)} in the base, {factors.shape} in the adapter; "
                "it was trained on another base"
            )
        with torch.no_grad():
            weight.copy_((weight.float() + factors.delta()).to(weight.dtype))


def _replace(fresh: Path, target: Path) -> None:
    """Rename; the old model, if any, goes only after the new one stands."""
    old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.old")
    if target.exists():
        target.rename(old)
    try:
        fresh.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    fsync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)
