"""Tables from the results file: data frames for notebooks, Markdown for the README.

``python -m lorasoups.report.tables`` writes the results of profile ``mini`` into ``README.md``.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from lorasoups.errors import SoupError
from lorasoups.files import write_text_atomic
from lorasoups.paths import Folders
from lorasoups.report import claims
from lorasoups.results import reading
from lorasoups.results.file import load_results, read_results
from lorasoups.results.reading import Estimate, Results, estimate, label, percent
from lorasoups.study.profile import STUDIES

BEGIN, END = "<!-- results:", "<!-- end of results -->"  # around what is written into the README


def interval(lo: float | None, hi: float | None, sign: str = "") -> str:
    """``[58.1, 66.0]`` in percent or points; a dash where there is none."""
    return "-" if lo is None or hi is None else f"[{100 * lo:{sign}.1f}, {100 * hi:{sign}.1f}]"


def headline(results: Results) -> pd.DataFrame:
    """Every method on the target: mean over seeds, 95 % interval, range of the seeds.

    ``kind`` stands only with the first method of its kind.
    """
    return pd.DataFrame(
        {"kind": name if method == members[0] else "", "method": label(method, results)}
        | _numbers(estimate(results, method))
        for name, members in reading.methods(results).items()
        for method in members
    )


def _numbers(found: Estimate) -> dict[str, Any]:
    low, high = min(found.per_seed), max(found.per_seed)
    return {
        "solved, %": percent(found.mean),
        "95 % interval": interval(found.lo, found.hi),
        "worst and best seed": f"{percent(low)}, {percent(high)}",
        "seeds": len(found.per_seed),
        "problems": found.n,
    }


def comparisons(results: Results) -> pd.DataFrame:
    """CAT minus every other method, paired over seeds and problems; p also after Holm."""
    return pd.DataFrame(
        {
            "CAT minus": label(e["b"], results),
            "points": f"{100 * e['diff']:+.1f}",
            "95 % interval": interval(e["lo"], e["hi"], "+"),
            "p": _p(e["p"]),
            "p (Holm)": _p(e["p_holm"]),
            "seeds won": e["wins"],
        }
        for e in results["comparisons"]
    )


def outcomes(results: Results, task: str) -> pd.DataFrame:
    """What became of the answers to a test, all seeds together: ``ok`` and the ways to fail."""
    counts: dict[str, Counter] = {}
    for row in reading.rows(results, task=task):
        counts.setdefault(row["method"], Counter()).update(row["outcomes"])
    names = sorted(set().union(*counts.values()), key=lambda name: (name != "ok", name))
    return pd.DataFrame(
        {task: label(method, results)} | {name: found[name] for name in names}
        for method, found in counts.items()
    )


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def tasks(results: Results) -> pd.DataFrame:
    """Methods that took more than one test: mean % and 95 % interval on each test."""
    names = list(dict.fromkeys(row["task"] for row in results["rows"]))
    lines = []
    for members in reading.methods(results).values():
        for method in members:
            found = {task: estimate(results, method, task) for task in names}
            if sum(e is not None for e in found.values()) > 1 or len(names) == 1:
                cells = {
                    t: f"{percent(e.mean)} {interval(e.lo, e.hi)}" for t, e in found.items() if e
                }
                lines.append({"method": label(method, results)} | cells)
    return pd.DataFrame(lines).fillna("-")


def views(results: Results) -> pd.DataFrame:
    """The target by view (all problems, and what is told apart), for every method."""
    names = list(
        dict.fromkeys(r["view"] for r in results["rows"] if r["task"] == reading.target(results))
    )
    lines = []
    for members in reading.methods(results).values():
        for method in members:
            found = {v: estimate(results, method, view=v) for v in names}
            cells = {
                f"{view} (n = {e.n})": f"{percent(e.mean)} {interval(e.lo, e.hi)}"
                for view, e in found.items()
                if e
            }
            lines.append({"method": label(method, results)} | cells)
    return pd.DataFrame(lines).fillna("-")


def sweep(results: Results) -> pd.DataFrame:
    """What was tried for the alphas, best held-out skill loss first."""
    entries = sorted(results["sweep"], key=lambda e: e["heldout_loss"])
    return pd.DataFrame(
        {
            "normalise": e["normalise"],
            "init": e["init"],
            "lr": f"{e['lr']:g}",
            "held-out skill loss": f"{e['heldout_loss']:.4f}",
            "chosen": "yes" if e["chosen"] else "",
        }
        for e in entries
    )


def training(results: Results) -> pd.DataFrame:
    """What was trained: mean over seeds of steps, last loss, seconds and tokens per second."""
    columns = ["name", "steps", "loss", "seconds", "tokens_per_s"]
    frame = pd.DataFrame(results["skills"], columns=columns)
    means = frame.groupby("name", sort=False)[["steps", "loss", "seconds", "tokens_per_s"]].mean()
    return pd.DataFrame(
        {
            "LoRA": [label(name, results) for name in means.index],
            "steps": [f"{x:.0f}" for x in means["steps"]],
            "last loss": [f"{x:.4f}" for x in means["loss"]],
            "seconds": [f"{x:.1f}" for x in means["seconds"]],
            "tokens per second": [f"{x:,.0f}" for x in means["tokens_per_s"]],
        }
    )


def timings(results: Results) -> pd.DataFrame:
    """Seconds per stage, all seeds together."""
    return pd.DataFrame(
        {"stage": stage, "seconds": f"{seconds:,.1f}"}
        for stage, seconds in results["timings"].items()
        if isinstance(seconds, int | float)
    )


def provenance(results: Results) -> pd.DataFrame:
    """Who made these results: versions, device, commit."""
    found: Mapping[str, Any] = results["provenance"]
    git = found["git"] or {}
    lines = {
        "profile": results["profile"],
        "created": results["created"],
        "device": found["device"],
        "processor": found["cpu"],
        "commit": str(git.get("commit", "unknown"))[:12]
        + (" + changes" if git.get("dirty") else ""),
        "base, sha256": str(found["base_sha256"])[:16],
        **{f"data, {d['repo']} {d['split']}": _data(d) for d in results["config"].get("data", [])},
        **found["versions"],
    }
    return pd.DataFrame({"what": lines.keys(), "value": lines.values()})


def markdown(frame: pd.DataFrame) -> str:
    """The frame as a Markdown table without its index."""
    lines = [frame.columns, ["---"] * frame.shape[1], *frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _data(info: Mapping[str, Any]) -> str:
    """What is known of a data file (`hub.Rows.info`)."""
    part = f", not the whole set: {info['note']}" if info.get("complete") is False else ""
    instead = f", STAND-IN for {info['stand_in_for']}" if info.get("stand_in_for") else ""
    return f"{info['rows']} of {info['of']} rows from {info['origin']}{instead}{part}"


def short(results: Results, best: int = 3) -> pd.DataFrame:
    """The headline table with only the ``best`` static merges (by their mean)."""
    groups = reading.methods(results)
    static = groups.get(reading.STATIC, [])
    kept = sorted(static, key=lambda m: -estimate(results, m).mean)[:best]
    frame = headline(results)
    dropped = [label(m, results) for m in static if m not in kept]
    return frame[~frame["method"].isin(dropped)].drop(columns=["kind", "problems"])


def studies(known: Mapping[str, Results]) -> pd.DataFrame:
    """CAT beside its main rivals, one line per study: mean and 95 % interval in percent.

    Args:
        known: results by experiment; those that are no studies are passed over.
    """
    shown = ("base", "data_mix", "data_mix_2r", "fresh", "lorahub@delta", "xlora", "linear@delta",
             "linear@delta/w1", "ties@delta/w1", "knots@delta/w1", "lego@delta/w1",
             "cat")  # fmt: skip
    lines = []
    for name in STUDIES:
        if name not in known:
            continue
        results, line = known[name], {"study": name.replace("_", " ")}
        best = max((estimate(results, s).mean for s in reading.skills(results)), default=0.0)
        for method in shown:
            found = estimate(results, method)
            if found:
                line[label(method)] = f"{percent(found.mean)} {interval(found.lo, found.hi)}"
            if method == "base":
                line["best single skill"] = percent(best)
        lines.append(line)
    if not lines:
        return pd.DataFrame(columns=["method"])
    frame = pd.DataFrame(lines).fillna("-").set_index("study").T
    return frame.rename_axis("method").reset_index()


def into_readme(text: str, results: Results, known: Mapping[str, Results] | None = None) -> str:
    """The README's text with the results between its two marks.

    Args:
        text: of the README.
        results: of hard math.
        known: results of all experiments, for the table of the studies.

    Raises:
        SoupError: a mark is missing.
    """
    before, first, rest = text.partition(BEGIN)
    mark, _, rest = rest.partition("\n")
    _, last, after = rest.partition(END)
    if not first or not last:
        raise SoupError(f"no place for the results: README.md; it needs {BEGIN} ... --> and {END}")
    statics = len(reading.methods(results).get(reading.STATIC, []))
    own = known or {"hard_math": results}
    summaries = [
        f"- **{name.replace('_', ' ')}**: {claims.summary(own[name])}"
        for name in STUDIES
        if name in own
    ]
    block = (
        "### All studies",
        "\n".join(summaries),
        markdown(studies(own)),
        "### Hard math in detail",
        markdown(short(results)),
        f"Of {statics} static merges the best three are shown; all are in the "
        "[report](notebooks/09_report.ipynb).",
        claims.all_claims(results),
    )
    return f"{before}{BEGIN}{mark}\n" + "\n\n".join(block) + f"\n{END}{after}"


def main() -> None:
    """Write the results of profile ``mini`` into the README."""
    folders = Folders()
    readme = folders.project / "README.md"
    known = {path.stem: read_results(path) for path in (folders.results / "mini").glob("*.json")}
    text = readme.read_text(encoding="utf-8")
    write_text_atomic(readme, into_readme(text, load_results("mini"), known))


if __name__ == "__main__":
    main()
