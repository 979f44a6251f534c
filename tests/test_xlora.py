"""X-LoRA: PEFT's training, our inference with caches, and the base untouched."""

import pytest
import torch
from soup_helpers import llama_pair as pair
from soup_helpers import tiny_llama

from lorasoups import xlora
from lorasoups.errors import SoupError
from lorasoups.evaluation import folded
from lorasoups.xlora import XLora, mixed, train_xlora

ROWS = [{"input_ids": [1, 5, 9, 7, 3 + i % 4], "labels": [-100, -100, 9, 7, 3 + i % 4]}
        for i in range(24)]  # fmt: skip
TOKENS = torch.tensor([[1, 5, 9, 7, 3], [1, 6, 8, 4, 2]])


def trained(**options):
    return train_xlora(tiny_llama(), pair(), ROWS, batch_size=8, seed=0, **options)


def test_the_base_comes_back_bit_for_bit_and_trainable():
    model = tiny_llama()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    gate = train_xlora(model, pair(), ROWS, batch_size=8, max_steps=2)
    with mixed(model, pair(), gate) as mixture:
        mixture(TOKENS)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert model.config.use_cache


def test_the_gate_learns_and_the_seed_decides():
    gate = trained(epochs=20, lr=1e-2)
    assert gate.history[-1]["loss"] < gate.history[0]["loss"]
    again = trained(epochs=20, lr=1e-2)
    assert all(torch.equal(gate.gate[k], again.gate[k]) for k in gate.gate)
    assert gate.parameters == sum(t.numel() for t in gate.gate.values())


def test_our_inference_equals_pefts():
    model, loras = tiny_llama(), pair()
    gate = trained(max_steps=3, lr=1e-2)
    with xlora._wrapped(model, loras, gate.depth, gate.size) as peft, torch.no_grad():
        peft.base_model.internal_xlora_classifier.load_state_dict(gate.gate)
        theirs = peft(input_ids=TOKENS).logits
    with mixed(model, loras, gate) as mixture, torch.no_grad():
        ours = mixture(TOKENS).logits
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_caches_change_nothing_also_with_left_padding():
    model = tiny_llama()
    gate = trained(max_steps=3, lr=1e-2)
    ids = torch.tensor([[0, 0, 1, 5, 9], [1, 6, 8, 4, 2]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    with mixed(model, pair(), gate) as mixture, torch.no_grad():
        text = mixture.generate(ids, mask, 6, pad_token_id=0)
        alone = ids[:1, 2:]
        for _ in range(text.shape[1] - 5):
            chosen = mixture(alone).logits[:, -1].argmax(-1, keepdim=True)
            if int(chosen) == model.config.eos_token_id:
                break
            alone = torch.cat([alone, chosen], 1)
    assert text[0, 2 : 2 + alone.shape[1]].tolist() == alone[0].tolist()


def test_a_gate_that_always_takes_one_lora_is_that_lora():
    model, loras = tiny_llama(), pair()
    width = model.config.hidden_size
    gate = XLora({"layers.0.weight": torch.zeros(2, width), "layers.0.bias": torch.tensor([0., 99.])})
    with mixed(model, loras, gate) as mixture, torch.no_grad():
        ours = mixture(TOKENS).logits
    with folded(model, loras[1]), torch.no_grad():
        alone = model(TOKENS).logits
    assert (ours - alone).abs().max() <= 1e-5 * alone.abs().max()


def test_round_trip_and_bad_input(tmp_path):
    gate = trained(max_steps=2)
    gate.save(tmp_path)
    again = XLora.load(tmp_path)
    assert again.history == gate.history
    assert all(torch.equal(gate.gate[k], again.gate[k]) for k in gate.gate)
    (tmp_path / xlora.LOG).write_text("{")
    with pytest.raises(SoupError, match="no X-LoRA gate"):
        XLora.load(tmp_path)
    with pytest.raises(SoupError, match="rows are empty"):
        train_xlora(tiny_llama(), pair(), [])
    with pytest.raises(SoupError, match="no LoRA"):
        train_xlora(tiny_llama(), [], ROWS)
