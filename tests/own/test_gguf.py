"""A llama.cpp LoRA file, read back, and in a real server where its wheel and a base are here."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from lorasoups.errors import SoupError
from lorasoups.lora.lora import Factors, LoRA
from lorasoups.own.gguf_lora import write_gguf

gguf = pytest.importorskip("gguf")
CONFIG = LlamaConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2, vocab_size=32)  # fmt: skip
SHAPES = {"self_attn.q_proj": (16, 16), "self_attn.k_proj": (8, 16), "mlp.down_proj": (16, 24)}


def lora(ranks=(3, 5, 2)):
    draw, modules = torch.Generator().manual_seed(0), {}
    for (leaf, (out, in_)), r in zip(SHAPES.items(), ranks, strict=True):
        A, B = torch.randn(r, in_, generator=draw), torch.randn(out, r, generator=draw)
        modules[f"model.layers.1.{leaf}"] = Factors(A, B, 2.0)
    return LoRA(modules, "tiny")


def read(path):
    reader = gguf.GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    return fields, {t.name: np.array(t.data) for t in reader.tensors}


def test_the_file_holds_every_delta_at_scale_one(tmp_path):
    soup = lora()
    fields, tensors = read(write_gguf(soup, CONFIG, tmp_path / "soup.gguf"))
    assert fields["general.architecture"] == "llama" and fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora" and fields["adapter.lora.alpha"] == 0.0
    assert len(tensors) == 6
    down = tensors["blk.1.ffn_down.weight.lora_b"] @ tensors["blk.1.ffn_down.weight.lora_a"]
    assert np.allclose(down, soup.delta("model.layers.1.mlp.down_proj"), atol=1e-5)


@pytest.mark.parametrize("leaf, heads, name", [("q_proj", 4, "attn_q"), ("k_proj", 2, "attn_k")])
def test_rotary_rows_are_neighbours(tmp_path, leaf, heads, name):
    soup = lora()
    _, tensors = read(write_gguf(soup, CONFIG, tmp_path / "soup.gguf"))
    delta = soup.delta(f"model.layers.1.self_attn.{leaf}").numpy()
    ours = tensors[f"blk.1.{name}.weight.lora_b"] @ tensors[f"blk.1.{name}.weight.lora_a"]
    half = delta.shape[0] // heads // 2
    for head in range(heads):
        start = 2 * half * head
        for i in range(half):
            assert np.allclose(ours[start + 2 * i], delta[start + i], atol=1e-5)
            assert np.allclose(ours[start + 2 * i + 1], delta[start + half + i], atol=1e-5)


def test_half_precision_halves_the_file(tmp_path):
    sizes = [write_gguf(lora(), CONFIG, tmp_path / f"{d}.gguf", d).stat().st_size
             for d in ("f32", "f16")]  # fmt: skip
    assert sizes[1] < sizes[0]


def test_what_llama_cpp_cannot_hold_is_refused_by_name(tmp_path):
    soup = lora()
    other = LoRA({"lm_head": Factors(torch.ones(1, 16), torch.ones(32, 1))}, "tiny")
    odd = type("Config", (), {"model_type": "gpt2"})()
    for adapter, config, dtype, why in (
        (other, CONFIG, "f32", "module 'lm_head' has no place"),
        (soup, odd, "f32", "base of type 'gpt2'"),
        (soup, CONFIG, "f64", "unknown dtype 'f64'"),
    ):
        with pytest.raises(SoupError, match=why):
            write_gguf(adapter, config, tmp_path / "soup.gguf", dtype)
    assert list(tmp_path.iterdir()) == []
