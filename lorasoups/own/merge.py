"""``lorasoups merge``: adapter folders into a soup: an adapter, a GGUF file or a full model."""

from collections.abc import Sequence
from pathlib import Path

from lorasoups.learning.alphas import Alphas
from lorasoups.lora import merging, serving
from lorasoups.lora.adapters import load_lora, save_lora
from lorasoups.models.devices import pick_device
from lorasoups.models.into_base import merge_into_base
from lorasoups.own.gguf_lora import write_for


def merge_folders(
    adapters: Sequence[str], out: str | Path, method: str, *, weights: list[float] | None,
    alphas: str | None, options: dict, rank: int | None, uniform_rank: bool, into_base: str | None,
    gguf: bool, base: str | None, dtype: str | None, any_base: bool, device: str, overwrite: bool,
) -> None:  # fmt: skip
    """Merge PEFT folders, write the soup and say what it is and what a server needs.

    ``weights``: one per LoRA; ``alphas``: a file of `Alphas` in their place. ``options``: of
    `merging.merge`. The soup goes to ``out`` as a PEFT folder, with ``gguf`` as a llama.cpp LoRA
    file for ``base`` (default: the adapter's), with ``into_base`` as that base with the soup added.
    Raises SoupError as the functions that load, merge and write.
    """
    options = options | {"weights": Alphas.from_json(alphas) if alphas else weights}
    loras = [load_lora(folder, device=pick_device(device)) for folder in adapters]
    soup = merging.merge(loras, method, rank=rank, **options)
    if rank:
        lost, worst, most = serving.rank_loss(loras, method, rank, **options)
        print(f"cut to rank {rank}: {lost:.2%} lost (Frobenius); worst {worst}: {most:.2%}")
    soup = serving.uniform_rank(soup) if uniform_rank else soup
    if into_base:
        how = {"any_base": any_base, "overwrite": overwrite}
        written = merge_into_base(soup, into_base, out, dtype=dtype or "auto", **how)
        print(f"{out}: {written['base']['name']} with the soup, {written['dtype']}")
    elif gguf:
        write_for(base or soup.base_model, soup, out, dtype or "f32", overwrite)
        print(f"{out}: a llama.cpp LoRA file at scale 1 (llama-server -m BASE --lora FILE)")
    else:
        save_lora(soup, out, overwrite=overwrite)
        print(f"{out}: {soup!r}")
        print(serving.advice(soup))
