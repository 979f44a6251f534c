"""Intervals and tests against textbook numbers and known cases."""

import numpy as np
import pytest
import scipy.stats

from lorasoups.errors import SoupError
from lorasoups.results.stats import (
    contrast,
    holm,
    mcnemar,
    paired,
    ratio,
    spearman,
    superlinearity,
    wilson,
)


def verdicts(rate, seeds=5, items=400, seed=0):
    return np.random.default_rng(seed).random((seeds, items)) < rate


def test_wilson_of_a_known_case():
    # Newcombe 1998, table I: 81 of 263
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20)[0] == 0.0 and wilson(20, 20)[1] == 1.0
    low, high = wilson(660, 1319)
    assert (high - low) / 2 == pytest.approx(0.027, abs=5e-4)


@pytest.mark.parametrize(("correct", "n"), [(1, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_proportion(correct, n):
    with pytest.raises(SoupError, match="no proportion"):
        wilson(correct, n)


def test_mcnemar_counts_only_what_differs():
    a = np.array([1] * 9 + [0] + [1] * 90, dtype=bool)
    b = np.array([0] * 9 + [1] + [1] * 90, dtype=bool)
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(a, a) == 1.0
    assert paired(a, b).p == mcnemar(a, b)


def test_equal_methods_do_not_differ():
    a = verdicts(0.5)
    found = paired(a, a)
    assert (found.diff, found.lo, found.hi, found.p, found.wins) == (0, 0, 0, 1, 0)


def test_a_clear_difference_is_found_with_its_sign():
    a, b = verdicts(0.7), verdicts(0.4, seed=1)
    found, other = paired(a, b), paired(b, a)
    assert 0 < found.lo < found.diff < found.hi
    assert found.p < 0.001 and found.wins == 5 and other.wins == 0
    assert (other.diff, other.lo) == pytest.approx((-found.diff, -found.hi))


def test_one_seed_gives_the_t_over_items():
    a, b = verdicts(0.7, seeds=1), verdicts(0.4, seeds=1, seed=1)
    found, plain = paired(a, b), scipy.stats.ttest_rel(a[0].astype(float), b[0].astype(float))
    assert (found.lo, found.hi) == pytest.approx(plain.confidence_interval())
    assert contrast(a.astype(float) - b).p == pytest.approx(plain.pvalue)
    assert found.p == mcnemar(a[0], b[0])


def test_items_that_do_not_differ_leave_the_t_over_seeds():
    by_seed = np.array([0.3, 0.1, 0.2, 0.4, 0.15])
    found, plain = contrast(np.repeat(by_seed[:, None], 50, 1)), scipy.stats.ttest_1samp(by_seed, 0)
    assert (found.lo, found.hi) == pytest.approx(plain.confidence_interval())
    assert found.p == pytest.approx(plain.pvalue)


def test_mean_squares_of_a_table_by_hand():
    table = np.array([[1.0, 0.0, 2.0], [3.0, 2.0, 1.0]])  # MS: seeds 1.5, items 0.5, rest 1.5
    found = contrast(table)
    half = scipy.stats.t.ppf(0.975, 1) * (1.5 / 6) ** 0.5  # items vary less than the rest: no part
    assert (found.diff, found.lo, found.hi) == pytest.approx((1.5, 1.5 - half, 1.5 + half))
    assert contrast(np.ones((3, 4))).p == 0.0 and contrast(np.zeros((3, 4))).p == 1.0


def test_seeds_that_disagree_widen_the_interval():
    steady = verdicts(0.5, seeds=4, items=1000)
    worse = verdicts(0.4, seeds=4, items=1000, seed=1)
    shaky = np.concatenate([verdicts(rate, 1, 1000, 2) for rate in (0.9, 0.1, 0.8, 0.2)])
    calm, wild = paired(steady, worse), paired(shaky, worse)
    assert calm.lo > 0
    assert wild.lo < 0 < wild.hi
    assert wild.hi - wild.lo > 5 * (calm.hi - calm.lo)
    assert wild.p > 0.2


def test_interval_over_items_agrees_with_the_normal_one():
    a, b = verdicts(0.6, 1, 2000), verdicts(0.5, 1, 2000, 1)
    difference = a.astype(float) - b
    half = 1.96 * difference.std() / 2000**0.5
    found = paired(a, b)
    assert found.lo == pytest.approx(difference.mean() - half, abs=2e-3)
    assert found.hi == pytest.approx(difference.mean() + half, abs=2e-3)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_without_a_difference_the_rule_errs_in_about_five_percent(seeds):
    rng, errors, runs = np.random.default_rng(seeds), 0, 300
    for _ in range(runs):  # seeds differ by 10 points, items by 20, as on hard math
        rates = 0.4 + rng.normal(0, 0.07, (2, seeds, 1)) + rng.normal(0, 0.14, (2, 1, 300))
        a, b = rng.random((2, seeds, 300)) < rates
        errors += paired(a, b).p < 0.05
    assert 0.015 < errors / runs < 0.10


def test_superlinear_gain_is_told_from_a_sum_of_gains():
    base, a, b = verdicts(0.0), verdicts(0.1, seed=1), verdicts(0.1, seed=2)
    more = superlinearity(base, a, b, verdicts(0.6, seed=3))
    assert more.gain_soup == pytest.approx(0.6, abs=0.03)
    assert more.sum_of_gains == pytest.approx(0.2, abs=0.03)
    assert more.diff == pytest.approx(more.gain_soup - more.sum_of_gains)
    assert more.lo > 0 and more.wins == 5
    same = superlinearity(base, a, b, a)
    assert same.hi < 0  # the soup has lost one skill's gain
    assert same.logit < 0  # gains in odds: from 0 % to 10 % twice is more than to 60 % once
    half = verdicts(0.5, seed=4)
    assert superlinearity(half, half, half, verdicts(0.6, seed=3)).logit == pytest.approx(
        0.4, abs=0.1
    )


def test_the_interval_of_a_rank_correlation_covers_the_true_one():
    """Of normal pairs, whose rank correlation is 6 / pi arcsin(rho / 2)."""
    rng, rho, covered = np.random.default_rng(0), 0.7, []
    true = 6 / np.pi * np.arcsin(rho / 2)
    for _ in range(1000):
        x, y = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 15).T
        _, lo, hi, _ = spearman(x, y)
        covered.append(lo < true < hi)
    assert 0.93 < np.mean(covered) < 0.97
    assert spearman([1, 2, 3, 4], [1, 2, 3, 4])[:3] == (1.0, 1.0, 1.0)
    assert spearman([1, 2, 3, 4], [2, 1, 4, 3])[0] == pytest.approx(0.6)


def test_a_ratio_of_equal_counts_has_the_error_of_a_mean():
    x = np.random.default_rng(0).normal(size=12)
    expected = (x.mean(), scipy.stats.sem(x), 11)
    assert ratio(4 * x, np.full(12, 4.0)) == pytest.approx(expected)


def test_holm_of_a_known_case():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_wrong_shapes_and_types_are_refused():
    a = verdicts(0.5)
    with pytest.raises(SoupError, match="different seeds or items"):
        paired(a, a[:4])
    with pytest.raises(SoupError, match="different seeds or items"):
        superlinearity(a, a, a, a[:, :7])
    with pytest.raises(SoupError, match="bool array"):
        paired(a.astype(float), a)
    with pytest.raises(SoupError, match="bool array"):
        paired(a[:0], a[:0])
