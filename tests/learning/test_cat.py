"""CAT's wrapper: exact, frozen, removable."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from soup_helpers import TOKENS, assert_close, fill, logits, random_factors, tiny_llama

from lorasoups.errors import SoupError
from lorasoups.learning.cat import CatModel, effective, start_logits
from lorasoups.lora.adapters import from_peft, save_lora
from lorasoups.lora.lora import LoRA
from lorasoups.lora.merging import merge
from lorasoups.models.generation import folded

LABELS = TOKENS.clone()


def llama_lora(seed, rank=3, modules=("self_attn.q_proj", "mlp.down_proj"), layers=2, size=0.2):
    """A LoRA with random factors on a `tiny_llama`."""
    model = tiny_llama(layers)
    found = {}
    for at, (name, module) in enumerate(model.named_modules()):
        if name.endswith(modules):
            f = random_factors(*module.weight.shape, rank, seed=100 * seed + at)
            found[name] = type(f)(f.A * size, f.B * size)
    return LoRA(found, "tiny")


def pair():
    """Ranks differ, and the second LoRA lacks a module that the first has."""
    return [llama_lora(1, 3), llama_lora(2, 2, ("self_attn.q_proj", "mlp.up_proj"))]


def with_alphas(cat, seed=0):
    """Any alphas: one outside [0, 1] among them."""
    generator = torch.Generator().manual_seed(seed)
    cat.logits.data.copy_(torch.randn(cat.logits.shape, generator=generator))
    return cat


@pytest.mark.parametrize("normalise", ["none", "softmax", "sigmoid"])
def test_wrapped_forward_equals_fold_and_exported_adapter_and_merge_and_unload(tmp_path, normalise):
    model, loras = tiny_llama(), pair()
    with with_alphas(CatModel(model, loras, normalise=normalise)) as cat, torch.no_grad():
        wrapped, alphas = cat(TOKENS).logits, cat.weights()
    soup = merge(loras, "cat", weights=alphas)
    for name in alphas:
        dense = sum(
            float(a) * lora.delta(name)
            for a, lora in zip(alphas[name], loras, strict=True)
            if name in lora.modules
        )
        assert_close(soup.delta(name), dense, f"soup against the dense sum, {name}")
    with folded(model, soup):
        assert_close(logits(model), wrapped, "folded against wrapped")
    save_lora(soup, tmp_path / "soup")
    peft = PeftModel.from_pretrained(tiny_llama(), tmp_path / "soup")
    assert_close(logits(peft), wrapped, "exported adapter against wrapped")
    assert_close(logits(peft.merge_and_unload()), wrapped, "merge_and_unload against wrapped")


@pytest.mark.parametrize("chosen", [0, 1])
def test_one_hot_alphas_are_that_adapter_alone(chosen):
    model, loras = tiny_llama(), pair()
    with CatModel(model, loras) as cat, torch.no_grad():
        cat.logits.data.zero_()[:, chosen] = 1.0
        mixed = cat(TOKENS).logits
    with folded(model, loras[chosen]):
        assert_close(mixed, logits(model), f"one-hot alpha, LoRA {chosen}")


@pytest.mark.parametrize("normalise", ["none", "softmax", "sigmoid"])
def test_gradient_of_every_alpha_against_finite_differences(normalise):
    """Five-point differences with a wide step: transformers rounds some steps to float32."""
    model = tiny_llama().double()
    model.lm_head.weight.data *= 10

    def loss(cat):
        return torch.nn.functional.cross_entropy(cat(TOKENS).logits.flatten(0, 1), LABELS.flatten())

    with with_alphas(CatModel(model, pair(), normalise=normalise)) as cat:
        assert cat.logits.dtype == torch.float64
        loss(cat).backward()
        gradient, step = cat.logits.grad.clone(), 1e-2
        numeric = torch.zeros_like(gradient)
        with torch.no_grad():
            for row, column in torch.cartesian_prod(*map(torch.arange, gradient.shape)).tolist():
                for steps, factor in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
                    cat.logits[row, column] += steps * step
                    numeric[row, column] += factor * loss(cat) / (12 * step)
                    cat.logits[row, column] -= steps * step
    error = ((gradient - numeric).abs().max() / gradient.abs().max()).item()
    print(f"largest error: gradients against finite differences, {normalise}: {error:.1e}")
    assert error < 1e-3
    assert (gradient != 0).any(dim=0).all()


def two_layers():
    """A float64 network of two linear layers, and LoRAs for it: no step of it rounds to float32."""
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 4))
    loras = [
        LoRA({"0": random_factors(9, 6, 3, seed=1), "2": random_factors(4, 9, 2, seed=2)}),
        LoRA({"2": random_factors(4, 9, 4, seed=3)}),
    ]
    return net.double(), loras, torch.randn(5, 3, 6, dtype=torch.float64)


@pytest.mark.parametrize("normalise", ["none", "softmax", "sigmoid"])
def test_gradients_are_exact_in_float64(normalise):
    """Of the alphas, and of the input (which is what lower layers' alphas learn from)."""
    net, loras, x = two_layers()
    with with_alphas(CatModel(net, loras, normalise=normalise)) as cat:
        inputs = (cat.logits, x.requires_grad_(True))
        assert torch.autograd.gradcheck(lambda logits, x: net(x), inputs)  # perturbs in place


def test_every_path_gives_the_same_output_and_gradients():
    """The fused step for a plain linear layer against the one for layers that must be called."""
    found = []
    for fused in (True, False):
        model = tiny_llama()
        with with_alphas(CatModel(model, pair(), normalise="softmax")) as cat:
            if not fused:
                for module in model.modules():
                    if hasattr(module, "owner_of"):
                        module.layer.register_forward_hook(lambda module, args, out: None)
            output = cat(TOKENS, labels=LABELS)
            output.loss.backward()
            found.append((output.logits.detach(), cat.logits.grad))
    assert_close(found[0][0], found[1][0], "fused output")
    assert_close(found[0][1], found[1][1], "fused gradients")


def test_only_the_alphas_get_gradients_and_nothing_else_is_trainable():
    with CatModel(tiny_llama(), pair()) as cat:
        cat(TOKENS, labels=LABELS).loss.backward()
        trainable = [name for name, p in cat.named_parameters() if p.requires_grad]
        with_gradient = [name for name, p in cat.named_parameters() if p.grad is not None]
    assert trainable == with_gradient == ["logits"]


def test_removal_gives_the_base_back_bit_for_bit():
    model = tiny_llama()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    out = logits(model)
    with with_alphas(CatModel(model, pair())) as cat, torch.no_grad():
        assert not torch.equal(cat(TOKENS).logits, out)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(logits(model), out)
    assert all(p.requires_grad for p in model.parameters())


def test_removal_gives_every_module_its_mode_back():
    model = tiny_llama().train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    with CatModel(model, pair()) as cat:
        cat.train()
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before


def test_one_concatenated_pair_equals_the_loop_over_adapters():
    model, loras = tiny_llama(), pair()
    handles = []
    with with_alphas(CatModel(model, loras)) as cat, torch.no_grad():
        wrapped, alphas = cat(TOKENS).logits, cat.weights()
    for name, alpha in alphas.items():

        def hook(module, args, out, name=name, alpha=alpha):
            for a, lora in zip(alpha, loras, strict=True):
                if name in lora.modules:
                    f = lora.modules[name]
                    out = out + a * (args[0] @ f.A.T @ f.B.T)
            return out

        handles.append(model.get_submodule(name).register_forward_hook(hook))
    assert_close(logits(model), wrapped, "k pairs against one concatenated pair")


def test_bfloat16_base_keeps_float32_alphas():
    with CatModel(tiny_llama().to(torch.bfloat16), pair()) as cat:
        cat(TOKENS, labels=LABELS).loss.backward()
        assert cat.logits.dtype == cat.logits.grad.dtype == torch.float32
    with CatModel(tiny_llama(), pair()).to(torch.bfloat16) as cat:
        assert cat.logits.dtype == torch.float32
        assert next(cat.model.parameters()).dtype == torch.bfloat16
        cat(TOKENS)


def test_on_the_base_of_a_peft_model_peft_steps_aside_and_comes_back():
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj"], lora_dropout=0.5)
    peft = get_peft_model(tiny_llama(), config, adapter_name="one")
    peft.add_adapter("two", LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj"]))
    fill(peft, "one", 1)
    fill(peft, "two", 2)
    peft.eval()
    expected = {}
    for name in ("one", "two"):
        peft.set_adapter(name)
        expected[name] = logits(peft)
    loras = [from_peft(peft, name) for name in ("one", "two")]
    with CatModel(peft.get_base_model(), loras) as cat, torch.no_grad():
        for column, name in enumerate(("one", "two")):
            cat.logits.data.zero_()[:, column] = 1.0
            assert_close(cat(TOKENS).logits, expected[name], f"PEFT adapter {name}")
    assert_close(logits(peft), expected["two"], "PEFT after removal")


def test_a_merged_peft_adapter_is_refused_and_not_counted_twice():
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj"])
    peft = get_peft_model(tiny_llama(), config, adapter_name="one")
    fill(peft, "one", 1)
    peft.merge_adapter()
    with pytest.raises(SoupError, match="merged"):
        CatModel(peft.get_base_model(), [from_peft(peft, "one")])


class FourBit(torch.nn.Module):
    """Looks like bitsandbytes' Linear4bit: integer weights, a compute dtype."""

    def __init__(self, layer):
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        packed = torch.zeros(3, 1, dtype=torch.uint8)
        self.weight = torch.nn.Parameter(packed, requires_grad=False)
        self.compute_dtype, self._real = torch.bfloat16, [layer]

    def forward(self, x):
        return self._real[0](x)


def test_a_quantised_layer_runs_in_its_compute_dtype():
    model, loras = tiny_llama(), pair()
    name = "model.layers.0.self_attn.q_proj"
    plain = model.get_submodule(name)
    with CatModel(model, loras) as cat, torch.no_grad():
        expected = cat(TOKENS).logits
    model.get_submodule("model.layers.0.self_attn").q_proj = FourBit(plain)
    with CatModel(model, loras) as cat, torch.no_grad():
        assert cat.logits.dtype == torch.float32
        found = cat(TOKENS).logits
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    assert not torch.equal(found, expected)  # it did round to bfloat16


def test_starts_are_what_their_names_say():
    for normalise in ("none", "softmax", "sigmoid"):
        start = effective(start_logits(normalise, "uniform", 4, 2), normalise)
        assert torch.allclose(start, torch.full((4, 2), 0.5))
    assert torch.equal(start_logits("none", "ones", 2, 3), torch.ones(2, 3))
    one, same, other = (start_logits("softmax", "randn", 4, 2, seed) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.allclose(effective(one, "softmax").sum(-1), torch.ones(4))


@pytest.mark.parametrize(("granularity", "rows"), [("module", 6), ("layer", 2), ("global", 1)])
def test_granularity_shares_alphas(granularity, rows):
    with CatModel(tiny_llama(), pair(), granularity=granularity) as cat:
        assert cat.logits.shape == (rows, 2)
        assert len(cat.weights()) == 6


@pytest.mark.parametrize(
    ("loras", "options", "message"),
    [
        ([], {}, "at least one"),
        ([llama_lora(1)], {"normalise": "l2"}, "normalise"),
        ([llama_lora(1)], {"init": "zeros"}, "init"),
        ([llama_lora(1)], {"granularity": "head"}, "granularity"),
        ([llama_lora(1)], {"normalise": "sigmoid", "init": "ones"}, "sigmoid"),
        ([llama_lora(1, layers=3)], {}, "model.layers.2"),
        ([LoRA({"model.norm": random_factors(16, 16, 2)})], {}, "linear layers only"),
        (
            [LoRA({"model.layers.0.mlp.up_proj": random_factors(16, 16, 2)})],
            {},
            "trained on another base",
        ),
    ],
)
def test_refusals_are_clear_and_leave_the_model_alone(loras, options, message):
    model = tiny_llama()
    with pytest.raises(SoupError, match=message):
        CatModel(model, loras, **options)
    assert all(p.requires_grad for p in model.parameters())
