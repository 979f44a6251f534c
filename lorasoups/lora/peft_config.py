"""What a PEFT ``adapter_config.json`` says: can it be merged exactly, at which rank and scale.

After PEFT 0.21.2 (``tuners/lora/config.py``, ``utils/other.py: get_pattern_key``).
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from lorasoups.errors import SoupError
from lorasoups.lora.lora import LoRA

# init_lora_weights that leave the base weights alone: the delta is relative to them
PLAIN_INITS = (None, True, False, "gaussian", "eva", "orthogonal")
# keys that are honoured here, or that matter only for placing and training the adapter
_HARMLESS = frozenset(
    "alpha_pattern auto_mapping base_model_name_or_path corda_config eva_config exclude_modules "
    "inference_mode init_lora_weights layers_pattern layers_to_transform loftq_config "
    "lora_alpha lora_dropout lora_ga_config megatron_core peft_type peft_version "
    "qalora_group_size r rank_pattern revision target_modules task_type use_rslora".split()
)
_WHY = {
    "alora_invocation_tokens": "Activated LoRA acts on some tokens only",
    "bias": "it changes the biases of the base model",
    "fan_in_fan_out": "Conv1D layers (GPT-2) store their weights transposed",
    "layer_replication": "it changes the layers of the base model",
    "lora_bias": "LoRA with a bias is not a pure delta weight",
    "modules_to_save": "whole modules were trained, which no LoRA can hold",
    "target_parameters": "LoRA on bare parameters (experts) is not a linear layer",
    "trainable_token_indices": "token embeddings were trained, which no LoRA can hold",
    "use_dora": "DoRA rescales the base weights, so its effect is not a delta that can be added",
}
# what `config_of` writes besides the names and ranks of an adapter
_WRITTEN = {"use_rslora": False, "use_dora": False, "bias": "none", "lora_dropout": 0.0,
            "fan_in_fan_out": False, "init_lora_weights": True, "inference_mode": True,
            "modules_to_save": None}  # fmt: skip


def check_supported(config: Mapping[str, Any], where: str) -> None:
    """Raise SoupError, naming the key, for anything but a plain LoRA of a causal LM."""
    kind, task = config.get("peft_type"), config.get("task_type")
    if kind != "LORA":
        cure = "only LORA adapters can be merged (peft.convert_to_lora makes one of many others)"
        raise SoupError(f"peft_type is {kind!r}: {where}; {cure}")
    if task not in (None, "CAUSAL_LM"):
        raise SoupError(f"task_type is {task!r}: {where}; only causal LMs are supported")
    init = config.get("init_lora_weights")
    if init not in PLAIN_INITS:
        cure = "save it with PEFT's path_initial_model_for_weight_conversion"
        raise SoupError(f"init_lora_weights={init!r} may change the base: {where}; {cure}")
    for key, value in config.items():
        if key in _HARMLESS or value in (None, False, [], {}) or (key, value) == ("bias", "none"):
            continue
        why = _WHY.get(key, "its effect on a merge is unknown")
        what = f"{key}={value!r} cannot be merged exactly, {why}"
        raise SoupError(f"{what}: {where}; train without it")


def rank_and_scale(config: Mapping[str, Any], module: str, where: str) -> tuple[int, float]:
    """The rank r and the scale of one module: lora_alpha / r, with ``use_rslora`` / sqrt(r).

    Keys of ``rank_pattern`` and ``alpha_pattern`` are regular expressions on the end of the
    module's name; the first match wins.
    """
    r = _lookup(config, "rank_pattern", "r", module, where)
    alpha = _lookup(config, "alpha_pattern", "lora_alpha", module, where)
    whose = f"of module {module!r} is"
    if type(r) is not int or r < 1:
        raise SoupError(f"rank {whose} {r!r}: {where}; expected a positive integer")
    if type(alpha) not in (int, float) or not math.isfinite(alpha) or alpha == 0:
        raise SoupError(f"lora_alpha {whose} {alpha!r}: {where}; expected a number, not 0")
    return r, alpha / (math.sqrt(r) if config.get("use_rslora") else r)


def _lookup(config: Mapping[str, Any], pattern_key: str, key: str, module: str, where: str) -> Any:
    patterns = config.get(pattern_key) or {}
    if not isinstance(patterns, Mapping):
        raise SoupError(f"{pattern_key} is no mapping: {where}; repair the adapter config")
    for pattern, value in patterns.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error as error:
            bad = f"{pattern_key} has the bad pattern {pattern!r} ({error})"
            raise SoupError(f"{bad}: {where}; repair it") from error
    return config.get(key, 8)  # PEFT's default for both


def config_of(lora: LoRA) -> dict[str, Any]:
    """The ``adapter_config.json`` under which stock PEFT reloads ``lora`` exactly, at scale 1.

    ``r`` is the most common rank. The patterns of other ones match one full name (``^``, escaped
    dots), so that "layers.1.x" never catches "layers.11.x".
    """
    ranks = {name: factors.rank for name, factors in lora.modules.items()}
    r = Counter(ranks.values()).most_common(1)[0][0]
    pattern = {"^" + re.escape(name): rank for name, rank in sorted(ranks.items()) if rank != r}
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM",
        "base_model_name_or_path": lora.base_model or None,
        "r": r, "lora_alpha": r, "rank_pattern": pattern, "alpha_pattern": pattern,
        "target_modules": sorted(ranks), **_WRITTEN,
    }  # fmt: skip
