"""Loading a frozen base model with its tokenizer: a folder, a GGUF file, or a Hub id.

Only safetensors and GGUF are read: both are data, no code. Nothing from a repository is executed.
"""

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorasoups.errors import SoupError
from lorasoups.files import sha256_file
from lorasoups.hub_errors import explain_hub_error

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?:@[\w./-]+)?")
_FROM_HUB = ["*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer.model", "*.txt",
             "*.jinja"]  # fmt: skip


def load_base(
    spec: str | Path, *, dtype: str = "float32", attn_implementation: str | None = None
) -> tuple[Any, Any, dict]:
    """Load a causal LM and its tokenizer.

    A tokenizer without a pad token gets one (its end or unknown token; no new embedding row).

    Args:
        spec: a folder with ``config.json`` and safetensors, a ``.gguf`` file (its weights are
            dequantised), or a Hub id ``organisation/name``, optionally ``@revision``.
        dtype: of the weights: ``float32``, ``bfloat16``, ``float16`` or ``auto`` (as stored).
        attn_implementation: ``eager``, ``sdpa``, ...; None leaves the choice to transformers.

    Returns:
        ``(model, tokenizer, info)``; ``info`` is ``{kind, name, sha256, revision, quantisation}``.
        ``name`` is never a path of this machine; ``sha256`` is that of the weight file(s)' and the
        tokenizer files' sha256, in the order of their names.

    Raises:
        SoupError: nothing there, only pickled weights, damaged files, an architecture or a
            tokenizer that transformers cannot build without foreign code, or a Hub that cannot be
            asked.
    """
    path = Path(spec).expanduser()
    if path.suffix == ".gguf":
        return _load_gguf(path, dtype, attn_implementation)
    if path.is_dir():
        kind, name, revision = "folder", path.resolve().name, None
    elif path.exists():
        raise SoupError(f"not a model: {path}; give a folder, a .gguf file or a Hub id")
    elif _HUB_ID.fullmatch(str(spec)):
        kind, (name, _, revision) = "hub", str(spec).partition("@")
        path = _download(name, revision or None)
        revision = path.name  # a snapshot's folder is called by its commit
    else:
        raise SoupError(
            f"no such model folder: {spec}; give a folder, a .gguf file or a Hub id (org/name)"
        )
    weights = _weight_files(path)
    model, tokenizer = _from_pretrained(path, str(spec), dtype, attn_implementation)
    quantised = getattr(model.config, "quantization_config", None)
    info = {
        "kind": kind,
        "name": name,
        "sha256": _digest([*weights, *(path / f for f in TOKENIZER_FILES if (path / f).is_file())]),
        "revision": revision,
        "quantisation": _quantisation_name(quantised),
    }
    return model, tokenizer, info


def _load_gguf(path: Path, dtype: str, attention: str | None) -> tuple[Any, Any, dict]:
    if not path.is_file():
        raise SoupError(f"no such GGUF file: {path}; check the path")
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError:
        raise SoupError(
            f"package gguf is missing, needed for {path.name}; pip install 'lorasoups[gguf]'"
        ) from None
    try:
        kinds = Counter(tensor.tensor_type.name for tensor in GGUFReader(path).tensors)
    except Exception as error:  # the reader checks little: a damaged file fails anywhere
        raise SoupError(
            f"not a sound GGUF file ({_line(error)}): {path}; download it again"
        ) from error
    quantised = {kind: n for kind, n in kinds.items() if kind not in ("F32", "F16", "BF16")}
    model, tokenizer = _from_pretrained(path.parent, path.name, dtype, attention, path.name)
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config  # what is in memory is dequantised
    info = {
        "kind": "gguf",
        "name": path.name,
        "sha256": _digest([path]),
        "revision": None,
        "quantisation": max(quantised, key=quantised.__getitem__) if quantised else None,
    }
    return model, tokenizer, info


def _from_pretrained(
    folder: Path, shown: str, dtype: str, attention: str | None, gguf_file: str | None = None
) -> tuple[Any, Any]:
    """Model in eval mode and tokenizer from local files alone."""
    common = {"trust_remote_code": False, "local_files_only": True}
    if gguf_file:
        common["gguf_file"] = gguf_file
    options = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    if attention:
        options["attn_implementation"] = attention
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **common)
    except Exception as error:
        raise SoupError(
            f"the tokenizer does not load ({_line(error)}): {shown}; "
            "the folder needs a tokenizer.json and a tokenizer_config.json"
        ) from error
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, **common, **options
        )
    except Exception as error:
        raise SoupError(
            f"the model does not load ({_line(error)}): {shown}; check its files, and that "
            "transformers knows its architecture (code from a repository is not run)"
        ) from error
    _fit(model, tokenizer, shown)
    return model.eval(), tokenizer


def _fit(model: Any, tokenizer: Any, shown: str) -> None:
    """Pad and end tokens on both sides; ids that fit the embedding."""
    if tokenizer.eos_token_id is None:
        raise SoupError(
            f"the tokenizer has no end token: {shown}; set eos_token in tokenizer_config.json"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise SoupError(
            f"tokenizer of {len(tokenizer)} tokens, embedding of {rows} rows: {shown}; "
            "take the tokenizer that the model was trained with"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    if model.generation_config.eos_token_id is None:
        model.generation_config.eos_token_id = tokenizer.eos_token_id


def _weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors, each with a sound header. Raises SoupError."""
    if not (folder / "config.json").is_file():
        raise SoupError(f"no config.json: {folder}; is this the folder of a whole model?")
    files = sorted(p for p in folder.glob("*.safetensors") if not p.name.startswith("adapter_"))
    if not files:
        pickles = [p.name for p in sorted(folder.iterdir()) if p.suffix in PICKLES]
        if pickles:
            raise SoupError(
                f"only pickled weights ({pickles[0]}), which can run code: {folder}; "
                "convert them to safetensors"
            )
        raise SoupError(f"no .safetensors weights: {folder}; download the model again")
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            raise SoupError(
                f"damaged weights ({_line(error)}): {file}; download the model again"
            ) from error
    return files


def _download(name: str, revision: str | None) -> Path:
    """Folder of a Hub model's snapshot, from the cache or the Hub; no pickles are fetched."""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FROM_HUB))
    except Exception as error:
        raise explain_hub_error(
            error, f"model {name}", "give a local folder or a .gguf file as --base"
        ) from error


def _quantisation_name(config: Any) -> str | None:
    if config is None:
        return None
    fields = config if isinstance(config, dict) else config.to_dict()
    return str(fields.get("quant_method", "unknown"))


def _digest(files: list[Path]) -> str:
    """sha256 over the files' names and sha256; one file alone keeps its own."""
    if len(files) == 1:
        return sha256_file(files[0])
    lines = "".join(f"{file.name} {sha256_file(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _line(error: BaseException) -> str:
    """The first line of a message, at most 160 characters."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]
