"""Similarity of two networks on the same images, of groups and of maps; units of features; refusals."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_discrepancy import holds, ids, normal, over_fours

from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.stats import (
    cka,
    coral,
    median_distance,
    mmd,
    proxy_a_distance,
    silhouette,
    standardised,
    trustworthiness,
)
from dgprune_lab.stats.intervals import over_images

# Two networks on the same images --------------------------------------------------------------------------------------


def test_cka_is_1_for_rotated_scaled_and_shifted_features() -> None:
    x = normal(60, 5)
    turn, _ = np.linalg.qr(normal(5, 5, seed=1))
    for y in (x, 7 * x @ turn + 3, np.pad(x, ((0, 0), (0, 4)))):
        assert np.allclose(np.array(cka(x, y)), 1)
    z = x + normal(60, 5, seed=2)
    assert np.allclose(np.array(cka(x, z)), np.array(cka(0.1 * x @ turn, z[:, ::-1] - 5)))
    assert cka(x, z) == cka(x, z) and cka(x, z, seed=1).low != cka(x, z).low


def test_cka_is_made_of_means_over_four_different_images() -> None:
    x, y = normal(9, 3), normal(9, 4, seed=1)
    x[:, 0] += y[:, 0]
    k, other, image_ids = x @ x.T, y @ y.T, (np.arange(9), np.arange(9))
    truth = over_fours(k, other, image_ids) / (over_fours(k, k, image_ids) * over_fours(other, other, image_ids)) ** 0.5
    assert cka(x, y).value == pytest.approx(truth)


def test_cka_is_0_for_unrelated_features_and_the_planted_share_for_pruned_ones() -> None:
    """The plain form is far above 0 for 50 filters on 60 images; half of equal filters gives sqrt(1 / 2)."""
    unrelated = [cka(normal(60, 50, seed=k), normal(60, 50, seed=100 + k), seed=k) for k in range(20)]
    assert sum(holds(result, 0) for result in unrelated) >= 19 and max(result.value for result in unrelated) < 0.1
    pruned = [cka(x, x * (np.arange(10) < 5), seed=k) for k in range(20) for x in [normal(150, 10, seed=k)]]
    assert sum(holds(result, 0.5**0.5) for result in pruned) >= 18
    assert np.mean([result.value for result in pruned]) == pytest.approx(0.5**0.5, abs=0.02)


def test_cka_of_features_that_never_vary_is_nan() -> None:
    for pair in ((normal(20, 3), np.full((20, 3), 0.1)), (np.zeros((20, 3)), normal(20, 3))):
        assert np.isnan(np.array(cka(*pair))).all()


# Groups and maps ------------------------------------------------------------------------------------------------------


def test_a_silhouette_by_hand() -> None:
    """0 and 1 against 5 and 7: a = 1, 1, 2, 2 and b = 6, 5, 4.5, 6.5."""
    result = silhouette(np.array([[0.0], [1.0], [5.0], [7.0]]), np.array(["a", "a", "b", "b"]))
    values = np.array([5 / 6, 4 / 5, 2.5 / 4.5, 4.5 / 6.5])
    assert result.value == pytest.approx(values.mean())
    assert (result.low, result.high) == pytest.approx(tuple(float(end) for end in over_images(values)))


def test_trustworthiness_equals_scikit_learn_and_has_an_interval_over_images() -> None:
    from sklearn.manifold import trustworthiness as theirs

    rows = normal(70, 8)
    for places in (rows[:, :2], normal(70, 2, seed=1)):
        for neighbours in (1, 5, 34):
            result = trustworthiness(rows, places, neighbours=neighbours)
            assert result.value == pytest.approx(theirs(rows, places, n_neighbors=neighbours))
            assert result.low < result.value < result.high
    faithful = trustworthiness(rows, -3 * rows)
    assert faithful.value == 1 and faithful.high == 1 and 0.9 < faithful.low < 1


def test_trustworthiness_by_hand() -> None:
    """Four images in a row and a fifth far off; the map puts it beside the first: ranks 4 and 1, one neighbour each."""
    rows, places = np.array([[0.0], [1.0], [2.1], [3.3], [9.0]]), np.array([[0.0], [1.0], [2.1], [3.3], [-0.5]])
    result = trustworthiness(rows, places, neighbours=1)
    beyond = (4 - 1) + 0 + 0 + 0 + (4 - 1)
    assert result.value == pytest.approx(1 - 2 / (5 * 1 * (10 - 3 - 1)) * beyond)


# Units ----------------------------------------------------------------------------------------------------------------


def test_features_are_given_in_the_units_of_one_set() -> None:
    by = np.array([[1.0, 0.1, 5.0], [3.0, 0.1, 7.0], [5.0, 0.1, 3.0]])
    result = standardised({"a": by, "b": by[:2] + 2}, by=by)
    assert np.allclose(result["a"], [[-1, 0, 0], [0, 0, 1], [1, 0, -1]])
    assert np.allclose(result["b"], [[0, 2, 1], [1, 2, 2]])
    assert (result["a"][:, 1] == 0).all()  # not 1e-17 divided by 1e-17
    single = standardised({"a": normal(4, 2)}, by=np.zeros((1, 2)))
    assert np.array_equal(single["a"], normal(4, 2))


def test_the_median_distance_by_hand() -> None:
    assert median_distance(np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])) == 5
    assert median_distance(np.array([[0.0], [1.0], [10.0], [12.0]])) == pytest.approx(9.5)


# Refusals -------------------------------------------------------------------------------------------------------------

X, OF = normal(20, 3), ids(20, 20)
KERNEL: dict[str, Any] = {"bandwidth": 1.0}


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (partial(standardised, {"a": np.ones((5, 2))}, by=X[:, :2]), "every filter responds to all images alike"),
        (partial(standardised, {"a": X}, by=X[:, :2]), "'a' has 3 columns and by 2; keep a removed filter"),
        (partial(standardised, {"a": X * np.inf}, by=X), "'a' holds numbers that are not finite"),
        (partial(standardised, {"a": X}, by=X[0]), r"by must be a table, .*; got shape \(3,\)"),
        (partial(median_distance, np.zeros((9, 2))), "median distance of these 9 images' features is 0"),
        (partial(median_distance, X[:1]), "median distance of these 1 images' features is 0"),
        (partial(mmd, X, X, ids=OF, bandwidth=0.0), "bandwidth must be above 0.*; got 0.0"),
        (partial(mmd, X, X, ids=OF, bandwidth=float("nan")), "bandwidth must be above 0.*; got nan"),
        (partial(mmd, X[:7], X, ids=ids(7, 20), **KERNEL), "first has 7 images; an interval needs at least 8"),
        (partial(coral, X, X[:, :2], ids=OF), "first has 3 columns and second 2"),
        (partial(coral, X, X[:9], ids=OF), "second has 9 rows and ids of second 20"),
        (partial(coral, X, X, ids=(OF[0], OF[1] // 2)), "ids of second name an image twice; compare domain by domain"),
        (partial(proxy_a_distance, X, X[:9], ids=ids(20, 9), folds=10), "folds must be 2 to 9, .*; got 10"),
        (partial(proxy_a_distance, X, X, ids=OF, folds=1), "folds must be 2 to 20, .*; got 1"),
        (partial(cka, X, X[:9]), "first has 20 rows and second 9; both need one per image"),
        (partial(cka, X[:7], X[:7]), "first has 7 images; an interval needs at least 8"),
        (partial(silhouette, X, np.zeros(20)), "two or more groups .*; got 1 groups of 20 images"),
        (partial(silhouette, X, np.arange(20)), "two or more groups .*; got 20 groups of 20 images"),
        (partial(silhouette, X, np.arange(9)), "rows has 20 rows and labels 9"),
        (partial(trustworthiness, X, X, neighbours=10), "fewer than half of the 20 images; got 10"),
        (partial(trustworthiness, X, X, neighbours=0), "neighbours must be at least 1; got 0"),
        (partial(trustworthiness, X, X[:9]), "rows has 20 rows and places 9"),
    ],
)
def test_features_that_do_not_fit_are_refused(call: partial[Any], sentence: str) -> None:
    with pytest.raises(DgpruneError, match=sentence):
        call()


# A filter that is nearly silent ---------------------------------------------------------------------------------------


def rarely(count: int, seed: int) -> NDArray[np.float64]:
    """Eight filters, the last of which hardly ever responds."""
    rows = np.random.default_rng(seed).standard_normal((count, 8))
    rows[:, 7] = np.maximum(rows[:, 7] - 2.7, 0)
    return rows


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_two_draws_of_one_distribution_are_not_far_apart_where_a_filter_is_nearly_silent(scale: float) -> None:
    pairs = [(scale * rarely(250, k), scale * rarely(250, k + 500)) for k in range(60)]
    largest = 0.0
    for first, second in pairs:
        sets = standardised({"first": first, "second": second}, by=first)
        largest = max(largest, abs(coral(sets["first"], sets["second"], ids=ids(250, 250)).value))
    shifted = scale * (rarely(250, 999) * [1, 1, 1, 1, 1, 1, 2, 1])
    sets = standardised({"first": pairs[0][0], "second": shifted}, by=pairs[0][0])
    apart = coral(sets["first"], sets["second"], ids=ids(250, 250)).value
    assert largest < 0.02 < apart, "a filter of twice the spread is found"


def test_the_floor_of_the_standard_deviation_is_a_tenth_of_the_pooled_one() -> None:
    by = np.array([[-1.0, 0.001], [1.0, -0.001]]) / np.sqrt(2)  # standard deviations 1 and .001
    floor = 0.1 * np.sqrt((1 + 1e-6) / 2)
    result = standardised({"a": by}, by=by)["a"]
    assert result == pytest.approx(by / [1, floor])
    large = standardised({"a": np.array([[0.0, 0.0], [3000.0, 5000.0]])}, by=np.array([[0.0, 0.0], [3000.0, 0.0]]))
    assert large["a"][1, 1] == pytest.approx(5000 / (0.1 * 3000 / np.sqrt(2))), (
        "constant in `by`: never below the floor"
    )


def test_a_column_of_rounding_errors_is_constant() -> None:
    by = normal(50, 2)
    by[:, 1] = np.float32(0.3) + 1e-7 * np.random.default_rng(0).standard_normal(50)
    result = standardised({"a": by, "b": by + np.array([0, 2e-7])}, by=by)
    assert (result["a"][:, 1] == 0).all() and (result["b"][:, 1] == 0).all()
    with pytest.raises(DgpruneError, match="every filter responds to all images alike"):
        standardised({"a": by[:, 1:]}, by=by[:, 1:])
