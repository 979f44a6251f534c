"""From results to sentences that are true of them, whichever way the numbers fall.

CAT counts as above or below another method where the paired 95 % interval of their difference
excludes 0 (on the further tests of a real model: where p after Holm's correction is below 0.05).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from lorasoups.errors import SoupError
from lorasoups.results import reading, stats
from lorasoups.results.reading import Results, estimate, interval, label, percent

ABOVE, BELOW, OPEN = "above", "below", "not told apart from"
SIGNIFICANT = 0.05
FEW_PROBLEMS, FEW_SEEDS = 500, 5  # up to here a caveat is shown

Entry = Mapping[str, Any]  # of ``comparisons``


def verdict(entry: Entry) -> str:
    """`ABOVE`, `BELOW` or `OPEN`: where ``[lo, hi]`` lies with regard to 0."""
    if entry["lo"] is None or entry["hi"] is None:
        return OPEN
    return ABOVE if entry["lo"] > 0 else BELOW if entry["hi"] < 0 else OPEN


def compared(results: Results, methods: Iterable[str]) -> dict[str, Entry]:
    """CAT against each of these methods on the target; those not compared are left out."""
    wanted = {"task": reading.target(results), "a": "cat"}
    entries = {e["b"]: e for e in results["comparisons"] if wanted.items() <= e.items()}
    return {method: entries[method] for method in methods if method in entries}


def _by_verdict(entries: Mapping[str, Entry]) -> dict[str, list[str]]:
    return {v: [m for m, e in entries.items() if verdict(e) == v] for v in (ABOVE, OPEN, BELOW)}


def _difference(entry: Entry, unit: str = " points") -> str:
    """``+12.3 points [+8.0, +16.4]``."""
    ends = interval(entry["lo"], entry["hi"], "+")
    return f"{100 * entry['diff']:+.1f}{unit} {'(no interval)' if ends == '-' else ends}"


def _differences(results: Results, entries: Mapping[str, Entry], unit: str = " points") -> str:
    return "; ".join(f"{label(m, results)} {_difference(e, unit)}" for m, e in entries.items())


def against(results: Results, *methods: str) -> str:
    """CAT against other methods, a sentence each."""
    said, entries = [], compared(results, methods)
    for m in methods:
        name, e = label(m, results), entries.get(m)
        known = e and f"CAT is {verdict(e)} {name}: {_difference(e)}."
        said.append(known or f"CAT was not compared with {name}.")
    return " ".join(said)


def against_skills(results: Results) -> str:
    """CAT against each single skill and the base."""
    return against(results, "base", *reading.skills(results))


def against_data_mix(results: Results) -> str:
    """CAT against training on all the data."""
    mixes = compared(results, ("data_mix", "data_mix_2r"))
    return against(results, *mixes) or "DATA-MIX was not evaluated."


def against_searched(results: Results) -> str:
    """CAT against what else learns on the same data: LoraHub's search, X-LoRA's gate; few-shot."""
    searched = reading.methods(results).get(reading.SEARCH, [])
    return against(results, *compared(results, [*searched, "few_shot"]))


def static_merges(results: Results) -> list[str]:
    """The static merges that were evaluated on the target."""
    return reading.methods(results).get(reading.STATIC, [])


def against_static(results: Results) -> str:
    """How many static merges CAT is above, not told apart from and below; the best of them."""
    entries = compared(results, static_merges(results))
    if not entries:
        return "No static merge was evaluated."
    by = _by_verdict(entries)
    best = max(entries, key=lambda m: estimate(results, m).mean)
    ps = [p for p in (entries[m]["p_holm"] for m in by[ABOVE]) if p is not None]
    kept = f"{sum(p < SIGNIFICANT for p in ps)} of {len(ps)} wins remain."
    holm = f" After Holm's correction for all comparisons {kept}" if by[ABOVE] else ""
    return (
        f"Of {len(entries)} static merges, CAT is above {len(by[ABOVE])}, not told apart from "
        f"{_counted(results, by[OPEN])}, below {_counted(results, by[BELOW])}. The best of them, "
        f"{label(best, results)}, solves {percent(estimate(results, best).mean)} %; CAT minus it "
        f"is {_difference(entries[best])}.{holm}"
    )


def _counted(results: Results, methods: Sequence[str], most: int = 4) -> str:
    """How many, and the names of the first ones in brackets."""
    names = "; ".join(label(m, results) for m in methods[:most])
    more = f", and {len(methods) - most} more" if len(methods) > most else ""
    return f"{len(methods)} ({names}{more})" if methods else "0"


def super_linear(results: Results) -> str:
    """Whether the soup's gain over the base is more than the sum of its two skills' gains."""
    gain = results["superlinearity"]
    if not gain:
        two = len(reading.skills(results)) == 2
        return f"Super-linearity {'was not measured' if two else 'is asked of two skills only'}."
    neither = "Neither super- nor sub-linear, as far as these data tell"
    says = {ABOVE: "Super-linear", BELOW: "Sub-linear", OPEN: neither}[verdict(gain)]
    return (
        f"{says}: the soup gains {100 * gain['gain_soup']:+.1f} points over the base, its skills "
        f"{100 * gain['sum_of_gains']:+.1f} together; the difference is {_difference(gain)}."
    )


def controls(results: Results) -> str:
    """Whether learning the alphas is what helps: other alphas, and a new LoRA on the same data."""
    names = ["linear@delta", *reading.methods(results).get(reading.CONTROLS, [])]
    entries = compared(results, names)
    if not entries:
        return "No control was evaluated."
    beaten = f"{len(_by_verdict(entries)[ABOVE])} of {len(entries)} controls"
    return f"Learned alphas are above {beaten}; CAT minus each: {_differences(results, entries)}."


def alphas_moved(results: Results) -> str:
    """How far the alphas went from where they started, by preset; a mean over seeds."""
    if not results["curves"]:
        return ""
    steps = pd.DataFrame(results["curves"]).sort_values("step", kind="stable")
    last = steps.groupby(["preset", "seed"], sort=False)[["alpha_moved", "step"]].last()
    parts = ", ".join(
        f"{np.mean(ends['alpha_moved']):.4f} after {ends['step'].max()} steps ({preset})"
        for preset, ends in last.groupby("preset", sort=False)
    )
    return f"An alpha moved from its start by, on average: {parts}."


def objective_and_target(results: Results) -> str:
    """Whether less held-out skill loss goes with more solved problems, over the sweep's soups."""
    tried = [e for e in results["sweep"] if "target_accuracy" in e]
    if len(tried) < 3:
        return "The sweep is too small to compare its skill losses with the target."
    loss, solved = zip(*((e["heldout_loss"], e["target_accuracy"]) for e in tried), strict=True)
    rho = spearmanr(np.negative(loss), solved).statistic
    if not math.isfinite(rho):
        return "All soups of the sweep solve the same share of the target."
    ends = next(e for e in tried if e["chosen"]), max(tried, key=lambda e: e["target_accuracy"])
    chosen, best = (
        f"(loss {e['heldout_loss']:.4f}) solves {percent(e['target_accuracy'])} %" for e in ends
    )
    return (
        f"Over the {len(tried)} soups of the sweep, the rank correlation of less held-out skill "
        f"loss with more solved problems is {rho:+.2f} (one seed). The chosen one {chosen} of the "
        f"target; the best on the target {best}. The target must not choose, so this one was not "
        "taken for its score."
    )


def skills_kept(results: Results) -> str:
    """On each skill's own test: its LoRA alone, CAT and DATA-MIX."""
    sentences = []
    for skill in reading.skills(results):
        test, methods = reading.test_of(results, skill), (skill, "cat", "data_mix", "released")
        estimates = {m: estimate(results, m, test) for m in methods}
        shown = [f"{label(m, results)} {percent(e.mean)} %" for m, e in estimates.items() if e]
        if shown:
            sentences.append(f"On the {skill} skill's own test: {', '.join(shown)}.")
    return " ".join(sentences)


def holds(results: Results) -> dict[str, bool]:
    """The parts of the paper's claim, each true only where its paired interval excludes 0."""
    rivals = {
        "CAT above each single skill": reading.skills(results),
        "CAT above every static merge": static_merges(results),
        "CAT above data mixing": ["data_mix"],
    }
    beaten = {part: _by_verdict(compared(results, rivals[part]))[ABOVE] for part in rivals}
    held = {part: beaten[part] == rivals[part] != [] for part in rivals}
    if results["superlinearity"]:
        held["super-linear gain"] = verdict(results["superlinearity"]) == ABOVE
    return held


def summary(results: Results) -> str:
    """One sentence: does the paper's claim hold here, wholly, in part, or not at all?"""
    cat = estimate(results, "cat")
    if cat is None or "ablation" in results["config"]:
        return "The paper's claim is not tested in this experiment."
    parts = holds(results)
    yes, no = (", ".join(p for p, held in parts.items() if held is want) for want in (True, False))
    claim = (
        f"The claim holds here: {yes}" if not no
        else f"The claim holds in part: {yes}; not shown: {no}" if yes
        else f"No part of the claim is shown here ({no})"
    )  # fmt: skip
    return f"{claim}. CAT solves {percent(cat.mean)} % of {cat.n} problems."


def caveats(results: Results) -> list[str]:
    """What not to trust yet, as far as the results file itself tells."""
    rows, config, git = reading.rows(results), results["config"], results["provenance"]["git"]
    n, seeds, note = rows[0]["n"], len({row["seed"] for row in rows}), config.get("note")
    known = {
        f"{note}.": note,
        "Profile smoke proves that everything runs; its numbers mean nothing.":
            results["profile"] == "smoke",
        "One seed: the intervals cover new problems, not new training runs.": seeds == 1,
        f"{seeds} seeds: the bootstrap over seeds is itself rough.": 1 < seeds <= FEW_SEEDS,
        f"Only {n} problems: small differences cannot be seen.": n < FEW_PROBLEMS,
        "The mini world is generated and its base is tiny: the mechanism is shown, not its "
        "size in a large language model.": config.get("source") in ("world", "pages"),
        "The code was not exactly a commit when these results were made.":
            git is None or git.get("dirty"),
    }  # fmt: skip
    return [sentence for sentence, applies in known.items() if applies]


STUDY = (summary, against_skills, against_static, against_data_mix, against_searched, super_linear,
         controls, alphas_moved, skills_kept)  # fmt: skip


def all_sentences(results: Results) -> str:
    """The whole reading as a Markdown list, the summary first."""
    sentences = [*(say(results) for say in STUDY), *caveats(results)]
    return "\n".join(f"- {sentence}" for sentence in sentences if sentence)


def against_each(results: Results) -> str:
    """CAT minus each variant, sorted by the difference, and how many remain after Holm."""
    entries = {e["b"]: e for e in sorted(results["comparisons"], key=lambda e: -e["diff"])}
    if not entries:
        return "Nothing was compared."
    by = _by_verdict(entries)
    apart = by[ABOVE] + by[BELOW]
    kept = sum(entries[m]["p_holm"] < SIGNIFICANT for m in apart)
    return (
        f"Our CAT solves {percent(estimate(results, 'cat').mean)} %. It is above {len(by[ABOVE])}, "
        f"not told apart from {len(by[OPEN])} and below {len(by[BELOW])} of {len(entries)} variants"
        f" ({kept} of {len(apart)} differences remain after Holm's correction). "
        f"CAT minus each, in points: {_differences(results, entries, '')}."
    )


def along(results: Results, curve: str, what: str) -> str:
    """The two ends and the best point of one curve."""
    places = reading.places(results)[curve]
    points = [(x, e) for x, method in places if (e := estimate(results, method))]
    best = max(points, key=lambda point: point[1].mean)
    shown = ", ".join(
        f"{percent(e.mean)} % {interval(e.lo, e.hi)} at {what} {x:g}"
        for x, e in dict.fromkeys((points[0], best, points[-1]))
    )
    return f"From end to end, with the best point: {shown}."


def moved(results: Results, curve: str, small: float = 0.01) -> str:
    """At which learning rates the alphas stay where they start."""
    places = reading.places(results)[curve]
    distances = [(x, reading.extras(results, method, "alpha_moved")) for x, method in places]
    points = [(x, np.mean(values)) for x, values in distances if values]
    still = [x for x, distance in points if distance < small]
    ends = ", ".join(f"{distance:.4f} at {x:g}" for x, distance in (points[0], points[-1]))
    less = f"up to lr {max(still, default=0):g} they move less than {small:g} on average"
    says = less if still else f"at every rate they move more than {small:g}"
    return f"How far an alpha moves from its start ({curve}): {ends}; {says}."


def stable(results: Results) -> str:
    """How well the seeds agree on the order of the modules, per LoRA."""
    by_skill = dict(zip(reading.skills(results), reading.correlations(results), strict=True))
    if not all(by_skill.values()):
        return "One seed: nothing can be said about stability."
    parts = ", ".join(
        f"{skill} {np.mean(rhos):+.2f} (from {min(rhos):+.2f} to {max(rhos):+.2f})"
        for skill, rhos in by_skill.items()
    )
    return f"Rank correlation of the alphas between two seeds, over modules: {parts}."


def valley(results: Results) -> str:
    """Where on the plane the loss is lowest and where the target is solved best."""
    rows = reading.rows(results)
    lowest = min(rows, key=lambda row: row["extra"]["heldout_loss"])
    lowest, best = (
        "({alpha_1:.1f}, {alpha_2:.1f}), where the loss is {heldout_loss:.3f} and "
        "{solved} % are solved".format(solved=percent(row["accuracy"]), **row["extra"])
        for row in (lowest, max(rows, key=lambda row: row["accuracy"]))
    )
    most = f"most of the target is solved at {best} (one seed, {rows[0]['n']} problems)"
    return f"The held-out skill loss is lowest at {lowest}; {most}."


def composed_tests(results: Results) -> list[str]:
    """The tests that need all skills: the target and what else the main methods took."""
    of_skills = {reading.test_of(results, skill) for skill in reading.skills(results)}
    return [t for t, by in results["items"].items() if t not in of_skills and "cat" in by]


def _apart(results: Results, task: str) -> dict[str, tuple[str, float]]:
    """Method -> CAT's verdict against it on a test, after Holm's correction, and the difference."""
    pairs = reading.against_all(results, task)
    adjusted = stats.holm([pair.p for pair in pairs.values()])
    return {
        method: (OPEN if p >= SIGNIFICANT else ABOVE if pair.diff > 0 else BELOW, pair.diff)
        for (method, pair), p in zip(pairs.items(), adjusted, strict=True)
    }


def on_test(results: Results, task: str) -> str:
    """CAT on one test: how much it solves, what it is told apart from (after Holm's correction)."""
    cat, by = estimate(results, "cat", task), {ABOVE: [], BELOW: [], OPEN: []}
    for method, (says, diff) in _apart(results, task).items():
        by[says].append(f"{label(method, results)} ({100 * diff:+.1f})")
    shown = "; ".join(f"{says} {', '.join(names)}" for says, names in by.items() if names)
    return (
        f"**{task}**, {reading.seeds_text(results)}: CAT solves {percent(cat.mean)} % "
        f"{interval(cat.lo, cat.hi)} of {cat.n} problems. In points it is {shown}."
    )


def gains(results: Results, task: str) -> str:
    """Super-linearity on one test. Raises SoupError unless there are two skills with verdicts."""
    skills = reading.skills(results)
    if len(skills) != 2:
        raise SoupError(f"{len(skills)} skills: super-linearity is asked of two; leave it out")
    methods = ("base", *skills, "cat")
    gain = stats.superlinearity(*(reading.matrix(results, task, method) for method in methods))
    word = {ABOVE: "more than", BELOW: "less than", OPEN: OPEN}[verdict(vars(gain))]
    return (
        f"On {task} CAT gains {100 * gain.gain_soup:+.1f} points over the base, its skills alone "
        f"{100 * gain.sum_of_gains:+.1f} together: {word} their sum "
        f"({_difference(vars(gain), '')})."
    )


def legible(results: Results) -> str:
    """On which tests the effect can be read: CAT above the base and above every single skill."""
    single, tests = ("base", *reading.skills(results)), composed_tests(results)
    verdicts = {task: _apart(results, task) for task in tests}
    yes = [task for task in tests if all(verdicts[task][m][0] == ABOVE for m in single)]
    no = ", ".join(task for task in tests if task not in yes)
    if not yes:
        return f"That the soup is above its skills is not shown on {no}."
    shown = f"The soup is above the base and every single skill on {', '.join(yes)}"
    return f"{shown}; not shown on {no}." if no else f"{shown}."
