"""A profile: base, skills, data and sizes of one study, read from a small TOML file.

The shipped ones are in ``study/profiles/``; any other file of the same form is a profile too.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from lorasoups.errors import SoupError
from lorasoups.learning import SkillTraining

SHIPPED = ("smoke", "mini", "small", "paper")
STUDIES = ("hard_math", "manual_qa", "reading", "formats")
FOLDER = Path(__file__).parent / "profiles"
ALL_ITEMS = 100_000  # more than any test has
CPU_STEPS, CPU_LIMIT = 6, 20
CPU_NOTE = ("CPU run, cut down to {} training steps per skill: it shows that the path works, "
            "not what the whole profile would give")  # fmt: skip
LARGE_GPU_BYTES = 40 * 2**30  # from here on `small` evaluates with five times the batch


@dataclass(frozen=True)
class AlphaTraining:
    """How CAT's alphas are learned (not LoRA's ``lora_alpha``)."""

    share: float = 0.05  # of each skill's training data that is shown again, 5 % in the paper
    epochs: float = 3.0
    batch_size: int = 16
    # (normalise, init, lr); the held-out *skill* loss chooses one
    grid: tuple[tuple[str, str, float], ...] = (
        *(("none", "uniform", lr) for lr in (0.01, 0.03)),
        *(("none", "ones", lr) for lr in (0.003, 0.01, 0.03)),
        *((kind, "uniform", lr) for kind in ("sigmoid", "softmax") for lr in (0.03, 0.1)),
    )
    n_held_out: int = 200  # validation problems per skill for that choice


@dataclass(frozen=True)
class Profile:
    """One study at one size."""

    name: str  # results are data/results/<name>/<study>.json
    study: str = "hard_math"
    source: str = "world"  # world, pages (generated, embedded bases) or hub (real datasets)
    base: str = "data/mini"  # a folder relative to the project, a GGUF file or a Hub id
    target: str = "hard_math"  # the task that needs all skills
    skills: tuple[str, ...] = ("math", "code")  # two or more, in the order of CAT's alphas
    adapters: dict[str, str] = field(default_factory=dict)  # skill -> LoRA to load, not to train
    tests: dict[str, str] = field(default_factory=dict)  # skill -> test, if of another name
    # task -> name of `JUDGES`; "" stands for all other tasks
    judges: dict[str, str] = field(default_factory=lambda: {"": "program", "math": "words"})
    training: SkillTraining = SkillTraining()  # DATA-MIX gets the steps of all skills together
    by_skill: dict[str, dict] = field(default_factory=dict)  # {"code": {"steps": 600}}
    epochs: float = 0.0  # over a skill's data; above 0 it replaces training.steps
    n_train: int = 8000  # training problems per skill
    share: dict[str, float] = field(default_factory=dict)  # of a skill's problems, below 1
    rescale: dict[str, float] = field(default_factory=dict)  # what a skill's LoRA is multiplied by
    redraw: bool = False  # every seed draws its own training problems; else all have the same
    n_test: dict[str, int] = field(default_factory=dict)  # a task without number is not evaluated
    extras: tuple[str, ...] = ()  # further tests, for the main methods only
    all_on_skills: bool = False  # every method takes the skills' tests; else the main ones do
    n_loss: int = 0  # test problems of each task whose gold answers' loss is measured
    ceiling: bool = False  # rows that see the target, such as a LoRA trained on it (not for soups)
    taught: str = ""  # the task that the ceiling's LoRA is trained on; empty: the target
    demonstrations: int = 0  # solved validation problems in front of each problem of the target
    alphas: AlphaTraining = AlphaTraining()
    max_new_tokens: int = 90
    eval_batch: int = 250
    max_length: int = 512  # tokens of a training example
    methods: tuple[str, ...] = ()  # `fnmatch` patterns of the methods to evaluate; empty: all
    leave_out: tuple[str, ...] = ()  # patterns; base, skills and CAT are evaluated in any case
    density: float = 0.75  # kept by TIES, DARE and magnitude pruning, as in the released script
    budget: int = 20  # evaluations of LoraHub's search
    four_bit: bool = False  # load the base in NF4 (bitsandbytes)
    dtype: Literal["", "float32", "bfloat16", "float16"] = ""  # of a real base; "": by the device
    template: str = "same"  # prompts of real data: same in training and test, or released
    gradient_checkpointing: bool = False  # less memory, more time
    cut_on_cpu: bool = True  # a real model on a CPU: cut down to minutes
    note: str = ""  # what a reader of the results must know, e.g. that a run was cut down

    @property
    def real(self) -> bool:
        """Whether base and data are real; such a profile runs without notebooks."""
        return self.source == "hub"

    def override(self, **changes) -> "Profile":
        """The same profile with some fields changed."""
        return replace(self, **changes)

    def shipped(self, folder: Path) -> "Profile":
        """The same with the skills' adapters that lie below ``folder``, which are not trained."""
        places = {skill: folder / self.study / skill for skill in self.skills}
        return replace(self, adapters={s: str(p) for s, p in places.items() if p.is_dir()})

    def judge(self, task: str) -> str:
        """The name of the judge of a task."""
        return self.judges.get(task, self.judges.get("", "program"))

    def test_of(self, skill: str) -> str:
        """The task on which a skill alone is tested."""
        return self.tests.get(skill, skill)

    def evaluates(self, method: str) -> bool:
        """Whether a method of the table is evaluated, by its name."""
        if method in ("base", "cat", *self.skills):
            return True
        named = not self.methods or any(fnmatchcase(method, p) for p in self.methods)
        return named and not any(fnmatchcase(method, p) for p in self.leave_out)

    def training_of(self, skill: str) -> SkillTraining:
        """How one skill is trained."""
        return replace(self.training, **self.by_skill.get(skill, {}))

    def adapted(
        self, *, device: str = "cuda", gpu_bytes: int = 0, base: str | None = None,
        limit: int | None = None, steps: int | None = None, methods: str | None = None,
        tests: Mapping[str, str] = MappingProxyType({}), template: str | None = None,
        eval_batch: int | None = None, checkpointing: bool = False, four_bit: bool = False,
    ) -> "Profile":  # fmt: skip
        """The profile for this machine (with ``gpu_bytes`` of memory) and these options.

        A run on a CPU is cut down to minutes for 135M parameters, unless ``cut_on_cpu`` is false.
        ``methods`` are patterns with commas, or ``all``; ``tests`` more tests of the main methods,
        with their judges; ``limit`` counts problems per test, ``steps`` those of each skill.
        SoupError for a number below 1.
        """
        for option, value in (("limit", limit), ("steps", steps), ("eval-batch", eval_batch)):
            if value is not None and value < 1:
                raise SoupError(f"not at least 1: --{option} {value}; give a positive number")
        profile = self
        if device == "cpu" and self.cut_on_cpu:
            limit, profile = limit or CPU_LIMIT, self._cut_for_cpu(steps or CPU_STEPS)
        elif steps:
            training = replace(self.training, steps=steps)
            profile = self.override(training=training, epochs=0.0, by_skill={})
        if gpu_bytes > LARGE_GPU_BYTES and self.name == "small":
            profile = profile.override(eval_batch=5 * profile.eval_batch)
        if methods:
            patterns = () if methods == "all" else tuple(filter(None, methods.split(",")))
            profile = profile.override(methods=patterns, leave_out=())
        known = {profile.target, *profile.extras, *map(profile.test_of, profile.skills)}
        new = {task: judge for task, judge in tests.items() if task not in known}
        n_test = dict.fromkeys(tests, ALL_ITEMS) | profile.n_test
        given = {"base": base, "template": template, "eval_batch": eval_batch,
                 "four_bit": four_bit, "gradient_checkpointing": checkpointing}  # fmt: skip
        return profile.override(
            extras=(*profile.extras, *new),
            judges=profile.judges | new,
            n_test={task: min(n, limit or n) for task, n in n_test.items()},
            **{name: value for name, value in given.items() if value},
        )

    def _cut_for_cpu(self, steps: int) -> "Profile":
        """What a CPU can do in minutes: short examples, small batches, one point of the grid."""
        short = steps <= CPU_STEPS
        batch, length, n_held_out, epochs = (2, 128, 4, 1.0) if short else (4, 256, 16, 3.0)
        kept = {task: n for task, n in self.n_test.items() if task not in self.extras}
        warmup = {"steps": steps, "batch_size": batch, "warmup_steps": max(1, steps // 10)}
        alphas = AlphaTraining(0.05, epochs, batch, (("none", "ones", 0.01),), n_held_out)
        return self.override(
            training=replace(self.training, **warmup), epochs=0.0, by_skill={}, alphas=alphas,
            n_train=max(40, steps * batch), n_test=kept, extras=(),
            methods=("linear@delta",), leave_out=(),
            max_length=length if short else min(length, self.max_length),
            max_new_tokens=min(96, self.max_new_tokens), eval_batch=10 if short else 50,
            note=CPU_NOTE.format(steps),
        )  # fmt: skip


def load_profile(name_or_path: str | Path, study: str = "hard_math", **overrides) -> Profile:
    """Read a profile (of `SHIPPED`, or a TOML file) for one study; ``overrides`` replace fields.

    A file holds fields of `Profile`, and what differs for one study in ``[studies.<name>]``. With
    ``extends = "<profile>"`` it starts from another profile, a study with ``like = "<study>"`` from
    another study. ``skills`` is a list of names, or a
    table ``{math = "folder or Hub id", code = ""}``, where ``""`` means: train it. Raises
    SoupError: no such profile or study; a key or a value that a profile cannot have.
    """
    path = _find(name_or_path)
    table, studies = _resolve(path, study)
    if studies and study not in studies:
        raise SoupError(f"unknown study {study!r}: {path.name}; choose one of {', '.join(studies)}")
    profile = _checked(Profile, table | {"name": path.stem, "study": study}, path.name)
    by_skill = {}
    for skill, changes in profile.by_skill.items():
        whole = _checked(SkillTraining, changes, f"{path.name}, by_skill.{skill}")
        by_skill[skill] = {key: getattr(whole, key) for key in changes}
    return replace(profile, **{"by_skill": by_skill} | overrides)


def study_names(name_or_path: str | Path) -> list[str]:
    """Every study of a profile and of those it extends; `load_profile` reads one."""
    return _resolve(_find(name_or_path), "")[1]


def _find(name_or_path: str | Path) -> Path:
    if str(name_or_path) in SHIPPED:
        return FOLDER / f"{name_or_path}.toml"
    path = Path(name_or_path).expanduser()
    if path.suffix == ".toml" and path.is_file():
        return path
    choice = f"choose one of {', '.join(SHIPPED)}, or give the path of a TOML file"
    raise SoupError(f"unknown profile {str(name_or_path)!r}: {choice}")


def _resolve(path: Path, study: str) -> tuple[dict, list[str]]:
    """The table of one study, and the names of all studies of the file and those it extends."""
    files = _files(path)
    studies = {name: table for _, _, own in files for name, table in own.items()}
    chain = [study]  # what a study is like comes before it
    while (like := studies.get(chain[0], {}).get("like")) and like not in chain:
        chain.insert(0, like)
    table: dict = {}
    for place, layer, own in files:
        for changes in (layer, *(own.get(name, {}) for name in chain)):
            _merge(table, {k: v for k, v in changes.items() if k != "like"}, place)
    return table, list(studies)


def _files(path: Path, below: tuple[Path, ...] = ()) -> list[tuple[Path, dict, dict]]:
    """A file with its fields and its studies, after those that it extends."""
    try:
        layer = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SoupError(f"cannot read the profile ({error}): {path}; check the file") from error
    parent, studies = layer.pop("extends", None), layer.pop("studies", {})
    if not isinstance(studies, dict) or not all(isinstance(t, dict) for t in studies.values()):
        raise SoupError(f"wrong type: {path.name}, studies; expected tables [studies.<name>]")
    if parent is None:
        return [(path, layer, studies)]
    beside = path.parent / str(parent)
    parent = beside if beside.is_file() else _find(parent)
    if parent in (path, *below):
        raise SoupError(f"extends itself: {path.name}; change the key 'extends'")
    return [*_files(parent, (path, *below)), (path, layer, studies)]


def _merge(table: dict, layer: Mapping, path: Path) -> None:
    """Replace fields of ``table``; of training and alphas only the keys that are given."""
    if isinstance(skills := layer.get("skills"), dict):
        places = {skill: _place(place, path) for skill, place in skills.items() if place}
        layer = {**layer, "skills": list(skills), "adapters": places}
    elif skills is not None:
        layer = {**layer, "adapters": {}}
    for key, value in layer.items():
        old = table.get(key)
        inner = key in ("training", "alphas") and isinstance(value, dict) and isinstance(old, dict)
        table[key] = {**old, **value} if inner else value


def _place(place: Any, path: Path) -> Any:
    """Where a skill's LoRA lies: relative to the file, else to the current folder; else as is."""
    folders = [path.parent / place, Path(place)] if isinstance(place, str) else []
    return next((str(folder.resolve()) for folder in folders if folder.is_dir()), place)


def _checked(kind: type, table: Mapping, where: str) -> Any:
    """A ``kind`` from a table, with every key and type checked; SoupError names the first fault."""
    try:  # as JSON, whose strict mode takes lists for tuples and integers for floats
        text = json.dumps(table, default=str)
        return TypeAdapter(kind).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        fault = error.errors()[0]
    *outer, key = fault["loc"]
    if fault["type"] == "unexpected_keyword_argument":
        inner = {"training": SkillTraining, "alphas": AlphaTraining}
        names = ", ".join(f.name for f in fields(inner[outer[0]] if outer else kind))
        raise SoupError(f"unknown key {key!r}: {', '.join([where, *outer])}; choose of {names}")
    place = ".".join(map(str, fault["loc"]))
    raise SoupError(f"wrong type: {where}, {place} is {fault['input']!r}; {fault['msg']}")
