"""Random models and rows of a given shape, for tests that time or compare."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def random_rows(n: int, length: int, vocabulary: int) -> list[dict]:
    """``n`` rows of ``length`` random tokens, the second half with labels."""
    ids = torch.randint(3, vocabulary, (n, length), generator=torch.Generator().manual_seed(0))
    half = length // 2
    return [{"input_ids": row, "labels": [-100] * half + row[half:]} for row in ids.tolist()]
