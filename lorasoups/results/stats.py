"""Intervals and tests for verdicts: one rule everywhere.

Verdicts are bool arrays [seeds, items]: each seed is one training of everything, and all seeds
answer the same items. Both are drawn from many that could have been: a difference of two methods is
a crossed random-effects table without replication. Its mean has the variance

    (MS_seeds + max(0, MS_items - MS_rest)) / (seeds * items)

of the two-way analysis of variance, and Satterthwaite's degrees of freedom (Satterthwaite 1946;
for the layout e.g. Montgomery, "Design and Analysis of Experiments", section 13.3): the crossed
ANOVA t. Its variance is never below that of the t-interval over seeds, but its degrees of freedom
can be more, so now and then it is a little narrower. Simulated without any difference, it errs in
4 - 7 % of cases with 3 to 20 seeds, in up to 12 % with two (tests/results/test_stats.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special
from scipy import stats as scipy_stats

from lorasoups.errors import SoupError

LEVEL = 0.95  # of all intervals


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Wilson score interval of a proportion (items independent, one training)."""
    if not 0 <= correct <= n or n == 0:
        raise SoupError(f"no proportion: {correct} of {n}; give 0 <= correct <= n, n > 0")
    test = scipy_stats.binomtest(int(correct), int(n))
    return tuple(map(float, test.proportion_ci(LEVEL, method="wilson")))


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """p of the exact two-sided McNemar test of two methods, bool [items], items independent."""
    only_a, differ = int(np.sum(a & ~b)), int(np.sum(a ^ b))
    return float(scipy_stats.binomtest(only_a, differ).pvalue) if differ else 1.0


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A mean difference, in shares of 1, such as of the accuracies of two methods."""

    diff: float  # mean over seeds and items
    lo: float  # 95 % interval of the crossed ANOVA t; one seed: of the t over items
    hi: float
    p: float  # two-sided, of the same t; one seed of two methods: exact McNemar over the items
    wins: int  # seeds in which the difference is above 0


def paired(a: np.ndarray, b: np.ndarray) -> Paired:
    """Compare two methods: bool [seeds, items] (or [items]), row i of both from seed i.

    Raises SoupError if shapes differ, are empty, or not bool.
    """
    a, b = _verdicts(a, b)
    found = contrast(a.astype(float) - b)
    return replace(found, p=mcnemar(a[0], b[0])) if len(a) == 1 else found


def contrast(table: np.ndarray) -> Paired:
    """The mean of differences, float [seeds, items], over new seeds and new items."""
    seeds, items = table.shape
    by_seed, by_item, mean = table.mean(1), table.mean(0), float(table.mean())
    wins = int(np.sum(by_seed > 0))
    if items == 1:
        return Paired(diff=mean, lo=-1.0, hi=1.0, p=1.0, wins=wins)
    of_items = seeds * by_item.var(ddof=1)
    if seeds == 1:
        variance, df = of_items, items - 1.0
    else:
        rest = table - by_seed[:, None] - by_item + mean
        of_seeds, df_rest = items * by_seed.var(ddof=1), (seeds - 1) * (items - 1)
        of_rest = float((rest**2).sum()) / df_rest
        variance, squares = of_seeds, of_seeds**2 / (seeds - 1)
        if of_items > of_rest:
            variance += of_items - of_rest
            squares += of_items**2 / (items - 1) + of_rest**2 / df_rest
        df = variance**2 / squares if squares else 1.0
    error = float(np.sqrt(variance / table.size))
    if error < 1e-12:  # nothing varies
        return Paired(diff=mean, lo=mean, hi=mean, p=float(mean == 0), wins=wins)
    half = float(scipy_stats.t.ppf((1 + LEVEL) / 2, df)) * error
    p = float(2 * scipy_stats.t.sf(abs(mean) / error, df))
    return Paired(diff=mean, lo=mean - half, hi=mean + half, p=p, wins=wins)


def ratio(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float, float]:
    """``sum(sums) / sum(counts)`` over rows, and its variance over new rows (the delta method).

    Returns mean, standard error and degrees of freedom; both arrays are float [rows].
    """
    mean = float(sums.sum() / counts.sum())
    residuals = (sums - mean * counts) / counts.mean()
    return mean, float(residuals.std(ddof=1) / len(sums) ** 0.5), len(sums) - 1.0


@dataclass(frozen=True, kw_only=True)
class Superlinearity(Paired):
    """Whether the soup gains more over the base than its skills do together.

    ``diff`` is ``gain_soup - sum_of_gains``. For a target that needs all its skills this is easily
    positive: alone they gain nothing there. ``logit`` is the same on the logit scale, where a gain
    from 1 to 10 % counts as much as one from 90 to 99 %.
    """

    gain_soup: float  # accuracy of the soup minus that of the base
    sum_of_gains: float  # the two skills' gains over the base, added
    logit: float  # mean over seeds, of shares (right + 1/2) / (items + 1)


def superlinearity(
    base: np.ndarray, a: np.ndarray, b: np.ndarray, soup: np.ndarray
) -> Superlinearity:
    """The soup's gain over the base against the two skills' gains; arguments as for `paired`."""
    base, a, b, soup = (table.astype(float) for table in _verdicts(base, a, b, soup))
    logits = [special.logit((t.sum(1) + 0.5) / (t.shape[1] + 1)) for t in (base, a, b, soup)]
    return Superlinearity(
        gain_soup=float((soup - base).mean()),
        sum_of_gains=float((a + b - 2 * base).mean()),
        logit=float((logits[3] - logits[1] - logits[2] + logits[0]).mean()),
        **vars(contrast(soup - a - b + base)),
    )


def spearman(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float, float]:
    """Rank correlation of four pairs or more, its 95 % interval (Bonett and Wright 2000), and p."""
    rho, p = scipy_stats.spearmanr(x, y)
    half = scipy_stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt((1 + rho**2 / 2) / (len(x) - 3))
    with np.errstate(divide="ignore"):  # a perfect correlation
        lo, hi = np.tanh(np.arctanh(rho) + [-half, half])
    return float(rho), float(lo), float(hi), float(p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: p-values that hold for the whole family, in the given order."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()


def _verdicts(*arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays as [seeds, items]. Raises SoupError unless they are bool and of one shape."""
    tables = [np.atleast_2d(np.asarray(array)) for array in arrays]
    for t in tables:
        if t.dtype != np.bool_ or t.ndim != 2 or t.size == 0:
            raise SoupError(f"not verdicts: {t.dtype} {t.shape}; give a bool array [seeds, items]")
    if len({table.shape for table in tables}) > 1:
        shapes = ", ".join(str(table.shape) for table in tables)
        raise SoupError(f"verdicts of different seeds or items: {shapes}; compare like with like")
    return tables
