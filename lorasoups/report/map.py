"""The map: where CAT wins over the cells of the study `composed`, and what tells it beforehand.

What each hypothesis predicts and what would refute it: data/protocol.md, frozen before the runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from lorasoups.results import reading, stats
from lorasoups.results.file import read_results, results_path
from lorasoups.results.reading import SUM, TUNED, Results, estimate, interval, percent
from lorasoups.results.stats import Paired

MARGIN = 0.05  # the smallest effect of interest, in shares of 1
ANCHORED, MIX = "anchored", "data_mix"
PLANNED = 20  # seeds of `composed`, says the protocol
PREDICTORS = {"cosine": "cosine", "norm_ratio": "norm ratio", "loudest": "cross-activation"}
RIVAL = "the better of tuned sum and DATA-MIX"
SEEN = {"composed": {0, 1, 2}}  # seeds that E1 was found on; of a cell: 2
HELD, REFUTED, OPEN = "held", "refuted", "open"


def known_cells(profile: str = "mini") -> dict[str, Results]:
    """The results of `composed`, then of its cells by name, those of a LoRA's strength at last."""
    folder = results_path(profile).parent
    paths = [folder / "composed.json", *sorted(folder.glob("map_*.json"))]
    known = {path.stem: read_results(path) for path in paths}
    return dict(sorted(known.items(), key=lambda c: [*c[1]["config"]["rescale"].values()]))


def minus(results: Results, other: str, task: str = "", method: str = "cat") -> Paired:
    """CAT, or ``method``, minus another one on a test, by default the target."""
    return stats.paired(*reading.pair(results, task or reading.target(results), method, other))


def excess(results: Results) -> float:
    """Loss of the plain sum minus CAT's on the skills' own tests (nats, mean): no target seen."""
    skills = reading.skills(results)
    return _loss(results, SUM, skills) - _loss(results, "cat", skills)


def form_ratio(results: Results) -> float:
    """Log of the plain sum's loss over CAT's on the skill that writes the form, the second one."""
    form = reading.skills(results)[1:2]
    return float(np.log(_loss(results, SUM, form) / _loss(results, "cat", form)))


def _loss(results: Results, method: str, skills: Sequence[str]) -> float:
    """A method's mean loss on the skills' own tests."""
    tests = [reading.test_of(results, skill) for skill in skills]
    rows = [row for test in tests for row in reading.rows(results, task=test, method=method)]
    return float(np.mean([row["extra"]["loss"] for row in rows]))


def predictors(results: Results) -> dict[str, float]:
    """What may tell the winner without the target (some from `study.run.predictors`)."""
    of_cat = {name: np.mean(reading.extras(results, "cat", k)) for k, name in PREDICTORS.items()}
    return {"excess loss": excess(results), "form ratio": form_ratio(results)} | of_cat


def without(results: Results, seen: Iterable[int]) -> Results | None:
    """Results without these seeds; None where no other is left."""
    dropped = set(seen)
    if dropped >= set(results["config"]["seeds"]):
        return None
    items = {task: {method: {seed: bits for seed, bits in of.items() if int(seed) not in dropped}
                    for method, of in methods.items()}
             for task, methods in results["items"].items()}  # fmt: skip
    kept = {name: [entry for entry in results[name] if entry["seed"] not in dropped]
            for name in ("rows", "alphas")}  # fmt: skip
    seeds = [seed for seed in results["config"]["seeds"] if seed not in dropped]
    return {**results, **kept, "items": items, "config": results["config"] | {"seeds": seeds}}


def found_and_fresh(known: Mapping[str, Results]) -> tuple[dict[str, Results], dict[str, Results]]:
    """The results of the seeds that E1 was found on, and those of the others."""
    found, fresh = {}, {}
    for name, results in known.items():
        seen = SEEN.get(name, {2})
        found[name] = without(results, set(results["config"]["seeds"]) - seen)
        fresh[name] = without(results, seen)
    return tuple({name: r for name, r in kept.items() if r} for kept in (found, fresh))


def rival(results: Results) -> str:
    """The better of the tuned sum and DATA-MIX on the target."""
    return max((TUNED, MIX), key=lambda m: estimate(results, m).mean)


def cells(known: Mapping[str, Results]) -> pd.DataFrame:
    """A line per cell: what CAT and its rivals solve, CAT minus the better one, what is kept."""
    lines = []
    for name, results in known.items():
        of = {m: percent(estimate(results, m).mean) for m in ("cat", SUM, TUNED, MIX, ANCHORED)}
        kept = [percent(min(shares)) if (shares := reading.kept(results, m)) else "-"
                for m in ("cat", TUNED, MIX)]  # fmt: skip
        lines.append({
            "cell": title(name, results), "seeds": len(estimate(results, "cat").per_seed),
            "CAT, %": of["cat"], "plain sum, %": of[SUM], "tuned sum, %": of[TUNED],
            "DATA-MIX, %": of[MIX], "anchored, %": of[ANCHORED],
            f"CAT minus {RIVAL}": _text(minus(results, rival(results))),
            "least kept: CAT / tuned / DATA-MIX, %": " / ".join(kept),
        })  # fmt: skip
    return pd.DataFrame(lines)


def known_before(known: Mapping[str, Results]) -> pd.DataFrame:
    """A line per cell: its `predictors`."""
    told = {title(*c): {k: f"{v:.3f}" for k, v in predictors(c[1]).items()} for c in known.items()}
    return pd.DataFrame(told).T.rename_axis("cell").reset_index()


def title(name: str, results: Results) -> str:
    """``rank 2`` for `map_rank_2`, ``half (code_forms x 0.50)`` for a LoRA of another strength."""
    strengths = "".join(f" ({lora} x {x:.2f})" for lora, x in results["config"]["rescale"].items())
    return name.removeprefix("map_").replace("_", " ") + strengths


def _text(pair: Paired) -> str:
    return f"{100 * pair.diff:+.1f} {interval(pair.lo, pair.hi, '+')}"


def _rho(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, str]:
    """Rank correlation, its p, and both with an interval as text."""
    rho, lo, hi, p = stats.spearman(x, y)
    return rho, p, f"{rho:+.2f} [{lo:+.2f}, {hi:+.2f}], p {reading.p_value(p, '= ')}"


def _above(pair: Paired, bound: float = 0.0) -> str:
    """Whether a difference is above a bound by its interval."""
    return HELD if pair.lo > bound else REFUTED if pair.hi <= bound else OPEN


def _within(pair: Paired, margin: float = MARGIN) -> str:
    """Whether a difference is smaller than a margin by its interval."""
    if pair.lo > -margin and pair.hi < margin:
        return HELD
    return REFUTED if pair.lo >= margin or pair.hi <= -margin else OPEN


def _all(*verdicts: str) -> str:
    return REFUTED if REFUTED in verdicts else HELD if set(verdicts) == {HELD} else OPEN


def hypotheses(
    known: Mapping[str, Results], real: Results | None = None, planned: int = 0
) -> pd.DataFrame:
    """H1 - H7 and E1 with what was found, for `composed` and the cells; ``real`` joins H7's points.

    With fewer seeds of `composed` than ``planned`` every verdict is marked as one "so far".
    """
    main, lines = known["composed"], []
    early = len(estimate(main, "cat").per_seed) < planned

    def add(name: str, claim: str, verdict: str, *found: str) -> None:
        verdict += " so far" * early
        lines.append({"": name, "prediction": claim, "found": "; ".join(found), "verdict": verdict})

    paper = reading.primary(main)[0].pair
    add("H1", "CAT above the mean of the paper's baselines", _above(paper), _text(paper))
    tuned = minus(main, TUNED)
    add("H2", "CAT within 5 points of the tuned sum", _within(tuned), _text(tuned))
    weak = reading.test_of(main, reading.skills(main)[np.argmin(reading.kept(main, SUM))])
    plain, keeps = minus(main, SUM), minus(main, SUM, weak)
    add("H3", "CAT within 5 points of the plain sum, and more than 5 above it on its weakest skill",
        _all(_within(plain), _above(keeps, MARGIN)), _text(plain),
        f"{weak}: {_text(keeps)}")  # fmt: skip
    named = {1: "composed", 5: "map_imbalance_5", 20: "map_imbalance_20"}
    mixes = {n: minus(known[name], MIX) for n, name in named.items()}
    add("H4", "CAT below DATA-MIX at 1:1, above it at 20:1",
        _all(_above(minus(main, "cat", method=MIX)), _above(mixes[20])),
        *(f"{n}:1 {_text(pair)}" for n, pair in mixes.items()))  # fmt: skip
    front = reading.front({
        m: (estimate(main, m).mean, min(of)) for m, of in reading.kept_by_method(main)[0].items()
        if of and reading.group(m, main) != reading.CEILING
    })  # fmt: skip
    add("H5", "anchored CAT is on the front of target and least kept skill",
        HELD if ANCHORED in front else REFUTED,
        f"front: {', '.join(reading.label(m, main) for m in front)}")  # fmt: skip
    more = {k: minus(known[f"map_k{k}"], TUNED) for k in (3, 4)}
    add("H6", "CAT above the tuned sum with distractors", _all(*map(_above, more.values())),
        *(f"k = {k}: {_text(pair)}" for k, pair in more.items()))  # fmt: skip
    points = list(known.values()) + ([real] if real else [])
    rho, p, told = _rho([excess(r) for r in points], [minus(r, SUM).diff for r in points])
    verdict = REFUTED if rho <= 0 else HELD if p < 0.05 else OPEN
    add("H7", "CAT minus sum grows with the sum's excess skill loss", verdict,
        f"{len(points)} cells; rho {told}")  # fmt: skip
    fresh = found_and_fresh(known)[1].values()
    ratios, gains = [form_ratio(r) for r in fresh], [minus(r, SUM).diff for r in fresh]
    right, (rho, p, told) = np.sign(ratios) == np.sign(gains), _rho(ratios, gains)
    verdict = HELD if right.mean() >= 0.8 and rho > 0 and p < 0.05 else OPEN
    verdict = REFUTED if right.mean() <= 0.6 or rho <= 0 else verdict
    add("E1", "on seeds not seen then: CAT above the plain sum where the form ratio is above 0",
        verdict, f"{right.sum()} of {len(right)} cells; rho {told}")  # fmt: skip
    return pd.DataFrame(lines)


def foreseen(results: Results, first: Results) -> pd.DataFrame:
    """What the protocol predicts of a setting beside ``first`` (`reading_form`), and the outcome.

    ``results``: of its reversal or of the setting with demonstrations; of one seed: "so far".
    """
    early = " so far" * (len(estimate(results, "cat").per_seed) < 2)
    gain, before = minus(results, TUNED), minus(first, TUNED)
    lines = [("CAT minus the tuned sum is at most half of what it is in the first setting",
              f"{_text(gain)}, there {_text(before)}", gain.diff <= before.diff / 2)]  # fmt: skip
    if results["config"]["demonstrations"]:
        formed = reading.form(results, "base")[0]
        claim = "the base is in form in at least half of its answers"
        return _predictions([(claim, f"{percent(formed)} %", formed >= 0.5), *lines], early)
    means = reading.alphas_by_seed(results).mean(1)  # [seeds, LoRAs]: reading, form
    told = "; ".join(f"{f:.2f}, reading {r:.2f}" for r, f in means)
    formed, solved = reading.form(results, SUM)[0], estimate(results, SUM).mean
    return _predictions([
        ("the mean alpha of form is below that of reading", f"form {told}",
         bool((means[:, 1] < means[:, 0]).all())),
        ("the plain sum is in form in at least 80 %", f"{percent(formed)} %", formed >= 0.8),
        ("the plain sum solves at least 10 %", f"{percent(solved)} %", solved >= 0.1),
        *lines,
    ], early)  # fmt: skip


def _predictions(lines: Iterable[tuple[str, str, bool]], early: str) -> pd.DataFrame:
    return pd.DataFrame(
        {"prediction": claim, "found": found, "verdict": (HELD if held else REFUTED) + early}
        for claim, found, held in lines
    )  # fmt: skip


def foretold(
    known: Mapping[str, Results], values: Mapping[str, Sequence[float]] | None = None
) -> pd.DataFrame:
    """How well each predictor tells CAT minus `rival`, or the plain sum, in a cell left out.

    A line is fitted on the other cells; the share of the variance that it explains is negative
    where their mean tells more. ``values``: predictor -> one per cell; default `predictors`.
    """
    values = values or pd.DataFrame(map(predictors, known.values())).to_dict("list")
    outcomes = {RIVAL: [minus(r, rival(r)).diff for r in known.values()],
                "the plain sum": [minus(r, SUM).diff for r in known.values()]}  # fmt: skip
    lines = []
    for (against, gains), (name, own) in product(outcomes.items(), values.items()):
        outcome, line = np.array(gains), np.column_stack([np.ones(len(own)), own])
        itself = (fitted := line @ np.linalg.pinv(line)).diagonal()
        told = (fitted @ outcome - itself * outcome) / (1 - itself)  # each by the others' line
        means = (outcome.sum() - outcome) / (len(own) - 1)
        explained = 1 - np.square(outcome - told).sum() / np.square(outcome - means).sum()
        agree = np.sign(told) == np.sign(outcome)
        lines.append({
            "CAT minus": against, "predictor": name, "rho": _rho(own, outcome)[-1],
            "explained, left out": f"{explained:.2f}", "winner right, %": percent(agree.mean()),
        })  # fmt: skip
    return pd.DataFrame(lines)
