"""What a profile does, stage by stage, and what that takes on a device: seconds and bytes.

The stages are those whose seconds a results file records (``skill``, ``alphas``, ``merge``,
``lorahub``, ``xlora``, ``evaluate``). Pure arithmetic on a profile, lengths, a shape and a speed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lorasoups import estimates
from lorasoups.estimates import Memory, Speed
from lorasoups.lengths import UNKNOWN, Lengths
from lorasoups.profiles import Profile
from lorasoups.recipes import Recipe, recipes_for
from lorasoups.shapes import ModelShape
from lorasoups.training import SkillTraining

JUDGE_S = {"program": 0.5e-3, "words": 2e-5, "answer": 5e-5}
"""Seconds to judge one answer; a program runs in a sandbox. Programs: 0.3 ms measured (250 answers
of mini), rounded up; the other two are guesses."""
RELEASED = {"epochs": 1.0, "batch_size": 6}
"""Schedule of the alphas' preset ``released`` (`alphas.PRESETS`)."""
PRUNING = ("ties", "dare_linear", "dare_ties", "magnitude_prune")
"""Merge methods that, on delta weights, work on every one of them."""
PROCESS_BYTES = {"cpu": 0.65e9, "cuda": 0.6e9}
"""What a process takes before any tensor: on a CPU Python with torch, transformers, PEFT and scipy
(measured on Linux); on a GPU the CUDA context and its libraries' workspaces (not measured here)."""
KERNEL_BYTES, KERNELS, KERNELS_PER_STEP = 1.05e6, 1024, 25
"""Of oneDNN's cache of compiled bfloat16 matmuls on a CPU: bytes of one, how many are kept, and how
many a batch of a new width adds (mini: peak of 2.15 GB after 400 steps, 1.9 after 150; without the
cache, ONEDNN_PRIMITIVE_CACHE_CAPACITY=0, 0.44 GB less after 80)."""
XLORA_COST = 1.5
"""X-LoRA's step against one of the alphas': the base runs a second time, without gradients."""
XLORA_DECODE = 2.6
"""X-LoRA's decoding against plain generation: two runs per token, LoRAs beside the weights. Like
`XLORA_COST` reasoned, not measured."""


@dataclass(frozen=True)
class Device:
    """Where a profile would run.

    Attributes:
        kind: ``cuda`` or ``cpu``.
        name: as people know it.
        memory: bytes that a process may use.
        bf16: whether bfloat16 is native.
        speed: what it reaches.
    """

    kind: str
    name: str
    memory: float
    bf16: bool
    speed: Speed


@dataclass(frozen=True)
class Stage:
    """One stage's estimate.

    Attributes:
        name: as in a results file's ``timings``.
        what: what it does, in words.
        seconds: of all seeds together.
        memory: at its peak, on the device that it runs on.
        where: that device's kind; merges are always on the CPU.
        parts: seconds by part, and for training one entry per adapter.
    """

    name: str
    what: str
    seconds: float
    memory: Memory
    where: str
    parts: dict[str, float]


@dataclass(frozen=True)
class Setup:
    """How a profile computes on a device: what of `sources.open_source` decides time and memory."""

    dtype: str
    autocast: bool
    attention: str
    where: str
    checkpointing: bool = False


def setup_of(profile: Profile, device: Device) -> Setup:
    """Embedded bases are float32 with eager attention on the CPU; real ones follow the device."""
    if profile.source != "hub":
        return Setup("float32", _autocast(profile, device), "eager", "cpu")
    dtype = "bfloat16" if device.kind == "cuda" and device.bf16 else "float32"
    if profile.four_bit:
        dtype = "nf4"
    return Setup(
        dtype,
        _autocast(profile, device),
        "sdpa",
        device.kind,
        profile.gradient_checkpointing,
    )


def _autocast(profile: Profile, device: Device) -> bool:
    chosen = profile.training.bf16
    return device.bf16 if chosen == "auto" else bool(chosen)


class Plan:
    """A profile's work on a device.

    Args:
        profile: its sizes.
        shape: of its base.
        device: where it would run.
        lengths: of its tasks, see `lengths.lengths_of`.
        seeds: how many.
    """

    def __init__(
        self,
        profile: Profile,
        shape: ModelShape,
        device: Device,
        lengths: Mapping[tuple, Lengths],
        seeds: int = 1,
    ):
        self.profile, self.shape, self.device, self.seeds = profile, shape, device, seeds
        self.lengths = lengths
        self.setup = setup_of(profile, device)
        self.k = len(profile.skills)

    def stages(self) -> list[Stage]:
        """The stages in the order they run; those without work are left out."""
        found = [self._skill(), self._alphas(), self._merge(), self._lorahub(), self._xlora(),
                 self._evaluate()]  # fmt: skip
        return [stage for stage in found if stage.parts]

    # --- what is to be done ---------------------------------------------------------------------

    def recipes(self) -> list[Recipe]:
        """The methods that are evaluated (as `headline.recipes_of`)."""
        p = self.profile
        every = recipes_for(p.skills)
        wanted = {*p.methods, "base", *p.skills, "cat"} if p.methods else set(every)
        return [recipe for name, recipe in every.items() if name in wanted]

    def tasks(self, recipe: Recipe) -> list[str]:
        """The tests that a method takes (as `headline.tasks_of`)."""
        p = self.profile
        own = [p.test_of(skill) for skill in p.skills]
        tasks = [p.target, *own, *p.extras] if recipe.main else [p.target]
        return [task for task in dict.fromkeys(tasks) if task in p.n_test]

    def rows(self, skill: str) -> int:
        """Training rows of a skill."""
        there = self._train(skill).rows
        return min(self.profile.n_train, there) if there else self.profile.n_train

    def training(self, skill: str) -> SkillTraining:
        """How a skill is trained, its steps decided."""
        p = self.profile
        config = replace(p.training, **p.by_skill.get(skill, {}))
        if not p.epochs:
            return config
        return replace(config, steps=math.ceil(p.epochs * self.rows(skill) / config.batch_size))

    def adapters(self) -> list[tuple[str, int, int, int, float]]:
        """Adapters that are trained per seed: name, steps, batch, rank, mean tokens per row."""
        p, found = self.profile, []
        for skill in p.skills:
            own = self.training(skill)
            found.append((skill, own.steps, own.batch_size, own.r, self._train(skill).total))
        steps = sum(a[1] for a in found)
        mixed = sum(a[1] * a[4] for a in found) / steps
        names = {recipe.name for recipe in self.recipes()}
        common = p.training
        for name, rank in (("data_mix", common.r), ("data_mix_2r", self.k * common.r)):
            if name in names:
                found.append((name, steps, common.batch_size, rank, mixed))
        if "fresh" in names:
            a = p.alphas
            found.append(("fresh", self._alpha_steps(), a.batch_size, common.r, self._alpha_row()))
        return found

    def _alpha_rows(self) -> int:
        share = self.profile.alphas.share
        return sum(max(1, round(share * self.rows(skill))) for skill in self.profile.skills)

    def _alpha_steps(self, epochs: float = 0.0, batch: int = 0) -> int:
        a = self.profile.alphas
        return math.ceil((epochs or a.epochs) * self._alpha_rows() / (batch or a.batch_size))

    def _alpha_row(self) -> float:
        rows = {skill: self.rows(skill) for skill in self.profile.skills}
        return sum(n * self._train(s).total for s, n in rows.items()) / sum(rows.values())

    def _train(self, skill: str) -> Lengths:
        return self.lengths.get((skill, "train"), UNKNOWN)

    def _test(self, task: str) -> Lengths:
        return self.lengths.get((task, "test"), UNKNOWN)

    def _longest(self) -> int:
        return max(self._train(skill).longest for skill in self.profile.skills)

    # --- single numbers -------------------------------------------------------------------------

    def alpha_tokens_per_s(self) -> float:
        """Tokens per second of a step of alpha learning."""
        p, a = self.profile, self.profile.alphas
        stacked = self.k * self.shape.lora_parameters(p.training.target_modules, p.training.r)
        length = self._alpha_row()
        flops = estimates.alpha_step_flops(self.shape, length, stacked, self.setup.attention)
        tokens = a.batch_size * length
        return tokens / estimates.training_seconds(
            self.shape, self.device.speed, 1, tokens, flops, alphas=True
        )

    def generation_s(self, task: str) -> float:
        """Seconds of one method's answers to one test."""
        return self._answers(None, task)

    # --- stages ---------------------------------------------------------------------------------

    def _skill(self) -> Stage:
        p, s = self.profile, self.setup
        parts = {}
        for name, steps, batch, rank, tokens in self.adapters():
            trained = self.shape.lora_parameters(p.training.target_modules, rank)
            flops = estimates.lora_step_flops(
                self.shape, tokens, trained, s.attention, s.checkpointing
            )
            one = estimates.training_seconds(
                self.shape, self.device.speed, steps, batch * tokens, flops
            )
            parts[name] = self.seeds * one
        rank = max(a[3] for a in self.adapters())
        memory = estimates.training_memory(
            self.shape, batch=max(a[2] for a in self.adapters()), length=self._longest(),
            targets=p.training.target_modules, rank=rank, dtype=s.dtype, autocast=s.autocast,
            attention=s.attention, checkpointing=s.checkpointing,
            dropout=p.training.lora_dropout > 0,
        )  # fmt: skip
        steps = "; ".join(f"{a[0]} {a[1]:,}" for a in self.adapters())
        return self._stage("skill", f"LoRA steps per seed: {steps}", parts, memory)

    def _alphas(self) -> Stage:
        p, s, a = self.profile, self.setup, self.profile.alphas
        stacked = self.k * self.shape.lora_parameters(p.training.target_modules, p.training.r)
        length = self._alpha_row()
        flops = estimates.alpha_step_flops(self.shape, length, stacked, s.attention)

        def one(steps: int, batch: int) -> float:
            return estimates.training_seconds(
                self.shape, self.device.speed, steps, batch * length, flops, alphas=True
            )

        runs = [recipe for recipe in self.recipes() if recipe.kind == "learned"]
        released = sum(recipe.preset == "released" for recipe in runs)
        ours = one(self._alpha_steps(), a.batch_size)
        # the sweep's best is `ours` on the first seed: it is learned once
        times = self.seeds * (len(runs) - released) + len(a.grid) - 1
        check = estimates.forward_seconds(
            self.shape, self.device.speed, self.k * a.n_held_out, length, 100, s.attention
        )
        parts = {
            "learn": times * ours,
            "held-out loss": (times + self.seeds * released) * check,
        }
        if released:
            parts["released"] = self.seeds * one(
                self._alpha_steps(**{"epochs": RELEASED["epochs"],
                                     "batch": RELEASED["batch_size"]}),
                RELEASED["batch_size"],
            )  # fmt: skip
        memory = self._alpha_memory()
        what = f"{times + self.seeds * released} runs of up to {self._alpha_steps():,} steps"
        return self._stage("alphas", what, parts, memory)

    def _alpha_memory(self) -> Memory:
        p, s = self.profile, self.setup
        return estimates.alpha_memory(
            self.shape, batch=p.alphas.batch_size, length=self._longest(),
            targets=p.training.target_modules, rank=p.training.r, k=self.k, dtype=s.dtype,
            attention=s.attention, checkpointing=s.checkpointing,
        )  # fmt: skip

    def _merge(self) -> Stage:
        p = self.profile
        static = [recipe for recipe in self.recipes() if recipe.kind == "static"]
        dense = [r for r in static if r.on == "delta" and r.method in PRUNING]
        targets, rank = p.training.target_modules, p.training.r

        def one(dense: bool) -> float:
            return estimates.merge_seconds(self.shape, targets, rank, self.k, dense)

        plain = len(static) - len(dense)
        parts = {"factors": self.seeds * plain * one(False)} if plain else {}
        if dense:
            parts["delta weights"] = self.seeds * len(dense) * one(True)
        memory = estimates.merge_memory(self.shape, targets, rank, self.k, bool(dense))
        return self._stage("merge", f"{len(static)} static merges per seed", parts, memory, "cpu")

    def _lorahub(self) -> Stage:
        p = self.profile
        n = sum(recipe.kind == "lorahub" for recipe in self.recipes())
        one = estimates.forward_seconds(
            self.shape, self.device.speed, self._alpha_rows(), self._alpha_row(), 100,
            self.setup.attention,
        )  # fmt: skip
        parts = {"search": self.seeds * n * p.budget * one} if n else {}
        what = f"{n} searches of {p.budget} losses over {self._alpha_rows():,} rows per seed"
        return self._stage("lorahub", what, parts, self._generation())

    def _xlora(self) -> Stage:
        there = any(recipe.kind == "xlora" for recipe in self.recipes())
        p, a = self.profile, self.profile.alphas
        stacked = self.k * self.shape.lora_parameters(p.training.target_modules, p.training.r)
        length = self._alpha_row()
        flops = estimates.alpha_step_flops(self.shape, length, stacked, self.setup.attention)
        one = estimates.training_seconds(
            self.shape, self.device.speed, self._alpha_steps(), a.batch_size * length,
            XLORA_COST * flops, alphas=True,
        )  # fmt: skip
        parts = {"gate": self.seeds * one} if there else {}
        return self._stage("xlora", "one gate per seed", parts, self._alpha_memory())

    def _evaluate(self) -> Stage:
        """Every test of every method; the base's answers are the same for every seed.

        Every batch is decoded to the end, as if no answer stopped early: an upper bound of the
        steps, which methods that do not know when to stop come close to.
        """
        p = self.profile
        parts: dict[str, float] = {}
        problems = 0
        for recipe in self.recipes():
            runs = 1 if recipe.kind == "base" else self.seeds
            for task in self.tasks(recipe):
                parts["generate"] = parts.get("generate", 0.0) + runs * self._answers(recipe, task)
                judged = runs * p.n_test[task] * JUDGE_S.get(p.judge(task), 1e-4)
                parts["judge"] = parts.get("judge", 0.0) + judged
                problems += runs * p.n_test[task]
        swept = len(p.alphas.grid) - 1
        if p.target in p.n_test and swept:
            parts["sweep, on the target"] = swept * self._answers(None, p.target)
            problems += swept * p.n_test[p.target]
        return self._stage(
            "evaluate", f"{problems:,} answers, if none ends early", parts, self._generation()
        )

    def _answers(self, recipe: Recipe | None, task: str) -> float:
        p, kind = self.profile, recipe.kind if recipe else ""
        prompt = self._test(task).prompt
        if kind == "few_shot":
            prompt += sum(self._train(skill).total for skill in p.skills)
        seconds = estimates.generation_seconds(
            self.shape, self.device.speed, p.n_test[task], p.eval_batch, prompt,
            p.max_new_tokens, self.setup.dtype, self.setup.attention,
        )  # fmt: skip
        return seconds * (XLORA_DECODE if kind == "xlora" else 1)

    def _generation(self) -> Memory:
        p = self.profile
        longest = max([self._test(t).longest_prompt for t in p.n_test] or [UNKNOWN.longest_prompt])
        n = min(p.eval_batch, max(p.n_test.values(), default=p.eval_batch))
        return estimates.generation_memory(
            self.shape, batch=n, prompt=longest, new=p.max_new_tokens,
            targets=p.training.target_modules, dtype=self.setup.dtype,
            folded=self.setup.dtype != "nf4",
        )  # fmt: skip

    def _stage(self, name: str, what: str, parts: dict, memory: Memory, where: str = "") -> Stage:
        where = where or self.setup.where
        own = dict(memory.parts)
        training = name in ("skill", "alphas", "xlora")
        factor = estimates.FRAGMENTATION[where] if training else 1.1
        own["allocator"] = (factor - 1) * _moving(memory)
        own["process"] = PROCESS_BYTES[where]
        if name == "skill" and where == "cpu" and self.setup.autocast:
            steps = sum(adapter[1] for adapter in self.adapters())
            own["compiled kernels"] = KERNEL_BYTES * min(KERNELS, KERNELS_PER_STEP * steps)
        return Stage(name, what, sum(parts.values()), Memory(own), where, parts)


def _moving(memory: Memory) -> float:
    """Bytes that come and go at every step; weights are asked for once."""
    return sum(size for name, size in memory.parts.items() if name != "weights")
