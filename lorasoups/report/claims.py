"""From the results file to sentences that are true of it, whichever way the numbers fall.

Two methods count as told apart where the paired 95 % interval of their difference excludes 0.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from scipy.stats import spearmanr

from lorasoups.results import reading
from lorasoups.results.reading import Results, estimate, label, percent

ABOVE, BELOW, OPEN = "above", "below", "not told apart from"
SIGNIFICANT = 0.05
FEW_PROBLEMS, FEW_SEEDS = 500, 5  # fewer than the issue asks for: said aloud


def verdict(entry: Mapping[str, Any]) -> str:
    """`ABOVE`, `BELOW` or `OPEN`: where ``[lo, hi]`` lies with regard to 0."""
    if entry["lo"] is None or entry["hi"] is None:
        return OPEN
    if entry["lo"] > 0:
        return ABOVE
    return BELOW if entry["hi"] < 0 else OPEN


def comparison(results: Results, method: str) -> Mapping[str, Any] | None:
    """The entry CAT against ``method`` on the target, if there is one."""
    wanted = {"task": reading.target(results), "a": "cat", "b": method}
    found = [e for e in results["comparisons"] if wanted.items() <= e.items()]
    return found[0] if found else None


def against(results: Results, method: str) -> str:
    """One sentence: CAT against one other method."""
    entry = comparison(results, method)
    if entry is None:
        return f"CAT was not compared with {label(method, results)}."
    return f"CAT is {verdict(entry)} {label(method, results)}: {_difference(entry)}."


def _difference(entry: Mapping[str, Any]) -> str:
    """``+12.3 points [+8.0, +16.4]``."""
    text = f"{100 * entry['diff']:+.1f} points"
    if entry["lo"] is None or entry["hi"] is None:
        return f"{text} (no interval)"
    return f"{text} [{100 * entry['lo']:+.1f}, {100 * entry['hi']:+.1f}]"


def against_skills(results: Results) -> str:
    """CAT against each single skill and the base."""
    return " ".join(against(results, name) for name in ("base", *reading.skills(results)))


def static_methods(results: Results) -> list[str]:
    """The static merges that were evaluated on the target."""
    return reading.methods(results).get(reading.STATIC, [])


def against_static(results: Results) -> str:
    """How many static merges CAT is above, not told apart from and below; the best of them."""
    names = [m for m in static_methods(results) if comparison(results, m)]
    if not names:
        return "No static merge was evaluated."
    entries = {m: comparison(results, m) for m in names}
    told = {v: [m for m in names if verdict(entries[m]) == v] for v in (ABOVE, OPEN, BELOW)}
    best = max(names, key=lambda m: estimate(results, m).mean)
    text = f"Of {len(names)} static merges, CAT is above {len(told[ABOVE])}"
    text += f", not told apart from {len(told[OPEN])}{_names(results, told[OPEN])}"
    text += f", below {len(told[BELOW])}{_names(results, told[BELOW])}."
    most = percent(estimate(results, best).mean)
    text += f" The best of them, {label(best, results)}, solves {most} %"
    text += f"; CAT minus it is {_difference(entries[best])}."
    if not told[ABOVE]:
        return text
    ps = [entries[m]["p_holm"] for m in told[ABOVE] if entries[m]["p_holm"] is not None]
    kept = sum(p < SIGNIFICANT for p in ps)
    return f"{text} After Holm's correction for all comparisons {kept} of {len(ps)} wins remain."


def _names(results: Results, methods: Iterable[str], most: int = 4) -> str:
    names = [label(m, results) for m in methods]
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return f" ({'; '.join(names[:most])}{more})" if names else ""


def against_data_mix(results: Results) -> str:
    """CAT against training on all the data, whichever way it falls."""
    names = [m for m in ("data_mix", "data_mix_2r") if comparison(results, m)]
    return " ".join(against(results, m) for m in names) or "DATA-MIX was not evaluated."


def against_searched(results: Results) -> str:
    """CAT against what else learns on the same data: LoraHub's search, X-LoRA's gate; few-shot."""
    names = [*reading.methods(results).get(reading.SEARCH, []), "few_shot"]
    return " ".join(against(results, m) for m in names if comparison(results, m))


def super_linear(results: Results) -> str:
    """Whether the soup's gain over the base is more than the sum of its two skills' gains."""
    found = results["superlinearity"]
    if not found and len(reading.skills(results)) == 2:
        return "Super-linearity was not measured."
    if not found:
        return "Super-linearity is asked of two skills only."
    gains = (
        f"the soup gains {100 * found['gain_soup']:+.1f} points over the base, its skills "
        f"{100 * found['sum_of_gains']:+.1f} together; the difference is {_difference(found)}"
    )
    says = {
        ABOVE: "Super-linear: ",
        BELOW: "Sub-linear: ",
        OPEN: "Neither super- nor sub-linear, as far as these data tell: ",
    }
    return f"{says[verdict(found)]}{gains}."


def controls(results: Results) -> str:
    """Whether learning the alphas is what helps: other alphas, and a new LoRA on the same data."""
    names = ["linear@delta", *reading.methods(results).get(reading.CONTROLS, [])]
    names = [m for m in names if comparison(results, m)]
    if not names:
        return "No control was evaluated."
    entries = {m: comparison(results, m) for m in names}
    shown = "; ".join(f"{label(m, results)} {_difference(e)}" for m, e in entries.items())
    beaten = sum(verdict(e) == ABOVE for e in entries.values())
    return f"Learned alphas are above {beaten} of {len(names)} controls; CAT minus each: {shown}."


def alphas_moved(results: Results) -> str:
    """How far the alphas went from where they started, ours and the released schedule."""
    ends: dict[str, dict[int, Mapping]] = {}
    for entry in results["curves"]:
        last = ends.setdefault(entry["preset"], {})
        if entry["seed"] not in last or entry["step"] > last[entry["seed"]]["step"]:
            last[entry["seed"]] = entry
    parts = []
    for preset, last in ends.items():
        moved = sum(e["alpha_moved"] for e in last.values()) / len(last)
        steps = max(e["step"] for e in last.values())
        parts.append(f"{moved:.4f} after {steps} steps ({preset})")
    return f"An alpha moved from its start by, on average: {', '.join(parts)}." if parts else ""


def objective_and_target(results: Results) -> str:
    """Whether the sweep's soups with less held-out skill loss also solve more of the target.

    Spearman's rank correlation over the sweep (one seed); the target was looked at afterwards.
    """
    entries = [e for e in results["sweep"] if "target_accuracy" in e]
    if len(entries) < 3:
        return "The sweep is too small to compare its skill losses with the target."
    rho = spearmanr(
        [e["heldout_loss"] for e in entries], [-e["target_accuracy"] for e in entries]
    ).statistic
    if not math.isfinite(rho):
        return "All soups of the sweep solve the same share of the target."
    best = max(entries, key=lambda e: e["target_accuracy"])
    chosen = next(e for e in entries if e["chosen"])
    return (
        f"Over the {len(entries)} soups of the sweep, the rank correlation of less held-out skill "
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
        test = reading.test_of(results, skill)
        found = {m: estimate(results, m, test) for m in (skill, "cat", "data_mix", "released")}
        shown = [f"{label(m, results)} {percent(e.mean)} %" for m, e in found.items() if e]
        if shown:
            sentences.append(f"On the {skill} skill's own test: {', '.join(shown)}.")
    return " ".join(sentences)


def holds(results: Results) -> dict[str, bool]:
    """The parts of the paper's claim, each true only where its paired interval excludes 0."""
    skills = [comparison(results, m) for m in reading.skills(results)]
    static = [comparison(results, m) for m in static_methods(results)]
    mix = [comparison(results, "data_mix")]
    parts = {
        "CAT above each single skill": _all_above(skills),
        "CAT above every static merge": _all_above(static),
        "CAT above data mixing": _all_above(mix),
    }
    if results["superlinearity"]:
        parts["super-linear gain"] = _all_above([results["superlinearity"]])
    return parts


def _all_above(entries: list[Mapping[str, Any] | None]) -> bool:
    return bool(entries) and all(e is not None and verdict(e) == ABOVE for e in entries)


def summary(results: Results) -> str:
    """One sentence: does the paper's claim hold here, wholly, in part, or not at all?"""
    found = estimate(results, "cat")
    if found is None or "ablation" in results["config"]:
        return "The paper's claim is not tested in this experiment."
    parts = holds(results)
    share = f"CAT solves {percent(found.mean)} % of {found.n} problems."
    yes, no = ([name for name, held in parts.items() if held is want] for want in (True, False))
    if not no:
        return f"The claim holds here: {', '.join(yes)}. {share}"
    if not yes:
        return f"No part of the claim is shown here ({', '.join(no)}). {share}"
    return f"The claim holds in part: {', '.join(yes)}; not shown: {', '.join(no)}. {share}"


def caveats(results: Results) -> list[str]:
    """What not to trust yet, as far as the results file itself tells."""
    found = []
    seeds = len({row["seed"] for row in reading.rows(results)})
    n = reading.rows(results)[0]["n"]
    if results["config"].get("note"):
        found.append(f"{results['config']['note']}.")
    if results["profile"] == "smoke":
        found.append("Profile smoke proves that everything runs; its numbers mean nothing.")
    if seeds == 1:
        found.append("One seed: the intervals cover new problems, not new training runs.")
    elif seeds <= FEW_SEEDS:
        found.append(f"{seeds} seeds: the bootstrap over seeds is itself rough.")
    if n < FEW_PROBLEMS:
        found.append(f"Only {n} problems: small differences cannot be seen.")
    if results["config"].get("source") in ("world", "pages"):
        found.append(
            "The mini world is generated and its base is tiny: the mechanism is shown, not its "
            "size in a large language model."
        )
    git = results["provenance"]["git"]
    if git is None or git.get("dirty"):
        found.append("The code was not exactly a commit when these results were made.")
    return found


def all_claims(results: Results) -> str:
    """The whole reading as a Markdown list, the summary first."""
    sentences = (
        summary(results),
        against_skills(results),
        against_static(results),
        against_data_mix(results),
        against_searched(results),
        super_linear(results),
        controls(results),
        alphas_moved(results),
        skills_kept(results),
        *caveats(results),
    )
    return "\n".join(f"- {sentence}" for sentence in sentences if sentence)
