"""Data sheets of common GPUs, and what this code is assumed to reach of them."""

from dataclasses import dataclass

from lorasoups.errors import SoupError
from lorasoups.estimates import Speed


@dataclass(frozen=True)
class Card:
    """One GPU as its vendor describes it.

    Attributes:
        name: short name.
        matmul: peak FLOP/s of dense 16-bit matmuls with float32 accumulation (bfloat16; float16
            where bfloat16 is not native). Dense: vendors also print twice that, for 2:4 sparsity.
        memory: bytes.
        bandwidth: bytes/s of its memory.
        bf16: whether bfloat16 is native.
    """

    name: str
    matmul: float
    memory: int
    bandwidth: float
    bf16: bool = True


GB = 10**9
CARDS = (
    Card("H200", 989e12, 141 * GB, 4.8e12),
    Card("H100", 989e12, 80 * GB, 3.35e12),  # SXM5
    Card("H100 PCIe", 756e12, 80 * GB, 2.0e12),
    Card("A100-80GB", 312e12, 80 * GB, 2.039e12),  # SXM4
    Card("A100-40GB", 312e12, 40 * GB, 1.555e12),
    Card("A10G", 70e12, 24 * GB, 600e9),  # AWS's own; the plain A10 has 125e12
    Card("L4", 121e12, 24 * GB, 300e9),
    Card("RTX 4090", 165e12, 24 * GB, 1.008e12),
    Card("RTX 3090", 71e12, 24 * GB, 936e9),
    Card("T4", 65e12, 16 * GB, 320e9, bf16=False),  # 65e12 is float16
)
"""NVIDIA's public data sheets, dense numbers, memory in 10^9 bytes. Written down from knowledge of
them, not fetched: hold a number against the sheet before quoting it."""

TRAINING_SHARE = 0.4
"""Share of the matmul peak that a LoRA step is assumed to reach (by what it computes, see
`estimates.lora_step_flops`). NOT measured here: no GPU was at hand. ``lorasoups measure`` gives
the real one, and the doctor calibrates on a GPU that it finds."""
FORWARD_SHARE = 0.5
"""The same for forward passes."""
BANDWIDTH_SHARE = 0.7
"""Share of the memory bandwidth that decoding reaches; not measured here."""
LAYER_S, TRAIN_LAYER_S = 0.8e-3, 3e-3
"""Seconds per decoder layer that Python and kernel launches take in transformers' Llama: one
forward pass, and one training step under PEFT with all seven projections. Not measured here; they
decide the time of small models on large GPUs."""


def find(name: str) -> Card:
    """The card of a name, as given or as a driver reports it (``NVIDIA H100 80GB HBM3``).

    Raises:
        SoupError: unknown.
    """
    words = set(name.lower().replace("-", " ").split())
    if "a100" in words and "40gb" not in words:
        words.add("80gb")  # some drivers name the older 40 GB cards so, none the 80 GB ones
    for card in sorted(CARDS, key=lambda card: -len(card.name)):
        if words.issuperset(card.name.lower().replace("-", " ").split()) and "laptop" not in words:
            return card
    raise SoupError(f"no data sheet of {name!r}: choose of {', '.join(c.name for c in CARDS)}")


def assumed_speed(card: Card) -> Speed:
    """What this code is assumed to reach on a card: shares of its data sheet."""
    return Speed(
        train=TRAINING_SHARE * card.matmul,
        alphas=TRAINING_SHARE * card.matmul,
        forward=FORWARD_SHARE * card.matmul,
        decode=FORWARD_SHARE * card.matmul,
        bandwidth=BANDWIDTH_SHARE * card.bandwidth,
        train_layer_s=TRAIN_LAYER_S,
        layer_s=LAYER_S,
        overlaps=True,
        source=f"data sheet of {card.name} x assumed shares (not measured)",
    )
