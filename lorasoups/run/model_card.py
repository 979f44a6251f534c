"""The model card of a soup: recipe, data with their licences, numbers, how to load it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from lorasoups.errors import SoupError
from lorasoups.lora.adapters import CONFIG, PROVENANCE
from lorasoups.report.tables import markdown, short

NON_COMMERCIAL = "NC"


def model_card(
    folder: str | Path,
    repo: str,
    *,
    licence: str | None = None,
    results: Mapping[str, Any] | None = None,
) -> ModelCard:
    """The card of an adapter folder (`save_lora`) or of a full model (`merge_into_base`).

    Args:
        folder: holds ``soup.json``.
        repo: where it will lie on the Hub, ``name/model``.
        licence: of the soup, a Hub licence id; left out if not given.
        results: a results file of the run that the soup is of: data, licences, numbers.

    Raises:
        SoupError: no ``soup.json``.
    """
    folder = Path(folder)
    made = _read(folder / PROVENANCE)
    adapter = (folder / CONFIG).is_file()
    base = (
        _read(folder / CONFIG).get("base_model_name_or_path") if adapter else made["base"]["name"]
    )
    data = list((results or {}).get("config", {}).get("data", []))
    front = ModelCardData(
        base_model=base if base and "/" in base else None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        license=licence,
        tags=["lora-soups", "lora", "model-merging"],
        datasets=sorted({d["repo"] for d in data if not d["repo"].startswith("local/")}) or None,
    )
    parts = [
        f"---\n{front.to_yaml()}\n---",
        f"# {repo.split('/')[-1]}",
        f"A LoRA soup of `{base or 'an unnamed base'}`, made with lorasoups "
        f"{made.get('lorasoups', '')} after "
        "[LoRA Soups, arXiv 2410.13025](https://arxiv.org/abs/2410.13025).",
        "## Recipe",
        _recipe(made.get("provenance") or {}),
        "## Training data",
        _data(data),
        "## Numbers",
        _numbers(results),
        "## Use",
        _use(repo, base or "BASE", adapter, made),
        "## Limits",
        _limits(results),
    ]
    return ModelCard("\n\n".join(parts) + "\n")


def _recipe(made: Mapping[str, Any]) -> str:
    if not made:
        return "Not recorded."
    weights, sources = made.get("weights"), made.get("sources") or [made]
    lines = [f"- method: {made.get('method', 'a single adapter')}, on {made.get('on', '-')}"]
    options = made.get("options") or {}
    if options:
        lines.append("- options: " + ", ".join(f"{k} = {v}" for k, v in options.items()))
    if made.get("rank"):
        lines.append(f"- cut to rank {made['rank']}")
    for i, source in enumerate(sources):
        name = source.get("skill") or source.get("source") or f"adapter {i + 1}"
        told = f" (sha256 `{source['sha256'][:16]}`)" if source.get("sha256") else ""
        lines.append(f"- {name}{told}: {_weight(weights, i)}")
    return "\n".join(lines)


def _weight(weights: Any, i: int) -> str:
    if isinstance(weights, Mapping) and weights:
        own = [row[i] for row in weights.values()]
        mean = sum(own) / len(own)
        return (
            f"alpha {mean:.3f} on average, {min(own):.3f} to {max(own):.3f} over {len(own)} modules"
        )
    return f"weight {weights[i]:g}" if weights else "weight not recorded"


def _data(data: list[Mapping[str, Any]]) -> str:
    if not data:
        return "Not recorded here: push with `--results` of the run to name data and licences."
    lines = []
    for own in data:
        instead = f"; stands in for {own['stand_in_for']}" if own.get("stand_in_for") else ""
        part = f"; not the whole set: {own['note']}" if own.get("complete") is False else ""
        lines.append(
            f"- {own['repo']} ({own['split']}, {own['rows']} rows), "
            f"licence: {own.get('licence') or 'not stated'}{instead}{part}"
        )
    closed = sorted({d["repo"] for d in data if NON_COMMERCIAL in _words(d.get("licence"))})
    if closed:
        lines.append(
            f"\n**Non-commercial data:** {', '.join(closed)}. Check whether your use is allowed."
        )
    return "\n".join(lines)


def _words(licence: str | None) -> list[str]:
    return (licence or "").upper().replace("-", " ").split()


def _numbers(results: Mapping[str, Any] | None) -> str:
    if not results:
        return "None given."
    n = results["rows"][0]["n"]
    task, device = results["config"]["target"], results["provenance"]["device"]
    note = f"\n\n{results['config']['note']}." if results["config"].get("note") else ""
    return f"{task}, {n} problems, measured on {device}:\n\n{markdown(short(results))}{note}"


def _use(repo: str, base: str, adapter: bool, made: Mapping[str, Any]) -> str:
    if not adapter:
        return (
            "```python\nfrom transformers import AutoModelForCausalLM\n\n"
            f'model = AutoModelForCausalLM.from_pretrained("{repo}")\n```\n\n'
            f"```bash\nvllm serve {repo}\n```"
        )
    rank = (made.get("serve") or {}).get("vllm_max_lora_rank")
    served = (
        f"```bash\nvllm serve {base} --enable-lora --max-lora-rank {rank} "
        f"--lora-modules soup={repo}\n```"
        if rank
        else "The rank is above what vLLM serves: fold the soup into its base."
    )
    return (
        "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f'base = AutoModelForCausalLM.from_pretrained("{base}")\n'
        f'model = PeftModel.from_pretrained(base, "{repo}")\n```\n\n{served}'
    )


def _limits(results: Mapping[str, Any] | None) -> str:
    common = "A soup inherits the limits and licences of its base and of the data of its LoRAs."
    seeds = len({row["seed"] for row in (results or {}).get("rows", [])})
    return f"{common} The numbers are of {seeds} seed(s)." if seeds else common


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
