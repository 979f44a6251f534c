"""Tables from results files: data frames for notebooks, Markdown for pages."""

from collections.abc import Iterable, Mapping

import pandas as pd

from lorasoups.report import sentences
from lorasoups.results import reading
from lorasoups.results.file import find
from lorasoups.results.reading import Estimate, Results, estimate, interval, label, percent, target
from lorasoups.results.stats import Paired
from lorasoups.study.profile import STUDIES

Known = Mapping[str, Results]  # experiment -> its results
PAPER_GSM_HARD = {"cat": 21.11, "data_mix": 18.8, "math": 14.18, "code": 8.04}
"""Accuracy on GSM-Hard in percent, after secondary notes that fit the paper's abstract."""


def markdown(frame: pd.DataFrame) -> str:
    """The frame as a Markdown table without its index."""
    lines = [frame.columns, ["---"] * frame.shape[1], *frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def headline(results: Results) -> pd.DataFrame:
    """Every method on the target, by kind: mean over seeds, 95 % interval, range of the seeds."""
    return pd.DataFrame(
        {"kind": kind if method == members[0] else "", "method": label(method, results),
         "solved, %": percent(e.mean), "95 % interval": interval(e.lo, e.hi),
         "worst and best seed": f"{percent(min(e.per_seed))}, {percent(max(e.per_seed))}",
         "seeds": len(e.per_seed), "problems": e.n}
        for kind, members in reading.methods(results).items()
        for method in members for e in [estimate(results, method)]
    )  # fmt: skip


def best_merges(results: Results, methods: Iterable[str], n: int = 1) -> list[str]:
    """The ``n`` methods that solve most of the target, best first."""
    return sorted(methods, key=lambda m: -estimate(results, m).mean)[:n]


def _cell(e: Estimate) -> str:
    return f"{percent(e.mean)} {interval(e.lo, e.hi)}"


def _cells(results: Results, methods: Iterable[str]) -> dict[str, str]:
    return {label(m, results): _cell(e) for m in methods if (e := estimate(results, m))}


def short(results: Results, best: int = 3) -> pd.DataFrame:
    """The headline table with only the ``best`` static merges (by their mean)."""
    static, frame = sentences.static_merges(results), headline(results)
    dropped = [label(m, results) for m in best_merges(results, static, len(static))[best:]]
    return frame[~frame["method"].isin(dropped)].drop(columns=["kind", "problems"])


def primary(results: Results) -> pd.DataFrame:
    """The contrasts that were named before the run, with Holm's correction."""
    return pd.DataFrame(
        {"CAT minus": c.name, **_points(c.pair), "p (Holm)": reading.p_value(c.p_holm)}
        for c in reading.primary(results)
    )


def comparisons(results: Results) -> pd.DataFrame:
    """CAT minus every other method, over new seeds and new problems; descriptive."""
    pairs = reading.against(results)
    return pd.DataFrame({"CAT minus": label(m, results), **_points(p)} for m, p in pairs.items())


def _points(pair: Paired) -> dict:
    return {"points": f"{100 * pair.diff:+.1f}", "95 % interval": interval(pair.lo, pair.hi, "+"),
            "p": reading.p_value(pair.p), "seeds won": pair.wins}  # fmt: skip


def parts(results: Results) -> pd.DataFrame:
    """Solved = P(in form) x P(right | in form), and what is kept of each skill, per method."""
    skills = reading.skills(results)
    kept, front = reading.kept_by_method(results)
    return pd.DataFrame(
        {"method": label(m, results), "solved, %": percent(estimate(results, m).mean),
         "in form, %": percent(formed), "right given form, %": percent(right)}
        | {f"{s} kept, %": percent(share) for s, share in zip(skills, k, strict=False)}
        | {"front": "yes" if m in front else ""}
        for m, k in kept.items() for formed, right in [reading.form(results, m)]
    ).fillna("-")  # fmt: skip


def tasks(results: Results) -> pd.DataFrame:
    """Methods that took more than one test: mean % and 95 % interval on each test."""
    names, lines = dict.fromkeys(row["task"] for row in results["rows"]), []
    for method in reading.order(results):
        cells = {t: _cell(e) for t in names if (e := estimate(results, method, t))}
        if len(cells) >= min(2, len(names)):
            lines.append({"method": label(method, results)} | cells)
    return pd.DataFrame(lines).fillna("-")


def views(results: Results) -> pd.DataFrame:
    """The target by view (all problems, and its parts), for every method."""
    names = dict.fromkeys(row["view"] for row in find(results["rows"], task=target(results)))
    return pd.DataFrame(
        {"method": label(m, results)}
        | {f"{v} (n = {e.n})": _cell(e) for v in names if (e := estimate(results, m, view=v))}
        for m in reading.order(results)
    ).fillna("-")


def sweep(results: Results) -> pd.DataFrame:
    """What was tried for the alphas, lowest held-out skill loss first."""
    return pd.DataFrame(
        {"normalise": e["normalise"], "init": e["init"], "lr": f"{e['lr']:g}",
         "held-out skill loss": f"{e['heldout_loss']:.4f}", "chosen": "yes" if e["chosen"] else ""}
        for e in sorted(results["sweep"], key=lambda e: e["heldout_loss"])
    )  # fmt: skip


def training(results: Results) -> pd.DataFrame:
    """What was trained: mean over seeds of steps, last loss, seconds and tokens per second."""
    columns = {"steps": "{:.0f}", "loss": "{:.4f}", "seconds": "{:.1f}", "tokens_per_s": "{:,.0f}"}
    logs = pd.DataFrame(results["skills"], columns=["name", *columns])
    means = logs.groupby("name", sort=False)[list(columns)].mean()
    shown = {c: [form.format(x) for x in means[c]] for c, form in columns.items()}
    frame = pd.DataFrame({"LoRA": [label(name, results) for name in means.index]} | shown)
    return frame.rename(columns={"loss": "last loss", "tokens_per_s": "tokens per second"})


def timings(results: Results) -> pd.DataFrame:
    """Seconds per stage, all seeds together."""
    return pd.DataFrame(
        {"stage": stage, "seconds": f"{seconds:,.1f}"}
        for stage, seconds in results["timings"].items()
    )


def provenance(results: Results) -> pd.DataFrame:
    """Who made these results: versions, device, commit."""
    made = results["provenance"]
    git = made["git"] or {}
    commit = str(git.get("commit", "unknown"))[:12] + (" + changes" if git.get("dirty") else "")
    data = {f"data, {d['repo']} {d['split']}": _data(d) for d in results["config"].get("data", [])}
    lines = {
        "profile": results["profile"], "created": results["created"], "device": made["device"],
        "processor": made["cpu"], "commit": commit, "base, sha256": str(made["base_sha256"])[:16],
    } | data | made["versions"]  # fmt: skip
    return pd.DataFrame({"what": lines.keys(), "value": lines.values()})


def _data(info: Mapping) -> str:
    part = f", not the whole set: {info['note']}" if info.get("complete") is False else ""
    instead = f", STAND-IN for {info['stand_in_for']}" if info.get("stand_in_for") else ""
    return f"{info['rows']} of {info['of']} rows from {info['origin']}{instead}{part}"


def studies(known: Known) -> pd.DataFrame:
    """CAT beside its main rivals, a column per study: mean and 95 % interval in percent."""
    rivals = ("data_mix", "data_mix_2r", "fresh", reading.LORAHUB, "xlora", reading.AVERAGE,
              reading.SUM, "ties@delta/w1", "knots@delta/w1", "lego@delta/w1", "cat")  # fmt: skip
    columns = []
    for name, results in ((name, known[name]) for name in STUDIES if name in known):
        of_skills = [estimate(results, skill).mean for skill in reading.skills(results)]
        best = {"best single skill": percent(max(of_skills, default=0.0))}
        cells = _cells(results, ["base"]) | best | _cells(results, rivals)
        columns.append(pd.Series(cells, name=name.replace("_", " ")))
    return pd.DataFrame(columns).T.fillna("-").rename_axis("method").reset_index()


def against_paper(results: Results) -> pd.DataFrame:
    """The paper's numbers and this kit's; another base and task: compare the order.

    Quoted are the abstract, and secondary notes that fit it (``*``).
    """
    cat, mix = estimate(results, "cat"), estimate(results, "data_mix")
    merges = [e.mean for m in reading.PAPER if (e := estimate(results, m))]

    def over(mean: float) -> str:
        return f"{100 * (cat.mean / mean - 1):+.0f} %" if cat and mean else "-"

    lines = [
        *((f"{label(m, results)}, % solved", f"{accuracy}*", _cell(e) if e else "-")
          for m, accuracy in PAPER_GSM_HARD.items() for e in [estimate(results, m)]),
        ("CAT over data mixing", "+12 % (average)", over(mix.mean if mix else 0.0)),
        (f"CAT over the mean of the paper's baselines ({len(merges)})", "+43 % (average)",
         over(sum(merges) / max(1, len(merges)))),
    ]  # fmt: skip
    return pd.DataFrame(lines, columns=["what", "paper", "this kit"])
