"""Sentences about ablations, made from their results files, whichever way the numbers fall."""

from collections.abc import Sequence

import numpy as np

from lorasoups.report.claims import ABOVE, BELOW, OPEN, SIGNIFICANT, verdict
from lorasoups.report.figures.ablation import places
from lorasoups.report.figures.alphas import correlations
from lorasoups.results import reading
from lorasoups.results.reading import Results, estimate, label, percent


def against_each(results: Results, methods: Sequence[str] = ()) -> str:
    """CAT minus each variant, sorted by the difference, and how many remain after Holm."""
    entries = [e for e in results["comparisons"] if not methods or e["b"] in methods]
    if not entries:
        return "Nothing was compared."
    entries = sorted(entries, key=lambda e: -e["diff"])
    told = {v: [e for e in entries if verdict(e) == v] for v in (ABOVE, OPEN, BELOW)}
    kept = sum(e["p_holm"] < SIGNIFICANT for e in entries if verdict(e) != OPEN)
    shown = "; ".join(
        f"{label(e['b'], results)} {100 * e['diff']:+.1f} [{100 * e['lo']:+.1f}, "
        f"{100 * e['hi']:+.1f}]"
        for e in entries
    )
    ours = estimate(results, "cat")
    return (
        f"Our CAT solves {percent(ours.mean)} %. It is above {len(told[ABOVE])}, not told apart "
        f"from {len(told[OPEN])} and below {len(told[BELOW])} of {len(entries)} variants ({kept} "
        f"of {len(told[ABOVE]) + len(told[BELOW])} differences remain after Holm's correction). "
        f"CAT minus each, in points: {shown}."
    )


def along(results: Results, curve: str, what: str) -> str:
    """The two ends and the best point of one curve."""
    points = [(x, m, estimate(results, m)) for x, m in places(results)[curve]]
    points = [(x, m, e) for x, m, e in points if e]
    first, last = points[0], points[-1]
    best = max(points, key=lambda p: p[2].mean)
    shown = ", ".join(
        f"{percent(e.mean)} % [{percent(e.lo)}, {percent(e.hi)}] at {what} {x:g}"
        for x, _, e in dict.fromkeys((first, best, last))
    )
    return f"From end to end, with the best point: {shown}."


def moved(results: Results, curve: str, small: float = 0.01) -> str:
    """At which learning rates the alphas stay where they start."""
    points = [
        (x, np.mean([r["extra"]["alpha_moved"] for r in own]))
        for x, m in places(results)[curve]
        for own in [[r for r in reading.rows(results, method=m) if "alpha_moved" in r["extra"]]]
        if own
    ]
    still = [x for x, distance in points if distance < small]
    ends = ", ".join(f"{distance:.4f} at {x:g}" for x, distance in (points[0], points[-1]))
    says = f"up to lr {max(still):g} they move less than {small:g} on average" if still else (
        f"at every rate they move more than {small:g}"
    )  # fmt: skip
    return f"How far an alpha moves from its start ({curve}): {ends}; {says}."


def stable(results: Results) -> str:
    """How well the seeds agree on the order of the modules, per LoRA."""
    pairs = correlations(results)
    skills = reading.skills(results)
    if not pairs[0]:
        return "One seed: nothing can be said about stability."
    parts = [
        f"{skill} {np.mean(own):+.2f} (from {min(own):+.2f} to {max(own):+.2f})"
        for skill, own in zip(skills, pairs, strict=True)
    ]
    return f"Rank correlation of the alphas between two seeds, over modules: {', '.join(parts)}."


def valley(results: Results) -> str:
    """Where on the plane the loss is lowest and where the target is solved best."""
    rows = reading.rows(results)
    low = min(rows, key=lambda r: r["extra"]["heldout_loss"])
    high = max(rows, key=lambda r: r["accuracy"])

    def place(row) -> str:
        return (
            f"({row['extra']['alpha_1']:.1f}, {row['extra']['alpha_2']:.1f}), where the loss is "
            f"{row['extra']['heldout_loss']:.3f} and {percent(row['accuracy'])} % are solved"
        )

    return (
        f"The held-out skill loss is lowest at {place(low)}; most of the target is solved at "
        f"{place(high)} (one seed, {rows[0]['n']} problems)."
    )
