"""Distances between domains: slow twins, closed forms, coverage of 0 without a shift, detection of planted shifts."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from dgprune_lab.stats import discrepancy
from dgprune_lab.stats.discrepancy import coral, mmd, proxy_a_distance
from dgprune_lab.stats.half_samples import HALVES, by_halves, co_moment, draws, within
from dgprune_lab.stats.intervals import Estimate, over_images

Rows = NDArray[np.float64]
Compare = Callable[..., Estimate]
BETWEEN: dict[str, Compare] = {"mmd": partial(mmd, bandwidth=4.0), "coral": coral, "proxy_a_distance": proxy_a_distance}


def normal(*shape: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).normal(size=shape)


def ids(count: int, other: int, *, shared: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids of two domains of which the last `shared` of one are the first of the other, in their order."""
    return np.arange(count), np.arange(other) + count - shared


def holds(result: Estimate, truth: float) -> bool:
    return bool(result.low <= truth <= result.high)


# Means over different images ------------------------------------------------------------------------------------------


def over_fours(a: Rows, b: Rows, image_ids: tuple[NDArray[np.int64], NDArray[np.int64]]) -> float:
    """The mean of the product of double differences over all fours of different images."""
    result = []
    for i, k in permutations(range(a.shape[0]), 2):
        for j, m in permutations(range(a.shape[1]), 2):
            if not {image_ids[0][i], image_ids[0][k]} & {image_ids[1][j], image_ids[1][m]}:
                one, other = (t[i, j] - t[i, m] - t[k, j] + t[k, m] for t in (a, b))
                result.append(one * other / 4)
    return float(np.mean(result))


@pytest.mark.parametrize("shared", [0, 8])
def test_co_moment_is_the_mean_over_fours_of_different_images_in_every_draw(shared: int) -> None:
    a, b = normal(2, 8, 9 if shared == 0 else 8)
    image_ids = ids(*a.shape, shared=shared)
    drawn = draws(image_ids, seed=3)
    result = co_moment(a.copy(), b.copy(), drawn)
    for k in (0, 1, 2, HALVES):
        p, q = drawn.first[k] > 0, drawn.second[k] > 0
        assert result[k] == pytest.approx(over_fours(a[p][:, q], b[p][:, q], (image_ids[0][p], image_ids[1][q])))
    assert co_moment(gram := a.copy(), gram, drawn)[0] == pytest.approx(over_fours(a, a, image_ids))


def test_co_moment_of_partly_shared_images_averages_over_different_images_only() -> None:
    a, image_ids = normal(8, 9), ids(8, 9, shared=5)
    apart = image_ids[0][:, None] != image_ids[1]
    n, m = a.shape
    pairs = [a[i, j] ** 2 for i in range(n) for j in range(m) if apart[i, j]]
    rows = [a[i, j] * a[i, k] for i in range(n) for j, k in permutations(range(m), 2) if apart[i, j] and apart[i, k]]
    columns = [a[i, j] * a[k, j] for j in range(m) for i, k in permutations(range(n), 2) if apart[i, j] and apart[k, j]]
    fours = [
        a[i, j] * a[k, g]
        for i, k in permutations(range(n), 2)
        for j, g in permutations(range(m), 2)
        if apart[np.ix_([i, k], [j, g])].all()
    ]
    truth = np.mean(pairs) - np.mean(rows) - np.mean(columns) + np.mean(fours)
    assert co_moment(gram := a.copy(), gram, draws(image_ids, seed=0))[0] == pytest.approx(truth)


def test_hsic_1_is_the_closed_form_of_song() -> None:
    x, y = normal(12, 3), normal(12, 5, seed=1)
    k, one = (rows @ rows.T for rows in (x, y))
    result = co_moment(k, one, within(np.ones((1, 12))))[0]  # leaves the diagonals at 0
    ones = np.ones(12)
    whole = (k @ one).trace() + (ones @ k @ ones) * (ones @ one @ ones) / (11 * 10) - 2 / 10 * ones @ k @ one @ ones
    assert result == pytest.approx(whole / (12 * 9))


def test_halves_hold_half_of_each_domain_and_a_shared_image_in_both_or_in_neither() -> None:
    drawn = draws(ids(21, 30, shared=21), seed=0)
    assert drawn.first[0].all() and drawn.second[0].all()
    assert set(drawn.first[1:].sum(1)) == {10} and set(drawn.second[1:].sum(1)) == {15}
    same = draws((np.arange(20), np.arange(20)[::-1]), seed=0)
    assert np.array_equal(same.first, same.second[:, ::-1])
    apart = draws(ids(20, 20), seed=0)
    assert not np.array_equal(apart.first, apart.second)
    assert len(np.unique(same.first, axis=0)) > HALVES / 2
    assert not np.array_equal(same.first, draws((np.arange(20), np.arange(20)), seed=1).first)


def test_the_interval_holds_all_but_a_twentieth_of_the_halves_that_have_a_value() -> None:
    result = by_halves(np.array([5.0, *range(101), np.nan]))
    assert tuple(result) == pytest.approx((5.0, 2.5, 97.5))
    for empty in ([np.nan, 1.0, 2.0], [1.0, np.nan]):
        assert np.isnan(by_halves(np.array(empty)).low) and np.isnan(by_halves(np.array(empty)).high)


# Between domains ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [0, 5, 9])
def test_mmd_is_the_mean_kernel_over_pairs_of_different_images(shared: int) -> None:
    x, y, image_ids = normal(9, 3), normal(11, 3, seed=1) + 1, ids(9, 11, shared=shared)

    def mean(first: Rows, second: Rows, one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
        result = [
            math.exp(-float(((first[i] - second[j]) ** 2).sum()) / (2 * 1.5**2))
            for i in range(len(first))
            for j in range(len(second))
            if one[i] != other[j]
        ]
        return sum(result) / len(result)

    truth = mean(x, x, image_ids[0], image_ids[0]) + mean(y, y, image_ids[1], image_ids[1]) - 2 * mean(x, y, *image_ids)
    assert mmd(x, y, bandwidth=1.5, ids=image_ids).value == pytest.approx(truth)


def test_a_copy_of_the_same_images_has_distance_0_and_by_other_ids_a_negative_one() -> None:
    x = normal(40, 6)
    for compare in (BETWEEN["mmd"], coral):
        copied = compare(x, x.copy(), ids=(np.arange(40), np.arange(40)))
        assert abs(copied.value) < 1e-12 and abs(copied.high - copied.low) < 1e-12
        assert compare(x, x.copy(), ids=ids(40, 40)).value < -1e-3


@pytest.mark.parametrize("shared", [0, 12])
def test_coral_has_no_bias_while_the_plain_form_has(shared: int) -> None:
    """Scaled by 1.5, in 3 of 6 columns: |I - 2.25 I|^2 / (4 * 36) = 3 * 1.25^2 / 144."""
    result, plain, scale = [], [], np.array([1.0, 1.0, 1.0, 1.5, 1.5, 1.5])
    for seed in range(300):
        x, noise = normal(2, 12, 6, seed=seed)
        y = (0.8 * x + 0.6 * noise if shared else noise) * scale + 3
        result.append(float(coral(x, y, ids=ids(12, 12, shared=shared)).value))
        plain.append(float(((np.cov(x.T) - np.cov(y.T)) ** 2).sum() / 144))
    error, truth = float(np.std(result)) / 300**0.5, 3 * 1.25**2 / 144
    assert abs(np.mean(result) - truth) < 3.5 * error
    assert np.mean(plain) > truth + 10 * error


def test_coral_counts_columns_of_zeros_and_does_not_see_where_the_means_are() -> None:
    x, y, image_ids = normal(30, 4), 2 * normal(25, 4, seed=1), ids(30, 25)
    result = coral(x, y, ids=image_ids)
    wide = coral(np.pad(x, ((0, 0), (0, 4))), np.pad(y, ((0, 0), (0, 4))), ids=image_ids)
    assert np.allclose(np.array(wide) * 4, np.array(result))
    assert np.allclose(np.array(coral(x + 100, y - 7, ids=image_ids)), np.array(result))


def relu(count: int, seed: int, *, shift: float = 0.0) -> Rows:
    mix = normal(12, 12, seed=99) / 2
    return np.maximum(normal(count, 12, seed=seed) @ mix * (1 + shift) + shift, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", BETWEEN)
def test_two_samples_of_one_distribution_cover_0_and_a_planted_shift_is_found(name: str) -> None:
    compare, image_ids = BETWEEN[name], ids(80, 60)
    covered = sum(holds(compare(relu(80, k), relu(60, 1000 + k), ids=image_ids, seed=k), 0) for k in range(40))
    assert covered >= 38
    shifted = [compare(relu(80, k), relu(60, 1000 + k, shift=0.8), ids=image_ids, seed=k) for k in range(5)]
    assert all(result.low > 0 for result in shifted)
    further = compare(relu(80, 0), relu(60, 1000, shift=1.6), ids=image_ids)
    assert further.value > shifted[0].value


@pytest.mark.parametrize("name", BETWEEN)
def test_the_seed_determines_the_interval_and_arguments_are_untouched(name: str) -> None:
    x, y, image_ids = relu(50, 0), relu(50, 1, shift=0.3), ids(50, 50, shared=50)
    kept = x.copy(), y.copy()
    one, again, other = (BETWEEN[name](x, y, ids=image_ids, seed=seed) for seed in (0, 0, 1))
    assert one == again and (one.low, one.high) != (other.low, other.high)
    assert name == "proxy_a_distance" or one.value == other.value
    assert np.array_equal(x, kept[0]) and np.array_equal(y, kept[1])


@pytest.mark.parametrize("name", BETWEEN)
def test_where_nothing_varies_there_is_no_interval(name: str) -> None:
    still, image_ids = np.zeros((20, 3)), ids(20, 20, shared=20)
    result = BETWEEN[name](still, still, ids=image_ids)
    assert result.value == 0 and np.isnan(result.low) and np.isnan(result.high)


def test_separable_domains_have_distance_2_up_to_the_binomial_bound() -> None:
    x = normal(40, 3)
    result = proxy_a_distance(x, x + 50, ids=ids(40, 40))
    error = 1.5 * (1 - 0.025 ** (1 / 80))
    assert tuple(result) == pytest.approx((2.0, 2 - 4 * error, 2.0))


def test_both_versions_of_an_image_are_in_one_fold() -> None:
    """Otherwise each is mistaken for its twin, which the classifier has memorised, and the error approaches 1."""
    x = normal(60, 300)
    y = x + 0.01 * normal(60, 300, seed=1)
    assert proxy_a_distance(x, y, ids=ids(60, 60)).value < -1.5
    assert proxy_a_distance(x, y, ids=(np.arange(60), np.arange(60))).value == pytest.approx(0, abs=0.1)


def test_the_larger_domain_is_subsampled() -> None:
    """Uncut, to guess the larger one is right in 10 of 11 cases."""
    result = proxy_a_distance(normal(500, 2), normal(50, 2, seed=1), ids=ids(500, 50))
    assert abs(result.value) < 0.7 and holds(result, 0)


def test_errors_become_a_distance_and_the_interval_is_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = np.arange(80) % 8 == 0

    def mistaken(rows: Rows, domain: NDArray[np.intp], *, fold: NDArray[np.intp]) -> NDArray[np.intp]:
        assert all(set(domain[fold == k]) == {0, 1} for k in range(4)) and set(fold) == {0, 1, 2, 3}
        return np.where(wrong, 1 - domain, domain)

    monkeypatch.setattr(discrepancy, "_predict", mistaken)
    x = normal(40, 3)
    apart = proxy_a_distance(x, x, ids=ids(40, 40), folds=4)
    low, high = over_images(wrong.astype(float))
    wider = (1 + 4 / 3) ** 0.5
    assert apart.value == 2 * (1 - 2 / 8)
    assert apart.low == pytest.approx(1.5 - 4 * wider * (high - 1 / 8))
    assert apart.high == pytest.approx(1.5 - 4 * wider * (low - 1 / 8))
    paired = proxy_a_distance(x, x, ids=(np.arange(40), np.arange(40)), folds=4)
    both = over_images(wrong[:40].astype(float))  # 40 is a multiple of 8: both versions are wrong, or neither
    assert paired.value == 1.5 and paired.low == pytest.approx(1.5 - 4 * wider * (both[1] - 1 / 8))
    wrong[1:] = False
    assert proxy_a_distance(x, x, ids=ids(40, 40), folds=4).high == 2  # it cannot be more


def test_a_classifier_that_has_not_converged_gives_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrepancy, "_ITERATIONS", 1)
    assert proxy_a_distance(normal(40, 5), normal(40, 5, seed=1) + 1, ids=ids(40, 40)).value > 0
