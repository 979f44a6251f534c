"""``lorasoups verify``: does a soup load at its strength? By loading it as others do.

Adapters that load "successfully" at another strength, or do nothing, are what hurts users most:
here the logits of a foreign loader are compared with those of base weights + delta weights.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from lorasoups.errors import SoupError
from lorasoups.lora.adapters import load_lora
from lorasoups.lora.lora import LoRA
from lorasoups.models.base import load_base
from lorasoups.models.generation import folded, linear_layer
from lorasoups.own.gguf_lora import served, write_base, write_gguf

PROMPTS = ("The capital of France is", "def add(a, b):\n    return", "3 + 4 =")
TOLERANCE = 1e-3  # of a logit, in float32, relative to the largest change that the soup makes
VERIFIED, DIFFERS, UNCHECKED = 0, 1, 3  # exit codes


@torch.no_grad()
def logits_of(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[Tensor]:
    """Logits of every token of each prompt, float32 [tokens, vocabulary], on the CPU."""
    device = next(model.parameters()).device
    texts = [tokenizer(prompt, return_tensors="pt").input_ids.to(device) for prompt in prompts]
    return [model(input_ids=ids).logits[0].float().cpu() for ids in texts]


def verify(
    folder: str | Path, base: str, loaders: Sequence[str] = ("peft",),
    prompts: Sequence[str] = (), say: Callable[[str], Any] = print,
) -> int:  # fmt: skip
    """Check that an adapter folder works on a base; says what was found, returns the exit code.

    Every module must exist in the base with the adapter's shape, the logits must move, and those of
    each of ``loaders`` (names of `LOADERS`) must be the kit's own to `TOLERANCE`, on ``prompts``
    (default `PROMPTS`). 0: verified, 1: something differs, 3: something could not be checked.
    Raises SoupError for what cannot be loaded at all.
    """
    if unknown := [name for name in loaders if name not in LOADERS]:
        raise SoupError(f"unknown loader {unknown[0]!r}: --in; choose of {', '.join(LOADERS)}")
    lora, prompts = load_lora(folder), prompts or PROMPTS
    model, tokenizer, info = load_base(base)
    missing = []
    for name, factors in lora.modules.items():
        try:
            linear_layer(model, name, factors.shape)
        except SoupError as error:
            missing.append(str(error))
    if missing:
        say(f"DIFFERS  modules: {len(missing)} of {len(lora.modules)} do not fit, {missing[0]}")
        return DIFFERS
    say(f"ok       modules: all {len(lora.modules)} are in {info['name']}")
    plain = logits_of(model, tokenizer, prompts)
    with folded(model, lora):
        ours = logits_of(model, tokenizer, prompts)
    moved = distance(plain, ours)
    if moved == 0:
        say("DIFFERS  strength: the adapter changes no logit")
        return DIFFERS
    say(f"ok       strength: logits move by up to {moved:.3f}")
    codes = {VERIFIED}
    for name in loaders:
        try:
            off, what = LOADERS[name](folder, lora, model, tokenizer, prompts, plain, ours)
        except SoupError as why:
            say(f"UNCHECKED {name}: {why}")
            codes.add(UNCHECKED)
            continue
        same = off <= TOLERANCE * max(1.0, moved)
        found = f"{name}: largest difference {off:.1e} of {moved:.3f}, {what}"
        say(f"ok       {found}" if same else f"DIFFERS  {found}")
        codes.add(VERIFIED if same else DIFFERS)
    return DIFFERS if DIFFERS in codes else max(codes)


def distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The largest difference of two sets of logits."""
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def _in_peft(
    folder: str | Path, lora: LoRA, model: Any, tokenizer: Any, prompts: Sequence[str],
    plain: list[Tensor], ours: list[Tensor],
) -> tuple[float, str]:  # fmt: skip
    """Stock ``PeftModel.from_pretrained``."""
    wrapped = PeftModel.from_pretrained(model, str(folder))
    try:
        return distance(ours, logits_of(wrapped.eval(), tokenizer, prompts)), "logits"
    finally:
        wrapped.unload()


def _in_gguf(
    folder: str | Path, lora: LoRA, model: Any, tokenizer: Any, prompts: Sequence[str],
    plain: list[Tensor], ours: list[Tensor],
) -> tuple[float, str]:  # fmt: skip
    """A llama.cpp server with base and soup written as GGUF: with the soup, and at scale 0."""
    ids, off = [tokenizer(prompt).input_ids for prompt in prompts], 0.0
    requests = [(one, [scale]) for scale in (0.0, 1.0) for one in ids]
    with tempfile.TemporaryDirectory() as place:
        base, soup = Path(place, "base.gguf"), Path(place, "soup.gguf")
        write_base(model, base)
        write_gguf(lora, model.config, soup)
        tops = served(base, [soup], requests)
    for top, logits in zip(tops, [*plain, *ours], strict=True):
        log_p = logits[-1].log_softmax(-1)
        off = max(off, *(abs(value - float(log_p[i])) for i, value in top.items()))
    return off, "log-probabilities of the next token"


LOADERS: dict[str, Callable[..., tuple[float, str]]] = {"peft": _in_peft, "gguf": _in_gguf}
"""Name -> a way to load an adapter: the largest difference to ours, and of what. SoupError where
it cannot be tried."""
