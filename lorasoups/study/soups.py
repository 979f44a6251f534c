"""From a recipe to what is evaluated: an adapter, a mixture of adapters, or a longer prompt."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lorasoups.errors import SoupError
from lorasoups.files import write_json_atomic
from lorasoups.learning import lorahub, xlora
from lorasoups.lora import linalg, merging, methods
from lorasoups.lora.adapters import load_lora, save_lora
from lorasoups.lora.lora import LoRA
from lorasoups.lora.merging import merge
from lorasoups.study.digests import digest, lora_digest
from lorasoups.study.recipes import Recipe

if TYPE_CHECKING:
    from lorasoups.study.stages import Experiment

NO_ADAPTER = ("few_shot", "xlora")


def adapter(experiment: Experiment, recipe: Recipe, seed: int) -> LoRA | None:
    """The adapter of one row of the table; None for the base alone.

    Raises:
        SoupError: the method is no adapter (X-LoRA, few-shot prompting).
    """
    if recipe.kind in NO_ADAPTER:
        raise SoupError(f"{recipe.label} is no adapter: recipe {recipe.name!r}; use evaluate()")
    if recipe.kind == "base":
        return None
    if recipe.kind == "fresh":
        return experiment.fresh_lora(seed).lora
    if recipe.kind in ("skill", "mix"):
        return experiment.skill(recipe.name, seed).lora
    loras = experiment.pair(seed)
    if recipe.kind == "learned":
        return merge(loras, "cat", weights=experiment.alphas(seed, recipe.preset))
    if recipe.kind == "random":
        return merge(loras, "cat", weights=random_alphas(loras, seed))
    if recipe.kind == "lorahub":
        return load_lora(_hub(experiment, recipe.on, seed) / "adapter")
    return _static(loras, recipe, experiment.profile.density, seed)


def evaluate(experiment: Experiment, recipe: Recipe, task: str, seed: int) -> list[dict]:
    """Answers of one row of the table on one test set (see `Experiment.evaluate`)."""
    if recipe.kind == "few_shot":
        return experiment.answers(task, None, lambda: None, with_demos(experiment, task, seed))
    if recipe.kind == "xlora":
        return _by_mixture(experiment, task, seed)
    if recipe.kind == "static":
        return experiment.answers(
            task,
            _static_digest(experiment, recipe, seed),
            lambda: adapter(experiment, recipe, seed),
        )
    return experiment.evaluate_adapter(adapter(experiment, recipe, seed), task)


# --- static merges ------------------------------------------------------------------------------


def _options(recipe: Recipe, density: float, seed: int) -> dict:
    allowed = methods.METHODS[recipe.method].options
    given = {"density": density} if "density" in allowed and recipe.method != "knots" else {}
    return given | ({"seed": seed} if "seed" in allowed else {})


def _static(loras: Sequence[LoRA], recipe: Recipe, density: float, seed: int) -> LoRA:
    weights = None if recipe.weight is None else [recipe.weight] * len(loras)
    options = _options(recipe, density, seed)
    return merge(loras, recipe.method, weights=weights, on=recipe.on, **options)


def _static_digest(experiment: Experiment, recipe: Recipe, seed: int) -> str:
    """The digest of a static merge, remembered: a second run need not merge to know its name."""
    loras, density = experiment.pair(seed), experiment.profile.density
    inputs = {
        "loras": [lora_digest(lora) for lora in loras],
        "method": recipe.method,
        "on": recipe.on,
        "weight": recipe.weight,
        "options": _options(recipe, density, seed),
    }

    def make(folder: Path) -> None:
        merged = _static(loras, recipe, density, seed)
        write_json_atomic(folder / "digest.json", {"sha256": lora_digest(merged)})

    files = [getattr(methods, n) for n in ("base", "cat", "linear", "magnitude_prune", "ties")]
    own = methods.METHODS[recipe.method].fn
    folder = experiment.build("merge", inputs, make, [merging, linalg, *files, own])
    return json.loads((folder / "digest.json").read_text())["sha256"]


def random_alphas(loras: Sequence[LoRA], seed: int) -> dict[str, list[float]]:
    """Per module the softmax of standard normal numbers: where the released schedule starts."""
    generator = torch.Generator().manual_seed(seed)
    names = sorted({name for lora in loras for name in lora.modules})
    return {
        name: torch.randn(len(loras), generator=generator).softmax(0).tolist() for name in names
    }


# --- LoraHub and X-LoRA -------------------------------------------------------------------------


def _common(experiment: Experiment, seed: int) -> tuple[list[LoRA], list[dict], dict]:
    """LoRAs, alpha data, and what of them names an artifact."""
    loras, rows = experiment.pair(seed), experiment.alpha_rows(seed)
    inputs = {
        "base": experiment.source.key,
        "loras": [lora_digest(lora) for lora in loras],
        "rows": digest(rows),
        "seed": seed,
    }
    return loras, rows, inputs


def _hub(experiment: Experiment, on: str, seed: int) -> Path:
    loras, rows, inputs = _common(experiment, seed)
    inputs |= {"on": on, "budget": experiment.profile.budget}

    def make(folder: Path) -> None:
        found = lorahub.lorahub(
            experiment.source.model, loras, rows, on=on, budget=experiment.profile.budget, seed=seed
        )
        save_lora(found.lora, folder / "adapter")
        write_json_atomic(
            folder / "search.json", {"weights": found.weights, "history": found.history}
        )

    return experiment.build("lorahub", inputs, make, [lorahub])


def hub_weights(experiment: Experiment, on: str, seed: int) -> list[float]:
    """LoraHub's weight per LoRA."""
    return json.loads((_hub(experiment, on, seed) / "search.json").read_text())["weights"]


def mixture(experiment: Experiment, seed: int) -> tuple[xlora.XLora, str]:
    """The trained X-LoRA gate over the skills' LoRAs, and the name of its artifact."""
    loras, rows, inputs = _common(experiment, seed)
    a = experiment.profile.alphas
    inputs |= {"epochs": a.epochs, "batch_size": a.batch_size}

    def make(folder: Path) -> None:
        gate = xlora.train_xlora(
            experiment.source.model,
            loras,
            rows,
            epochs=a.epochs,
            batch_size=a.batch_size,
            seed=seed,
        )
        gate.save(folder)

    folder = experiment.build("xlora", inputs, make, [xlora])
    return xlora.XLora.load(folder), folder.name


def _by_mixture(experiment: Experiment, task: str, seed: int) -> list[dict]:
    gate, name = mixture(experiment, seed)

    def mixed() -> AbstractContextManager:
        return xlora.mixed(experiment.source.model, experiment.pair(seed), gate)

    return experiment.answers(task, None, lambda: None, mixture=mixed, more={"mixture": name})


# --- few-shot prompting -------------------------------------------------------------------------


def with_demos(experiment: Experiment, task: str, seed: int) -> list[dict]:
    """Test items whose prompts begin with solved training examples, one of every skill.

    The demonstrations are short ones, drawn by the seed; none is of the target task, which has no
    training data. A skill is left out where its example no longer fits the model's context.
    """
    rng = random.Random(f"demonstrations {seed}")
    tokenizer, p = experiment.source.tokenizer, experiment.profile
    items = experiment.items(task)
    room = getattr(experiment.source.model.config, "max_position_embeddings", 2048)
    room -= p.max_new_tokens + max(len(tokenizer(i["prompt"]).input_ids) for i in items)
    text = ""
    for skill in p.skills:
        pool = experiment.source.items(skill, "train", 100)
        pool = sorted(pool, key=lambda i: len(i["prompt"] + i["answer"]))[:30]
        chosen = rng.choice(pool)
        shown = f"{chosen['prompt']}{chosen['answer']}\n"
        if len(tokenizer(text + shown).input_ids) <= room:
            text += shown
    return [item | {"prompt": text + item["prompt"]} for item in items]
