"""A llama.cpp LoRA file, read back, and in a real server where its wheel and a base are here."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from lorasoups.errors import SoupError
from lorasoups.lora.adapters import save_lora
from lorasoups.lora.lora import Factors, LoRA
from lorasoups.lora.merging import merge
from lorasoups.models.base import load_base
from lorasoups.models.generation import folded
from lorasoups.own.gguf_lora import served, write_base, write_gguf
from lorasoups.own.verify import UNCHECKED, VERIFIED, verify
from lorasoups.paths import Folders
from lorasoups.run.cli import main

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


# --- in a llama.cpp server ---


@pytest.fixture(scope="module")
def mini():
    pytest.importorskip("xllamacpp")
    model, tokenizer, _ = load_base(Folders().data / "mini")
    return model, tokenizer, [tokenizer(text).input_ids for text in ("Tom has 3 apples", "a = 3")]


def uneven(model, seed):
    """An adapter of every projection, of ranks 2 to 6, strong enough to change what comes next."""
    draw, modules = torch.Generator().manual_seed(seed), {}
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            r = 2 + len(modules) % 5
            A = torch.randn(r, module.in_features, generator=draw) * 0.3
            B = torch.randn(module.out_features, r, generator=draw) * 0.1
            modules[name] = Factors(A, B, 1.0)
    return LoRA(modules, "mini")


def next_token(model, ids, lora):
    with folded(model, lora), torch.no_grad():
        return [model(torch.tensor([one])).logits[0, -1].log_softmax(-1) for one in ids]


def furthest(served_, expected):
    return max(
        abs(value - float(log_p[i]))
        for top, log_p in zip(served_, expected, strict=True)
        for i, value in top.items()
    )


def test_a_server_computes_the_soup_and_its_adapters_at_their_scales(mini, tmp_path):
    """A soup is its two LoRAs at the same scales; scale 0 is the base; each request has its own."""
    model, _, ids = mini
    loras, scales = [uneven(model, 1), uneven(model, 2)], [0.9, 0.4]
    write_base(model, tmp_path / "base.gguf")
    soup = merge(loras, "cat", weights=scales)
    parts = [write_gguf(each, model.config, tmp_path / f"{i}.gguf") for i, each in enumerate(loras)]
    whole = write_gguf(soup, model.config, tmp_path / "soup.gguf")
    plain, expected = next_token(model, ids, None), next_token(model, ids, soup)
    moved = max(float((a - b).abs().max()) for a, b in zip(plain, expected, strict=True))
    assert moved > 1
    for files, asked, right in (
        ([whole], [1.0], expected), ([whole], [0.0], plain), (parts, scales, expected),
    ):  # fmt: skip
        answers = served(tmp_path / "base.gguf", files, [(one, asked) for one in ids])
        assert furthest(answers, right) < 1e-3 * moved
    half = furthest(served(tmp_path / "base.gguf", [whole], [(i, [0.5]) for i in ids]), expected)
    assert half > 0.01 * moved  # another strength is seen


def test_verify_in_a_server(mini, tmp_path, capsys):
    model, tokenizer, _ = mini
    save_lora(uneven(model, 3), tmp_path / "soup")
    base = str(Folders().data / "mini")
    assert verify(tmp_path / "soup", base, ["peft", "gguf"]) == VERIFIED
    assert "ok       gguf: largest difference" in capsys.readouterr().out


def test_a_base_that_cannot_be_written_is_said_to_be_unchecked(mini, tmp_path, monkeypatch):
    model = mini[0]
    save_lora(uneven(model, 3), tmp_path / "soup")
    monkeypatch.setattr("lorasoups.own.gguf_lora.ARCHITECTURES", {})
    said = []
    base = str(Folders().data / "mini")
    assert verify(tmp_path / "soup", base, ["gguf"], say=said.append) == UNCHECKED
    assert "no float32 GGUF of this base" in said[-1]


def test_merge_writes_a_file_that_a_server_loads(mini, tmp_path, capsys):
    model, _, ids = mini
    loras = [uneven(model, 1), uneven(model, 2)]
    for name, lora in zip("ab", loras, strict=True):
        save_lora(lora, tmp_path / name)
    out, base = tmp_path / "soup.gguf", str(Folders().data / "mini")
    command = ["merge", str(tmp_path / "a"), str(tmp_path / "b"), "--weights", "1", "0.5", "--out",
               str(out), "--format", "gguf", "--base", base]  # fmt: skip
    assert main(command) == 0
    write_base(model, tmp_path / "base.gguf")
    expected = next_token(model, ids, merge(loras, "cat", weights=[1, 0.5]))
    answers = served(tmp_path / "base.gguf", [out], [(one, [1.0]) for one in ids])
    assert furthest(answers, expected) < 0.01
    before = out.read_bytes()
    assert main(command) == 2 and out.read_bytes() == before
    assert "exists" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--dtype", "f16"]) == 0
    assert out.stat().st_size < len(before)
    assert main(["merge", str(tmp_path / "a"), "--out", str(out), "--base", base]) == 2


def test_a_damaged_file_is_one_error(mini, tmp_path):
    model, _, ids = mini
    write_base(model, tmp_path / "base.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF nonsense")
    with pytest.raises(SoupError, match="llama.cpp refuses"):
        served(tmp_path / "base.gguf", [tmp_path / "bad.gguf"], [(ids[0], [1.0])])
