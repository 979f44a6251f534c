"""Random Llamas and LoRAs to measure with."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lorasoups.lora.lora import Factors, LoRA

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PAPER = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (4096, 4096),
    "self_attn.v_proj": (4096, 4096),
    "mlp.up_proj": (11008, 4096),
    "mlp.down_proj": (4096, 11008),
}
"""(out, in) of the modules that the paper adapts in one layer of Llama-7B."""


def llama(hidden: int, layers: int, device: str, attention: str = "eager", vocab: int = 512):
    """A random Llama, frozen."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        use_cache=False,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False).to(device)


def loras_for(model, k: int = 2, rank: int = 8, device: str = "cpu") -> list[LoRA]:
    """k random LoRAs on a Llama's seven projections."""
    shapes = {
        name: (layer.out_features, layer.in_features)
        for name, layer in model.named_modules()
        if name.endswith(PROJECTIONS)
    }
    return [random_lora(shapes, rank, seed, device) for seed in range(k)]


def paper_pair(layers: int, rank: int = 32) -> list[LoRA]:
    """Two random LoRAs of the paper's shape on ``layers`` layers of Llama-7B."""
    shapes = {
        f"model.layers.{i}.{name}": shape for i in range(layers) for name, shape in PAPER.items()
    }
    return [random_lora(shapes, rank, seed) for seed in range(2)]


def random_lora(
    shapes: dict[str, tuple[int, int]], rank: int, seed: int, device: str = "cpu"
) -> LoRA:
    """Gaussian factors."""
    draw = torch.Generator().manual_seed(seed)
    modules = {
        name: Factors(
            (torch.randn(rank, width, generator=draw) * 0.02).to(device),
            (torch.randn(height, rank, generator=draw) * 0.02).to(device),
        )
        for name, (height, width) in shapes.items()
    }
    return LoRA(modules)
