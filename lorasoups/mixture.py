"""A mixture of LoRAs at inference: what X-LoRA computes, with key-value caches.

PEFT's X-LoRA has no cache and runs the whole text twice for every new token. The gate reads the
hidden states of the pass without adapters; these are causal, so that both passes can keep a cache
of their own and a new token costs two passes over one token. The numbers are the same
(tests/test_xlora.py).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache

from lorasoups.linalg import concatenate
from lorasoups.lora import LoRA, module_names


class _Gated(nn.Module):
    """A linear layer with k adapters, each weighted per token."""

    def __init__(self, layer: nn.Linear, A: Tensor, B: Tensor, owner_of: Tensor, owner):
        super().__init__()
        self.layer = layer
        self.register_buffer("A", A.to(layer.weight), persistent=False)
        self.register_buffer("B", B.to(layer.weight), persistent=False)
        self.register_buffer("owner_of", owner_of.to(layer.weight.device), persistent=False)
        self._weights = owner  # a function, so that this module owns nothing of the mixture

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, tokens, in] -> [batch, tokens, out]."""
        y, weights = self.layer(x), self._weights()
        if weights is None:
            return y
        hidden = F.linear(x, self.A) * weights[..., self.owner_of]
        return y + F.linear(hidden, self.B)


class Mixture(nn.Module):
    """k LoRAs on a frozen causal LM, weighted per token by a gate on its hidden states.

    Use it as a context manager: afterwards the model has its own layers back.

    Args:
        model: causal LM.
        loras: k adapters; ranks may differ.
        gate: tensors ``layers.<i>.weight`` / ``layers.<i>.bias`` of a stack of linear layers with
            ReLU between them, the last one with k outputs (PEFT's ``XLoraClassifier``).
    """

    def __init__(self, model, loras: Sequence[LoRA], gate: Mapping[str, Tensor]):
        super().__init__()
        self.model, self._weights = model, None
        self._gate = {name: tensor.to(model.device) for name, tensor in gate.items()}
        self._replaced = []
        for name in module_names(list(loras)):
            own = [(i, lora.modules[name]) for i, lora in enumerate(loras) if name in lora.modules]
            stacked = concatenate([factors for _, factors in own], torch.ones(len(own)))
            owner_of = torch.cat([torch.full((factors.rank,), i) for i, factors in own])
            parent = model.get_submodule(name.rpartition(".")[0])
            child = name.rpartition(".")[2]
            layer = getattr(parent, child)
            self._replaced.append((parent, child, layer))
            gated = _Gated(layer, stacked.A, stacked.B, owner_of, lambda: self._weights)
            setattr(parent, child, gated)

    def __enter__(self) -> "Mixture":
        return self

    def __exit__(self, *_) -> None:
        while self._replaced:
            parent, child, layer = self._replaced.pop()
            setattr(parent, child, layer)

    def weights(self, hidden: Tensor) -> Tensor:
        """Softmax over the LoRAs: hidden [batch, tokens, width] -> [batch, tokens, k]."""
        numbers = sorted({int(name.split(".")[1]) for name in self._gate})
        for i in numbers:
            layer = (self._gate[f"layers.{i}.weight"], self._gate[f"layers.{i}.bias"])
            hidden = F.linear(hidden.float(), *layer)
            hidden = hidden.relu() if i != numbers[-1] else hidden
        return hidden.softmax(-1)

    def forward(self, input_ids: Tensor, attention_mask=None, caches=(None, None), **more):
        """The model's output under the mixture; ``caches`` of the two passes, if any."""
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, **more}
        keep = caches[0] is not None
        self._weights = None
        plain = self.model(
            **batch, past_key_values=caches[0], use_cache=keep, output_hidden_states=True
        )
        self._weights = self.weights(plain.hidden_states[-1]).to(plain.hidden_states[-1].dtype)
        try:
            return self.model(**batch, past_key_values=caches[1], use_cache=keep)
        finally:
            self._weights = None

    @torch.no_grad()
    def generate(
        self, input_ids: Tensor, attention_mask: Tensor, max_new_tokens: int, pad_token_id: int, **_
    ) -> Tensor:
        """Greedy continuation of left-padded prompts: prompt and new tokens, [batch, tokens]."""
        end = self.model.config.eos_token_id
        caches = (DynamicCache(), DynamicCache())
        text, mask, new = input_ids, attention_mask, input_ids
        done = torch.zeros(len(text), dtype=torch.bool, device=text.device)
        for _step in range(max_new_tokens):
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -new.shape[1] :]
            out = self(new, mask, caches, position_ids=positions)
            chosen = out.logits[:, -1].argmax(-1)
            new = torch.where(done, pad_token_id, chosen)[:, None]
            done |= chosen == end
            text = torch.cat([text, new], 1)
            mask = torch.cat([mask, torch.ones_like(new)], 1)
            if done.all():
                break
        return text
