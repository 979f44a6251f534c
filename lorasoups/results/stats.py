"""Intervals and tests for verdicts.

Verdicts are bool arrays [seeds, items]: each seed is one training of everything, and all seeds
answer the same items. Both are resampled: the crossed ("pigeonhole") bootstrap of Owen 2007. With
few seeds it is too narrow (k seeds show on average only (k-1)/k of their variance), so the
t-interval over seeds is given beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from lorasoups.errors import SoupError

LEVEL = 0.95  # of all intervals
RESAMPLES = 10_000
_CHUNK = 1_000


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
    """Accuracy of method a minus accuracy of method b.

    ``p`` is two-sided; one seed: exact McNemar over the items; several: bootstrap, not below
    2 / (resamples + 1). The t-interval is the conservative alternative, since seeds are few.
    """

    diff: float  # mean over seeds and items
    lo: float  # percentile interval of the paired bootstrap over seeds and items
    hi: float
    p: float
    wins: int  # seeds in which a has more right answers than b
    t_lo: float | None = None  # t-interval over the seeds' differences; None for one seed
    t_hi: float | None = None
    t_p: float | None = None  # paired t-test over seeds; None for one seed


def paired(a: np.ndarray, b: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Paired:
    """Compare two methods: bool [seeds, items] (or [items]), row i of both from seed i.

    Raises SoupError if shapes differ, are empty, or not bool.
    """
    a, b = _verdicts(a, b)
    fields = _contrast(a.astype(np.int8) - b.astype(np.int8), resamples, seed)
    if len(a) == 1:
        fields["p"] = mcnemar(a[0], b[0])
    return Paired(**fields)


@dataclass(frozen=True, kw_only=True)
class Superlinearity(Paired):
    """Whether the soup gains more over the base than its skills do together.

    ``diff`` is ``gain_soup - sum_of_gains``; the other fields of `Paired` are of it (``p`` is from
    the bootstrap for one seed too: McNemar's test is of two methods only).
    """

    gain_soup: float  # accuracy of the soup minus that of the base
    sum_of_gains: float  # the two skills' gains over the base, added


def superlinearity(
    base: np.ndarray, a: np.ndarray, b: np.ndarray, soup: np.ndarray
) -> Superlinearity:
    """The soup's gain over the base against the two skills' gains; arguments as for `paired`.

    The base may be [1, items]: one run for all seeds.
    """
    if np.ndim(base) == 2 and len(base) == 1:
        base = np.broadcast_to(base, (len(np.atleast_2d(soup)), base.shape[1]))
    base, a, b, soup = (table.astype(np.int8) for table in _verdicts(base, a, b, soup))
    return Superlinearity(
        gain_soup=float((soup - base).mean()),
        sum_of_gains=float((a + b - 2 * base).mean()),
        **_contrast(soup - a - b + base, RESAMPLES, 0),
    )


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


def _contrast(table: np.ndarray, resamples: int, seed: int) -> dict[str, Any]:
    """The fields of `Paired` of an int8 contrast [seeds, items]."""
    means = table.mean(axis=1)
    lo, hi, p = _bootstrap(table, resamples, seed)
    t_lo, t_hi, t_p = _t_interval(means) if len(means) > 1 else (None, None, None)
    return {
        "diff": float(table.mean()), "lo": lo, "hi": hi, "p": p, "wins": int(np.sum(means > 0)),
        "t_lo": t_lo, "t_hi": t_hi, "t_p": t_p,
    }  # fmt: skip


def _bootstrap(table: np.ndarray, resamples: int, seed: int) -> tuple[float, float, float]:
    """Percentile interval and two-sided p of the mean of int8 [seeds, items], both resampled."""
    rng = np.random.default_rng(seed)
    seeds, items = table.shape
    means = np.empty(resamples)
    for at in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - at)
        weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=size)
        per_item = weights.astype(np.float32) @ table.astype(np.float32)
        drawn = rng.integers(0, items, size=(size, items))
        sums = np.take_along_axis(per_item, drawn, axis=1)
        means[at : at + size] = sums.mean(axis=1, dtype=np.float64)
    means /= seeds
    lo, hi = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    tail = min(np.sum(means <= 0), np.sum(means >= 0))
    return float(lo), float(hi), float(min(1.0, 2 * (tail + 1) / (resamples + 1)))


def _t_interval(means: np.ndarray) -> tuple[float, float, float]:
    """t-interval of the mean over seeds and its p; exact if the seeds' means are normal."""
    center, error = float(means.mean()), float(scipy_stats.sem(means))
    if error == 0.0:
        return center, center, 1.0 if center == 0.0 else 0.0
    lo, hi = scipy_stats.t.interval(LEVEL, len(means) - 1, loc=center, scale=error)
    p = 2 * scipy_stats.t.sf(abs(center) / error, len(means) - 1)
    return float(lo), float(hi), float(p)
