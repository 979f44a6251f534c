"""FLOPs, seconds and bytes of each stage, as pure functions of numbers. No torch.

Conventions, once for all:

* A multiplication with its addition counts as 2 FLOPs. N is `ModelShape.matmul_parameters`: linear
  layers and output head; the embedding is a lookup, norms and activations are not counted.
* ``attention="eager"`` computes the whole square of scores, ``"sdpa"`` (causal) half of it.
* What a LoRA step *computes*: 2 N forward, 2 N backward for the gradients of the activations
  (frozen weights have no gradients of their own), three times the attention of one forward pass,
  and 6 per LoRA parameter. `model_flops` is the usual 6 N + 12 L H T of full fine-tuning
  (PaLM, arXiv 2204.02311, appendix B): an MFU by it is about 1.5 times the share of the peak that
  a LoRA step really reaches. Quote it only beside numbers of the same convention.
* Bytes of activations are those that autograd keeps for the backward pass, counted tensor by
  tensor for transformers' Llama under PEFT (tests hold them against the real thing). A caching
  allocator needs more than the sum of what is asked of it: `FRAGMENTATION`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lorasoups.shapes import ModelShape

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes per weight by dtype."""
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Per packed weight: 4 bits, a byte of scale per 64 weights, 4 bytes per 256 such scales (double
quantisation, QLoRA, arXiv 2305.14314, section 3)."""
ADAMW_BYTES = 16
"""Per trained parameter: float32 value, gradient, and AdamW's two moments."""
LOGIT_BYTES = 12
"""Per token and vocabulary entry at the peak: float32 logits, their log-softmax, its gradient."""
FRAGMENTATION = {"cuda": 1.1, "cpu": 2.0}
"""What an allocator takes in training for one byte that is asked for. CPU: measured (glibc, mini
base: 0.29 GB where 0.19 are asked for with batches of one width, more with many); GPU: not
measured here. Elsewhere it is 1.1 for both."""
KV_TRAFFIC = 3
"""Times that the cache of keys and values crosses the memory bus per decoded token: read by
attention, and read and written when transformers' DynamicCache appends to it by concatenation."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one stage at its peak, by what they are for."""

    parts: dict[str, float]

    @property
    def total(self) -> int:
        return round(sum(self.parts.values()))

    @property
    def largest(self) -> str:
        """The part that takes most."""
        return max(self.parts, key=lambda name: self.parts[name])


@dataclass(frozen=True)
class Speed:
    """What a device reaches in this code (not what its data sheet says).

    Attributes:
        train, alphas, forward, decode: FLOP/s in LoRA training, alpha learning, forward passes
            without gradients, and decoding.
        bandwidth: bytes/s when weights or keys and values are read.
        train_layer_s, layer_s: seconds per decoder layer that a training step, and one forward
            pass, take at least, however little there is to compute (launches, Python).
        overlaps: these seconds run beside the computation (a GPU's queue), not before it.
        source: where the numbers come from.
    """

    train: float
    alphas: float
    forward: float
    decode: float
    bandwidth: float
    train_layer_s: float = 0.0
    layer_s: float = 0.0
    overlaps: bool = False
    source: str = ""

    def seconds(self, work: float, overhead: float) -> float:
        """Work and overhead, one after the other or beside each other."""
        return max(work, overhead) if self.overlaps else work + overhead


# --- FLOPs --------------------------------------------------------------------------------------


def attention_flops(shape: ModelShape, length: float, attention: str = "sdpa") -> float:
    """Per token of a sequence of ``length``, forward: scores and their weighted sum."""
    whole = 4 * shape.layers * shape.heads * shape.head_dim * length
    return whole if attention == "eager" else whole / 2


def forward_flops(shape: ModelShape, length: float, attention: str = "sdpa") -> float:
    """Per token of a forward pass over sequences of ``length``: 2 N and attention."""
    return 2 * shape.matmul_parameters + attention_flops(shape, length, attention)


def lora_step_flops(
    shape: ModelShape,
    length: float,
    trained: int,
    attention: str = "sdpa",
    checkpointing: bool = False,
) -> float:
    """Per token of a LoRA training step: what is computed (see the module's conventions).

    Args:
        shape: of the base.
        length: tokens per sequence.
        trained: LoRA parameters.
        attention: ``eager`` or ``sdpa``.
        checkpointing: the decoder layers run forward once more (their recomputation is work that
            the device does; leave it out for a utilisation of *useful* work).
    """
    attended = attention_flops(shape, length, attention)
    flops = 4 * shape.matmul_parameters + 3 * attended + 6 * trained
    return flops + (2 * shape.linear_parameters + attended + 2 * trained if checkpointing else 0)


def alpha_step_flops(
    shape: ModelShape, length: float, stacked: int, attention: str = "sdpa"
) -> float:
    """Per token of a step of alpha learning; ``stacked``: parameters of all k LoRAs together.

    As LoRA training, but the factors are frozen: 4 per parameter of theirs in place of 6.
    """
    return 4 * shape.matmul_parameters + 3 * attention_flops(shape, length, attention) + 4 * stacked


def model_flops(shape: ModelShape, length: float) -> float:
    """Per token of a step of *full* training: 6 N + 12 L H T, attention not halved (PaLM's MFU)."""
    return 6 * shape.matmul_parameters + 3 * attention_flops(shape, length, "eager")


# --- seconds ------------------------------------------------------------------------------------


def training_seconds(
    shape: ModelShape, speed: Speed, steps: int, tokens: float, flops: float, *, alphas=False
) -> float:
    """``steps`` steps of ``tokens`` tokens at ``flops`` FLOPs each."""
    rate = speed.alphas if alphas else speed.train
    return steps * speed.seconds(tokens * flops / rate, shape.layers * speed.train_layer_s)


def forward_seconds(
    shape: ModelShape, speed: Speed, rows: int, length: float, batch: int, attention: str = "sdpa"
) -> float:
    """Forward passes over ``rows`` sequences, without gradients."""
    calls = math.ceil(rows / batch)
    work = rows / calls * length * forward_flops(shape, length, attention) / speed.forward
    return calls * speed.seconds(work, shape.layers * speed.layer_s)


def kv_bytes(shape: ModelShape, dtype: str) -> int:
    """Bytes of keys and values per token."""
    width = BYTES["bfloat16" if dtype == "nf4" else dtype]
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * width


def generation_seconds(
    shape: ModelShape,
    speed: Speed,
    prompts: int,
    batch: int,
    prompt: float,
    new: float,
    dtype: str,
    attention: str = "sdpa",
) -> float:
    """Greedy generation with a cache: every batch is read once, then decoded token by token.

    A decoding step is bound by memory (all weights, and the cache, are read once per step) or by
    its 2 N FLOPs per sequence, whichever takes longer.

    Args:
        shape, speed: model and device.
        prompts: how many in all; batch: how many at once.
        prompt, new: tokens per prompt, and decoded steps per batch.
        dtype: of the weights, or ``nf4``.
        attention: of the prompt's pass.
    """
    if not prompts:
        return 0.0
    calls = math.ceil(prompts / batch)
    rows = prompts / calls
    overhead = shape.layers * speed.layer_s
    first = speed.seconds(
        rows * prompt * forward_flops(shape, prompt, attention) / speed.forward, overhead
    )
    context = prompt + new / 2
    computed = rows * forward_flops(shape, context, "eager") / speed.decode
    moved = weight_bytes(shape, dtype) + KV_TRAFFIC * rows * context * kv_bytes(shape, dtype)
    moved += rows * shape.vocab * LOGIT_BYTES
    step = speed.seconds(max(computed, moved / speed.bandwidth), overhead)
    return calls * (first + new * step)


def merge_seconds(
    shape: ModelShape, targets: Sequence[str], rank: int, k: int, dense: bool
) -> float:
    """One static merge of k LoRAs on a CPU.

    Methods differ by a factor of a hundred; this is their mean. ``dense``: methods that prune delta
    weights work on every number of every delta.
    """
    numbers = k * (
        shape.adapted_parameters(targets) if dense else shape.lora_parameters(targets, rank)
    )
    return shape.layers * len(targets) * MERGE_MODULE_S + MERGE_NUMBER_S * numbers


MERGE_MODULE_S, MERGE_NUMBER_S = 1.5e-3, 40e-9
"""Seconds per module and per number of a merge: means over the 26 static merges of the mini base,
measured on one core (AMD EPYC of 2024). TIES takes 70e-9 per number, DARE 17e-9."""


# --- bytes --------------------------------------------------------------------------------------


def weight_bytes(shape: ModelShape, dtype: str) -> float:
    """Bytes of the base's weights; ``nf4`` packs the linear layers, the rest is bfloat16."""
    if dtype == "nf4":
        rest = shape.parameters - shape.linear_parameters
        return NF4_BYTES * shape.linear_parameters + BYTES["bfloat16"] * rest
    return BYTES[dtype] * shape.parameters


def activation_bytes(
    shape: ModelShape,
    length: float,
    targets: Sequence[str],
    ranks: int,
    *,
    dtype: str,
    autocast: bool,
    attention: str = "sdpa",
    dropout: bool = False,
    alphas: bool = False,
) -> float:
    """Bytes per token that one decoder layer keeps for the backward pass.

    Args:
        shape: of the base.
        length: tokens per sequence: eager attention keeps that many scores per head and token.
        targets: adapted modules.
        ranks: r; for alphas the sum over the LoRAs.
        dtype: of the base's weights, or ``nf4``.
        autocast: matmuls run in bfloat16; each LoRA then keeps a cast copy of its own input.
        attention: ``eager`` or ``sdpa``.
        dropout: on the LoRAs' inputs: a copy and a mask for each (a byte per number, as on a GPU;
            on a CPU torch keeps the mask in the numbers' own dtype).
        alphas: CAT's step, whose frozen factors need no inputs kept.
    """
    width = 2 if autocast or dtype != "float32" else 4
    heads, hidden, inner = shape.heads * shape.head_dim, shape.hidden, shape.intermediate
    kept = 2 * hidden * 4 + 2 * 4  # inputs of both norms as float32, and their inverse roots
    kept += 3 * inner * width  # gate, its activation, up
    keys = heads if attention == "eager" else shape.kv_heads * shape.head_dim
    kept += (heads + 2 * keys) * width  # queries, keys and values; eager repeats the last two
    own_inputs = autocast or dropout
    if attention == "eager":
        kept += shape.heads * length * (4 if width == 4 else 4 + 2)  # softmax, and its cast
    elif alphas or own_inputs or "o_proj" not in targets:
        kept += heads * width + 4 * shape.heads  # output of the kernel; else it is o_proj's input
    else:
        kept += 4 * shape.heads
    kept += len(targets) * ranks * width
    if alphas:
        return kept
    inputs = [shape.linears[name][0] for name in targets]
    if own_inputs:
        kept += sum(inputs) * (width + (1 if dropout else 0))
    else:
        groups = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "gate_proj": 1, "up_proj": 1}
        shared = {groups.get(n, n): w for n, w in zip(targets, inputs, strict=True)}
        kept += sum(shared.values()) * width
    return kept


def training_memory(
    shape: ModelShape,
    *,
    batch: int,
    length: float,
    targets: Sequence[str],
    rank: int,
    dtype: str,
    autocast: bool,
    attention: str = "sdpa",
    checkpointing: bool = False,
    dropout: bool = False,
) -> Memory:
    """Peak of LoRA training with AdamW; ``length`` is that of the longest batch."""
    trained = shape.lora_parameters(targets, rank)
    per_layer = activation_bytes(
        shape, length, targets, rank, dtype=dtype, autocast=autocast, attention=attention,
        dropout=dropout,
    )  # fmt: skip
    parts = _step_parts(shape, batch * length, length, per_layer, dtype, autocast, attention,
                        checkpointing)  # fmt: skip
    return Memory(parts | {"LoRA and AdamW": ADAMW_BYTES * trained})


def alpha_memory(
    shape: ModelShape,
    *,
    batch: int,
    length: float,
    targets: Sequence[str],
    rank: int,
    k: int,
    dtype: str,
    attention: str = "sdpa",
    checkpointing: bool = False,
) -> Memory:
    """Peak of learning alphas over k frozen LoRAs, whose factors are on the CPU and, stacked, in
    the base's dtype on the device."""
    per_layer = activation_bytes(
        shape, length, targets, k * rank, dtype=dtype, autocast=False, attention=attention,
        alphas=True,
    )  # fmt: skip
    parts = _step_parts(shape, batch * length, length, per_layer, dtype, False, attention,
                        checkpointing)  # fmt: skip
    width = 4 if dtype == "float32" else 2
    return Memory(parts | {"stacked LoRAs": width * k * shape.lora_parameters(targets, rank)})


def _step_parts(
    shape: ModelShape,
    tokens: float,
    length: float,
    per_layer: float,
    dtype: str,
    autocast: bool,
    attention: str,
    checkpointing: bool,
) -> dict[str, float]:
    """What every training step of a frozen base takes."""
    width = 2 if autocast or dtype != "float32" else 4
    layers = shape.layers * per_layer
    if checkpointing:  # inputs of all layers, and one layer's own while it is computed again
        layers = shape.layers * shape.hidden * BYTES.get(dtype, 2) + per_layer
    working = 4 * shape.intermediate * width  # gradients inside one MLP
    if attention == "eager":
        working = max(working, 3 * 4 * shape.heads * length)  # scores' gradients, one layer
    parts = {
        "weights": weight_bytes(shape, dtype),
        "activations": tokens * (layers + working),
        "logits": tokens * shape.vocab * LOGIT_BYTES,
    }
    if autocast and dtype == "float32":
        parts["weights cast for autocast"] = 2 * shape.matmul_parameters
    if dtype == "nf4":
        parts["one layer unpacked"] = 2 * max(a * b for a, b in shape.linears.values())
    return parts


def generation_memory(
    shape: ModelShape,
    *,
    batch: int,
    prompt: float,
    new: int,
    targets: Sequence[str],
    dtype: str,
    folded: bool = True,
) -> Memory:
    """Peak of greedy generation; ``prompt``: the longest one.

    ``folded``: the soup is added to the weights and the original ones are put aside, so adapted
    weights are there twice, and one module's sum is taken in float32.
    """
    width = BYTES.get(dtype, 2)
    parts = {
        "weights": weight_bytes(shape, dtype),
        "keys and values": batch * (prompt + new) * kv_bytes(shape, dtype) * (1 + 1 / shape.layers),
        "activations": batch * prompt * (4 * shape.intermediate + 6 * shape.hidden) * width,
        "logits": batch * shape.vocab * LOGIT_BYTES,
    }
    if folded:
        largest = max(a * b for a, b in shape.linears.values())
        parts["adapted weights put aside"] = width * shape.adapted_parameters(targets)
        parts["one sum in float32"] = 8 * largest
    return Memory(parts)


def merge_memory(
    shape: ModelShape, targets: Sequence[str], rank: int, k: int, dense: bool
) -> Memory:
    """Peak of merging k LoRAs on the CPU: the inputs, the result, and what one module needs.

    ``dense``: methods that prune delta weights give a result of full rank: one factor as large as
    the weight it adapts, the other an identity.
    """
    factors = 4 * shape.lora_parameters(targets, rank)
    modules = [shape.linears[name] for name in targets]
    largest = 4 * max(a * b for a, b in modules)
    if not dense:
        return Memory({"LoRAs": k * factors, "result": k * factors})
    result = 4 * shape.layers * sum(a * b + min(a, b) ** 2 for a, b in modules)
    return Memory(
        {"LoRAs": k * factors, "dense result": result, "one module": (3 * k + 3) * largest}
    )
