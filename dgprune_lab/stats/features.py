"""Tables of features, a row per image and a column per filter: standardisation, distances, and checks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..core import DgpruneError, public
from .intervals import Estimate, Floats, over_images

Rows = NDArray[np.floating]
Ids = NDArray[np.generic]

FEWEST = 8
_FLOOR = 0.1  # of standard deviations, as a share of the pooled one
_ROUNDING = 1e-5  # sums of float32 in another order differ by less


@public
def standardised(features: Mapping[str, Rows], *, by: Rows) -> dict[str, Floats]:
    """Return every set of features, standardised by the mean and the standard deviation of a reference set.

    (x - mean(by)) / max(sd(by), f), column by column, with the standard deviation divided by n - 1. The floor f is a
    tenth of the pooled standard deviation (the root of the mean variance over the filters that vary in `by`); without
    it a filter that is nearly silent in `by` would outweigh all others in the other sets. A column that is constant in
    `by`, up to rounding errors, has no unit: its mean is subtracted and it is divided by max(1, f). So a filter that is
    removed everywhere stays a column of 0, and one that responds only in other sets keeps the size of its responses or
    less.

    Args:
        features: name of the set -> (N, D); N may differ between sets.
        by: (M, D), the reference set: usually the unpruned network's features on a source domain.

    Returns:
        name of the set -> (N, D), the standardised features, without unit.

    Raises:
        DgpruneError: another number of columns than in `by`, a number that is not finite, or no set in which any column
            varies.
    """
    unit = table(by, "by")
    tables = {name: table(rows, repr(name)) for name, rows in features.items()}
    for name, rows in tables.items():
        check_sizes(1, **{repr(name): rows, "by": unit})
    if all(constant(rows).all() for rows in tables.values()):
        raise DgpruneError(
            "every filter responds to all images alike, so there is nothing to compare; choose another layer, or a "
            "network with fewer filters removed."
        )
    fixed = constant(unit)
    mean = np.where(fixed, unit[0], unit.mean(0))
    variance = ((unit - mean) ** 2).sum(0) / max(len(unit) - 1, 1)
    floor = _FLOOR * np.sqrt(variance[~fixed].mean()) if not fixed.all() else 0.0
    deviation = np.maximum(np.where(fixed, 1.0, np.sqrt(variance)), floor)
    centred = {name: rows - mean for name, rows in tables.items()}
    rounding = np.where(fixed, _ROUNDING * np.abs(mean), 0.0)
    return {name: np.where(np.abs(rows) <= rounding, 0.0, rows) / deviation for name, rows in centred.items()}


@public
def median_distance(rows: Rows) -> float:
    """Return the median of the Euclidean distances |x_i - x_j|, i < j: the usual bandwidth of `mmd`.

    Measure it once, on the unpruned network's features, and use it for all networks: a bandwidth that shrinks with the
    features hides that they shrink. Source: Gretton et al. 2012.

    Args:
        rows: (N, D), usually from `standardised`.

    Returns:
        Above 0, in the unit of the features.

    Raises:
        DgpruneError: the median is 0, because half of the pairs of rows or more are equal.
    """
    from scipy.spatial.distance import pdist

    values = table(rows, "rows")
    median = float(np.median(pdist(values))) if len(values) > 1 else 0.0
    if median == 0:
        raise DgpruneError(
            f"the median distance of these {len(values)} images' features is 0, which is no bandwidth: most of them "
            "are equal. Choose another layer, a network with fewer filters removed, or more images."
        )
    return median


def table(rows: Rows, name: str, *, least: int = 1) -> Floats:
    """Return features in float64; refuse those that are not (N, D) with N >= `least`, or not finite."""
    values = np.asarray(rows, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise DgpruneError(
            f"{name} must be a table, a row per image and a column per filter; got shape {values.shape}."
        )
    if not np.isfinite(values).all():
        raise DgpruneError(f"{name} holds numbers that are not finite; look for the layer whose responses overflow.")
    if len(values) < least:
        raise DgpruneError(f"{name} has {len(values)} images; an interval needs at least {least}. Take more images.")
    return values


def pair(first: Rows, second: Rows, ids: tuple[Ids, Ids]) -> tuple[Floats, Floats]:
    """Return both domains' features in float64; refuse them if their columns differ or the ids do not fit the rows."""
    x, y = table(first, "first", least=FEWEST), table(second, "second", least=FEWEST)
    check_sizes(1, first=x, second=y)
    for name, rows, images in (("first", x, ids[0]), ("second", y, ids[1])):
        check_sizes(0, **{name: rows, f"ids of {name}": images})
        if len(np.unique(images)) < len(images):
            raise DgpruneError(
                f"ids of {name} name an image twice; compare domain by domain, in each of which an image occurs once."
            )
    return x, y


def check_sizes(axis: int, **tables: Ids) -> None:
    """Refuse tables that differ in their number of images (axis 0) or filters (axis 1)."""
    (name, rows), (other, others) = tables.items()
    if rows.shape[axis] != others.shape[axis]:
        unit = ("rows", "columns")[axis]
        advice = ("both need one per image", "keep a removed filter as a column of zeros, so that they agree")[axis]
        raise DgpruneError(f"{name} has {rows.shape[axis]} {unit} and {other} {others.shape[axis]}; {advice}.")


def constant(rows: Floats) -> NDArray[np.bool_]:
    """Return which columns are constant, up to rounding errors of float32: 1e-5 of their largest absolute value."""
    return np.ptp(rows, axis=0) <= _ROUNDING * np.abs(rows).max(0)


def estimate(value: float, low: float, high: float) -> Estimate:
    """Return one number with its interval."""
    return Estimate(*np.array([value, low, high], dtype=np.float64))


def mean_over_images(values: Floats) -> Estimate:
    """Return the mean over images of one number per image, with its bootstrap interval."""
    return estimate(float(values.mean()), *map(float, over_images(values)))
