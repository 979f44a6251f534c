"""``lorasoups push``: a soup onto the Hub, with a model card."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import ModelCard, ModelCardData

from lorasoups.errors import SoupError
from lorasoups.files import read_json, write_text_atomic
from lorasoups.lora.adapters import CONFIG, PROVENANCE
from lorasoups.models.hub_errors import hub_errors
from lorasoups.report.tables import markdown, short
from lorasoups.results.file import read_results

UPLOADED = ["*.safetensors", "adapter_config.json", "config.json", "generation_config.json",
            "model.safetensors.index.json", "tokenizer*", "special_tokens_map.json", "vocab.json",
            "merges.txt", "chat_template.jinja", "soup.json", "README.md"]  # fmt: skip
"""Nothing else leaves the folder."""
TEMPLATE = Path(__file__).with_name("model_card.md")


def push(
    folder: str | Path, repo: str, *, private: bool = False, licence: str | None = None,
    results: str | Path | None = None, dry_run: bool = False,
) -> str:  # fmt: skip
    """Upload what `save_lora` or `merge_into_base` wrote; returns the address, or the card.

    The card becomes the folder's ``README.md`` (``dry_run``: is only returned). ``repo`` is created
    if need be; ``licence`` is a Hub licence id; ``results`` the file of the run of the soup.
    Raises SoupError: no soup in the folder, unreadable results, or a Hub that refuses.
    """
    folder = Path(folder)
    if repo.count("/") != 1:
        raise SoupError(f"not of the form NAME/MODEL: {repo}; name a Hub repository")
    card = str(model_card(folder, repo, licence, read_results(results) if results else None))
    if dry_run:
        return card
    write_text_atomic(folder / "README.md", card)
    with hub_errors(f"push to {repo}", "look at it with --dry-run"):
        api = huggingface_hub.HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        sent = {"repo_id": repo, "folder_path": folder, "allow_patterns": UPLOADED}
        return str(api.upload_folder(**sent, commit_message="A LoRA soup"))


def model_card(
    folder: Path, repo: str, licence: str | None = None, results: Mapping | None = None
) -> ModelCard:
    """The card of a soup: recipe, data with their licences, numbers, how to load it."""
    cure, adapter = "give a folder that `lorasoups merge` wrote", (folder / CONFIG).is_file()
    soup = read_json(folder / PROVENANCE, cure)
    config = read_json(folder / CONFIG, cure) if adapter else {}
    base = config["base_model_name_or_path"] if adapter else soup["base"]["name"]
    recipe = soup.get("provenance") or {}
    data = list((results or {}).get("config", {}).get("data", []))
    closed = {d["repo"] for d in data if re.search(r"\bNC\b", d.get("licence") or "", re.I)}
    front = ModelCardData(
        base_model=base if base and "/" in base else None, license=licence,
        library_name="peft" if adapter else "transformers", pipeline_tag="text-generation",
        tags=["lora-soups", "lora", "model-merging"],
        datasets=sorted({d["repo"] for d in data if not d["repo"].startswith("local/")}) or None,
    )  # fmt: skip
    return ModelCard.from_template(
        front, str(TEMPLATE), repo=repo, base=base, adapter=adapter, soup=soup,
        recipe=recipe, sources=_sources(recipe), data=data, closed=sorted(closed), results=results,
        seeds=len({row["seed"] for row in results["rows"]}) if results else 0,
        table=markdown(short(results)) if results else "",
    )  # fmt: skip


def _sources(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and weight of each LoRA of a merge."""
    rows, weights = [], recipe.get("weights")
    for i, source in enumerate(recipe.get("sources") or [recipe]):
        name = source.get("skill") or source.get("source") or f"adapter {i + 1}"
        digest = f" (sha256 `{source['sha256'][:16]}`)" if source.get("sha256") else ""
        weight = f"weight {weights[i]:g}" if isinstance(weights, list) else "weight not recorded"
        if isinstance(weights, Mapping):
            alphas = [row[i] for row in weights.values()]
            span = f"{min(alphas):.3f} to {max(alphas):.3f}, {len(alphas)} modules"
            weight = f"alpha {sum(alphas) / len(alphas):.3f} on average, {span}"
        rows.append((name + digest, weight))
    return rows
