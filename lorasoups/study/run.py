"""A study: every method on the target, with intervals, into one results file."""

import os
from itertools import product
from pathlib import Path

import torch
from tqdm import tqdm

from lorasoups.errors import SoupError
from lorasoups.learning.interference import cross_activation, interference
from lorasoups.results.file import results_path
from lorasoups.study.collect import CAT, Collector
from lorasoups.study.methods import Cat, Method, Trained, methods_of
from lorasoups.study.profile import ALL_ITEMS, Profile, load_profile
from lorasoups.study.stages import Stages
from lorasoups.study.store import VERSIONS
from lorasoups.tasks.real.sets import catalogue


def run_study(experiment: Stages, progress: bool = True, save: bool = True) -> dict:
    """Evaluate what is not stored yet; return the results, ``save`` them in the study's file."""
    profile = experiment.profile
    jobs = [(method, task, seed) for seed in experiment.seeds for method, task in jobs_of(profile)]
    collector = Collector(experiment, profile.study)
    hidden = not progress or bool(os.environ.get("TQDM_DISABLE"))
    for method, task, seed in tqdm(jobs, desc="evaluate", disable=hidden, mininterval=10):
        verdicts, extra = evaluated(experiment, method, task, seed)
        if method.name == CAT and task == profile.target and extra and not profile.real:
            extra |= predictors(experiment, seed)
        collector.add(task, method.name, seed, verdicts, label=method.label, group=method.group,
                      on=method.on, weight=method.weight, extra=extra)  # fmt: skip
    grid = experiment.grid if 0 in experiment.seeds else []  # it is seed 0's
    fields = _alphas(experiment) | {"sweep": grid, "skills": _skills(experiment)}
    if profile.real:  # in a world training and test are disjoint by design
        n_train = dict.fromkeys(profile.skills, ALL_ITEMS if profile.redraw else profile.n_train)
        shared = experiment.source.tasks.decontamination(n_train, profile.n_test)
        fields["decontamination"] = shared
    return collector.write(save=save, **fields)


def predictors(experiment: Stages, seed: int) -> dict[str, float]:
    """What may tell a soup's fate without its target: how its first two LoRAs get along."""
    loras, rows = experiment.loras(seed)[:2], experiment.rows_by_skill(seed)[:2]
    total = interference(loras)["pairs"][0]["total"]
    (_, first), (second, _) = cross_activation(experiment.source.model, loras, rows)
    return {"cosine": total["cosine"], "norm_ratio": total["norm_ratio"],
            "loudest": max(first, second)}  # fmt: skip


def evaluated(
    experiment: Stages, method: Method, task: str, seed: int
) -> tuple[list[dict], dict[str, float]]:
    """A method's verdicts on one test; where the profile asks for it, its ``loss`` there."""
    model = method.model(experiment, seed)
    verdicts = experiment.answers(task, *model)
    if not experiment.profile.n_loss:
        return verdicts, {}
    return verdicts, {"loss": experiment.gold_loss(task, *model)}


def jobs_of(profile: Profile) -> list[tuple[Method, str]]:
    """Every method with each of its tests, in the table's order."""
    return [(m, task) for m in methods_of(profile) for task in tasks_of(profile, m)]


def tasks_of(profile: Profile, method: Method) -> list[str]:
    """The tests of a method: the target; for main methods also the skills' tests and the extras."""
    tasks = [profile.target]
    if method.main or profile.all_on_skills:
        tasks += map(profile.test_of, profile.skills)
    tasks += profile.extras if method.main else ()
    return [task for task in dict.fromkeys(tasks) if task in profile.n_test]  # real code has none


def _alphas(experiment: Stages) -> dict[str, list[dict]]:
    """Learned alphas per module, and the curves of their training; at lr = 0 there are none."""
    cats = [m for m in methods_of(experiment.profile) if isinstance(m, Cat) and m.preset != "lr0"]
    alphas, curves = [], []
    for seed, preset in product(experiment.seeds, [cat.preset for cat in cats]):
        learned, common = experiment.alphas(seed, preset), {"seed": seed, "preset": preset}
        of_seed = common | {"normalise": learned.normalise}
        for module, values in learned.weights.items():
            rounded = [round(float(a), 6) for a in values]
            alphas.append(of_seed | {"module": module, "values": rounded})
        for e in learned.history:
            means, moved = [round(a, 5) for a in e["alpha_mean"]], round(e["alpha_moved"], 6)
            curves.append({**common, "step": e["step"], "loss": round(e["loss"], 5),
                           "alpha_mean": means, "alpha_moved": moved})  # fmt: skip
    return {"alphas": alphas, "curves": curves}


def _skills(experiment: Stages) -> list[dict]:
    """The logs of what was trained; a skill that was loaded has none."""
    kept = ("steps", "loss", "seconds", "tokens_per_s")
    trained = [m for m in methods_of(experiment.profile) if isinstance(m, Trained)]
    return [
        {"seed": seed, "name": method.name, **{key: log[key] for key in kept}}
        for seed in experiment.seeds
        for method in trained
        if (log := method.trained(experiment, seed).log)
    ]


def adapted_profile(
    profile: str | Path, study: str, tests: str | None = None, **options
) -> Profile:
    """A profile with options of `Profile.adapted`; ``tests`` are names with commas, e.g. mawps.

    Raises SoupError for unknown methods and tests.
    """
    judges = {name: task.judge for name, task in catalogue().tasks.items() if task.judge}
    wanted = tests.split(",") if tests else []
    if unknown := [task for task in wanted if task not in judges]:
        raise SoupError(f"no such test {unknown[0]!r}: --tests; choose of {', '.join(judges)}")
    loaded, gpu = load_profile(profile, study), torch.cuda.is_available()
    adapted = loaded.adapted(
        device="cpu" if loaded.real and not gpu else "cuda",
        gpu_bytes=torch.cuda.get_device_properties(0).total_memory if gpu else 0,
        tests={task: judges[task] for task in wanted},
        **options,
    )
    methods_of(adapted)  # refuses unknown names before anything is loaded
    return adapted


def open_experiment(
    profile: str | Path, study: str, seeds: int, out: str | Path = "", force=False,
    first_seed: int = 0, **options,
) -> Stages:  # fmt: skip
    """An experiment with options of `adapted_profile`; ``force`` builds every stage again."""
    if seeds < 1 or first_seed < 0:
        what = f"no seeds: --seeds {seeds} --first-seed {first_seed}"
        raise SoupError(f"{what}; give at least 1, from 0 on")
    adapted = adapted_profile(profile, study, **options)
    return Stages(adapted, seeds, out, tuple(VERSIONS) if force else (), first_seed=first_seed)


def reproduce_real(
    profile: str | Path = "small", study: str = "hard_math", seeds: int = 1, out: str | Path = "",
    force: bool = False, **options,
) -> dict:  # fmt: skip
    """Run a profile without notebooks, print its table and return the results.

    Data come from the mirror that ``LORASOUPS_HUB_MIRROR`` names, or from the Hub. With a
    ``first_seed`` above 0 the earlier seeds of the results file stay in it.
    """
    experiment = open_experiment(profile, study, seeds, out, force, **options)
    p = experiment.profile
    if p.note:
        print(f"NOTE: {p.note}.", flush=True)
    results = run_study(experiment)
    print(summary(results))
    print(f"written: {results_path(p.name, p.study, experiment.folders.base)}")
    return results


def summary(results: dict) -> str:
    """The rows of a results file as lines of text, with what is to be known of model and data."""
    config, base = results["config"], results["config"]["base_info"]
    stored = f", stored as {base['quantisation']}" if base["quantisation"] else ""
    lines = [f"base: {base['name']} ({base['parameters'] / 1e6:.1f}M parameters{stored})"]
    for data in config["data"]:
        notes = f", STAND-IN for {data['stand_in_for']}" if data.get("stand_in_for") else ""
        notes += f", NOT THE WHOLE SET: {data['note']}" if data["complete"] is False else ""
        lines.append(f"data: {data['repo']} {data['split']}, {data['rows']} rows{notes}")
    lines.append(f"device: {results['provenance']['device']}")
    lines.append(f"{'task':9} {'view':18} {'method':14} seed  right  outcomes")
    for row in results["rows"]:
        outcomes = ", ".join(f"{name} {n}" for name, n in row["outcomes"].items())
        which, right = "{task:9} {view:18} {method:14} {seed:4}", f"{row['correct']}/{row['n']}"
        lines.append(f"{which.format_map(row)} {right:>6}  {outcomes}")
    for pair in results.get("decontamination", {}).get("pairs", []):
        shared = f"{pair['as_it_is']['items']} of {pair['test_items']} test items"
        lines.append(f"shared: {shared} of {pair['test']} have 8 words in a row of {pair['train']}")
    if config["note"]:
        lines.append(f"NOTE: {config['note']}.")
    return "\n".join(lines)
