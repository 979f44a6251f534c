"""``lorasoups merge``: adapter folders into a soup (an adapter, a GGUF file or a full model); and
``inspect``: how they get along."""

from collections.abc import Sequence
from pathlib import Path

from lorasoups.errors import SoupError
from lorasoups.learning.alphas import Alphas
from lorasoups.learning.interference import cross_activation, interference
from lorasoups.lora import merging, serving
from lorasoups.lora.adapters import CONFIG, check_target, load_lora, save_lora
from lorasoups.lora.lora import pick_device
from lorasoups.models.base import base_config, load_base
from lorasoups.models.fetch import folder_of
from lorasoups.models.into_base import merge_into_base
from lorasoups.own.gguf_lora import write_gguf
from lorasoups.own.rows import read_data
from lorasoups.own.verify import VERIFIED, verify

FORMATS = ("peft", "gguf")
ROWS = 50  # of each skill: what cross-activation is measured on


def merge_folders(
    adapters: Sequence[str], out: str | Path, method: str, *, weights: list[float] | None,
    alphas: str | None, options: dict, rank: int | None, uniform_rank: bool, into_base: str | None,
    form: str, base: str | None, dtype: str | None, any_base: bool, device: str, overwrite: bool,
    check: bool = True,
) -> int:  # fmt: skip
    """Merge PEFT folders, write the soup and say what it is and what a server needs.

    ``weights``: one per LoRA; ``alphas``: a file of `Alphas` in their place. ``options``: of
    `merging.merge`. The soup goes to ``out`` as a PEFT folder, by ``form`` as a llama.cpp LoRA file
    for ``base`` (default: the adapter's), with ``into_base`` as that base with the soup added.
    ``check``: a PEFT folder is loaded with stock PEFT afterwards, where its base is given or is a
    folder here. Returns `verify`'s exit code, or 0. Raises SoupError as the functions that load,
    merge and write.
    """
    if form == "peft" and not into_base:
        check_target(Path(out), overwrite, Path(out, CONFIG).is_file(), "adapter", adapters)
    options = options | {"weights": Alphas.from_json(alphas) if alphas else weights}
    loras = [load_lora(folder_of(folder), device=pick_device(device)) for folder in adapters]
    soup = merging.merge(loras, method, rank=rank, **options)
    if rank:
        lost, worst, most = serving.rank_loss(loras, method, rank, **options)
        print(f"cut to rank {rank}: {lost:.2%} lost (Frobenius); worst {worst}: {most:.2%}")
    soup = serving.uniform_rank(soup) if uniform_rank else soup
    base = base or soup.base_model
    if into_base:
        how = {"any_base": any_base, "overwrite": overwrite}
        written = merge_into_base(soup, into_base, out, dtype=dtype or "auto", **how)
        print(f"{out}: {written['base']['name']} with the soup, {written['dtype']}")
        return VERIFIED
    if form != "peft":
        target = Path(out)
        if (target.exists() or target.is_symlink()) and not (overwrite and target.is_file()):
            raise SoupError(f"exists: {out}; give another --out, or --overwrite for a file")
        write_gguf(soup, base_config(base), target, dtype or "f32")
        print(f"{out}: a llama.cpp LoRA file at scale 1 (llama-server -m BASE --lora FILE)")
        return VERIFIED
    save_lora(soup, out, overwrite=overwrite)
    print(f"{out}: {soup!r}")
    print(serving.advice(soup))
    if check and (base != soup.base_model or Path(base or "-").is_dir()):
        return verify(out, base)
    print(f"not loaded for a check: lorasoups verify {out} --base BASE")
    return VERIFIED


def compare_folders(folders: Sequence[str], base: str = "", data: Sequence[str] = ()) -> dict:
    """`interference` of PEFT folders; with their base and a file of rows for each, also
    `cross_activation`, on the first `ROWS` rows."""
    if bool(base) != bool(data) or (data and len(data) != len(folders)):
        what = f"{len(data)} data files for {len(folders)} adapters: inspect"
        raise SoupError(f"{what}; give --base, and --data one file for each adapter, or neither")
    loras = [load_lora(folder_of(folder)) for folder in folders]
    compared = interference(loras)
    if base:
        model, tokenizer, _ = load_base(base)
        rows = [read_data(one, tokenizer).train[:ROWS] for one in data]
        compared["cross_activation"] = cross_activation(model, loras, rows)
    return compared
