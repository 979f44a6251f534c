"""Numbers against PEFT 0.21.2's ``add_weighted_adapter`` on a real (tiny) model."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from soup_helpers import assert_close, fill, logits, reload, tiny_llama

from lorasoups import merge, save_lora
from lorasoups.lora.adapters import from_peft

SEED = 11
DRAWS = ("dare_linear", "dare_ties")
DENSE = {"linear": "svd", "ties": "ties_svd", "magnitude_prune": "magnitude_prune_svd"}
DENSE |= {"dare_linear": "dare_linear_svd", "dare_ties": "dare_ties_svd", "svd": "svd"}


def three_adapters(ranks=(4, 4, 4)):
    """Adapters of different scales; the third one touches fewer modules."""
    configs = {
        "one": LoraConfig(r=ranks[0], lora_alpha=8, target_modules=["q_proj", "down_proj"]),
        "two": LoraConfig(
            r=ranks[1], lora_alpha=3, use_rslora=True, target_modules=["q_proj", "down_proj"]
        ),
        "three": LoraConfig(r=ranks[2], lora_alpha=4, target_modules=["q_proj"]),
    }
    model = get_peft_model(tiny_llama(), configs["one"], adapter_name="one")
    model.add_adapter("two", configs["two"])
    model.add_adapter("three", configs["three"])
    for seed, name in enumerate(configs):
        fill(model, name, seed)
    return model, [from_peft(model, name) for name in configs]


def module_order(model, loras):
    """The order in which PEFT walks the model, hence in which it draws masks."""
    touched = {name for lora in loras for name in lora.modules}
    names = [name.removeprefix("base_model.model.") for name, _ in model.named_modules()]
    return [name for name in names if name in touched]


def peft_result(model, weights, kind, **options):
    """The layers after PEFT's own merge, its masks drawn from a generator seeded with SEED.

    PEFT first draws throw-away numbers for the new adapter's initialisation, so the seed is set
    just after that.
    """
    inject = model.base_model.inject_adapter

    def inject_then_seed(*arguments):
        inject(*arguments)
        torch.manual_seed(SEED)

    model.base_model.inject_adapter = inject_then_seed
    names = ["one", "two", "three"][: len(weights)]
    model.add_weighted_adapter(names, weights, "soup", combination_type=kind, **options)
    layers = dict(model.named_modules())
    return {
        name: layers[f"base_model.model.{name}"]
        for name in module_order(model, [from_peft(model, name) for name in names])
    }


def soup_options(method, model, loras):
    given = {} if method in ("linear", "svd", "cat") else {"density": 0.6}
    return given | ({"seed": SEED, "order": module_order(model, loras)} if method in DRAWS else {})


WEIGHTS = [[0.5, 0.5], [1.0, 1.0, 1.0], [0.7, -1.3, 0.4], [-1.0, 0.2]]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(
    "method", ["linear", "ties", "dare_linear", "dare_ties", "magnitude_prune"]
)
def test_on_factors_equals_peft_factor_by_factor(method, weights):
    model, loras = three_adapters()
    loras = loras[: len(weights)]
    options = soup_options(method, model, loras)
    soup = merge(loras, method, weights=weights, on="factors", **options)
    theirs = peft_result(model, weights, method, density=0.6)
    assert set(theirs) == set(soup.modules)
    for name, layer in theirs.items():
        # PEFT's scale of a merged adapter is sqrt(r) where the first config says rsLoRA: not here
        assert layer.scaling["soup"] == 1.0
        what = f"{method}@factors against PEFT"
        assert_close(soup[name].A, layer.lora_A["soup"].weight.data, what)
        assert_close(soup[name].B, layer.lora_B["soup"].weight.data, what)


@pytest.mark.parametrize("sign", ["total", "frequency"])
@pytest.mark.parametrize("method", ["ties", "dare_ties"])
@pytest.mark.parametrize("on", ["factors", "delta"])
def test_both_sign_elections_equal_peft(method, on, sign):
    model, loras = three_adapters()
    options = soup_options(method, model, loras) | {"majority_sign_method": sign}
    soup = merge(loras, method, weights=[1.0] * 3, on=on, **options)
    kind = method if on == "factors" else f"{method}_svd"
    theirs = peft_result(
        model, [1.0] * 3, kind, density=0.6, majority_sign_method=sign, svd_rank=16
    )
    for name, layer in theirs.items():
        expected = layer.get_delta_weight("soup").data
        assert_close(soup.delta(name), expected, f"{method}@{on}, sign by {sign}, against PEFT")


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("method", DENSE)
def test_on_delta_equals_pefts_svd_family_at_full_rank(method, weights):
    model, loras = three_adapters(ranks=(2, 4, 3))
    loras = loras[: len(weights)]
    options = soup_options(method, model, loras) | ({"rank": 16} if method == "svd" else {})
    soup = merge(loras, method, weights=weights, **options)
    theirs = peft_result(model, weights, DENSE[method], density=0.6, svd_rank=16)
    for name, layer in theirs.items():
        expected = layer.get_delta_weight("soup").data
        assert_close(soup.delta(name), expected, f"{method}@delta against PEFT's svd family")


def test_svd_at_its_default_rank_equals_peft():
    model, loras = three_adapters(ranks=(2, 4, 3))
    soup = merge(loras, "svd", weights=[0.5, 1.0, -0.7])
    for name, layer in peft_result(model, [0.5, 1.0, -0.7], "svd").items():
        expected = layer.get_delta_weight("soup").data
        assert_close(soup.delta(name), expected, "svd at default rank against PEFT")


@pytest.mark.parametrize("weights", WEIGHTS)
def test_cat_equals_peft(weights):
    model, loras = three_adapters(ranks=(2, 4, 3))
    soup = merge(loras[: len(weights)], "cat", weights=weights)
    for name, layer in peft_result(model, weights, "cat").items():
        expected = layer.get_delta_weight("soup").data
        assert_close(soup.delta(name), expected, "cat against PEFT")


def test_one_adapter_equals_peft_whatever_the_density():
    model, loras = three_adapters()
    soup = merge(loras[:1], "ties", weights=[-0.8], density=0.3, on="factors")
    for name, layer in peft_result(model, [-0.8], "ties", density=0.3).items():
        expected = layer.get_delta_weight("soup").data
        assert_close(soup.delta(name), expected, "one adapter against PEFT")


def test_logits_of_the_saved_soup_equal_pefts_own_soup(tmp_path):
    model, loras = three_adapters()
    save_lora(merge(loras, "cat", weights=[0.5, 1.0, -0.7]), tmp_path / "soup")
    peft_result(model, [0.5, 1.0, -0.7], "cat")
    model.set_adapter("soup")
    assert_close(logits(reload(tmp_path / "soup")), logits(model.eval()), "logits against PEFT")
