"""A soup folded into its base: a full model that needs no PEFT and no LoRA support to be served."""

from pathlib import Path
from typing import Any

from lorasoups import __version__
from lorasoups.errors import SoupError
from lorasoups.files import new_folder, read_json, write_json_atomic
from lorasoups.lora.adapters import PROVENANCE, check_target
from lorasoups.lora.lora import LoRA
from lorasoups.models.base import load_base
from lorasoups.models.generation import add_delta, linear_layer


def merge_into_base(
    lora: LoRA, base: str | Path, out: str | Path, *, dtype: str = "auto", any_base: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write ``base`` with the delta weights of ``lora`` added to its own.

    Args:
        lora: an adapter value.
        base: see `load_base`; a GGUF file is dequantised.
        out: a new folder. It appears whole or not at all, with ``soup.json`` beside the weights.
        dtype: of the written weights; ``auto``: as the base is stored. Sums are formed in float32.
        any_base: do not compare the base's name with the one that the adapter was trained on.
        overwrite: replace a model that this function wrote.

    Returns what ``soup.json`` holds. SoupError for another base, a quantised or a missing module,
    or a folder in the way.
    """
    target = Path(out).resolve()
    check_target(target, overwrite, _is_ours(target), "merged model of ours")
    model, tokenizer, info = load_base(base, dtype=dtype)
    # by the last part of the name: a path and a Hub id of one model end alike
    name, trained_on = (str(n).rstrip("/").split("/")[-1] for n in (info["name"], lora.base_model))
    if trained_on and name != trained_on and not any_base:
        what = f"trained on {lora.base_model!r}, not on {info['name']!r}: the adapter"
        raise SoupError(f"{what}; give that base, or --any-base if the two are the same model")
    tied = model.get_output_embeddings() if model.config.tie_word_embeddings else None
    for name, factors in lora.modules.items():
        module = linear_layer(model, name, factors.shape)
        if module is tied:
            raise SoupError(f"{name!r} is tied to the input embedding: no delta fits it alone")
        module.weight.data = add_delta(module.weight.data, factors)
    named = {key: info[key] for key in ("kind", "name", "revision", "sha256", "quantisation")}
    content = {"lorasoups": __version__, "base": named, "dtype": info["dtype"],
               "provenance": lora.provenance}  # fmt: skip
    with new_folder(target) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json_atomic(folder / PROVENANCE, content)
    return content


def _is_ours(folder: Path) -> bool:
    try:
        return "base" in read_json(folder / PROVENANCE, "")
    except SoupError:
        return False
