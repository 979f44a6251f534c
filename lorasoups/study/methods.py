"""The methods of a study's table: what each one is, and which of them a profile evaluates.

A new merge method comes in by itself, from `lora.methods`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import filter as matching
from functools import partial
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from lorasoups.errors import SoupError
from lorasoups.files import write_json_atomic
from lorasoups.learning import lorahub, xlora
from lorasoups.learning.alphas import balanced
from lorasoups.learning.fitted import ANCHORINGS, TRIED, anchored, regmean, tuned_weight
from lorasoups.learning.random_loras import gaussian_like
from lorasoups.lora.adapters import load_lora, save_lora
from lorasoups.lora.linalg import frobenius
from lorasoups.lora.lora import LoRA, lora_digest, module_names
from lorasoups.lora.merging import merge
from lorasoups.lora.methods import METHODS
from lorasoups.results.reading import CAT, CEILING, CONTROLS, MIX, SEARCH, SKILLS, STATIC
from lorasoups.study.profile import Profile
from lorasoups.study.stages import ChangedModel, Skill, Stages

GATE = "xlora.safetensors"
WEIGHTS = [0.1 * i for i in range(3, 16)]  # of the sum that is chosen by accuracy


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    name: str  # id in the results file
    label: str  # what figures and tables call it
    group: str  # of `reading.GROUPS`: what they put it under
    main: bool = False  # also evaluated on the skills' own tests and on the profile's extras
    on: str = "delta"  # recorded with its rows: what a merge works on
    weight: float | None = None  # recorded too: the weight of every LoRA
    make: Callable[[Stages, int], LoRA | None] | None = None  # its adapter; None: the base alone
    cost: tuple[str, int] = ("", 0)  # what a seed takes besides answers (see `run.doctor.work`)

    def adapter(self, stages: Stages, seed: int) -> LoRA | None:
        """The adapter, made once for all its tests; None is the base alone."""
        if self.make is None:
            raise SoupError(f"{self.label} is no adapter: method {self.name!r}; use its model")
        return stages.latest((self.name, seed), partial(self.make, stages, seed))

    def model(self, stages: Stages, seed: int) -> tuple[str | None, ChangedModel]:
        """A digest of what changes the base (None: nothing), and the base so changed."""
        return stages.changed(self.adapter(stages, seed))


@dataclass(frozen=True)
class Trained(Method):
    """A LoRA that is trained (or loaded): on a skill, on the data of all, on the target itself."""

    train: Callable[[Stages, str, int], Skill] = Stages.skill

    def trained(self, stages: Stages, seed: int) -> Skill:
        """The adapter with the log of its training."""
        return self.train(stages, self.name, seed)

    def adapter(self, stages: Stages, seed: int) -> LoRA:
        return self.trained(stages, seed).lora


@dataclass(frozen=True)
class Cat(Method):
    """CAT with learned alphas; ``preset`` says how they are learned (see `Stages.alphas`)."""

    preset: str = "ours"
    cost: tuple[str, int] = ("alphas", 1)

    def adapter(self, stages: Stages, seed: int) -> LoRA:
        return merge(stages.loras(seed), "cat", weights=stages.alphas(seed, self.preset))


def _changed(change: Callable[[torch.Tensor, int], torch.Tensor]) -> Callable:
    """CAT with its alphas [modules, k] changed: what their pattern over the modules is worth."""

    def make(stages: Stages, seed: int) -> LoRA:
        learned = stages.alphas(seed)
        changed = change(torch.stack(list(learned.values())), seed).tolist()
        return merge(stages.loras(seed), "cat", weights=dict(zip(learned, changed, strict=True)))

    return make


def _shuffled(alphas: torch.Tensor, seed: int) -> torch.Tensor:
    return alphas[torch.randperm(len(alphas), generator=torch.Generator().manual_seed(seed))]


CHANGES = {
    "mean": ("CAT's mean in every module", lambda alphas, seed: alphas.mean(0).expand_as(alphas)),
    "one": ("CAT, rescaled to mean 1", lambda alphas, seed: alphas / alphas.mean(0)),
    "shuffled": ("CAT, modules shuffled", _shuffled),
}


def _anchored(stages: Stages, seed: int) -> LoRA:
    """CAT's alphas moved towards 1 as far as every skill allows (see `learning.fitted`)."""
    loras, learned, rows = stages.loras(seed), stages.alphas(seed), stages.rows_by_skill(seed)
    inputs = stages.soup_inputs(loras, rows, seed) | {"alphas": learned.content()["weights"]}

    def make(folder: Path, scratch: Path) -> None:
        weights, share = anchored(stages.source.model, loras, learned, rows)
        write_json_atomic(folder / "anchored.json", {"weights": weights, "share": share})

    found = json.loads((stages.build("anchored", inputs, make) / "anchored.json").read_text())
    return merge(loras, "cat", weights=found["weights"])


def _balanced(stages: Stages, seed: int) -> LoRA:
    """CAT with as many alpha rows of every skill (see `alphas.balanced`)."""
    loras, rows = stages.loras(seed), balanced(stages.rows_by_skill(seed))
    learned, _ = stages.learn(loras, rows, stages.preset_options("ours"), seed)
    return merge(loras, "cat", weights=learned)


def _nan(stages: Stages, seed: int) -> LoRA:
    """Weights inverse to the deltas' norms, module by module (NAN, arXiv 2505.16148)."""
    loras, weights = stages.loras(seed), {}
    for name in module_names(loras):
        norms = [frobenius(x[name]) if name in x.modules else torch.inf for x in loras]
        inverse = 1 / torch.tensor(norms)
        weights[name] = (inverse / inverse.sum()).tolist()
    return merge(loras, "cat", weights=weights)


def _random_loras(stages: Stages, seed: int) -> LoRA:
    """CAT over random LoRAs of the skills' shapes and norms (see `learning.random_loras`)."""
    loras = [gaussian_like(lora, 100 * seed + i) for i, lora in enumerate(stages.loras(seed))]
    learned, _ = stages.learn(loras, stages.alpha_rows(seed), stages.preset_options("ours"), seed)
    return merge(loras, "cat", weights=learned)


def _tuned_sum(stages: Stages, seed: int, of: str = "", oracle: bool = False) -> LoRA:
    """The exact sum - or ``of`` another merge - times one weight, fitted on CAT's rows; ``oracle``:
    on as many problems of the target instead, which no method may see."""
    loras, rows = stages.loras(seed), stages.alpha_rows(seed)
    rows = stages.target_rows(len(rows)) if oracle else rows
    if of:
        loras = [methods_for(stages.profile.skills)[of].adapter(stages, seed)]

    def make(folder: Path, scratch: Path) -> None:
        weight, tried = tuned_weight(stages.source.model, loras, rows)
        write_json_atomic(folder / "tuned.json", {"weight": weight, "tried": tried})

    folder = stages.build("tuned", stages.soup_inputs(loras, rows, seed), make)
    weight = json.loads((folder / "tuned.json").read_text())["weight"]
    return merge(loras, "cat", weights=[weight] * len(loras))


def _sum_by_accuracy(stages: Stages, seed: int) -> LoRA:
    """The exact sum with the weight of `WEIGHTS` that solves most of the skills' own problems."""
    loras, p = stages.loras(seed), stages.profile
    which = {"split": "validation", "n": p.alphas.n_held_out // len(p.skills)}
    sums = [merge(loras, "cat", weights=[weight] * len(loras)) for weight in WEIGHTS]
    return max(sums, key=lambda soup: sum(
        stages.solved(soup, p.test_of(skill), **which) for skill in p.skills))  # fmt: skip


def _oracle_cat(stages: Stages, seed: int) -> LoRA:
    """CAT with alphas learned on problems of the target: a ceiling, for no method may see it."""
    loras, rows = stages.loras(seed), stages.target_rows(len(stages.alpha_rows(seed)))
    learned, _ = stages.learn(loras, rows, stages.preset_options("ours"), seed)
    return merge(loras, "cat", weights=learned)


def _random_cat(stages: Stages, seed: int) -> LoRA:
    loras = stages.loras(seed)
    return merge(loras, "cat", weights=random_alphas(loras, seed))


def random_alphas(loras: Sequence[LoRA], seed: int) -> dict[str, list[float]]:
    """Per module the softmax of standard normal numbers: where the released schedule starts."""
    drawn, names = torch.Generator().manual_seed(seed), {m for lora in loras for m in lora.modules}
    return {m: torch.randn(len(loras), generator=drawn).softmax(0).tolist() for m in sorted(names)}


@dataclass(frozen=True)
class Static(Method):
    """A merge method with one weight for all LoRAs: 1/k (None), or 1.0 as the released script."""

    merge_method: str = ""

    def adapter(self, stages: Stages, seed: int) -> LoRA:
        loras, how = stages.loras(seed), self._options(stages, seed) | {"on": self.on}
        weights = self.weight and [self.weight] * len(loras)
        merged = partial(merge, loras, self.merge_method, weights=weights, **how)
        return stages.latest((self.name, seed), merged)

    def _options(self, stages: Stages, seed: int) -> dict:
        given = {"density": stages.profile.density, "seed": seed}
        if self.merge_method == "knots":  # keeps all, as its official code does
            del given["density"]
        taken = METHODS[self.merge_method].options
        return {option: value for option, value in given.items() if option in taken}

    def model(self, stages: Stages, seed: int) -> tuple[str, ChangedModel]:
        """As of any method; the merge's digest is stored, so that a second run need not merge."""
        digests = [lora_digest(lora) for lora in stages.loras(seed)]
        inputs = {"loras": digests, "method": self.merge_method, "on": self.on,
                  "weight": self.weight, "options": self._options(stages, seed)}  # fmt: skip

        def make(folder: Path, scratch: Path) -> None:
            digest = lora_digest(self.adapter(stages, seed))
            write_json_atomic(folder / "digest.json", {"sha256": digest})

        stored = stages.build("merge", inputs, make) / "digest.json"
        digest = json.loads(stored.read_text())["sha256"]
        return digest, lambda: stages.with_adapter(self.adapter(stages, seed))


@dataclass(frozen=True)
class LoraHub(Method):
    """One weight per LoRA, found without gradients; on CAT's rows, or ``few`` target problems."""

    few: int = 0
    cost: tuple[str, int] = ("searches", 1)

    def adapter(self, stages: Stages, seed: int) -> LoRA:
        loras, rows = stages.loras(seed), stages.alpha_rows(seed)
        rows = stages.target_rows(self.few) if self.few else rows
        how = {"on": self.on, "budget": stages.profile.budget}

        def make(folder: Path, scratch: Path) -> None:
            best = lorahub.lorahub(stages.source.model, loras, rows, seed=seed, **how)
            save_lora(best.lora, folder / "adapter")
            search = {"weights": best.weights, "history": best.history}
            write_json_atomic(folder / "search.json", search)

        folder = stages.build("lorahub", stages.soup_inputs(loras, rows, seed) | how, make)
        return load_lora(folder / "adapter")


class XLora(Method):
    """A mixture of the skills' LoRAs, token by token, by a trained gate."""

    def model(self, stages: Stages, seed: int) -> tuple[str, ChangedModel]:
        model, loras, rows = stages.source.model, stages.loras(seed), stages.alpha_rows(seed)
        how = {k: getattr(stages.profile.alphas, k) for k in ("epochs", "batch_size")}

        def make(folder: Path, scratch: Path) -> None:
            run = {"seed": seed, "checkpoints": scratch}
            gate = xlora.train_xlora(model, loras, rows, **run, **how)
            save_file(gate.tensors, folder / GATE)

        folder = stages.build("xlora", stages.soup_inputs(loras, rows, seed) | how, make)
        gate = xlora.XLora(load_file(folder / GATE))
        return f"mixture {folder.name}", lambda: xlora.mixed(model, loras, gate)


# --- the table ------------------------------------------------------------------------------------


def methods_for(skills: Sequence[str]) -> dict[str, Method]:
    """Every method of a study with these skills, by name, in the table's order."""
    joint, fitted = {"train": Stages.data_mix, "cost": ("skills", 1)}, {"cost": ("passes", TRIED)}
    table = [
        Method("base", "base", SKILLS, main=True, make=lambda stages, seed: None),
        *(Trained(name, f"{name} LoRA", SKILLS, main=True) for name in skills),
        Trained("data_mix", "DATA-MIX (rank r)", MIX, main=True, **joint),
        Trained("data_mix_2r", "DATA-MIX (rank k r)", MIX, **joint),
        Trained("data_mix_warm", "DATA-MIX from the average (rank k r)", MIX, **joint),
        Trained("target", "LoRA trained on the target", CEILING, main=True,
                train=lambda stages, name, seed: stages.target_lora(seed), cost=("skills", 1)),
        Method("fresh", "new LoRA on the alpha data", CONTROLS, main=True,
               make=lambda stages, seed: stages.fresh_lora(seed).lora, cost=("fresh", 1)),
        Cat("cat", "CAT (learned alphas)", CAT, main=True),
        Cat("cat_global", "CAT, one alpha per LoRA", CONTROLS, main=True, preset="global"),
        *(Method(f"cat_{name}", label, CONTROLS, make=_changed(change))
          for name, (label, change) in CHANGES.items()),
        Cat("cat_softmax", "CAT, softmax", CONTROLS, preset="softmax"),
        Cat("cat_lr0", "CAT, lr = 0", CONTROLS, preset="lr0"),
        Method("cat_random", "CAT, random alphas", CONTROLS, make=_random_cat),
        Cat("released", "CAT, released schedule", CONTROLS, main=True, preset="released"),
        Method("random_loras", "CAT over random LoRAs", CONTROLS, make=_random_loras,
               cost=("alphas", 1)),
        Method("tuned_sum", "sum, one tuned weight", SEARCH, main=True, make=_tuned_sum, **fitted),
        Method("sum_by_accuracy", "sum, weight by accuracy", SEARCH, make=_sum_by_accuracy,
               cost=("validations", len(WEIGHTS))),
        *(Method(f"tuned_{m}", f"{m}, tuned weight", SEARCH,
                 make=partial(_tuned_sum, of=f"{m}@delta/w1"), **fitted)
          for m in ("ties", "dare_ties", "knots")),
        Method("anchored", "CAT, anchored at 1", SEARCH, main=True, make=_anchored,
               cost=("passes", ANCHORINGS)),
        Method("balanced", "CAT, rows balanced", CONTROLS, make=_balanced, cost=("alphas", 1)),
        Method("regmean", "RegMean", SEARCH, cost=("passes", 1),
               make=lambda s, n: regmean(s.source.model, s.loras(n), s.rows_by_skill(n))),
        Method("nan", "NAN (inverse norms)", SEARCH, make=_nan),
        LoraHub("lorahub@delta", "LoraHub (delta)", SEARCH),
        LoraHub("lorahub_target", "LoraHub, 5 target problems", CEILING, few=5),
        Method("oracle_sum", "sum, weight from the target", CEILING,
               make=partial(_tuned_sum, oracle=True), **fitted),
        Method("oracle_cat", "CAT on the target", CEILING, make=_oracle_cat, cost=("alphas", 1)),
        LoraHub("lorahub@factors", "LoraHub (factors, as released)", SEARCH, on="factors"),
        XLora("xlora", "X-LoRA (mixture of experts)", SEARCH, cost=("alphas", 1)),
        *_static(),
    ]  # fmt: skip
    return {method.name: method for method in table}


def methods_of(profile: Profile) -> list[Method]:
    """What a profile evaluates, in the table's order. SoupError for a method that is not there."""
    known, where = methods_for(profile.skills), f"profile {profile.name}, study {profile.study}"
    for pattern in (*profile.methods, *profile.leave_out):
        if not matching(known, pattern):
            raise SoupError(f"unknown method {pattern!r}: {where}; choose of {', '.join(known)}")
    return [m for name, m in known.items()
            if profile.evaluates(name) and (profile.ceiling or m.group != CEILING)]  # fmt: skip


def _static() -> list[Method]:
    """Every registered merge method: on deltas and factors, weights 1/k and 1.0. The exact sum
    ``cat`` is left out: with these weights it is ``linear`` on deltas."""
    registered = [m for m in METHODS.values() if m.name != "cat"]
    registered.sort(key=lambda method: len(method.on) == 1)  # those for both come first
    table = []
    for method in registered:
        for on, weight in product(method.on, (None, 1.0)):
            name = f"{method.name}@{on}" + ("/w1" if weight else "")
            label = f"{method.name} ({on}, {'1.0' if weight else '1/k'})"
            main = (method.name, on) == ("linear", "delta")
            how = {"main": main, "on": on, "weight": weight, "merge_method": method.name}
            table.append(Static(name, label, STATIC, **how))
    return table
