"""X-LoRA over frozen LoRAs."""

import pytest
import torch
from peft import XLoraConfig, get_peft_model
from soup_helpers import TOKENS, assert_close, logits, tiny_llama
from test_alphas import rows, sharp_llama, with_planted_texts
from test_cat import llama_lora, pair

from lorasoups.errors import SoupError
from lorasoups.learning.xlora import XLora, mixed, train_xlora
from lorasoups.lora.adapters import save_lora
from lorasoups.lora.lora import LoRA
from lorasoups.models import generation
from lorasoups.models.batching import heldout_loss
from lorasoups.models.generation import folded

PADDED = torch.ones_like(TOKENS)
PADDED[0, :3] = 0  # batches for generation are padded on the left


def strong():
    """LoRAs that change what is generated."""
    return [lora.scaled(3.0) for lora in pair()]


def random_gate(size=0.5):
    """As if trained: scalings differ from token to token."""
    trained = train_xlora(tiny_llama(), pair(), rows(4), max_steps=1)
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(t.shape, generator=generator) * size
        for name, t in trained.tensors.items()
    }
    return XLora(tensors)


def one_hot(chosen):
    """A gate that gives every token to one LoRA."""
    bias = torch.tensor([100.0 if i == chosen else -100.0 for i in range(2)])
    return XLora({"layers.0.weight": torch.zeros(2, 16), "layers.0.bias": bias})


def stock_peft(folder, model, xlora):
    """The same mixture by PEFT alone, with its own two runs and without a cache."""
    adapters = {str(i): str(save_lora(lo, folder / str(i))) for i, lo in enumerate(strong())}
    model.config.use_cache = False
    config = XLoraConfig(
        task_type="CAUSAL_LM",
        hidden_size=16,
        adapters=adapters,
        xlora_depth=1,
    )
    peft = get_peft_model(model, config).eval()
    peft.base_model.internal_xlora_classifier.load_state_dict(xlora.tensors)
    return peft


def greedy(model, **options):
    return model.generate(
        input_ids=TOKENS, attention_mask=PADDED, max_new_tokens=12, do_sample=False,
        pad_token_id=0, eos_token_id=None, **options,
    )  # fmt: skip


def test_a_shared_beginning_is_read_once_with_the_same_texts(monkeypatch):
    begun = [3, 5, 7, 11, 2, 8, 9, 4]
    prompts = [begun + rest for rest in ([6], [6, 12], [20, 1, 9])]
    told = []
    with mixed(sharp_llama(), strong(), random_gate()) as model, torch.no_grad():
        for least in (4, 1000):
            monkeypatch.setattr(generation, "SHARED_FROM", least)
            told.append(generation._continued(model, prompts, 12))
    assert told[0] == told[1]


def test_logits_and_cached_generation_equal_stock_peft_without_a_cache(tmp_path):
    xlora = random_gate()
    with mixed(sharp_llama(), strong(), xlora) as model, torch.no_grad():
        ours = model(input_ids=TOKENS, attention_mask=PADDED).logits
        cached, uncached = greedy(model, use_cache=True), greedy(model, use_cache=False)
        beams = [greedy(model, use_cache=cache, num_beams=2) for cache in (True, False)]
    peft = stock_peft(tmp_path, sharp_llama(), xlora)
    with torch.no_grad():
        theirs = peft(input_ids=TOKENS, attention_mask=PADDED).logits
        expected = greedy(peft)
    assert_close(ours[PADDED == 1], theirs[PADDED == 1], "ours against PEFT's two runs")
    assert torch.equal(cached, expected) and torch.equal(uncached, expected)
    assert torch.equal(*beams)
    with folded(sharp_llama(), None) as base:
        assert not torch.equal(greedy(base), expected)  # the LoRAs do matter here


@pytest.mark.parametrize("chosen", [0, 1])
def test_a_one_hot_gate_is_that_lora_alone(chosen):
    loras = strong()
    with folded(sharp_llama(), loras[chosen]) as model, torch.no_grad():
        expected, text = logits(model), greedy(model)
    with mixed(sharp_llama(), loras, one_hot(chosen)) as model, torch.no_grad():
        assert_close(logits(model), expected, f"one-hot gate against LoRA {chosen}")
        assert torch.equal(greedy(model), text)


def test_training_lowers_the_loss_of_its_rows_and_leaves_the_model_alone():
    model = sharp_llama()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    attributes, flags = set(vars(model)), [p.requires_grad for p in model.parameters()]
    planted = with_planted_texts(model, alpha=(0.9, 0.1))
    trained = train_xlora(model, pair(), planted, lr=0.05, max_steps=40)
    assert sum(t.numel() for t in trained.tensors.values()) == 16 * 2 + 2
    assert [e["step"] for e in trained.history] == list(range(1, 41))
    with mixed(model, pair(), one_hot(1)) as soup:
        worst = heldout_loss(soup, planted)
    even = XLora({name: torch.zeros_like(t) for name, t in trained.tensors.items()})
    with mixed(model, pair(), even) as soup:
        start = heldout_loss(soup, planted)
    with mixed(model, pair(), trained) as soup:
        end = heldout_loss(soup, planted)
    assert end < start - 0.01 and end < worst
    first, last = (trained.history[i]["scaling_mean"] for i in (0, -1))
    assert last[0] > first[0] and sum(last) == pytest.approx(1, abs=1e-5)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert set(model.state_dict()) == set(before)
    assert set(vars(model)) == attributes and model.config.use_cache
    assert [p.requires_grad for p in model.parameters()] == flags


def test_the_same_seed_gives_the_same_gate_whatever_ran_before():
    first = train_xlora(tiny_llama(), pair(), rows(), max_steps=4)
    torch.rand(7)
    again, other = (
        train_xlora(tiny_llama(), pair(), rows(), max_steps=4, seed=seed) for seed in (0, 1)
    )
    assert all(torch.equal(t, again.tensors[name]) for name, t in first.tensors.items())
    assert not torch.equal(first.tensors["layers.0.weight"], other.tensors["layers.0.weight"])


def test_a_bfloat16_base_gets_a_float32_gate():
    model = tiny_llama().to(torch.bfloat16)
    trained = train_xlora(model, pair(), rows(), max_steps=2)
    assert {t.dtype for t in trained.tensors.values()} == {torch.float32}
    with mixed(model, pair(), trained) as soup:
        assert greedy(soup).shape == (2, 22)


def test_bad_input_is_refused_and_leaves_the_model_alone():
    model = tiny_llama()
    before = logits(model)
    with pytest.raises(SoupError, match="rows is empty"):
        train_xlora(model, pair(), [])
    with pytest.raises(SoupError, match="no LoRA given"):
        train_xlora(model, [], rows())
    with pytest.raises(SoupError, match="no module"):
        train_xlora(tiny_llama(layers=1), pair(), rows())
    with pytest.raises(SoupError, match="only modules under 'model.'"):
        factors = next(iter(pair()[0].modules.values()))
        train_xlora(model, [LoRA({"lm_head": factors}, "tiny")], rows())
    with pytest.raises(SoupError, match="the gate does not fit"):
        with mixed(model, [*pair(), llama_lora(3)], one_hot(0)):
            pass
    with mixed(model, pair(), one_hot(0)):
        with pytest.raises(SoupError, match="another PEFT adapter is active"):
            train_xlora(model, pair(), rows())
    assert torch.equal(logits(model), before)
