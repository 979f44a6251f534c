"""The stages of the headline experiment: train skills, learn alphas, merge, evaluate.

Every stage writes an artifact whose name is the hash of everything that determines it
(`store.Store`), so that notebooks share work, a second run reuses it and an interrupted one goes on
where it stopped.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from lorasoups import alphas as alphas_module
from lorasoups import batching, cat, evaluation, programs, sandbox, scoring, training, words
from lorasoups.adapters import load_lora, save_lora
from lorasoups.alphas import Alphas, learn_alphas
from lorasoups.batching import heldout_loss
from lorasoups.evaluation import folded, generate
from lorasoups.files import write_json_atomic
from lorasoups.lora import LoRA
from lorasoups.merging import merge
from lorasoups.paths import Folders
from lorasoups.profiles import Profile, get_profile
from lorasoups.recipes import RECIPES, Recipe
from lorasoups.sources import Source, open_source
from lorasoups.store import MANIFEST, Store, canonical_json
from lorasoups.training import encode, train_lora

TRAINING_CODE = (training.train_lora, training._arguments, batching.LengthBatches, batching._epoch)
WORDS_TASKS = ("math",)  # answered in words: the last number counts; all others run a program


@dataclass(frozen=True)
class Skill:
    """A trained skill: its adapter and the log of its training."""

    lora: LoRA
    log: dict


class Experiment:
    """One profile with its folders, its store and its base model.

    Args:
        profile: name of a profile, or a `Profile`.
        seeds: how many seeds ``0 .. seeds - 1`` belong to the run.
        out: folder for results, figures and cache; empty: the project itself.
        fresh: stages (``skill``, ``alphas``, ``evaluate``) that are built again although their
            artifact is there.
    """

    def __init__(
        self,
        profile: str | Profile = "mini",
        seeds: int = 1,
        out: str | Path = "",
        fresh: Sequence[str] = (),
    ):
        self.profile = get_profile(profile) if isinstance(profile, str) else profile
        self.seeds = tuple(range(seeds))
        self.folders = Folders(out=out)
        self.store = Store(self.folders.cache)
        self._fresh = set(fresh)
        self._done: set[Path] = set()
        self._skills: dict[tuple[str, int], Skill] = {}

    @cached_property
    def source(self) -> Source:
        """Base model, tokenizer and data of the profile."""
        return open_source(self.profile, self.folders.project)

    def _build(self, stage: str, inputs: dict, make, code: Sequence) -> Path:
        folder = self.store.path(stage, inputs, code)
        force = stage in self._fresh and folder not in self._done
        self._done.add(folder)
        return self.store.build(stage, inputs, make, code, force=force)

    # --- skills ---------------------------------------------------------------------------------

    def _training(self, name: str) -> tuple[tuple[str, ...], training.SkillTraining]:
        """Which skills' data an adapter is trained on, and how."""
        if not name.startswith("data_mix"):
            return (name,), self._skill_config(name)
        skills = self.profile.skills
        steps = sum(self._skill_config(skill).steps for skill in skills)
        grow = len(skills) if name == "data_mix_2r" else 1  # lora_alpha grows too: s stays
        base = self.profile.training.on(self.source.model.device.type)
        return skills, replace(
            base, steps=steps, r=base.r * grow, lora_alpha=base.lora_alpha * grow
        )

    def _skill_config(self, skill: str) -> training.SkillTraining:
        config = replace(self.profile.training, **self.profile.by_skill.get(skill, {}))
        return config.on(self.source.model.device.type)

    def skill(self, name: str, seed: int) -> Skill:
        """The LoRA of one skill, or of ``data_mix`` / ``data_mix_2r``, trained if need be."""
        if (name, seed) in self._skills:
            return self._skills[name, seed]
        skills, config = self._training(name)
        rows = [row for s in skills for row in self._encoded(s)]
        inputs = {
            "base": self.source.key,
            "rows": _digest(rows),
            "config": asdict(config),
            "seed": seed,
        }

        def make(folder: Path) -> None:
            lora, log = train_lora(self.source.model, rows, config, seed, self.source.name)
            lora = replace(lora, provenance={"skill": name, "seed": seed, "steps": config.steps})
            save_lora(lora, folder / "adapter")
            write_json_atomic(folder / "log.json", log)

        folder = self._build("skill", inputs, make, TRAINING_CODE)
        log = json.loads((folder / "log.json").read_text())
        found = Skill(load_lora(folder / "adapter"), log)
        return self._skills.setdefault((name, seed), found)

    def pair(self, seed: int) -> list[LoRA]:
        """The two skills' LoRAs, in the order of CAT's alphas."""
        return [self.skill(name, seed).lora for name in self.profile.skills]

    def _encoded(self, skill: str, split: str = "train", n: int | None = None) -> list[dict]:
        items = self.source.items(skill, split, n or self.profile.n_train)
        return encode(self.source.tokenizer, items)

    # --- alphas ---------------------------------------------------------------------------------

    def alpha_rows(self, seed: int) -> list[dict]:
        """5 % of each skill's own training data, drawn by the seed; never the target task's."""
        rng = random.Random(f"alpha data {seed}")
        rows = []
        for name in self.profile.skills:
            own = self._encoded(name)
            rows += rng.sample(own, max(1, round(self.profile.alphas.share * len(own))))
        return rows

    @cached_property
    def held_out(self) -> dict[str, list[dict]]:
        """Validation rows of each skill: what lr, normalisation and init are chosen on."""
        n = self.profile.alphas.n_held_out
        return {name: self._encoded(name, "validation", n) for name in self.profile.skills}

    def _learn(self, seed: int, options: dict) -> tuple[Alphas, float]:
        """Learn alphas with ``options`` and measure the mean held-out loss of the skills."""
        rows, loras = self.alpha_rows(seed), self.pair(seed)
        inputs = {
            "base": self.source.key,
            "loras": [_lora_digest(lora) for lora in loras],
            "rows": _digest(rows),
            "held_out": _digest(list(self.held_out.values())),
            "options": options,
            "seed": seed,
        }

        def make(folder: Path) -> None:
            model = self.source.model
            learned = learn_alphas(model, loras, rows, seed=seed, **options)
            soup = merge(loras, "cat", weights=learned)
            with folded(model, soup):
                losses = [heldout_loss(model, own) for own in self.held_out.values()]
            learned.to_json(folder / "alphas.json")
            write_json_atomic(folder / "held_out.json", {"loss": sum(losses) / len(losses)})

        folder = self._build("alphas", inputs, make, [cat, alphas_module, batching])
        loss = json.loads((folder / "held_out.json").read_text())["loss"]
        return Alphas.from_json(folder / "alphas.json"), loss

    def _options(self, normalise: str, init: str, lr: float) -> dict:
        a = self.profile.alphas
        return {"normalise": normalise, "init": init, "lr": lr, "epochs": a.epochs,
                "batch_size": a.batch_size}  # fmt: skip

    @cached_property
    def sweep(self) -> list[dict]:
        """Every combination of the grid on the first seed, with its held-out skill loss.

        The lowest loss is ``chosen``; the target task plays no part in it.
        """
        entries = []
        for normalise, init, lr in self.profile.alphas.grid:
            _, loss = self._learn(self.seeds[0], self._options(normalise, init, lr))
            entries.append({"seed": self.seeds[0], "normalise": normalise, "init": init, "lr": lr,
                            "heldout_loss": loss, "chosen": False})  # fmt: skip
        min(entries, key=lambda e: e["heldout_loss"])["chosen"] = True
        return entries

    def alphas(self, seed: int, preset: str = "ours") -> Alphas:
        """CAT's alphas: ``ours`` (the sweep's choice), ``global`` (the same, one alpha per LoRA),
        ``lr0`` (its start), ``released``."""
        return self._learn(seed, self.alpha_options(preset))[0]

    def alpha_options(self, preset: str) -> dict:
        """The arguments of `learn_alphas` that a preset stands for."""
        if preset == "released":
            return {"preset": "released"}
        best = next(entry for entry in self.sweep if entry["chosen"])
        lr = 0.0 if preset == "lr0" else best["lr"]
        options = self._options(best["normalise"], best["init"], lr)
        return options | ({"granularity": "global"} if preset == "global" else {})

    def swept_soup(self, entry: dict) -> LoRA:
        """The soup of one entry of the sweep, on the sweep's seed."""
        options = self._options(entry["normalise"], entry["init"], entry["lr"])
        return merge(
            self.pair(entry["seed"]), "cat", weights=self._learn(entry["seed"], options)[0]
        )

    # --- soups ----------------------------------------------------------------------------------

    def adapter(self, name: str, seed: int) -> LoRA | None:
        """The adapter of one row of the table; None for the base alone."""
        recipe = RECIPES[name]
        if recipe.kind == "base":
            return None
        if recipe.kind in ("skill", "mix"):
            return self.skill(name, seed).lora
        return self._soup(recipe, seed)

    def _soup(self, recipe: Recipe, seed: int) -> LoRA:
        loras = self.pair(seed)
        if recipe.kind == "learned":
            return merge(loras, "cat", weights=self.alphas(seed, recipe.preset))
        if recipe.kind == "random":
            return merge(loras, "cat", weights=random_alphas(loras, seed))
        options = {}
        if recipe.method not in ("linear", "svd"):
            options["density"] = self.profile.density
        if recipe.method.startswith("dare"):
            options["seed"] = seed
        weights = None if recipe.weight is None else [recipe.weight] * len(loras)
        return merge(loras, recipe.method, weights=weights, on=recipe.on, **options)

    # --- evaluation -----------------------------------------------------------------------------

    def evaluate(self, name: str, task: str, seed: int) -> list[dict]:
        """Answers and outcomes of one method on one test set, in the set's order.

        Returns:
            dicts ``{text, outcome, value}`` per problem; ``outcome`` is ``ok`` where the program
            (for ``math``: the last number in the words) gives the target.
        """
        return self.evaluate_adapter(self.adapter(name, seed), task)

    def evaluate_adapter(self, lora: LoRA | None, task: str) -> list[dict]:
        """The same for any adapter; None is the base alone."""
        p = self.profile
        items = self.source.items(task, "test", p.n_test[task])
        inputs = {
            "base": self.source.key,
            "adapter": _lora_digest(lora) if lora else None,
            "items": _digest([[i["prompt"], i["target"]] for i in items]),
            "words": task in WORDS_TASKS,
            "max_new_tokens": p.max_new_tokens,
            "batch": p.eval_batch,
        }

        def make(folder: Path) -> None:
            with folded(self.source.model, lora) as model:
                texts = generate(model, self.source.tokenizer, [i["prompt"] for i in items],
                                 p.max_new_tokens, p.eval_batch)  # fmt: skip
            judge = scoring.score_words if task in WORDS_TASKS else scoring.score
            verdicts = judge(texts, [i["target"] for i in items])
            lines = [
                {"text": text, "outcome": v.outcome, "value": repr(v.value)}
                for text, v in zip(texts, verdicts, strict=True)
            ]
            write_json_atomic(folder / "verdicts.json", lines)

        folder = self._build(
            "evaluate", inputs, make, [evaluation, programs, sandbox, scoring, words]
        )
        return json.loads((folder / "verdicts.json").read_text())

    def views(self, task: str) -> dict[str, np.ndarray]:
        """Parts of a test set by name, as masks over its items; every set has ``all``."""
        return self.source.views(task, self.profile.n_test[task])

    # --- provenance -----------------------------------------------------------------------------

    def config(self) -> dict:
        """The profile as plain JSON values, and what base and data are. No paths."""
        return {**json.loads(json.dumps(asdict(self.profile))), "base": self.source.name,
                "seeds": list(self.seeds), "base_info": self.source.info,
                "data": self.source.data(), "threads": torch.get_num_threads()}  # fmt: skip

    def timings(self) -> dict[str, float]:
        """Seconds that the artifacts of this run took to build, per stage (in whichever run)."""
        seconds: dict[str, float] = {}
        for folder in sorted(self._done):
            manifest = json.loads((folder / MANIFEST).read_text())
            stage = manifest["stage"]
            seconds[stage] = round(seconds.get(stage, 0.0) + manifest["seconds"], 3)
        return seconds


def random_alphas(loras: Sequence[LoRA], seed: int) -> dict[str, list[float]]:
    """Per module the softmax of standard normal numbers: where the released schedule starts."""
    generator = torch.Generator().manual_seed(seed)
    names = sorted({name for lora in loras for name in lora.modules})
    return {
        name: torch.randn(len(loras), generator=generator).softmax(0).tolist() for name in names
    }


def _digest(value) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _lora_digest(lora: LoRA) -> str:
    """sha256 of an adapter's numbers: two ways to the same soup share their evaluation."""
    digest = hashlib.sha256()
    for name in sorted(lora.modules):
        factors = lora.modules[name]
        for tensor in (factors.A, factors.B):
            digest.update(
                f"{name}{tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes()
            )
    return digest.hexdigest()
