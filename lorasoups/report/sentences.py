"""From results to sentences that are true of them, whichever way the numbers fall.

CAT counts as above or below another method where the paired 95 % interval of their difference
excludes 0 (on the further tests of a real model: where p after Holm's correction is below 0.05).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
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


# --- a study ------------------------------------------------------------------------------------


def against(results: Results, *methods: str) -> str:
    """CAT against other methods, a sentence each."""
    entries = compared(results, methods)
    return " ".join(
        f"CAT is {verdict(entries[m])} {label(m, results)}: {_difference(entries[m])}."
        if m in entries
        else f"CAT was not compared with {label(m, results)}."
        for m in methods
    )


def against_skills(results: Results) -> str:
    """CAT against each single skill and the base."""
    return against(results, "base", *reading.skills(results))


def against_data_mix(results: Results) -> str:
    """CAT against training on all the data."""
    names = compared(results, ("data_mix", "data_mix_2r"))
    return against(results, *names) or "DATA-MIX was not evaluated."


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
    text = (
        f"Of {len(entries)} static merges, CAT is above {len(by[ABOVE])}, not told apart from "
        f"{len(by[OPEN])}{_names(results, by[OPEN])}, below {len(by[BELOW])}"
        f"{_names(results, by[BELOW])}. The best of them, {label(best, results)}, solves "
        f"{percent(estimate(results, best).mean)} %; CAT minus it is {_difference(entries[best])}."
    )
    if not by[ABOVE]:
        return text
    ps = [p for p in (entries[m]["p_holm"] for m in by[ABOVE]) if p is not None]
    kept = sum(p < SIGNIFICANT for p in ps)
    return f"{text} After Holm's correction for all comparisons {kept} of {len(ps)} wins remain."


def _names(results: Results, methods: Sequence[str], most: int = 4) -> str:
    names = "; ".join(label(m, results) for m in methods[:most])
    more = f", and {len(methods) - most} more" if len(methods) > most else ""
    return f" ({names}{more})" if methods else ""


def super_linear(results: Results) -> str:
    """Whether the soup's gain over the base is more than the sum of its two skills' gains."""
    gain = results["superlinearity"]
    if not gain and len(reading.skills(results)) == 2:
        return "Super-linearity was not measured."
    if not gain:
        return "Super-linearity is asked of two skills only."
    says = {
        ABOVE: "Super-linear",
        BELOW: "Sub-linear",
        OPEN: "Neither super- nor sub-linear, as far as these data tell",
    }
    return (
        f"{says[verdict(gain)]}: the soup gains {100 * gain['gain_soup']:+.1f} points over the "
        f"base, its skills {100 * gain['sum_of_gains']:+.1f} together; the difference is "
        f"{_difference(gain)}."
    )


def controls(results: Results) -> str:
    """Whether learning the alphas is what helps: other alphas, and a new LoRA on the same data."""
    names = ["linear@delta", *reading.methods(results).get(reading.CONTROLS, [])]
    entries = compared(results, names)
    if not entries:
        return "No control was evaluated."
    shown = "; ".join(f"{label(m, results)} {_difference(e)}" for m, e in entries.items())
    beaten = len(_by_verdict(entries)[ABOVE])
    return f"Learned alphas are above {beaten} of {len(entries)} controls; CAT minus each: {shown}."


def alphas_moved(results: Results) -> str:
    """How far the alphas went from where they started, by preset; a mean over seeds."""
    last: dict[str, dict[int, Entry]] = {}
    for step in sorted(results["curves"], key=lambda step: step["step"]):
        last.setdefault(step["preset"], {})[step["seed"]] = step
    parts = [
        f"{np.mean([step['alpha_moved'] for step in ends.values()]):.4f} after "
        f"{max(step['step'] for step in ends.values())} steps ({preset})"
        for preset, ends in last.items()
    ]
    return f"An alpha moved from its start by, on average: {', '.join(parts)}." if parts else ""


def objective_and_target(results: Results) -> str:
    """Whether the tried soups with less held-out skill loss also solve more of the target.

    Spearman's rank correlation over what was tried (one seed); the target was evaluated afterwards.
    """
    tried = [e for e in results["sweep"] if "target_accuracy" in e]
    if len(tried) < 3:
        return "The sweep is too small to compare its skill losses with the target."
    less_loss, solved = [-e["heldout_loss"] for e in tried], [e["target_accuracy"] for e in tried]
    rho = spearmanr(less_loss, solved).statistic
    if not math.isfinite(rho):
        return "All soups of the sweep solve the same share of the target."
    best = max(tried, key=lambda e: e["target_accuracy"])
    chosen = next(e for e in tried if e["chosen"])
    return (
        f"Over the {len(tried)} soups of the sweep, the rank correlation of less held-out skill "
        f"loss with more solved problems is {rho:+.2f} (one seed). The chosen one (loss "
        f"{chosen['heldout_loss']:.4f}) solves {percent(chosen['target_accuracy'])} % of the "
        f"target; the best on the target (loss {best['heldout_loss']:.4f}) solves "
        f"{percent(best['target_accuracy'])} %. The target must not choose, so this one was not "
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
    parts = {
        "CAT above each single skill": reading.skills(results),
        "CAT above every static merge": static_merges(results),
        "CAT above data mixing": ["data_mix"],
    }
    held = {
        part: bool(methods) and len(_by_verdict(compared(results, methods))[ABOVE]) == len(methods)
        for part, methods in parts.items()
    }
    if results["superlinearity"]:
        held["super-linear gain"] = verdict(results["superlinearity"]) == ABOVE
    return held


def summary(results: Results) -> str:
    """One sentence: does the paper's claim hold here, wholly, in part, or not at all?"""
    cat = estimate(results, "cat")
    if cat is None or "ablation" in results["config"]:
        return "The paper's claim is not tested in this experiment."
    parts = holds(results)
    share = f"CAT solves {percent(cat.mean)} % of {cat.n} problems."
    yes, no = (", ".join(p for p, held in parts.items() if held is want) for want in (True, False))
    if not no:
        return f"The claim holds here: {yes}. {share}"
    if not yes:
        return f"No part of the claim is shown here ({no}). {share}"
    return f"The claim holds in part: {yes}; not shown: {no}. {share}"


def caveats(results: Results) -> list[str]:
    """What not to trust yet, as far as the results file itself tells."""
    rows, config, git = reading.rows(results), results["config"], results["provenance"]["git"]
    n, seeds, note = rows[0]["n"], len({row["seed"] for row in rows}), config.get("note")
    known = {
        f"{note}.": note,
        "Profile smoke proves that everything runs; its numbers mean nothing.": (
            results["profile"] == "smoke"
        ),
        "One seed: the intervals cover new problems, not new training runs.": seeds == 1,
        f"{seeds} seeds: the bootstrap over seeds is itself rough.": 1 < seeds <= FEW_SEEDS,
        f"Only {n} problems: small differences cannot be seen.": n < FEW_PROBLEMS,
        "The mini world is generated and its base is tiny: the mechanism is shown, not its "
        "size in a large language model.": config.get("source") in ("world", "pages"),
        "The code was not exactly a commit when these results were made.": (
            git is None or git.get("dirty")
        ),
    }
    return [sentence for sentence, applies in known.items() if applies]


STUDY = (summary, against_skills, against_static, against_data_mix, against_searched, super_linear,
         controls, alphas_moved, skills_kept)  # fmt: skip


def all_sentences(results: Results) -> str:
    """The whole reading as a Markdown list, the summary first."""
    sentences = [*(say(results) for say in STUDY), *caveats(results)]
    return "\n".join(f"- {sentence}" for sentence in sentences if sentence)


# --- an ablation --------------------------------------------------------------------------------


def against_each(results: Results) -> str:
    """CAT minus each variant, sorted by the difference, and how many remain after Holm."""
    entries = {e["b"]: e for e in sorted(results["comparisons"], key=lambda e: -e["diff"])}
    if not entries:
        return "Nothing was compared."
    by = _by_verdict(entries)
    apart = by[ABOVE] + by[BELOW]
    kept = sum(entries[m]["p_holm"] < SIGNIFICANT for m in apart)
    shown = "; ".join(f"{label(m, results)} {_difference(e, '')}" for m, e in entries.items())
    return (
        f"Our CAT solves {percent(estimate(results, 'cat').mean)} %. It is above {len(by[ABOVE])}, "
        f"not told apart from {len(by[OPEN])} and below {len(by[BELOW])} of {len(entries)} variants"
        f" ({kept} of {len(apart)} differences remain after Holm's correction). "
        f"CAT minus each, in points: {shown}."
    )


def along(results: Results, curve: str, what: str) -> str:
    """The two ends and the best point of one curve."""
    points = [(x, estimate(results, m)) for x, m in reading.places(results)[curve]]
    points = [(x, e) for x, e in points if e]
    best = max(points, key=lambda point: point[1].mean)
    shown = ", ".join(
        f"{percent(e.mean)} % {interval(e.lo, e.hi)} at {what} {x:g}"
        for x, e in dict.fromkeys((points[0], best, points[-1]))
    )
    return f"From end to end, with the best point: {shown}."


def moved(results: Results, curve: str, small: float = 0.01) -> str:
    """At which learning rates the alphas stay where they start."""
    points = []
    for x, method in reading.places(results)[curve]:
        extras = [row["extra"] for row in reading.rows(results, method=method)]
        distances = [extra["alpha_moved"] for extra in extras if "alpha_moved" in extra]
        if distances:
            points.append((x, np.mean(distances)))
    still = [x for x, distance in points if distance < small]
    ends = ", ".join(f"{distance:.4f} at {x:g}" for x, distance in (points[0], points[-1]))
    says = f"at every rate they move more than {small:g}"
    if still:
        says = f"up to lr {max(still):g} they move less than {small:g} on average"
    return f"How far an alpha moves from its start ({curve}): {ends}; {says}."


def stable(results: Results) -> str:
    """How well the seeds agree on the order of the modules, per LoRA."""
    by_skill = dict(zip(reading.skills(results), reading.correlations(results), strict=True))
    if not all(by_skill.values()):
        return "One seed: nothing can be said about stability."
    parts = [
        f"{skill} {np.mean(rhos):+.2f} (from {min(rhos):+.2f} to {max(rhos):+.2f})"
        for skill, rhos in by_skill.items()
    ]
    return f"Rank correlation of the alphas between two seeds, over modules: {', '.join(parts)}."


def valley(results: Results) -> str:
    """Where on the plane the loss is lowest and where the target is solved best."""
    rows = reading.rows(results)
    low = min(rows, key=lambda row: row["extra"]["heldout_loss"])
    high = max(rows, key=lambda row: row["accuracy"])
    low, high = (
        f"({row['extra']['alpha_1']:.1f}, {row['extra']['alpha_2']:.1f}), where the loss is "
        f"{row['extra']['heldout_loss']:.3f} and {percent(row['accuracy'])} % are solved"
        for row in (low, high)
    )
    return (
        f"The held-out skill loss is lowest at {low}; most of the target is solved at "
        f"{high} (one seed, {rows[0]['n']} problems)."
    )


# --- tests of a real model ----------------------------------------------------------------------


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
    cat, apart = estimate(results, "cat", task), _apart(results, task)
    by = {
        v: [f"{label(m, results)} ({100 * diff:+.1f})" for m, (w, diff) in apart.items() if w == v]
        for v in (ABOVE, BELOW, OPEN)
    }
    shown = "; ".join(f"{v} {', '.join(names)}" for v, names in by.items() if names)
    return (
        f"**{task}**, {reading.seeds_text(results)}: CAT solves {percent(cat.mean)} % "
        f"{interval(cat.lo, cat.hi)} of {cat.n} problems. In points it is {shown}."
    )


def gains(results: Results, task: str) -> str:
    """Super-linearity on one test: CAT's gain over the base against those of its two skills.

    Raises:
        SoupError: not two skills, or a method without verdicts.
    """
    skills = reading.skills(results)
    if len(skills) != 2:
        raise SoupError(f"{len(skills)} skills: super-linearity is asked of two; leave it out")
    tables = [reading.matrix(results, task, name) for name in ("base", *skills, "cat")]
    gain = stats.superlinearity(*tables)
    word = {ABOVE: "more than", BELOW: "less than", OPEN: OPEN}[verdict(vars(gain))]
    return (
        f"On {task} CAT gains {100 * gain.gain_soup:+.1f} points over the base, its skills alone "
        f"{100 * gain.sum_of_gains:+.1f} together: {word} their sum "
        f"({_difference(vars(gain), '')})."
    )


def legible(results: Results) -> str:
    """On which tests the effect can be read: CAT above the base and above every single skill."""
    single, yes, no = ("base", *reading.skills(results)), [], []
    for task in composed_tests(results):
        apart = _apart(results, task)
        (yes if all(apart[m][0] == ABOVE for m in single) else no).append(task)
    shown = f"The soup is above the base and every single skill on {', '.join(yes)}"
    if not no:
        return f"{shown}."
    missing = "not shown on" if yes else "That the soup is above its skills is not shown on"
    return f"{shown + '; ' if yes else ''}{missing} {', '.join(no)}."
