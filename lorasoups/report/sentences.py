"""From results to sentences that are true of them, whichever way the numbers fall.

One rule: CAT is above or below something where the 95 % interval of the crossed ANOVA t
(`results.stats`) excludes 0; of a study's primary contrasts, where p after Holm's correction is
below 0.05. All other comparisons are descriptive.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lorasoups.results import reading
from lorasoups.results.reading import Primary, Results, estimate, interval, label, percent
from lorasoups.results.stats import Paired

ABOVE, BELOW, OPEN = "above", "below", "not told apart from"
SIGNIFICANT = 0.05
FEW_PROBLEMS, FEW_SEEDS = 500, 5  # up to here a caveat is shown
MAIN = ("cat", reading.SUM, reading.TUNED, reading.AVERAGE, "data_mix")


def verdict(pair: Paired) -> str:
    """`ABOVE`, `BELOW` or `OPEN`: where the interval lies with regard to 0."""
    return ABOVE if pair.lo > 0 else BELOW if pair.hi < 0 else OPEN


def primary_verdict(contrast: Primary) -> str:
    """The same for a primary contrast, after Holm's correction."""
    if contrast.p_holm >= SIGNIFICANT:
        return OPEN
    return ABOVE if contrast.pair.diff > 0 else BELOW


def _by_verdict(pairs: Mapping[str, Paired]) -> dict[str, list[str]]:
    return {v: [m for m, pair in pairs.items() if verdict(pair) == v] for v in (ABOVE, OPEN, BELOW)}


def _difference(pair: Paired, unit: str = " points") -> str:
    """``+12.3 points [+8.0, +16.4]``."""
    return f"{100 * pair.diff:+.1f}{unit} {interval(pair.lo, pair.hi, '+')}"


def _differences(results: Results, pairs: Mapping[str, Paired], unit: str = " points") -> str:
    return "; ".join(f"{label(m, results)} {_difference(p, unit)}" for m, p in pairs.items())


def primary(results: Results) -> str:
    """CAT against its few main rivals: the paper's baselines, the sum, DATA-MIX, a skill."""
    contrasts = reading.primary(results)
    if not contrasts:
        return "No primary contrast was evaluated."
    said = "; ".join(
        f"{primary_verdict(c)} {c.name}: {_difference(c.pair)}, p {reading.p_value(c.p_holm, '= ')}"
        for c in contrasts
    )
    return f"Primary contrasts (p after Holm's correction for {len(contrasts)}): CAT is {said}."


def static_merges(results: Results) -> list[str]:
    """The static merges that were evaluated on the target."""
    return reading.methods(results).get(reading.STATIC, [])


def against_static(results: Results) -> str:
    """How many static merges CAT is above, not told apart from and below; the best of them."""
    pairs = reading.against(results, static_merges(results))
    if not pairs:
        return "No static merge was evaluated."
    by = _by_verdict(pairs)
    best = max(pairs, key=lambda m: estimate(results, m).mean)
    return (
        f"Of {len(pairs)} static merges, CAT is above {len(by[ABOVE])}, not told apart from "
        f"{_counted(results, by[OPEN])}, below {_counted(results, by[BELOW])}. The best of them, "
        f"{label(best, results)}, solves {percent(estimate(results, best).mean)} %; CAT minus it "
        f"is {_difference(pairs[best])}. (Descriptive: the best of {len(pairs)} is chosen by its "
        "score.)"
    )


def _counted(results: Results, methods: Sequence[str], most: int = 4) -> str:
    """How many, and the names of the first ones in brackets."""
    names = "; ".join(label(m, results) for m in methods[:most])
    more = f", and {len(methods) - most} more" if len(methods) > most else ""
    return f"{len(methods)} ({names}{more})" if methods else "0"


def super_linear(results: Results) -> str:
    """Whether the soup's gain over the base is more than the sum of its two skills' gains."""
    gain = reading.superlinear(results)
    if gain is None:
        two = len(reading.skills(results)) == 2
        return f"Super-linearity {'was not measured' if two else 'is defined for two skills only'}."
    neither = "Neither super- nor sub-linear, as far as these data tell"
    says = {ABOVE: "Super-linear", BELOW: "Sub-linear", OPEN: neither}[verdict(gain)]
    easy = (" That is nearly automatic where the target needs both skills: either alone then gains "
            "next to nothing.")  # fmt: skip
    return (
        f"{says}: the soup gains {100 * gain.gain_soup:+.1f} points over the base, its skills "
        f"{100 * gain.sum_of_gains:+.1f} together; the difference is {_difference(gain)}, on the "
        f"logit scale {gain.logit:+.1f}.{easy if verdict(gain) == ABOVE else ''}"
    )


def floors(results: Results) -> str:
    """What is solved without any skill, and whether CAT is above it."""
    cat, said = estimate(results, "cat"), []
    for name, share in results.get("floors", {}).items() if cat else ():
        where = ABOVE if cat.lo > share else BELOW if cat.hi < share else "not shown to be above"
        said.append(f"{name}: {percent(share)} % (CAT is {where} it)")
    return f"Floors, of constant answers: {'; '.join(said)}." if said else ""


def form_and_content(results: Results, *methods: str) -> str:
    """Solved = P(in form) x P(right | in form), for CAT and its main rivals."""
    said = []
    for method in methods or (*MAIN, *reading.skills(results)):
        if (shares := reading.form(results, method)) is not None:
            said.append(f"{label(method, results)} {100 * shares[0]:.0f} x {100 * shares[1]:.0f}")
    return "Solved = P(in form) x P(right given the form), in %: " + ", ".join(said) + "."


def controls(results: Results) -> str:
    """Whether learning the alphas is what helps: other alphas, and a new LoRA on the same data."""
    names = ["linear@delta", *reading.methods(results).get(reading.CONTROLS, [])]
    pairs = reading.against(results, names)
    if not pairs:
        return "No control was evaluated."
    if "cat_lr0" in pairs and pairs["cat_lr0"] == pairs.get("linear@delta"):
        del pairs["linear@delta"]  # where alphas start at 1/k, they are one soup
    beaten = f"{len(_by_verdict(pairs)[ABOVE])} of {len(pairs)} controls"
    return f"Learned alphas are above {beaten}; CAT minus each: {_differences(results, pairs)}."


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


def skills_kept(results: Results) -> str:
    """How much of each skill CAT and its main rivals keep, and the front of all methods."""
    kept, front = reading.kept_by_method(results)
    if not kept.get("cat"):
        return ""
    skills = reading.skills(results)
    shown = (
        f"{label(m, results)} {', '.join(f'{100 * share:.0f} % of {s}' for s, share in parts)}"
        for m, k in kept.items() if k and m in MAIN
        for parts in [zip(skills, k, strict=True)]
    )  # fmt: skip
    best = ", ".join(label(m, results) for m in front)
    return (
        f"Kept of each skill, against its LoRA alone: {'; '.join(shown)}. On the Pareto front "
        f"(the target against the skill that is kept least): {best}."
    )


def summary(results: Results) -> str:
    """One sentence: what CAT solves, and how the primary contrasts fall."""
    cat = estimate(results, "cat")
    if cat is None or "ablation" in results["config"]:
        return "The paper's claim is not tested in this experiment."
    by: dict[str, list[str]] = {}
    for contrast in reading.primary(results):
        by.setdefault(primary_verdict(contrast), []).append(contrast.name)
    said = "; ".join(f"{v} {', '.join(by[v])}" for v in (ABOVE, OPEN, BELOW) if v in by)
    return f"CAT solves {percent(cat.mean)} % of {cat.n} problems: {said or 'not compared'}."


def caveats(results: Results) -> list[str]:
    """What not to trust yet, as far as the results file itself tells."""
    rows, config, git = reading.rows(results), results["config"], results["provenance"]["git"]
    n, seeds, note = rows[0]["n"], len({row["seed"] for row in rows}), config.get("note")
    known = {
        f"{note}.": note,
        "Profile smoke proves that everything runs; its numbers mean nothing.":
            results["profile"] == "smoke",
        "One seed: the intervals cover new problems, not new training runs.": seeds == 1,
        f"With {seeds} seeds, the variance between seeds is itself poorly estimated.":
            1 < seeds <= FEW_SEEDS,
        f"Only {n} problems: small differences cannot be seen.": n < FEW_PROBLEMS,
        "The mini world is generated and its base is tiny: what holds here need not hold in a "
        "large language model.": config.get("source") in ("world", "pages"),
        "The code was not exactly a commit when these results were made.":
            git is None or git.get("dirty"),
    }  # fmt: skip
    return [sentence for sentence, applies in known.items() if applies]


STUDY = (primary, floors, form_and_content, skills_kept, against_static, controls, alphas_moved)


def all_sentences(results: Results) -> str:
    """The whole reading as a Markdown list."""
    sentences = [*(say(results) for say in STUDY), *caveats(results)]
    return "\n".join(f"- {sentence}" for sentence in sentences if sentence)


def against_each(results: Results) -> str:
    """CAT minus each variant that is not CAT itself, sorted by the difference."""
    pairs = dict(sorted(reading.against(results).items(), key=lambda entry: -entry[1].diff))
    others = {m: pair for m, pair in pairs.items() if pair.lo < pair.hi or pair.diff}
    if not others:
        return "Nothing was compared."
    return (
        f"The study's CAT solves {percent(estimate(results, 'cat').mean)} %. CAT minus each "
        f"variant, in points: {_differences(results, others, '')}."
    )
