"""Small adapters to test with, and one way to compare numbers."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from lorasoups.lora.lora import Factors, LoRA

TOLERANCE = 1e-5


def assert_close(actual, expected, what):
    """Largest absolute difference, relative to the largest expected value, below 1e-5."""
    assert actual.shape == expected.shape, (what, actual.shape, expected.shape)
    error = ((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12)).item()
    print(f"largest error: {what}: {error:.1e}")
    assert error < TOLERANCE, (what, error)


def random_factors(out, in_, rank, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(rank, in_, generator=generator)
    B = torch.randn(out, rank, generator=generator)
    return Factors(A, B * scale, scale)


SHAPES = {"m.layers.0.up": (12, 9), "m.layers.1.up": (12, 9), "m.layers.11.down": (9, 12)}


def random_lora(rank=3, scale=1.0, seed=0, shapes=SHAPES, base=""):
    return LoRA(
        {
            name: random_factors(*shape, rank, scale, 100 * seed + position)
            for position, (name, shape) in enumerate(shapes.items())
        },
        base,
    )


def tiny_llama(layers=2):
    """A fresh Llama with the same weights each time; 12 layers give both layers.1 and layers.11."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return LlamaForCausalLM(config).eval()


def fill(model, adapter, seed, size=0.3):
    """Random numbers for the factors of one adapter: as if trained."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if f".{adapter}." in name:
            random = torch.randn(parameter.shape, generator=generator) * size
            parameter.data = random.to(parameter.dtype)


def save_adapter(folder, seed=1, layers=2, **config):
    """A PEFT adapter folder written by PEFT itself; returns (folder, model with the adapter)."""
    config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]} | config
    model = get_peft_model(tiny_llama(layers), LoraConfig(task_type="CAUSAL_LM", **config))
    fill(model, "default", seed)
    model.save_pretrained(folder)
    return folder, model.eval()


LEAVES = ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")
TOKENS = torch.arange(20).view(2, 10)


@torch.no_grad()
def logits(model):
    return model(TOKENS).logits


def reload(folder, layers=2):
    """The adapter on a fresh base, by stock PEFT alone."""
    return PeftModel.from_pretrained(tiny_llama(layers), folder).eval()


def llama_lora(seed, rank, leaves=LEAVES, layers=2):
    """A random adapter for `tiny_llama`."""
    model, modules = tiny_llama(layers), {}
    for position, name in enumerate(n for n, _ in model.named_modules() if n.endswith(leaves)):
        weight = model.get_submodule(name).weight
        modules[name] = random_factors(*weight.shape, rank, seed=100 * seed + position)
    return LoRA(modules, "tiny")


def llama_pair(equal_ranks=False):
    """Two adapters; ranks differ and the second lacks a module, unless ``equal_ranks``."""
    if equal_ranks:
        return [llama_lora(1, 2), llama_lora(2, 2)]
    return [llama_lora(1, 3), llama_lora(2, 2, ("self_attn.q_proj", "mlp.up_proj"))]
