"""A base in four bits: skills, alphas and evaluation run on it, and it comes back as it was."""

import shutil

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lorasoups.learning.alphas import learn_alphas
from lorasoups.learning.cat import applied, attached
from lorasoups.learning.skills import SkillTraining, train_lora
from lorasoups.lora.merging import merge
from lorasoups.models.base import load_base
from lorasoups.models.batching import heldout_loss
from lorasoups.models.generation import folded
from lorasoups.paths import Folders

IDS = torch.randint(3, 100, (16, 16), generator=torch.Generator().manual_seed(0)).tolist()
ROWS = [{"input_ids": row, "labels": [-100] * 8 + row[8:]} for row in IDS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Llama with the mini world's tokenizer."""
    path = tmp_path_factory.mktemp("models") / "random"
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512, hidden_size=128, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2,
        )
    ).save_pretrained(path)  # fmt: skip
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Folders().data / "mini" / name, path / name)
    return path


def skill(model):
    return train_lora(model, ROWS, SkillTraining(steps=4, batch_size=4, bf16=False), 0)[0]


def test_beside_the_layers_is_the_same_as_folded_into_them(folder):
    model = load_base(folder)[0]
    lora = skill(model).scaled(30.0)
    before = heldout_loss(model, ROWS)
    with folded(model, lora):
        inside = heldout_loss(model, ROWS)
    with attached(model, lora):
        beside = heldout_loss(model, ROWS)
    assert beside == pytest.approx(inside, abs=1e-4) and abs(inside - before) > 1e-3
    assert heldout_loss(model, ROWS) == before


def test_the_whole_path_in_four_bits(folder):
    pytest.importorskip("bitsandbytes")
    model, _, info = load_base(folder, four_bit=True)
    assert info["loaded_as"] == "nf4" and model.is_quantized
    assert info["parameters"] == load_base(folder)[2]["parameters"]
    before = heldout_loss(model, ROWS)
    lora = skill(model)
    learned = learn_alphas(model, [lora, lora.scaled(2.0)], ROWS, max_steps=3, batch_size=4, lr=0.1)
    assert learned.history[-1]["alpha_moved"] > 0.01
    soup = merge([lora, lora.scaled(2.0)], "cat", weights=learned)
    with applied(model, soup.scaled(30.0)):
        assert abs(heldout_loss(model, ROWS) - before) > 1e-3
    assert heldout_loss(model, ROWS) == before


def test_alphas_learn_the_same_on_four_bits_as_on_the_numbers_they_stand_for(folder):
    """bitsandbytes' CPU kernel for inference gives no gradient: it must not be in use."""
    pytest.importorskip("bitsandbytes")
    from bitsandbytes.functional import dequantize_4bit

    packed, plain = load_base(folder, four_bit=True)[0], load_base(folder)[0]
    lora = skill(plain)
    with torch.no_grad():
        for name in lora.modules:
            weight = packed.get_submodule(name).weight
            plain.get_submodule(name).weight.copy_(
                dequantize_4bit(weight.data, weight.quant_state).float()
            )
    learned = [
        learn_alphas(model, [lora, lora.scaled(2.0)], ROWS, max_steps=3, batch_size=4, lr=0.1)
        for model in (packed, plain)
    ]
    for name in lora.modules:
        torch.testing.assert_close(learned[0][name], learned[1][name], atol=2e-3, rtol=0)
