"""The stages of a study: train skills, learn alphas, merge, evaluate.

Every stage writes an artifact whose name is the hash of everything that determines it
(`store.Store`), so that notebooks share work, a second run reuses it and an interrupted one goes on
where it stopped.
"""

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from lorasoups.files import write_json_atomic
from lorasoups.learning import alphas as alphas_module
from lorasoups.learning import cat
from lorasoups.learning import skills as training
from lorasoups.learning.alphas import Alphas, learn_alphas
from lorasoups.learning.attached import applied
from lorasoups.learning.skills import train_lora
from lorasoups.lora.adapters import load_lora, save_lora
from lorasoups.lora.lora import LoRA
from lorasoups.lora.merging import merge
from lorasoups.models import batching
from lorasoups.models.batching import heldout_loss
from lorasoups.models.distributed_generation import generate
from lorasoups.models.encoding import encode_all
from lorasoups.models.processes import is_main
from lorasoups.paths import Folders
from lorasoups.study import soups
from lorasoups.study.digests import digest, lora_digest
from lorasoups.study.distributed_store import open_store
from lorasoups.study.profiles import Profile, get_profile
from lorasoups.study.recipes import Recipe, recipes_for
from lorasoups.study.sources import Source, open_source
from lorasoups.study.store import MANIFEST
from lorasoups.tasks.judging.judges import JUDGES

TRAINING_CODE = (training.train_lora, training._arguments, batching.LengthBatches, batching._epoch)


@dataclass(frozen=True)
class Skill:
    """A trained skill: its adapter and the log of its training."""

    lora: LoRA
    log: dict


class Experiment:
    """One study in one profile, with its folders, its store and its base model.

    Args:
        profile: name of a profile, or a `Profile`.
        seeds: how many seeds ``0 .. seeds - 1`` belong to the run.
        out: folder for results, figures and cache; empty: the project itself.
        fresh: stages (``skill``, ``alphas``, ``evaluate``, ...) that are built again although their
            artifact is there.
        study: which composed task, where ``profile`` is a name.
    """

    def __init__(
        self,
        profile: str | Profile = "mini",
        seeds: int = 1,
        out: str | Path = "",
        fresh: Sequence[str] = (),
        study: str = "hard_math",
    ):
        self.profile = get_profile(profile, study) if isinstance(profile, str) else profile
        self.seeds = tuple(range(seeds))
        self.folders = Folders(out=out)
        self.store = open_store(self.folders.cache)
        self.recipes: dict[str, Recipe] = recipes_for(self.profile.skills)
        self._fresh = set(fresh)
        self._done: set[Path] = set()
        self._skills: dict[tuple[str, int], Skill] = {}
        self._rows: dict[tuple, list[dict]] = {}  # encoded data, shared with variants

    def variant(self, **changes) -> "Experiment":
        """The same experiment with other fields of its profile; base and artifacts are shared."""
        other = Experiment(self.profile.override(**changes), len(self.seeds), self.folders.out)
        other.source = self.source
        other._fresh, other._done, other._rows = self._fresh, self._done, self._rows
        return other

    @cached_property
    def source(self) -> Source:
        """Base model, tokenizer and data of the profile."""
        return open_source(self.profile, self.folders.project)

    def build(self, stage: str, inputs: dict, make: Callable, code: Sequence) -> Path:
        """The folder of an artifact, made unless it is there (see `store.Store.build`)."""
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
        steps = sum(self.steps(skill) for skill in skills)
        grow = len(skills) if name == "data_mix_2r" else 1  # lora_alpha grows too: s stays
        base = self.profile.training.on(self.source.model.device.type)
        return skills, replace(
            base, steps=steps, r=base.r * grow, lora_alpha=base.lora_alpha * grow
        )

    def _skill_config(self, skill: str) -> training.SkillTraining:
        config = replace(self.profile.training, **self.profile.by_skill.get(skill, {}))
        if self.profile.epochs:
            batches = self.profile.epochs * len(self.encoded(skill)) / config.batch_size
            config = replace(config, steps=math.ceil(batches))
        return config.on(self.source.model.device.type)

    def steps(self, skill: str) -> int:
        """Optimizer steps of one skill's training."""
        return self._skill_config(skill).steps

    def skill(self, name: str, seed: int) -> Skill:
        """The LoRA of one skill, or of ``data_mix`` / ``data_mix_2r``, trained if need be.

        DATA-MIX takes the steps of all skills together; a skill that is trained n times as long as
        another has its rows n times (rounded down) in the mix. Where epochs count, every row is
        there once.
        """
        skills, config = self._training(name)
        steps = {skill: self.steps(skill) for skill in skills}
        least = min(steps.values())
        times = {s: 1 if self.profile.epochs else n // least for s, n in steps.items()}
        rows = [row for s in skills for row in self.encoded(s) * times[s]]
        return self._trained(name, rows, config, seed)

    def fresh_lora(self, seed: int) -> Skill:
        """A new LoRA on exactly the rows, batches and steps that the alphas are learned with.

        The control of "The Appeal and Reality of Recycling LoRAs" (arXiv 2602.12323).
        """
        rows, a = self.alpha_rows(seed), self.profile.alphas
        steps = math.ceil(a.epochs * len(rows) / a.batch_size)
        base = self.profile.training.on(self.source.model.device.type)
        config = replace(base, steps=steps, batch_size=a.batch_size)
        return self._trained("fresh", rows, config, seed)

    def _trained(
        self, name: str, rows: list[dict], config: training.SkillTraining, seed: int
    ) -> Skill:
        if (name, seed) in self._skills:
            return self._skills[name, seed]
        inputs = {
            "base": self.source.key,
            "rows": digest(rows),
            "config": asdict(config),
            "seed": seed,
        }

        def make(folder: Path) -> None:
            lora, log = train_lora(self.source.model, rows, config, seed, self.source.name)
            lora = replace(lora, provenance={"skill": name, "seed": seed, "steps": config.steps})
            save_lora(lora, folder / "adapter")
            write_json_atomic(folder / "log.json", log)

        folder = self.build("skill", inputs, make, TRAINING_CODE)
        log = json.loads((folder / "log.json").read_text())
        found = Skill(load_lora(folder / "adapter"), log)
        return self._skills.setdefault((name, seed), found)

    def pair(self, seed: int) -> list[LoRA]:
        """The skills' LoRAs (two or more), in the order of CAT's alphas."""
        return [self.skill(name, seed).lora for name in self.profile.skills]

    def encoded(self, skill: str, split: str = "train", n: int | None = None) -> list[dict]:
        """Training rows of a skill, as `encoding.encode_all` gives them."""
        name = (skill, split, n or self.profile.n_train)
        if name not in self._rows:
            self._rows[name] = encode_all(self.source.tokenizer, self.source.items(*name))
        return self._rows[name]

    # --- alphas ---------------------------------------------------------------------------------

    def alpha_rows(
        self, seed: int, share: float | None = None, skills: Sequence[str] = ()
    ) -> list[dict]:
        """5 % of each skill's own training data, drawn by the seed; never the target task's.

        Args:
            seed: of the draw.
            share: another share than the profile's.
            skills: only these skills' data.
        """
        rng = random.Random(f"alpha data {seed}")
        share = self.profile.alphas.share if share is None else share
        rows = []
        for name in self.profile.skills:
            own = self.encoded(name)
            drawn = rng.sample(own, max(1, round(share * len(own))))
            rows += drawn if not skills or name in skills else []
        return rows

    @cached_property
    def held_out(self) -> dict[str, list[dict]]:
        """Validation rows of each skill: what lr, normalisation and init are chosen on."""
        n = self.profile.alphas.n_held_out
        return {name: self.encoded(name, "validation", n) for name in self.profile.skills}

    def held_out_loss(self, lora: LoRA | None) -> float:
        """Mean over the skills of the held-out loss (nats per answer token) under an adapter."""
        with applied(self.source.model, lora) as model:
            losses = [heldout_loss(model, own) for own in self.held_out.values()]
        return sum(losses) / len(losses)

    def learn(
        self, loras: Sequence[LoRA], rows: list[dict], options: dict, seed: int
    ) -> tuple[Alphas, float]:
        """Learn alphas of any LoRAs on any rows; also the skills' mean held-out loss under them."""
        inputs = {
            "base": self.source.key,
            "loras": [lora_digest(lora) for lora in loras],
            "rows": digest(rows),
            "held_out": digest(list(self.held_out.values())),
            "options": options,
            "seed": seed,
        }

        def make(folder: Path) -> None:
            learned = learn_alphas(self.source.model, loras, rows, seed=seed, **options)
            loss = self.held_out_loss(merge(loras, "cat", weights=learned))
            learned.to_json(folder / "alphas.json")
            write_json_atomic(folder / "held_out.json", {"loss": loss})

        folder = self.build("alphas", inputs, make, [cat, alphas_module, batching])
        loss = json.loads((folder / "held_out.json").read_text())["loss"]
        return Alphas.from_json(folder / "alphas.json"), loss

    def _learn(self, seed: int, options: dict) -> tuple[Alphas, float]:
        return self.learn(self.pair(seed), self.alpha_rows(seed), options, seed)

    def options(self, normalise: str, init: str, lr: float) -> dict:
        """Arguments of `learn_alphas` for one point of the grid, with the profile's schedule."""
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
            _, loss = self._learn(self.seeds[0], self.options(normalise, init, lr))
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
        options = self.options(best["normalise"], best["init"], lr)
        return options | ({"granularity": "global"} if preset == "global" else {})

    def swept_soup(self, entry: dict) -> LoRA:
        """The soup of one entry of the sweep, on the sweep's seed."""
        options = self.options(entry["normalise"], entry["init"], entry["lr"])
        return merge(
            self.pair(entry["seed"]), "cat", weights=self._learn(entry["seed"], options)[0]
        )

    # --- soups and their evaluation -------------------------------------------------------------

    def adapter(self, name: str, seed: int) -> LoRA | None:
        """The adapter of one row of the table; None for the base alone.

        Raises:
            SoupError: the method is no adapter (X-LoRA, few-shot prompting).
        """
        return soups.adapter(self, self.recipes[name], seed)

    def evaluate(self, name: str, task: str, seed: int) -> list[dict]:
        """Answers and outcomes of one method on one test set, in the set's order.

        Returns:
            dicts ``{text, outcome, value, ...}`` per problem (see `judges`); ``outcome`` is ``ok``
            where the answer is right.
        """
        return soups.evaluate(self, self.recipes[name], task, seed)

    def evaluate_adapter(self, lora: LoRA | None, task: str) -> list[dict]:
        """The same for any adapter; None is the base alone."""
        return self.answers(task, lora_digest(lora) if lora else None, lambda: lora)

    def items(self, task: str) -> list[dict]:
        """The test items of a task."""
        return self.source.items(task, "test", self.profile.n_test[task])

    def answers(
        self,
        task: str,
        adapter: str | None,
        get: Callable[[], LoRA | None],
        items: list[dict] | None = None,
        mixture: Callable | None = None,
        more: dict | None = None,
    ) -> list[dict]:
        """Generate and judge, unless it is in the store.

        Args:
            task: decides the judge.
            adapter: digest of the adapter's numbers; None for the base.
            get: the adapter itself, asked only where there is something to generate.
            items: other items than the test's (other prompts: few-shot).
            mixture: a context manager that yields the model to generate with, in place of the
                adapter with the base; what determines it stands in ``more``.
            more: further inputs that name the artifact.
        """
        p, judge = self.profile, JUDGES[self.profile.judge(task)]
        items = self.items(task) if items is None else items
        inputs = {
            "base": self.source.key,
            "adapter": adapter,
            "items": digest([[i["prompt"], i["target"]] for i in items]),
            "max_new_tokens": p.max_new_tokens,
            "batch": p.eval_batch,
        } | judge.inputs | (more or {})  # fmt: skip

        def make(folder: Path) -> None:
            prompts = [i["prompt"] for i in items]
            with mixture() if mixture else applied(self.source.model, get()) as model:
                texts = generate(
                    model, self.source.tokenizer, prompts, p.max_new_tokens, p.eval_batch
                )
            if not is_main():  # the first process judges and writes for all
                return
            lines = judge.judge(texts, [i["target"] for i in items])
            write_json_atomic(folder / "verdicts.json", lines)

        folder = self.build("evaluate", inputs, make, judge.code)
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

    def artifacts(self) -> dict[str, dict[str, str]]:
        """Stage -> name of each artifact of this run -> sha256 over its files (both shortened)."""
        found: dict[str, dict[str, str]] = {}
        for folder in sorted(self._done):
            manifest = json.loads((folder / MANIFEST).read_text())
            content = digest({name: file["sha256"] for name, file in manifest["files"].items()})
            found.setdefault(manifest["stage"], {})[folder.name[:12]] = content[:12]
        return found
