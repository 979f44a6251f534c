"""Numbers from the factors are those of the dense deltas."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lorasoups.errors import SoupError
from lorasoups.learning.interference import cross_activation, interference, text
from lorasoups.lora.lora import Factors, LoRA


def lora(seed, rank=3, shapes=((10, 8), (6, 12))):
    draw = torch.Generator().manual_seed(seed)
    return LoRA({
        f"layers.{i}.q_proj": Factors(torch.randn(rank, in_, generator=draw),
                                      torch.randn(out, rank, generator=draw))
        for i, (out, in_) in enumerate(shapes)
    })  # fmt: skip


def test_numbers_are_those_of_dense_deltas():
    a, b = lora(1), lora(2, rank=2)
    found = interference([a, b])
    (pair,) = found["pairs"]
    for name in a.modules:
        x, y = a.delta(name).double(), b.delta(name).double()
        of = pair["by_module"][name]
        cosine = float((x * y).sum() / (x.norm() * y.norm()))
        assert of["cosine"] == pytest.approx(cosine, abs=1e-6)
        assert of["norm_ratio"] == pytest.approx(float(y.norm() / x.norm()), rel=1e-6)
        energy = float((x + y).norm() ** 2 / (x.norm() ** 2 + y.norm() ** 2))
        assert of["energy"] == pytest.approx(energy, rel=1e-6)
        spaces = [torch.linalg.svd(d).U[:, :r] for d, r in ((x, 3), (y, 2))]
        angles = torch.linalg.svdvals(spaces[0].T @ spaces[1])
        assert of["columns"] == pytest.approx(float(angles.square().mean()), rel=1e-5)
        spaces = [torch.linalg.svd(d).Vh[:r] for d, r in ((x, 3), (y, 2))]
        angles = torch.linalg.svdvals(spaces[0] @ spaces[1].T)
        assert of["rows"] == pytest.approx(float(angles.square().mean()), rel=1e-5)
        singular = torch.linalg.svdvals(x)
        stable = float(singular.square().sum() / singular[0] ** 2)
        assert found["stable_ranks"][0][name] == pytest.approx(stable, rel=1e-5)
        assert found["norms"][0][name] == pytest.approx(float(x.norm()), rel=1e-6)
        signs = float((x * y < 0).double().mean())
        assert of["sign_conflict"] == pytest.approx(signs, abs=0.05)
    whole = [torch.cat([lo.delta(n).flatten() for n in lo.modules]).double() for lo in (a, b)]
    cosine = float(whole[0] @ whole[1] / (whole[0].norm() * whole[1].norm()))
    assert pair["total"]["cosine"] == pytest.approx(cosine, abs=1e-6)


def test_a_lora_and_itself_and_its_opposite():
    a = lora(1)
    same, opposite = (interference([a, a.scaled(w)])["pairs"][0]["total"] for w in (2.0, -1.0))
    assert same["cosine"] == pytest.approx(1) and same["norm_ratio"] == pytest.approx(2)
    assert (same["columns"], same["rows"]) == pytest.approx((1, 1)) and same["sign_conflict"] == 0
    assert opposite["energy"] == pytest.approx(0, abs=1e-9)
    assert opposite["cosine"] == pytest.approx(-1)


def test_three_loras_make_three_pairs_and_modules_of_one_alone_do_not_count():
    a, b, c = lora(1), lora(2), LoRA({"layers.0.q_proj": lora(3).modules["layers.0.q_proj"]})
    found = interference([a, b, c])
    assert [(p["i"], p["j"], len(p["by_module"])) for p in found["pairs"]] == [
        (0, 1, 2), (0, 2, 1), (1, 2, 1),
    ]  # fmt: skip
    assert "one and two, 2 modules" in text(found, ["one", "two", "three"])


def test_what_cannot_be_compared_is_refused():
    a = lora(1)
    zero = a.each(lambda f: Factors(f.A, torch.zeros_like(f.B)))
    other = LoRA({"elsewhere": a.modules["layers.0.q_proj"]})
    for loras, why in (([a], "nothing to compare"), ([a, zero], "untrained"),
                       ([a, other], "share no module")):  # fmt: skip
        with pytest.raises(SoupError, match=why):
            interference(loras)


def test_what_a_lora_adds_on_the_others_texts_is_that_of_dense_deltas():
    """The base's inputs, one token after the other; LoRAs on different modules; no hook stays."""
    config = LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=2)  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    names = [f"model.layers.{i}.mlp.up_proj" for i in range(2)]
    draw = torch.Generator().manual_seed(1)

    def adapter(used):
        return LoRA({n: Factors(torch.randn(3, 8, generator=draw),
                                torch.randn(12, 3, generator=draw)) for n in used})  # fmt: skip

    loras = [adapter(names), adapter(names[:1])]
    rows = [[{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5]}], [{"input_ids": [6, 7, 8, 9]}]]
    found = cross_activation(model, loras, rows)
    seen = {}
    hooks = [model.get_submodule(n).register_forward_pre_hook(
        lambda _, x, n=n: seen.setdefault(n, []).append(x[0][0])) for n in names]  # fmt: skip
    for i, own in enumerate(rows):
        seen.clear()
        with torch.no_grad():
            for row in own:
                model(input_ids=torch.tensor([row["input_ids"]]))
        size = [sum(float((torch.cat(seen[n]) @ lora.delta(n).T).square().sum())
                    for n in lora.modules) for lora in loras]  # fmt: skip
        expected = [(s / size[i]) ** 0.5 for s in size]
        assert found[i] == pytest.approx(expected, rel=1e-4) and found[i][i] == 1
    for hook in hooks:
        hook.remove()
    assert not any(module._forward_pre_hooks for module in model.modules())
