"""A soup as a llama.cpp LoRA file (GGUF), and a float32 copy of a GGUF base to check it on.

llama.cpp scales an adapter by ``adapter.lora.alpha / rank`` of each tensor: with uneven ranks and
one alpha that is silently wrong. Alpha 0 means scale 1, so 0 is written, and B holds the scale.
Llama's query and key rows lie in another order there (rotary pairs are neighbours).
"""

from pathlib import Path
from typing import Any

import numpy as np

from lorasoups.errors import SoupError
from lorasoups.files import disk_errors, ensure_folder
from lorasoups.lora.lora import LoRA
from lorasoups.models.base import optional

ARCHITECTURES = {"llama": "llama", "mistral": "llama"}
"""``model_type`` in transformers -> in llama.cpp: those whose tensor order is known here."""
DTYPES = {"f32": np.float32, "f16": np.float16}


def write_gguf(lora: LoRA, config: Any, path: str | Path, dtype: str = "f32") -> Path:
    """Write an adapter as ``path``, in one step.

    Args:
        lora: of linear layers of decoder blocks.
        config: the base's transformers config.
        path: the file, replaced if it is there.
        dtype: ``f32`` or ``f16``.

    Raises SoupError for an architecture or a module that llama.cpp's LoRA files cannot hold, and
    without the package gguf; DiskError for a path that cannot be written.
    """
    gguf = optional("gguf", "writing GGUF")
    if dtype not in DTYPES:
        raise SoupError(f"unknown dtype {dtype!r}: GGUF; give {' or '.join(DTYPES)}")
    kind = getattr(config, "model_type", "")
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise SoupError(f"base of type {kind!r}: GGUF is written for {known}; save it for PEFT")
    name = ARCHITECTURES[kind]
    architecture = next(key for key, text in gguf.MODEL_ARCH_NAMES.items() if text == name)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    tensors = {}
    for module, factors in sorted(lora.modules.items()):
        known = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if known is None or not known.startswith("blk."):
            raise SoupError(
                f"module {module!r} has no place in a llama.cpp LoRA: GGUF; leave it out"
            )
        B = factors.B.cpu().numpy()
        if (n := heads.get(module.rpartition(".")[2])) is not None:
            B = B.reshape(n, 2, B.shape[0] // n // 2, -1).swapaxes(1, 2).reshape(B.shape)
        tensors[f"{known}.lora_a"] = factors.A.cpu().numpy()
        tensors[f"{known}.lora_b"] = B
    target = Path(path)
    ensure_folder(target.parent)
    temporary = target.with_name(f".{target.name}.tmp")
    with disk_errors(target):
        writer = gguf.GGUFWriter(temporary, name)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", 0.0)  # scale 1
        for key, tensor in tensors.items():
            writer.add_tensor(key, np.ascontiguousarray(tensor, dtype=DTYPES[dtype]))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        temporary.replace(target)
    return target


def float32_copy(base: Path, path: Path) -> Path:
    """A GGUF base with every tensor as float32: on a quantised one differences mean nothing."""
    gguf = optional("gguf", "reading GGUF")
    reader = gguf.GGUFReader(base)
    name = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(path, name)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        plain = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, np.ascontiguousarray(plain, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
