"""LoraHub's search over one weight per LoRA."""

import threading

import pytest
import torch
from soup_helpers import assert_close, tiny_llama
from test_alphas import rows, sharp_llama, with_planted_texts
from test_cat import llama_lora, pair

from lorasoups.errors import SoupError
from lorasoups.learning import lorahub as module
from lorasoups.learning.lorahub import lorahub
from lorasoups.models.batching import heldout_loss
from lorasoups.models.generation import folded


def equal_ranks():
    return [llama_lora(1, 3), llama_lora(2, 3, ("self_attn.q_proj", "mlp.up_proj"))]


def test_the_search_finds_the_planted_weights_and_leaves_the_model_alone():
    model = sharp_llama()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    planted = with_planted_texts(model, alpha=(1.0, 1.0))
    hub = lorahub(model, pair(), planted, regularisation=0.0)
    assert hub.weights == pytest.approx([1.0, 1.0], abs=0.1)
    penalised = lorahub(model, pair(), planted)
    assert sum(penalised.weights) < sum(hub.weights)  # towards 0
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("on", ["delta", "factors"])
def test_history_starts_at_the_base_and_the_best_evaluation_is_returned(on):
    model, data, loras = tiny_llama(), rows(), equal_ranks()
    hub = lorahub(model, loras, data, on=on, budget=9)
    start = hub.history[0]
    assert start["weights"] == [0.0, 0.0]
    assert start["loss"] == start["objective"] == pytest.approx(heldout_loss(model, data))
    assert [e["step"] for e in hub.history] == list(range(1, 10))
    best = min(hub.history, key=lambda e: e["objective"])
    assert hub.weights == best["weights"]
    with folded(model, hub.lora):
        assert heldout_loss(model, data) == pytest.approx(best["loss"])
    penalty = 0.05 * sum(map(abs, hub.weights)) / 2
    assert best["objective"] == pytest.approx(best["loss"] + penalty)
    assert hub.lora.provenance["weights"] == hub.weights


def test_delta_is_the_true_sum_and_factors_have_the_cross_terms():
    loras, w = equal_ranks(), [0.7, -1.2]
    shared = next(name for name in loras[0].modules if name in loras[1].modules)
    alone = next(name for name in loras[0].modules if name not in loras[1].modules)
    first, second = (lora.modules[shared] for lora in loras)
    true = w[0] * first.delta() + w[1] * second.delta()
    assert_close(module._merged(loras, w, "delta").delta(shared), true, "delta")
    squares = w[0] ** 2 * first.delta() + w[1] ** 2 * second.delta()
    cross = w[0] * w[1] * (first.B @ second.A + second.B @ first.A)
    factors = module._merged(loras, w, "factors")
    assert_close(factors.delta(shared), squares + cross, "factors")
    assert_close(factors.delta(alone), w[0] ** 2 * loras[0].delta(alone), "a lone LoRA, squared")


def test_weights_stay_within_the_bound():
    model = sharp_llama()
    planted = with_planted_texts(model, alpha=(1.0, 1.0))
    hub = lorahub(model, pair(), planted, budget=20, regularisation=0.0, bound=0.5)
    assert max(abs(w) for e in hub.history for w in e["weights"]) <= 0.5
    assert hub.weights == pytest.approx([0.5, 0.5], abs=0.05)  # 1.0 is out of reach


def test_the_penalty_keeps_weights_small():
    model = sharp_llama()
    planted = with_planted_texts(model)
    hub = lorahub(model, pair(), planted, budget=20, regularisation=1000.0)
    assert max(map(abs, hub.weights)) < 0.05


def test_the_same_call_gives_the_same_weights():
    first, again = (lorahub(tiny_llama(), pair(), rows(), budget=8) for _ in range(2))
    assert first.history == again.history


def test_an_error_midway_restores_the_model_and_ends_nevergrads_thread(monkeypatch):
    model, calls = tiny_llama(), []
    before = {name: t.clone() for name, t in model.state_dict().items()}

    def third_fails(soup, data):
        calls.append(0)
        return float("nan") if len(calls) == 3 else heldout_loss(soup, data)

    monkeypatch.setattr(module, "heldout_loss", third_fails)
    threads = set(threading.enumerate())
    with pytest.raises(SoupError, match="loss is nan"):
        lorahub(model, pair(), rows(), budget=10)
    for thread in set(threading.enumerate()) - threads:
        thread.join(timeout=10)
    assert set(threading.enumerate()) <= threads  # it is no daemon: Python would never exit
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_bad_input_is_refused():
    with pytest.raises(SoupError, match=r"ranks differ \[2, 3\].*on=\"delta\""):
        lorahub(tiny_llama(), pair(), rows(), on="factors")
    with pytest.raises(SoupError, match="nothing to merge"):
        lorahub(tiny_llama(), [], rows())
    with pytest.raises(SoupError, match="rows is empty"):
        lorahub(tiny_llama(), pair(), [])
    with pytest.raises(SoupError, match="does not work on 'both'"):
        lorahub(tiny_llama(), pair(), rows(), on="both")
    with pytest.raises(SoupError, match="give 1 to 100"):
        lorahub(tiny_llama(), pair(), rows(), budget=101)
    with pytest.raises(SoupError, match="no module"):
        lorahub(tiny_llama(layers=1), pair(), rows(), budget=2)


class Packed(torch.nn.Module):
    """A linear layer whose weight is packed bytes, as bitsandbytes' ``Linear4bit`` has it."""

    compute_dtype = torch.float32

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        packed = torch.zeros(linear.weight.numel() // 2, 1, dtype=torch.uint8)
        self.weight = torch.nn.Parameter(packed, requires_grad=False)
        self.plain = linear.weight.detach().clone()

    def forward(self, x):
        return torch.nn.functional.linear(x, self.plain)


def quantised_llama():
    model = tiny_llama()
    for name in {name for lora in pair() for name in lora.modules}:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, Packed(model.get_submodule(name)))
    model.is_quantized = True
    return model


def test_a_quantised_base_gives_what_a_plain_one_gives():
    plain, packed = (
        lorahub(model, pair(), rows(), budget=3) for model in (tiny_llama(), quantised_llama())
    )
    losses = [[entry["loss"] for entry in hub.history] for hub in (plain, packed)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5) and len(set(losses[0])) == 3
