"""RegMean's closed form, and CAT's alphas anchored at 1."""

import pytest
import torch
from soup_helpers import assert_close, tiny_llama
from test_alphas import rows, sharp_llama, with_planted_texts
from test_cat import llama_lora, pair

from lorasoups.learning import fitted as module
from lorasoups.learning.fitted import MARGIN, anchored, regmean
from lorasoups.lora.merging import merge
from lorasoups.models.batching import heldout_loss
from lorasoups.models.generation import folded


def inputs_of(model, lora, data, name):
    """What a module sees, [tokens, in], row by row."""
    seen = []
    hook = model.get_submodule(name).register_forward_pre_hook(
        lambda _, given: seen.append(given[0].flatten(0, -2).double())
    )
    with folded(model, lora), torch.no_grad():
        for row in data:
            model(input_ids=torch.tensor([row["input_ids"]]))
    hook.remove()
    return torch.cat(seen)


def test_regmean_fits_what_each_lora_does_on_its_own_inputs(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 1.0)
    model, loras, data = tiny_llama(), pair(), [rows()[:12], rows()[12:]]
    before = {name: t.clone() for name, t in model.state_dict().items()}
    found = regmean(model, loras, data)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    name = next(name for name in loras[0].modules if name in loras[1].modules)
    seen = [inputs_of(model, x, own, name) for x, own in zip(loras, data, strict=True)]
    wanted = [x @ lora.delta(name).double().T for x, lora in zip(seen, loras, strict=True)]
    dense = torch.linalg.lstsq(torch.cat(seen), torch.cat(wanted)).solution.T
    assert_close(found.delta(name).double(), dense, "least squares")
    assert found.rank(name) == sum(lora.rank(name) for lora in loras)


def test_regmean_shrinks_what_is_off_the_diagonal():
    model, loras, data = tiny_llama(), pair(), [rows()[:12], rows()[12:]]
    name = next(name for name in loras[0].modules if name in loras[1].modules)
    wanted, grams = 0, []
    for lora, own in zip(loras, data, strict=True):
        seen = inputs_of(model, lora, own, name)
        gram = seen.T @ seen
        grams.append(torch.where(torch.eye(len(gram)) == 1, gram, module.KEPT * gram))
        wanted = wanted + lora.delta(name).double() @ grams[-1]
    found = regmean(model, loras, data).delta(name).double()
    assert module.KEPT < 1
    assert_close(found, wanted @ torch.linalg.inv(sum(grams)), "shrunk")


def test_regmean_of_one_lora_is_the_lora_and_of_a_missing_module_only_one_part():
    model, lora = tiny_llama(), llama_lora(1, 3)
    alone = regmean(model, [lora], [rows()])
    for name in lora.modules:
        assert_close(alone.delta(name), lora.delta(name), name)
    first, second = pair()
    found = regmean(model, [first, second], [rows()[:12], rows()[12:]])
    missing = next(name for name in first.modules if name not in second.modules)
    assert found.rank(missing) == first.rank(missing)


@pytest.mark.parametrize("planted", [0.5, 1.0])
def test_anchored_goes_as_far_towards_one_as_the_skills_allow(planted):
    model, loras = sharp_llama(), pair()
    data = with_planted_texts(model, alpha=(planted, planted))
    half = len(data) // 2
    by_skill = [data[:half], data[half:]]
    names = merge(loras, "cat").modules
    alphas = {name: torch.tensor([planted, planted]) for name in names}
    weights, share = anchored(model, loras, alphas, by_skill)

    def losses(alpha):
        with folded(model, merge(loras, "cat", weights=[alpha, alpha])):
            return [heldout_loss(model, own) for own in by_skill]

    bound = [(1 + MARGIN) * loss for loss in losses(planted)]
    reached = planted + share * (1 - planted)
    assert all(w == pytest.approx([reached, reached]) for w in weights.values())
    assert all(a <= b for a, b in zip(losses(reached), bound, strict=True))
    if planted == 1.0:
        assert share == 1.0
    else:
        farther = losses(min(1.0, reached + 2**-6))
        assert any(a > b for a, b in zip(farther, bound, strict=True))
