"""The stages of a study: train skills, learn alphas, generate and judge answers.

Every stage writes an artifact named by the hash of everything that determines it (`store`).
"""

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lorasoups.files import write_json_atomic
from lorasoups.learning import SkillTraining
from lorasoups.learning.alphas import Alphas, learn_alphas
from lorasoups.learning.cat import applied
from lorasoups.learning.skills import train_lora
from lorasoups.lora.adapters import load_lora, save_lora
from lorasoups.lora.lora import LoRA, lora_digest
from lorasoups.lora.merging import merge
from lorasoups.models import devices, processes
from lorasoups.models.batching import encode_all, heldout_loss
from lorasoups.models.fetch import fetch_lora
from lorasoups.models.generation import generate
from lorasoups.paths import Folders
from lorasoups.study.profile import Profile, load_profile
from lorasoups.study.sources import Source, open_source
from lorasoups.study.store import Make, Store, digest
from lorasoups.tasks.judging.judges import JUDGES

POINT = ("normalise", "init", "lr")  # what a point of the alphas' grid says
WARM = 0.25  # of the joint steps, after a start from the average
SOFTMAX_LR = 0.1
LOSS_LENGTH = 2048  # tokens of a problem, prompt and gold answer

ChangedModel = Callable[[], AbstractContextManager]  # yields the base with an adapter


@dataclass(frozen=True)
class Skill:
    """An adapter with the log of its training ({} for one that was loaded)."""

    lora: LoRA
    log: dict


class Stages:
    """The stages of one profile (also a name, for a ``study``), with its store and base model.

    The run has ``seeds`` seeds from ``first_seed`` on. Results, figures and cache go to ``out``, by
    default the project; ``fresh`` stages (``skill``, ...) are built again although they are stored.
    """

    def __init__(
        self, profile: str | Profile = "mini", seeds: int = 1, out: str | Path = "",
        fresh: Sequence[str] = (), study: str = "hard_math", first_seed: int = 0,
    ):  # fmt: skip
        processes.join()  # before the first model: it gives this process its GPU
        self.profile = profile if isinstance(profile, Profile) else load_profile(profile, study)
        self.seeds = tuple(range(first_seed, first_seed + seeds))
        self.folders = Folders(out=out)
        self.store = Store(self.folders.cache)
        self.used: set[Path] = set()  # artifacts of this run
        self._fresh = set(fresh)
        self._skills: dict[tuple[str, int], Skill] = {}
        self._rows: dict[tuple, list[dict]] = {}  # encoded data
        self._latest: tuple[Any, Any] = (None, None)

    def variant(self, **changes) -> "Stages":
        """The same with other fields of the profile; base and artifacts are shared."""
        other = type(self)(self.profile.override(**changes), len(self.seeds), self.folders.out)
        other.seeds = self.seeds
        other.source = self.source
        other._fresh, other.used, other._rows = self._fresh, self.used, self._rows
        return other

    @cached_property
    def source(self) -> Source:
        """Base model, tokenizer and data of the profile."""
        return open_source(self.profile, self.folders.project)

    def build(self, stage: str, inputs: dict, make: Make) -> Path:
        """The folder of an artifact, made unless it is there (see `store.Store.build`)."""
        folder = self.store.path(stage, inputs)
        force = stage in self._fresh and folder not in self.used
        self.used.add(folder)
        return self.store.build(stage, inputs, make, force=force)

    def latest(self, name: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` returns, kept until another name is asked for."""
        if self._latest[0] != name:
            self._latest = (None, None)  # frees the old one first
            self._latest = (name, make())
        return self._latest[1]

    def loras(self, seed: int) -> list[LoRA]:
        """The skills' LoRAs (two or more), in the order of CAT's alphas, each in its strength."""
        scales = self.profile.rescale
        loras = {name: self.skill(name, seed).lora for name in self.profile.skills}
        return [x.scaled(scales[name]) if name in scales else x for name, x in loras.items()]

    def skill(self, name: str, seed: int) -> Skill:
        """The LoRA of one skill: trained, or loaded where the profile says from where."""
        if not (place := self.profile.adapters.get(name)):
            return self._trained(name, self.encoded(name, seed), self._config(name), seed)
        if (name, seed) not in self._skills:
            lora = fetch_lora(place, self.source.model, self.source.name)
            self._skills[name, seed] = Skill(lora, {})
        return self._skills[name, seed]

    def data_mix(self, name: str, seed: int) -> Skill:
        """One LoRA on the data of all skills: ``data_mix``, or of rank k r ``data_mix_2r`` and
        ``data_mix_warm``, which starts from the skills' average and takes `WARM` of the steps.

        It takes the steps of all skills; a skill that is trained n times as long as another has
        its rows n times (rounded down) in the mix. Under ``epochs`` each row is once.
        """
        p, config, warm = self.profile, self.profile.training, name == "data_mix_warm"
        steps = {skill: self._config(skill).steps for skill in p.skills}
        times = {s: 1 if p.epochs else n // min(steps.values()) for s, n in steps.items()}
        rows = [row for skill in p.skills for row in self.encoded(skill, seed) * times[skill]]
        k = 1 if name == "data_mix" else len(p.skills)  # lora_alpha grows too: the scale stays
        larger = {"r": config.r * k, "lora_alpha": config.lora_alpha * k}
        n_steps = math.ceil(sum(steps.values()) * (WARM if warm else 1))
        joint = replace(config, steps=n_steps, **larger)
        start = merge(self.loras(seed), "cat") if warm else None
        return self._trained(name, rows, joint, seed, start)

    def target_lora(self, seed: int) -> Skill:
        """A LoRA trained on the target itself, as long as the longest skill: the ceiling."""
        p = self.profile
        config = max((self._config(skill) for skill in p.skills), key=lambda config: config.steps)
        return self._trained("target", self.encoded(p.taught or p.target, seed), config, seed)

    def fresh_lora(self, seed: int) -> Skill:
        """A new LoRA on exactly the alphas' rows, batches and steps (see arXiv 2602.12323)."""
        rows, a = self.alpha_rows(seed), self.profile.alphas
        steps = math.ceil(a.epochs * len(rows) / a.batch_size)
        config = replace(self.profile.training, steps=steps, batch_size=a.batch_size)
        return self._trained("fresh", rows, config, seed)

    def encoded(self, task: str, seed: int = 0, split: str = "train", n: int = 0) -> list[dict]:
        """Rows ``{input_ids, labels}`` of a task; the seed's own if the profile redraws them."""
        share, length = self.profile.share.get(task, 1), self.profile.max_length
        n = n or max(1, round(share * self.profile.n_train))
        draw = seed if self.profile.redraw and split == "train" else None
        if (name := (task, split, n, length, draw)) not in self._rows:
            items = self.source.items(task, split, n, draw)
            self._rows[name] = encode_all(self.source.tokenizer, items, length)
        return self._rows[name]

    def _config(self, skill: str) -> SkillTraining:
        config = self.profile.training_of(skill)
        if not self.profile.epochs:
            return config
        batches = self.profile.epochs * len(self.encoded(skill)) / config.batch_size
        return replace(config, steps=math.ceil(batches))

    def _trained(
        self, name: str, rows: list[dict], config: SkillTraining, seed: int,
        start: LoRA | None = None,
    ) -> Skill:  # fmt: skip
        if (name, seed) in self._skills:
            return self._skills[name, seed]
        source = self.source
        if config.bf16 == "auto":  # all processes do what process 0 measures
            fast = processes.broadcast(devices.fast_bf16(source.model.device.type))
            config = replace(config, bf16=fast)
        inputs = {"base": source.key, "rows": digest(rows), "config": asdict(config), "seed": seed}
        inputs |= {"start": lora_digest(start)} if start else {}

        def make(folder: Path, scratch: Path) -> None:
            where = {"base_model": source.name, "checkpoints": scratch, "start": start}
            lora, log = train_lora(source.model, rows, config, seed, **where)
            lora = replace(lora, provenance={"skill": name, "seed": seed, "steps": config.steps})
            save_lora(lora, folder / "adapter")
            write_json_atomic(folder / "log.json", log)

        folder = self.build("skill", inputs, make)
        log = json.loads((folder / "log.json").read_text())
        return self._skills.setdefault((name, seed), Skill(load_lora(folder / "adapter"), log))

    def alpha_rows(self, seed: int, share: float = 0.0, skills: Sequence[str] = ()) -> list[dict]:
        """A share of each skill's training data, drawn by the seed; never the target task's.

        ``share`` replaces the profile's (5 %); ``skills``: only these skills' data.
        """
        rng, share = random.Random(f"alpha data {seed}"), share or self.profile.alphas.share
        rows = {name: self.encoded(name, seed) for name in self.profile.skills}
        drawn = {s: rng.sample(r, max(1, round(share * len(r)))) for s, r in rows.items()}
        return [row for skill in drawn if not skills or skill in skills for row in drawn[skill]]

    def rows_by_skill(self, seed: int) -> list[list[dict]]:
        """`alpha_rows` of each skill apart."""
        return [self.alpha_rows(seed, skills=(skill,)) for skill in self.profile.skills]

    def target_rows(self, n: int) -> list[dict]:
        """Validation problems of the target, as they are asked: for rows that may see it."""
        items = self.items(self.profile.target, "validation", n)
        return encode_all(self.source.tokenizer, items, LOSS_LENGTH)

    @cached_property
    def held_out(self) -> dict[str, list[dict]]:
        """Validation rows of each skill: what lr, normalisation and init are chosen on."""
        n = self.profile.alphas.n_held_out
        return {s: self.encoded(s, split="validation", n=n) for s in self.profile.skills}

    def held_out_loss(self, lora: LoRA | None) -> float:
        """Mean over the skills of the held-out loss (nats per answer token) under an adapter."""
        with self.with_adapter(lora) as model:
            losses = [heldout_loss(model, rows) for rows in self.held_out.values()]
        return sum(losses) / len(losses)

    def soup_inputs(self, loras: Sequence[LoRA], rows: list[dict], seed: int) -> dict:
        """What names an artifact that is learned over LoRAs."""
        digests = [lora_digest(lora) for lora in loras]
        return {"base": self.source.key, "loras": digests, "rows": digest(rows), "seed": seed}

    def learn(
        self, loras: Sequence[LoRA], rows: list[dict], options: dict, seed: int
    ) -> tuple[Alphas, float]:
        """Learn alphas of any LoRAs on any rows; also the skills' mean held-out loss under them."""
        held_out = digest(list(self.held_out.values()))
        inputs = {"held_out": held_out, "options": options} | self.soup_inputs(loras, rows, seed)

        def make(folder: Path, scratch: Path) -> None:
            how = options | {"seed": seed, "checkpoints": scratch}
            learned = learn_alphas(self.source.model, loras, rows, **how)
            loss = self.held_out_loss(merge(loras, "cat", weights=learned))
            learned.to_json(folder / "alphas.json")
            write_json_atomic(folder / "held_out.json", {"loss": loss})

        folder = self.build("alphas", inputs, make)
        loss = json.loads((folder / "held_out.json").read_text())["loss"]
        return Alphas.from_json(folder / "alphas.json"), loss

    def alphas(self, seed: int, preset: str = "ours") -> Alphas:
        """CAT's alphas of a preset (see `preset_options`)."""
        options = self.preset_options(preset)
        return self.learn(self.loras(seed), self.alpha_rows(seed), options, seed)[0]

    def preset_options(self, preset: str) -> dict:
        """Arguments of `learn_alphas`: ``ours`` (the grid's choice), ``global`` (the same, one
        alpha per LoRA), ``softmax``, ``lr0`` (its start), ``released``."""
        if preset == "released":
            return {"preset": "released"}
        points = self.profile.alphas.grid
        if len(points) == 1:  # nothing to choose: no alphas of another seed are learned for it
            best = dict(zip(POINT, points[0], strict=True))
        else:
            best = next(entry for entry in self.grid if entry["chosen"])
        softmax = {"normalise": "softmax", "init": "uniform", "lr": SOFTMAX_LR}
        changes = {"lr0": {"lr": 0.0}, "global": {"granularity": "global"}, "softmax": softmax}
        return self.alpha_options(best) | changes.get(preset, {})

    def alpha_options(self, point: Mapping) -> dict:
        """Arguments of `learn_alphas` at a point of the grid, with the profile's schedule."""
        chosen, a = {name: point[name] for name in POINT}, self.profile.alphas
        return chosen | {"epochs": a.epochs, "batch_size": a.batch_size}

    @cached_property
    def grid(self) -> list[dict]:
        """Every point of the grid on seed 0; the least held-out loss is ``chosen``."""
        entries, loras, rows = [], self.loras(0), self.alpha_rows(0)
        for values in self.profile.alphas.grid:
            entry = {"seed": 0, **dict(zip(POINT, values, strict=True))}
            _, loss = self.learn(loras, rows, self.alpha_options(entry), 0)
            entries.append(entry | {"heldout_loss": loss, "chosen": False})
        min(entries, key=lambda entry: entry["heldout_loss"])["chosen"] = True
        return entries

    def items(self, task: str, split: str = "test", n: int = 0) -> list[dict]:
        """The test items of a task; those of the target with the profile's demonstrations.

        Demonstrations are the first validation problems; of that split the ones after are given.
        """
        shown = self.profile.demonstrations if task == self.profile.target else 0
        n, looked_at = n or self.profile.n_test[task], 20 * shown
        skipped = looked_at if split == "validation" else 0
        items = self.source.items(task, split, n + skipped)[skipped:]
        if not shown:
            return items
        solved: dict[str | None, list[str]] = {}
        for item in self.source.items(task, "validation", looked_at):
            solved.setdefault(item.get("view"), []).append(item["prompt"] + item["answer"] + "\n\n")
        texts = {view: "".join(examples[:shown]) for view, examples in solved.items()}
        return [item | {"prompt": texts[item.get("view")] + item["prompt"]} for item in items]

    def views(self, task: str) -> dict[str, np.ndarray]:
        """Parts of a test set by name, as masks over its items; every set has ``all``."""
        return self.source.tasks.views(task, self.profile.n_test[task])

    def with_adapter(self, lora: LoRA | None) -> AbstractContextManager:
        """Yields the base with an adapter; None is the base alone."""
        return applied(self.source.model, lora)

    def changed(self, lora: LoRA | None) -> tuple[str | None, ChangedModel]:
        """The digest of an adapter (None: the base alone), and the base with it."""
        return lora and lora_digest(lora), lambda: self.with_adapter(lora)

    def solved(self, lora: LoRA | None, task: str, **which) -> float:
        """The share of a test's problems, or of ``which`` (as in `items`), an adapter solves."""
        verdicts = self.answers(task, *self.changed(lora), **which)
        return sum(verdict["outcome"] == "ok" for verdict in verdicts) / len(verdicts)

    def answers(
        self, task: str, adapter: str | None, changed_model: ChangedModel, **which
    ) -> list[dict]:
        """Answers to one test set, in its order: its judge's ``{text, outcome, value, ...}``.

        ``outcome`` is ``ok`` where right. ``changed_model`` yields the model to generate with,
        ``adapter`` is a digest of what changes it (None: the base); ``which``: see `items`.
        """
        p, judge = self.profile, JUDGES[self.profile.judge(task)]
        items = self.items(task, **which)
        asked = digest([[item["prompt"], item["target"]] for item in items])
        inputs = {"base": self.source.key, "adapter": adapter, "items": asked,
                  "max_new_tokens": p.max_new_tokens, "batch": p.eval_batch}  # fmt: skip

        def make(folder: Path, scratch: Path) -> None:
            prompts, tokenizer = [item["prompt"] for item in items], self.source.tokenizer
            with changed_model() as model:
                texts = generate(model, tokenizer, prompts, p.max_new_tokens, p.eval_batch)
            if processes.is_main():  # the first process judges and writes for all
                verdicts = judge.judge(texts, [item["target"] for item in items])
                write_json_atomic(folder / "verdicts.json", verdicts)

        folder = self.build("evaluate", inputs | judge.inputs, make)
        return json.loads((folder / "verdicts.json").read_text())

    def gold_loss(self, task: str, adapter: str | None, changed_model: ChangedModel) -> float:
        """Mean loss (nats per token) of the gold answers to a test's first ``n_loss`` problems."""
        items = self.items(task)[: self.profile.n_loss]
        rows = encode_all(self.source.tokenizer, items, LOSS_LENGTH)
        inputs = {"base": self.source.key, "adapter": adapter, "rows": digest(rows)}

        def make(folder: Path, scratch: Path) -> None:
            with changed_model() as model:
                loss = heldout_loss(model, rows)
            write_json_atomic(folder / "loss.json", {"loss": loss})

        return json.loads((self.build("loss", inputs, make) / "loss.json").read_text())["loss"]

    def config(self) -> dict:
        """The profile as plain JSON values, and what base and data are. No paths."""
        p, data = self.profile, self.source.tasks.data() if self.profile.real else []
        adapters = {s: Path(a).name if Path(a).is_dir() else a for s, a in p.adapters.items()}
        return {**json.loads(json.dumps(asdict(p))), "adapters": adapters, "data": data,
                "base": self.source.name, "base_info": self.source.info,
                "seeds": list(self.seeds), "threads": torch.get_num_threads()}  # fmt: skip
