"""LoRAs from a folder or from the Hub, checked against the base that they are for."""

import re
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from peft import PeftModel, save_as_lora

from lorasoups.errors import SoupError
from lorasoups.files import read_json
from lorasoups.lora.adapters import CONFIG, WEIGHTS, load_lora
from lorasoups.lora.lora import LoRA
from lorasoups.models.generation import linear_layer
from lorasoups.models.hub_errors import hub_errors

ENERGY = 0.999  # of an adapter of another kind, that its LoRA keeps


def fetch_lora(place: str, model: Any, base: str) -> LoRA:
    """A LoRA that was trained elsewhere: a PEFT folder or a Hub id (``org/name@revision``).

    ``base`` is the name of the base ``model``. Of other kinds of adapters (LoHa, LoKr, ...) PEFT
    makes a LoRA; its provenance says so. Raises SoupError: nothing there; it was trained on another
    base, does not fit its modules, or is zero everywhere (never trained).
    """
    folder = folder_of(place)
    kind = read_json(Path(folder, CONFIG), "give the folder of a PEFT adapter").get("peft_type")
    lora = load_lora(folder) if kind == "LORA" else _converted(folder, model, kind)
    trained_on, base = (Path(name).name.lower() for name in (lora.base_model, base))
    # a path of somebody's machine, such as that of a GGUF file's folder, names no model
    if trained_on not in ("", base) and not Path(lora.base_model).is_absolute():
        what = f"trained on {lora.base_model}, the base here is {base}"
        cure = "if they are the same, correct base_model_name_or_path in its adapter_config.json"
        raise SoupError(f"{what}: LoRA {place}; {cure}")
    for module, factors in lora.modules.items():
        try:
            linear_layer(model, module, factors.shape, plain=False)
        except SoupError as error:
            raise SoupError(f"{error}: LoRA {place}") from error
    if not any(factors.B.any() and factors.A.any() for factors in lora.modules.values()):
        raise SoupError(f"every delta is zero (never trained?): LoRA {place}; train it first")
    return lora


def _converted(folder: str, model: Any, kind: str) -> LoRA:
    if not Path(folder, WEIGHTS).is_file():
        raise SoupError(f"no {WEIGHTS}: {folder}; save the adapter as safetensors")
    try:
        wrapped = PeftModel.from_pretrained(model, folder)
        with tempfile.TemporaryDirectory() as place:
            save_as_lora(place, wrapped, ENERGY)
            lora = load_lora(place)
        wrapped.unload()
    except (TypeError, ValueError, NotImplementedError) as error:
        raise SoupError(f"PEFT makes no LoRA of {kind} ({error}): {folder}") from error
    return LoRA(lora.modules, lora.base_model, lora.provenance | {"converted_from": kind})


def folder_of(place: str) -> str:
    """The folder itself, or that of a download from the Hub. Raises SoupError."""
    if Path(place).is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+(@.+)?", place):
        return place
    name, _, revision = place.partition("@")
    wanted = {"revision": revision or None, "allow_patterns": [CONFIG, WEIGHTS]}
    with hub_errors(f"LoRA {place}", "give the folder of a PEFT adapter"):
        return snapshot_download(name, **wanted)
