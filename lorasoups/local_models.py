"""Whether a base model is at hand, and its shape; nothing is downloaded."""

from dataclasses import dataclass
from pathlib import Path

from lorasoups.errors import SoupError
from lorasoups.shapes import KNOWN, ModelShape, from_config, from_config_file

GATED = {"meta-llama/": "yahma/llama-7b-hf (Llama 1, the paper's)"}
"""Beginning of a Hub id whose licence has to be accepted -> what is free of that."""


@dataclass(frozen=True)
class FoundBase:
    """What is known of a base model on this machine.

    Attributes:
        spec: as it was given.
        kind: ``folder``, ``gguf`` or ``hub``.
        here: its weights are on this machine.
        shape: None where nothing tells it.
        gated: it needs a licence to be accepted on the Hub.
        instead: for a gated model, one that is not.
        wrong: why a local model cannot be used (a SoupError's text), "" if nothing is wrong.
    """

    spec: str
    kind: str
    here: bool
    shape: ModelShape | None
    gated: bool = False
    instead: str = ""
    wrong: str = ""


def find_base(spec: str, project: Path) -> FoundBase:
    """Look for a base: a folder (of the project, or any), a GGUF file, a wheel, the Hub's cache.

    Raises:
        SoupError: not a folder, not a file, and not of a Hub id's form.
    """
    from lorasoups.base_models import _HUB_ID, cached_snapshot
    from lorasoups.model_wheels import WHEELS

    inside = project / spec
    path = inside if inside.exists() else Path(spec).expanduser()
    if path.is_dir():
        return _folder(spec, path)
    if spec in WHEELS or path.suffix == ".gguf":
        return _gguf(spec, path)
    if path.exists() or not _HUB_ID.fullmatch(spec):
        raise SoupError(
            f"no base model: {spec}; give a folder with config.json and *.safetensors, a .gguf "
            f"file, {', '.join(WHEELS)}, or a Hub id (organisation/name)"
        )
    name, _, revision = spec.partition("@")
    snapshot = cached_snapshot(name, revision or None)
    if snapshot:
        shape = from_config_file(snapshot / "config.json", name)
    else:
        shape = KNOWN.get(name) or _cached_config(name, revision or None)
    instead = next((v for start, v in GATED.items() if name.startswith(start)), "")
    return FoundBase(spec, "hub", snapshot is not None, shape, bool(instead), instead)


def tokenizer_file(spec: str, project: Path) -> Path:
    """Where a folder's ``tokenizer.json`` would be."""
    inside = project / spec
    return (inside if inside.exists() else Path(spec).expanduser()) / "tokenizer.json"


def _folder(spec: str, path: Path) -> FoundBase:
    wrong = ""
    if not any(path.glob("*.safetensors")):
        wrong = f"no *.safetensors: base model {spec}; save it as safetensors"
    try:
        shape = from_config_file(path / "config.json", path.name)
    except SoupError as error:
        shape, wrong = None, str(error)
    return FoundBase(spec, "folder", not wrong, shape, wrong=wrong)


def _gguf(spec: str, path: Path) -> FoundBase:
    from lorasoups.model_wheels import WHEELS, gguf_of_wheel

    shape = KNOWN.get(spec)
    try:
        if spec in WHEELS and not path.exists():
            path = gguf_of_wheel(spec)
        if not path.is_file():
            raise SoupError(f"no such GGUF file: {spec}; check the path")
        shape = shape or _gguf_shape(path)
    except SoupError as error:
        return FoundBase(spec, "gguf", False, shape, wrong=str(error))
    return FoundBase(spec, "gguf", True, shape)


def _gguf_shape(path: Path) -> ModelShape:
    """From the file's metadata; weights are not read."""
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError:
        raise SoupError(
            f"package gguf is missing, needed for {path.name}; pip install 'lorasoups[gguf]'"
        ) from None
    try:
        reader = GGUFReader(path)
        kind = reader.fields["general.architecture"].contents()
        get = {n: f.contents() for n, f in reader.fields.items() if n.startswith(f"{kind}.")}
        names = {tensor.name: tensor for tensor in reader.tensors}
        config = {
            "model_type": kind,
            "hidden_size": get[f"{kind}.embedding_length"],
            "intermediate_size": get[f"{kind}.feed_forward_length"],
            "num_hidden_layers": get[f"{kind}.block_count"],
            "num_attention_heads": get[f"{kind}.attention.head_count"],
            "num_key_value_heads": get.get(f"{kind}.attention.head_count_kv"),
            "vocab_size": max(int(n) for n in names["token_embd.weight"].shape),
            "tie_word_embeddings": "output.weight" not in names,
        }
    except Exception as error:  # the reader checks little: a damaged file fails anywhere
        line = " ".join(str(error).split())[:120]
        raise SoupError(f"not a sound GGUF file ({line}): {path}; copy it again") from error
    return from_config(config, path.name)


def _cached_config(name: str, revision: str | None) -> ModelShape | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return from_config_file(found, name) if isinstance(found, str) else None
