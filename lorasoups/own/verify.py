"""``lorasoups verify``: does a soup load at its strength? By loading it as others do.

Adapters that load "successfully" at another strength, or do nothing, are what hurts users most:
here the logits of a foreign loader are compared with those of base weights + delta weights.
"""

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor

from lorasoups.errors import SoupError
from lorasoups.files import read_json
from lorasoups.lora.adapters import PROVENANCE, load_lora
from lorasoups.models.base import load_base, optional
from lorasoups.models.generation import folded, linear_layer
from lorasoups.models.into_base import merge_into_base
from lorasoups.own.gguf_lora import TOP, served, write_base, write_gguf

PROMPTS = ("The capital of France is", "def add(a, b):\n    return", "3 + 4 =")
TOLERANCE = 1e-3  # of a logit, in float32, relative to the largest change that the soup makes
FAINT = 0.1  # changes no larger than this are too near to rounding to be compared so
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
    (default `PROMPTS`). 0: verified, 1: something differs, 3: something could not be checked (the
    adapter moves no logit by `FAINT`). Raises SoupError for what cannot be loaded at all.
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
    codes = {VERIFIED if moved > FAINT else UNCHECKED}
    say(f"{'ok   ' if moved > FAINT else 'FAINT'}    strength: logits move by up to {moved:.2g}")
    for name in loaders:
        try:
            off, what = LOADERS[name](folder, lora, model, tokenizer, prompts, plain, ours)
        except SoupError as why:
            say(f"UNCHECKED {name}: {why}")
            codes.add(UNCHECKED)
            continue
        same = off <= TOLERANCE * max(FAINT, moved)
        mark = "ok     " if same else "DIFFERS"
        say(f"{mark}  {name}: largest difference {off:.1e} of {moved:.2g}, {what}")
        codes.add(VERIFIED if same else DIFFERS)
    return DIFFERS if DIFFERS in codes else max(codes)


def verify_full(folder: str | Path, base: str, soup: str | Path) -> int:
    """Check a full model that ``merge --into-base`` wrote: the soup is added to the base again, and
    every tensor compared, bit by bit. Exit codes as `verify`.

    Raises SoupError for a folder that was not written so, and for what cannot be loaded.
    """
    cure = "give a folder that `lorasoups merge --into-base` wrote"
    dtype = read_json(Path(folder, PROVENANCE), cure).get("dtype")
    if dtype is None:
        raise SoupError(f"not a merged model: {folder}; {cure}")
    with tempfile.TemporaryDirectory() as place:
        again = Path(place, "again")
        merge_into_base(load_lora(soup), base, again, dtype=dtype, any_base=True)
        ours, theirs = _tensors(again), _tensors(Path(folder))
        odd = sorted(ours.keys() ^ theirs.keys())
        for name in sorted(ours.keys() & theirs.keys()):
            one, other = ours[name].get_tensor(name), theirs[name].get_tensor(name)
            odd += [] if one.dtype == other.dtype and torch.equal(one, other) else [name]
    if odd:
        print(f"DIFFERS  {len(odd)} of {len(ours)} tensors are not base + soup, {odd[0]}")
        return DIFFERS
    print(f"ok       replay: all {len(ours)} tensors are those of base + soup, bit by bit")
    return VERIFIED


def _tensors(folder: Path) -> dict[str, Any]:
    """Tensor name -> the opened file that holds it."""
    files = [safe_open(file, "pt") for file in sorted(folder.glob("*.safetensors"))]
    return {name: file for file in files for name in file.keys()}  # noqa: SIM118


def distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The largest difference of two sets of logits."""
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def _in_peft(folder, lora, model, tokenizer, prompts, plain, ours) -> tuple[float, str]:
    """Stock ``PeftModel.from_pretrained``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")  # PEFT asks for it
        wrapped = PeftModel.from_pretrained(model, str(folder))
    try:
        return distance(ours, logits_of(wrapped.eval(), tokenizer, prompts)), "logits"
    finally:
        wrapped.unload()


def _in_gguf(folder, lora, model, tokenizer, prompts, plain, ours) -> tuple[float, str]:
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


class _Prefill(torch.nn.Module):
    """A base with the inputs that OpenVINO GenAI feeds, for one step: it keeps no cache."""

    def __init__(self, base: Any):
        super().__init__()
        self.base = base  # node names then hold PEFT's module names, by which GenAI places a LoRA

    def forward(self, input_ids: Tensor, attention_mask: Tensor, beam_idx: Tensor) -> Tensor:
        ids = input_ids.index_select(0, beam_idx)
        return self.base(input_ids=ids, attention_mask=attention_mask, use_cache=False).logits


def _in_openvino(folder, lora, model, tokenizer, prompts, plain, ours) -> tuple[float, str]:
    """OpenVINO GenAI on the base traced in float32: without the soup, and at alpha 1.

    It ignores ``lora_alpha``: an adapter of another scale than 1 differs. On a base that it reads
    from GGUF a LoRA does nothing (2026.4), so the base is traced here.
    """
    ov, genai = optional("openvino", "OpenVINO"), optional("openvino_genai", "OpenVINO GenAI")
    ones = torch.ones(1, 7, dtype=torch.long)
    example = (ones, ones.clone(), torch.zeros(1, dtype=torch.int32))
    exact = {"INFERENCE_PRECISION_HINT": "f32", "ATTENTION_BACKEND": "SDPA"}
    beams = {"num_beams": TOP, "num_return_sequences": TOP}  # of one token: the likeliest tokens
    beams["eos_token_id"] = tokenizer.eos_token_id  # is ignored, but must be given
    off = 0.0
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's
        try:
            traced = ov.convert_model(_Prefill(model), example_input=example)
            shapes = {"input_ids": [-1, -1], "attention_mask": [-1, -1], "beam_idx": [-1]}
            for node, (name, shape) in zip(traced.inputs, shapes.items(), strict=True):
                node.get_tensor().set_names({name})
                node.get_node().set_partial_shape(ov.PartialShape(shape))
            traced.outputs[0].get_tensor().set_names({"logits"})
            traced.validate_nodes_and_infer_types()
            ov.save_model(traced, Path(place, "openvino_model.xml"), compress_to_fp16=False)
            soup = genai.AdapterConfig(genai.Adapter(Path(folder, "adapter_model.safetensors")), 1)
            pipe = genai.LLMPipeline(place, "CPU", adapters=soup, **exact)
            how = genai.GenerationConfig(max_new_tokens=1, ignore_eos=True, **beams)
            for adapters, wanted in ((genai.AdapterConfig(), plain), (soup, ours)):
                how.adapters = adapters
                for prompt, logits in zip(prompts, wanted, strict=True):
                    ids = tokenizer(prompt, return_tensors="np").input_ids
                    found, log_p = pipe.generate(ov.Tensor(ids), how), logits[-1].log_softmax(-1)
                    for (token,), value in zip(found.tokens, found.scores, strict=True):
                        off = max(off, abs(value - float(log_p[token])))
        except Exception as error:  # OpenVINO has several of its own
            raise SoupError(f"OpenVINO refuses ({error}): {folder}") from error
    return off, "log-probabilities of the next token"


LOADERS = {"peft": _in_peft, "gguf": _in_gguf, "openvino": _in_openvino}
"""Name -> a way to load an adapter: the largest difference to ours, and of what. It is given folder
and `LoRA`, the base with its tokenizer, prompts, and their logits (`logits_of`) without the adapter
and with it, by our own means. SoupError where it cannot be tried."""
