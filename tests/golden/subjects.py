"""What is held golden: one function a subject, plain values. All imports stand here."""

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
import torch

from lorasoups.learning.alphas import learn_alphas
from lorasoups.learning.fitted import anchored, tuned_weight
from lorasoups.learning.lorahub import lorahub
from lorasoups.learning.skills import SkillTraining, train_lora
from lorasoups.learning.xlora import mixed, train_xlora
from lorasoups.lora.lora import Factors, LoRA
from lorasoups.lora.merging import merge
from lorasoups.lora.methods import METHODS
from lorasoups.models.base import load_base
from lorasoups.models.batching import encode_all, heldout_loss
from lorasoups.models.generation import folded, generate
from lorasoups.report import sentences
from lorasoups.report import tables as tables_module
from lorasoups.results import reading, stats
from lorasoups.results.file import read_results
from lorasoups.tasks.judging.judges import JUDGES
from lorasoups.tasks.worlds.mini.tasks import dataset as world_dataset
from lorasoups.tasks.worlds.pages.tasks import dataset as pages_dataset

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parent.parent.parent
SHAPES = {"model.layers.0.self_attn.q_proj": (10, 8), "model.layers.1.mlp.up_proj": (6, 12)}
MINI_MODULES = ("self_attn.q_proj", "mlp.down_proj")


def numbers(tensor):
    return [float(x) for x in tensor.double().flatten()]


def summary(tensor):
    """Sum, norm and a corner of a tensor that is too large to keep."""
    flat = tensor.double().flatten()
    return [float(flat.sum()), float(flat.norm()), *map(float, flat[:4])]


def small_lora(seed, rank=3):
    draw = torch.Generator().manual_seed(seed)
    modules = {}
    for name, (out, in_) in SHAPES.items():
        A = torch.randn(rank, in_, generator=draw)
        B = torch.randn(out, rank, generator=draw) * 1.7
        modules[name] = Factors(A, B, 1.7)
    return LoRA(modules, "golden")


def merges():
    """Every method, on deltas and on factors, with and without weights, pruned, cut."""
    loras = [small_lora(1), small_lora(2)]
    values = {}
    for name, method in METHODS.items():
        options = {"density": 0.5} if "density" in method.options else {}
        options |= {"seed": 3} if "seed" in method.options else {}
        for on in method.on:
            variants = {
                "default": {},
                "weights": {"weights": [1.0, 0.6]},
                "options": {"weights": [1.0, -0.4], **options},
                "rank": {"weights": [1.0, 0.6], "rank": 2},
            }
            for variant, given in variants.items():
                soup = merge(loras, name, on=on, **given)
                values[f"{name}@{on} {variant}"] = {
                    module: numbers(soup.delta(module)) for module in SHAPES
                }
    return values


@cache
def mini():
    """The embedded base of hard math and its tokenizer."""
    model, tokenizer, _ = load_base(ROOT / "data" / "mini", attn_implementation="eager")
    model.requires_grad_(False)
    return model, tokenizer


def mini_loras():
    """Two random LoRAs that fit the mini base."""
    model, _ = mini()
    loras = []
    for seed in (1, 2):
        draw = torch.Generator().manual_seed(seed)
        modules = {}
        for layer in (0, model.config.num_hidden_layers - 1):
            for leaf in MINI_MODULES:
                name = f"model.layers.{layer}.{leaf}"
                out, in_ = model.get_submodule(name).weight.shape
                A = torch.randn(4, in_, generator=draw) * 0.1
                modules[name] = Factors(A, torch.randn(out, 4, generator=draw) * 0.1, 2.0)
        loras.append(LoRA(modules, "data/mini"))
    return loras


@cache
def mini_rows():
    _, tokenizer = mini()
    items = [item for task in ("math", "code") for item in world_dataset(task, "train", 12, 0)]
    return encode_all(tokenizer, items)


def alphas():
    """CAT's alphas after a few steps: three parametrisations and the released schedule."""
    model, _ = mini()
    common = {"batch_size": 8, "max_steps": 4, "lr": 0.05}
    settings = {
        "none": {**common, "normalise": "none", "init": "ones"},
        "softmax": {**common, "normalise": "softmax", "init": "randn", "seed": 5},
        "layer": {**common, "granularity": "layer"},
        "global": {**common, "granularity": "global", "init": "uniform"},
        "released": {"preset": "released", "max_steps": 4},
    }
    values = {}
    for name, options in settings.items():
        learned = learn_alphas(
            model, mini_loras(), mini_rows(), eval_dataset=mini_rows()[:6], **options
        )
        values[name] = {
            "alphas": {module: numbers(a) for module, a in learned.items()},
            "losses": learned.losses,
            "history": [[e["loss"], e["lr"], e["alpha_moved"]] for e in learned.history],
        }
    return values


def skill():
    """A skill LoRA after a few steps in float32."""
    model, _ = mini()
    config = SkillTraining(steps=5, batch_size=4, warmup_steps=1, lr=2e-3, bf16=False)
    lora, log = train_lora(model, mini_rows(), config, 3, "data/mini")
    return {
        "loss": log["losses"],
        "tokens": log["tokens"],
        "modules": {
            name: [summary(f.A), summary(f.delta())] for name, f in sorted(lora.modules.items())
        },
    }


def xlora():
    """A gate after a few steps, and what the mixture then writes."""
    model, tokenizer = mini()
    gate = train_xlora(model, mini_loras(), mini_rows(), max_steps=3, batch_size=8, seed=1)
    prompts = [item["prompt"] for item in world_dataset("code", "test", 3, 0)]
    with mixed(model, mini_loras(), gate):
        texts = generate(model, tokenizer, prompts, 24, 3)
    return {
        "gate": {name: summary(t) for name, t in gate.tensors.items()},
        "history": [[e["loss"], *e["scaling_mean"]] for e in gate.history],
        "texts": texts,
    }


def hub():
    """LoraHub's search on deltas and on factors."""
    model, _ = mini()
    values = {}
    for on in ("delta", "factors"):
        searched = lorahub(model, mini_loras(), mini_rows(), on=on, budget=8)
        values[on] = {
            "weights": searched.weights,
            "losses": [e["loss"] for e in searched.history],
            "modules": {n: summary(f.delta()) for n, f in searched.lora.modules.items()},
        }
    return values


def tuned():
    """The sum with one weight, fitted by loss."""
    model, _ = mini()
    weight, tried = tuned_weight(model, mini_loras(), mini_rows())
    return {"weight": weight, "tried": tried}


def nearest_to_one():
    """How far alphas go towards 1 before a skill is lost."""
    (model, _), loras, rows = mini(), mini_loras(), mini_rows()
    alphas = {name: torch.tensor([2.0, 0.0]) for name in merge(loras, "cat").modules}
    half = len(rows) // 2
    weights, share = anchored(model, loras, alphas, [rows[:half], rows[half:]])
    return {"share": share, "first": next(iter(weights.values()))}


def loss():
    """Held-out loss under an adapter."""
    model, _ = mini()
    with folded(model, mini_loras()[0]):
        return heldout_loss(model, mini_rows(), 25)


def generation():
    """What the base writes, alone and under an adapter, and its held-out loss."""
    model, tokenizer = mini()
    items = [i for t in ("math", "code", "hard_math") for i in world_dataset(t, "test", 3, 0)]
    prompts = [item["prompt"] for item in items]
    plain = generate(model, tokenizer, prompts, 48, 4)
    with folded(model, mini_loras()[0]):
        adapted = generate(model, tokenizer, prompts, 48, 4)
    return {
        "plain": plain,
        "adapted": adapted,
        "rows": mini_rows()[:3],
        "loss": heldout_loss(model, mini_rows()),
    }


PROGRAMS = [
    ("def solution():\n    return 6 * 7\n", 42),
    ("```python\ndef solution():\n    x = 1200\n    return x / 3\n```", 400),
    ("def solution():\n    return '42'\n", 42),
    ("def solution():\n    return 42.0004\n", 42),
    ("def solution():\n    return 43\n", 42),
    ("def solution():\n    return [42]\n", 42),
    ("def solution():\n    return 1 / 0\n", 1),
    ("def solution(:\n    return 1\n", 1),
    ("import os\ndef solution():\n    return os.getpid()\n", 1),
    ("the answer is 42", 42),
    ("", 0),
    ("def solution():\n    a = 5\n    b = a - 7\n    return b\n", -2),
]
WORDS = [
    ("so 3 + 4 = 7", 7), ("The answer is 1,200.", 1200), ("-5", -5), ("x = 3.5", 3.5),
    ("no number", 1), ("#### 18", 18), ("7 then 8", 7), ("", 0),
]  # fmt: skip
ANSWERS = [
    ("[ red ]", "red"), (" [ The red one ] ", "red one"), ("red", "red"), ("[ blue ]", "red"),
    ("[ not in context ]", "red"), ("[ not in context ]", "not in context"),
    ("[ red ]", "not in context"), ("[ dark red ]", "red"), ("it is red.", "red"), ("", "red"),
]  # fmt: skip
IN_FORM = [
    ("<<red>>;zorb", ["<<Red>>;zorb"]), ("<<red>>", ["<<red>>;zorb"]), ("", ["<<red>>;zorb"]),
    ('flim("red", 9)', ['flim("blue", 1)', 'flim("the red", 2)']),
    ("The answer is red.", ["<<red>>;zorb"]),
]  # fmt: skip


def scoring():
    """Stored texts under every judge."""
    values = {}
    for name, cases in (("program", PROGRAMS), ("words", WORDS), ("answer", ANSWERS),
                        ("form", IN_FORM), ("form_answer", IN_FORM)):  # fmt: skip
        texts, targets = zip(*cases, strict=True)
        values[name] = JUDGES[name].judge(list(texts), list(targets))
    return values


def statistics():
    """The statistics on fixed verdicts."""
    draw = np.random.default_rng(0)
    a, b, c, d = (draw.random((4, 60)) < p for p in (0.6, 0.45, 0.1, 0.2))
    one = a[:1], b[:1]
    return {
        "wilson": [stats.wilson(k, 20) for k in (0, 1, 10, 20)],
        "mcnemar": stats.mcnemar(a[0], b[0]),
        "paired": vars(stats.paired(a, b)),
        "one seed": vars(stats.paired(*one)),
        "super-linear": vars(stats.superlinearity(c, d, b, a)),
        "holm": stats.holm([0.01, 0.04, 0.03, 0.5]),
    }


def known(profile):
    folder = ROOT / "data" / "results" / profile
    return {path.stem: read_results(path) for path in sorted(folder.glob("*.json"))}


def tables():
    """Sentences and tables of the committed results, as digests."""
    values = {}
    for name, results in known("mini").items():
        text = (
            {"all": sentences.all_sentences(results)} if "ablation" not in results["config"] else {}
        )
        for frame in ("headline", "comparisons", "primary", "parts", "tasks", "views", "short"):
            if "ablation" not in results["config"]:
                shown = getattr(tables_module, frame)(results)
                text[frame] = tables_module.markdown(shown)
        if "ablation" in results["config"] and name != "surface":
            text["each"] = sentences.against_each(results)
        if name == "hard_math":
            text["paper"] = tables_module.markdown(tables_module.against_paper(results))
        values |= {f"{name} {key}": sha(value) for key, value in text.items()}
    values["studies"] = sha(tables_module.markdown(tables_module.studies(known("mini"))))
    return values


def estimates():
    """Every accuracy that the committed results give: mean, interval, seeds."""
    values = {}
    for profile in ("mini", "small"):
        for name, results in known(profile).items():
            places = dict.fromkeys((r["task"], r["view"], r["method"]) for r in results["rows"])
            for task, view, method in places:
                e = reading.estimate(results, method, task, view)
                line = [round(x, 6) for x in (e.mean, e.lo, e.hi, *e.per_seed)] + [e.n]
                values[f"{profile} {name} {task} {view} {method}"] = sha(json.dumps(line))
    return values


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def world():
    """Items of both generated worlds."""
    tasks = {
        world_dataset: "math code hard_math hard_math_easy hard_math_unseen aside line "
        "hard_math_aside",
        pages_dataset: "answering manual manual_qa manual_qa_unseen manual_recall reading "
        "technical technical_qa technical_recall format_1 format_2 format_4 formats",
    }
    tests_only = ("qa", "qa_unseen", "formats", "recall")
    values = {}
    for dataset, names in tasks.items():
        for task in names.split():
            splits = ("train", "validation", "test")
            if task.startswith("hard_math") or task.endswith(tests_only):
                splits = ("test",)
            for split in splits:
                items = dataset(task, split, 40, 0)
                values[f"{task} {split}"] = sha(json.dumps(items, sort_keys=True, default=repr))
    return values


SUBJECTS = {
    f.__name__: f
    for f in (merges, alphas, skill, xlora, hub, tuned, nearest_to_one, loss, generation, scoring,
              statistics, tables, estimates, world)
}  # fmt: skip
TOLERANCE = dict.fromkeys(("alphas", "skill", "xlora"), 1e-4) | {
    "hub": 2e-3,
    "tuned": 2e-3,
    "nearest_to_one": 0.02,
}
"""Largest difference that another processor may make; 1e-6 for all that are not named. LoraHub's
search amplifies rounding: 1e-6 in a loss moves the weights that are tried next."""
STAGES = {"merges": "merge", "alphas": "alphas", "skill": "skill", "xlora": "xlora",
          "hub": "lorahub", "tuned": "tuned", "nearest_to_one": "anchored", "loss": "loss",
          "generation": "evaluate", "scoring": "evaluate"}  # fmt: skip
"""Subject -> the stage whose version its recorded values belong to."""
