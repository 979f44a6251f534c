"""A soup as a llama.cpp LoRA file (GGUF), and what a llama.cpp server computes with it.

llama.cpp scales an adapter by ``adapter.lora.alpha / rank`` of each tensor: with uneven ranks and
one alpha that is silently wrong. Alpha 0 means scale 1, so 0 is written, and B holds the scale.
Llama's query and key rows lie in another order there (rotary pairs are neighbours).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lorasoups.errors import SoupError
from lorasoups.files import new_file
from lorasoups.lora.lora import LoRA
from lorasoups.models.base import optional

ARCHITECTURES = ("llama", "mistral")  # model types that are "llama" in llama.cpp
TOP = 40  # log-probabilities that the server is asked for
DTYPES = {"f32": np.float32, "f16": np.float16}


def write_gguf(lora: LoRA, config: Any, path: str | Path, dtype: str = "f32") -> Path:
    """Write an adapter of linear layers of decoder blocks as ``path``, in one step.

    ``config``: the base's transformers config; ``dtype``: ``f32`` or ``f16``. Raises SoupError for
    an architecture or a module that llama.cpp's LoRA files cannot hold, and without the package
    gguf; DiskError for a path that cannot be written.
    """
    gguf = optional("gguf", "writing GGUF")
    if dtype not in DTYPES:
        raise SoupError(f"unknown dtype {dtype!r}: GGUF; give {' or '.join(DTYPES)}")
    kind = getattr(config, "model_type", "")
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise SoupError(f"base of type {kind!r}: GGUF is written for {known}; save it for PEFT")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    tensors = {}
    for module, factors in sorted(lora.modules.items()):
        known = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if known is None or not known.startswith("blk."):
            what = f"module {module!r} has no place in a llama.cpp LoRA"
            raise SoupError(f"{what}: GGUF; leave it out")
        heads = _heads(config).get(module.rpartition(".")[2])
        if heads and factors.shape != (heads * _width(config), config.hidden_size):
            raise SoupError(f"module {module!r} has another shape in the base: GGUF; give its base")
        tensors[f"{known}.lora_a"] = factors.A.cpu().numpy()
        tensors[f"{known}.lora_b"] = _turned(factors.B.cpu().numpy(), module, config)
    with new_file(Path(path)) as temporary:
        writer = gguf.GGUFWriter(temporary, "llama")
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", 0.0)  # scale 1
        _finish(writer, tensors, DTYPES[dtype])
    return Path(path)


def _turned(tensor: np.ndarray, module: str, config: Any) -> np.ndarray:
    """The rows of a query or key projection in llama.cpp's order; others as they are."""
    if (n := _heads(config).get(module.rpartition(".")[2])) is None:
        return tensor
    pairs = tensor.reshape(n, 2, tensor.shape[0] // n // 2, -1)
    return pairs.swapaxes(1, 2).reshape(tensor.shape)


def _heads(config: Any) -> dict[str, int]:
    """Of the projections whose rows are turned, by the last part of their names."""
    return {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}


def _width(config: Any) -> int:  # of a head
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _finish(writer: Any, tensors: dict[str, np.ndarray], dtype: type) -> None:
    for key, tensor in tensors.items():
        array = np.ascontiguousarray(tensor, dtype=dtype)
        if not np.isfinite(array).all():
            raise SoupError(f"numbers too large for {array.dtype}: {key}; write f32")
        writer.add_tensor(key, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_base(model: Any, path: Path) -> None:
    """A Llama-type base in float32, for checks by token ids: its vocabulary has no texts.

    In float32, as on a quantised base differences would mean nothing. Raises SoupError as
    `write_gguf`, and for scaled rotary positions.
    """
    gguf, c = optional("gguf", "writing GGUF"), model.config
    rope = getattr(c, "rope_parameters", None) or {}
    if c.model_type not in ARCHITECTURES or rope.get("rope_type", "default") != "default":
        what = f"type {c.model_type!r}, positions {rope.get('rope_type')!r}"
        raise SoupError(f"{what}: no float32 GGUF of this base is written here")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10_000.0)))
    for add in (writer.add_rope_dimension_count, writer.add_key_length, writer.add_value_length):
        add(_width(c))
    writer.add_vocab_size(c.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"t{i}" for i in range(c.vocab_size)])
    writer.add_token_types([1] * c.vocab_size)
    writer.add_token_merges(["t 0"])
    writer.add_eos_token_id(c.vocab_size - 1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.num_hidden_layers)
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight" or not c.tie_word_embeddings:
            key = names.get_name(name, try_suffixes=(".weight", ".bias"))
            tensors[key] = _turned(tensor.float().cpu().numpy(), name.rpartition(".")[0], c)
    _finish(writer, tensors, np.float32)


def served(
    base: Path, adapters: Sequence[Path], requests: Sequence[tuple[list[int], Sequence[float]]]
) -> list[dict[int, float]]:
    """What a llama.cpp server says comes next: of each request the likeliest `TOP` token ids with
    their log-probabilities. A request is a prompt's token ids and a scale for each LoRA file.

    Raises SoupError without the package xllamacpp, or when the server refuses a file.
    """
    llama = optional("xllamacpp", "a llama.cpp server")
    options = llama.CommonParams()
    options.model.path, options.n_ctx, options.n_parallel = str(base), 512, 1
    options.n_gpu_layers, options.warmup, options.verbosity = 0, False, -1
    options.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    options.cache_type_k = options.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    infos = []
    for adapter in adapters:
        info = llama.CommonAdapterLoraInfo()
        info.path, info.scale = str(adapter), 1.0
        infos.append(info)
    options.lora_adapters = infos
    how = {"n_predict": 1, "temperature": 0.0, "logprobs": TOP, "cache_prompt": False}
    asked = [
        how | {"prompt": ids, "lora": [{"id": i, "scale": s} for i, s in enumerate(scales)]}
        for ids, scales in requests
    ]
    try:
        server = llama.Server(options)
        answers = [server.handle_completions(request) for request in asked]
        answers = [a if isinstance(a, dict) else json.loads(a) for a in answers]
        tops = [a["choices"][0]["logprobs"]["content"][0]["top_logprobs"] for a in answers]
    except (RuntimeError, ValueError, LookupError) as error:
        raise SoupError(f"llama.cpp refuses ({error}): {base.name} with its LoRA files") from error
    return [{entry["id"]: entry["logprob"] for entry in top} for top in tops]
