"""``lorasoups push``: a soup onto the Hub, with a model card."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import ModelCard, ModelCardData

from lorasoups.errors import SoupError
from lorasoups.files import write_text_atomic
from lorasoups.lora.adapters import CONFIG, PROVENANCE
from lorasoups.models.hub_errors import explain_hub_error
from lorasoups.report.tables import markdown, short
from lorasoups.results.file import read_results

UPLOADED = ["*.safetensors", "adapter_config.json", "config.json", "generation_config.json",
            "model.safetensors.index.json", "tokenizer*", "special_tokens_map.json", "vocab.json",
            "merges.txt", "chat_template.jinja", "soup.json", "README.md"]  # fmt: skip
"""Nothing else leaves the folder."""
TEMPLATE = Path(__file__).with_name("model_card.md")


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    licence: str | None = None,
    results: str | Path | None = None,
    dry_run: bool = False,
) -> str:
    """Upload what `save_lora` or `merge_into_base` wrote; returns the address, or the card.

    Args:
        folder: of the soup; ``README.md`` is written into it.
        repo: ``name/model`` on the Hub; created if need be.
        private: of a new repository.
        licence: a Hub licence id; left out if not given.
        results: file of the run that the soup is of: data, licences, numbers.
        dry_run: only return the card.

    Raises:
        SoupError: no soup in the folder, unreadable results, or a Hub that refuses.
    """
    folder = Path(folder)
    if repo.count("/") != 1:
        raise SoupError(f"not of the form NAME/MODEL: {repo}; name a Hub repository")
    card = str(model_card(folder, repo, licence, read_results(results) if results else None))
    if dry_run:
        return card
    write_text_atomic(folder / "README.md", card)
    try:
        api = huggingface_hub.HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        sent = {"repo_id": repo, "folder_path": folder, "allow_patterns": UPLOADED}
        return str(api.upload_folder(**sent, commit_message="A LoRA soup"))
    except Exception as error:
        advice = "look at it with --dry-run"
        raise explain_hub_error(error, f"push to {repo}", advice) from error


def model_card(
    folder: Path, repo: str, licence: str | None = None, results: Mapping | None = None
) -> ModelCard:
    """The card of a soup: recipe, data with their licences, numbers, how to load it."""
    soup = _read(folder / PROVENANCE)
    adapter = (folder / CONFIG).is_file()
    config = _read(folder / CONFIG) if adapter else {}
    base = config["base_model_name_or_path"] if adapter else soup["base"]["name"]
    recipe = soup.get("provenance") or {}
    data = list((results or {}).get("config", {}).get("data", []))
    closed = {d["repo"] for d in data if "NC" in _words(d.get("licence"))}
    front = ModelCardData(
        base_model=base if base and "/" in base else None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        license=licence,
        tags=["lora-soups", "lora", "model-merging"],
        datasets=sorted({d["repo"] for d in data if not d["repo"].startswith("local/")}) or None,
    )
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
        if isinstance(weights, Mapping):
            values = [row[i] for row in weights.values()]
            mean, n = sum(values) / len(values), len(values)
            weight = (
                f"alpha {mean:.3f} on average, {min(values):.3f} to {max(values):.3f}, {n} modules"
            )
        else:
            weight = f"weight {weights[i]:g}" if weights else "weight not recorded"
        digest = f" (sha256 `{source['sha256'][:16]}`)" if source.get("sha256") else ""
        rows.append((f"{name}{digest}", weight))
    return rows


def _words(licence: str | None) -> list[str]:
    return (licence or "").upper().replace("-", " ").split()


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SoupError(
            f"cannot read ({error}): {file}; give a folder that `lorasoups merge` wrote"
        ) from error
    if not isinstance(content, dict):
        raise SoupError(f"not a JSON object: {file}; merge again")
    return content
