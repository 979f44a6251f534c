"""The sizes of the experiment: the same code with other numbers.

``smoke`` proves that everything runs, in seconds; ``mini`` is the default (laptop CPU, embedded
base, no network); ``small`` is a real pretrained model with real data, ``paper`` the paper's.
"""

from dataclasses import dataclass, field, replace

from lorasoups.errors import SoupError
from lorasoups.learning.skills import SkillTraining
from lorasoups.study.studies import STUDIES


@dataclass(frozen=True)
class AlphaTraining:
    """How CAT's alphas are learned (not LoRA's ``lora_alpha``). Source: issue 2, section 4.

    Attributes:
        share: share of each skill's training data that is shown again, as in the paper: 5 %.
        epochs, batch_size: passes over it and their batches.
        normalise, init, lr: the sweep's grid; held-out *skill* loss chooses one combination.
        n_held_out: validation problems per skill for that choice.
    """

    share: float = 0.05
    epochs: float = 3.0
    batch_size: int = 16
    grid: tuple[tuple[str, str, float], ...] = (
        ("none", "uniform", 0.01),
        ("none", "uniform", 0.03),
        ("none", "ones", 0.003),
        ("none", "ones", 0.01),
        ("none", "ones", 0.03),
        ("sigmoid", "uniform", 0.03),
        ("sigmoid", "uniform", 0.1),
        ("softmax", "uniform", 0.03),
        ("softmax", "uniform", 0.1),
    )
    n_held_out: int = 200


@dataclass(frozen=True)
class Profile:
    """One size of one study: skills, the soup, the target that needs all of them.

    Attributes:
        name: of the profile; results are ``data/results/<name>/<study>.json``.
        study: which composed task it is, see `STUDIES`.
        source: ``world``, ``pages`` (generated, embedded bases) or ``hub`` (real datasets).
        base: the base model: a folder relative to the project, a GGUF file or a Hub id.
        target: the task that needs all skills.
        skills: two or more, in the order of CAT's alphas.
        tests: the test of a skill where it is not the task of the skill's own name.
        judges: how a task is judged (`judges.JUDGES`), ``""`` for all that are not named.
        training: of one skill LoRA; DATA-MIX gets the steps of all skills together.
        by_skill: what is different for one skill, e.g. ``{"code": {"steps": 600}}``.
        n_train: training problems per skill.
        n_test: problems per test task; a task that is not named is not evaluated.
        extras: tasks reported apart, for the main methods only.
        alphas: how CAT's alphas are learned.
        max_new_tokens, eval_batch: of greedy generation.
        max_length: tokens of a training example from real data; longer ones are left out.
        methods: names of the recipes that are evaluated; empty: all. CAT, the base and the skills
            are always among them.
        budget: evaluations of LoraHub's search.
        epochs: passes over a skill's data; above 0 it decides the steps in place of
            ``training.steps``.
        four_bit: load the base in four bits (NF4, bitsandbytes).
        template: of real data: ``same`` (one template for training and test, loss on the answer) or
            ``released`` (see ``real_sets.toml``).
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        note: what a reader of the results must know, e.g. that a run was cut down.
        density: kept fraction of TIES, DARE and magnitude pruning (the released script's 0.75).
    """

    name: str
    study: str = "hard_math"
    source: str = "world"
    base: str = "data/mini"
    target: str = "hard_math"
    skills: tuple[str, ...] = ("math", "code")
    tests: dict[str, str] = field(default_factory=dict)
    judges: dict[str, str] = field(default_factory=lambda: {"": "program", "math": "words"})
    training: SkillTraining = SkillTraining()
    by_skill: dict[str, dict] = field(default_factory=dict)
    n_train: int = 8000
    n_test: dict[str, int] = field(
        default_factory=lambda: {
            "hard_math": 500,
            "hard_math_easy": 200,
            "hard_math_unseen": 200,
            "math": 200,
            "code": 200,
        }
    )
    extras: tuple[str, ...] = ("hard_math_easy", "hard_math_unseen")
    alphas: AlphaTraining = AlphaTraining()
    max_new_tokens: int = 90
    eval_batch: int = 250
    density: float = 0.75
    max_length: int = 512
    methods: tuple[str, ...] = ()
    budget: int = 20
    epochs: float = 0.0
    four_bit: bool = False
    template: str = "same"
    gradient_checkpointing: bool = False
    note: str = ""

    def override(self, **changes) -> "Profile":
        """The same profile with some fields changed."""
        return replace(self, **changes)

    def judge(self, task: str) -> str:
        """The name of the judge of a task."""
        return self.judges.get(task, self.judges.get("", "program"))

    def test_of(self, skill: str) -> str:
        """The task on which a skill alone is tested."""
        return self.tests.get(skill, skill)


_REAL_METHODS = (
    *("data_mix", "data_mix_2r", "fresh", "cat_global", "cat_random", "released"),
    *("lorahub@delta", "xlora", "few_shot"),
    *("linear@delta", "linear@delta/w1", "linear@factors", "linear@factors/w1"),
    *("ties@delta/w1", "dare_linear@delta/w1", "dare_ties@delta/w1", "svd@delta/w1"),
    *("magnitude_prune@delta/w1", "knots@delta/w1", "lego@delta/w1"),
)
"""All of the headline, without the weaker twin of most static merges."""


PROFILES = {
    "smoke": Profile(
        "smoke",
        training=SkillTraining(steps=12, batch_size=8, warmup_steps=2),
        n_train=160,
        n_test={"hard_math": 8, "hard_math_easy": 8, "hard_math_unseen": 8, "math": 8, "code": 8},
        alphas=AlphaTraining(
            share=0.1,
            epochs=1.0,
            batch_size=8,
            grid=(("none", "uniform", 0.03), ("softmax", "uniform", 0.1)),
            n_held_out=8,
        ),
        budget=4,
    ),
    "mini": Profile(
        "mini",
        training=SkillTraining(lr=2e-3, steps=400),
        by_skill={"code": {"steps": 600}},
    ),
    "small": Profile(
        "small",
        source="hub",
        base="HuggingFaceTB/SmolLM2-135M-Instruct",
        target="gsm_hard",
        training=SkillTraining(r=16, lora_alpha=32, lr=5e-4, steps=300, batch_size=16),
        n_train=5000,
        # CodeAlpaca has no answers that could be run: the code skill has no test of its own
        n_test={"gsm_hard": 1319, "gsm8k_program": 500, "math": 200},
        extras=("gsm8k_program",),
        alphas=AlphaTraining(
            epochs=3.0,
            grid=(("none", "uniform", 0.01), ("none", "ones", 0.01), ("none", "ones", 0.03)),
            n_held_out=100,
        ),
        methods=_REAL_METHODS,
        max_new_tokens=256,
        eval_batch=256,
    ),
    "paper": Profile(
        "paper",
        source="hub",
        base="yahma/llama-7b-hf",  # Llama 1, ungated; or --base meta-llama/Llama-2-7b-hf
        target="gsm_hard",
        skills=("metamath", "code"),
        tests={"metamath": "math"},
        judges={"": "program", "math": "words"},
        # the released scripts' settings, see issue 4 and merging-facts.md section 6
        training=SkillTraining(
            r=32,
            lora_alpha=64,
            lora_dropout=0.05,
            target_modules=("q_proj", "k_proj", "v_proj", "up_proj", "down_proj"),
            lr=3e-4,
            batch_size=16,
            warmup_steps=100,
        ),
        epochs=3.0,
        n_train=1_000_000,  # all there is
        n_test={"gsm_hard": 1319, "math": 1319},
        extras=(),
        alphas=AlphaTraining(epochs=1.0, grid=(("none", "uniform", 0.01), ("none", "ones", 0.01))),
        max_length=256,
        methods=_REAL_METHODS,
        max_new_tokens=256,
        eval_batch=32,
    ),
}
REAL = tuple(name for name, profile in PROFILES.items() if profile.source == "hub")
"""Profiles of a real pretrained model and real data; they run without notebooks."""


def get_profile(name: str, study: str = "hard_math") -> Profile:
    """The profile of that name, for one study.

    Raises:
        SoupError: unknown name or study; a study that the profile does not have.
    """
    if name not in PROFILES:
        raise SoupError(f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}")
    if study not in STUDIES:
        raise SoupError(f"unknown study {study!r}: choose one of {', '.join(STUDIES)}")
    sizes = STUDIES[study]
    if sizes and name not in sizes:
        raise SoupError(
            f"study {study!r} has no profile {name!r}: choose one of {', '.join(sizes)}"
        )
    return PROFILES[name].override(study=study, **sizes.get(name, {}))
