"""Expected calibration error with an interval over images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..core import public
from .intervals import resampled_means

BINS = 15
_DRAWS, _BLOCK = 400, 4_000_000


@public
def calibration_error(correct: NDArray[np.float64], confidence: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the expected calibration error with its 95 % interval over images: value, low and high in [0, 1].

    sum over 15 bins ((m - 1) / 15, m / 15] of the confidence: (images in the bin / N) |accuracy - mean confidence| in
    the bin (Guo et al. 2017, arXiv:1706.04599, section 2). 0 is perfect calibration. The error of few images is too
    high on average, as chance differences count in every bin: about .06 for 200 images of a calibrated network.

    The interval is that of the basic bootstrap (Davison and Hinkley 1997, section 5.2: 2 value - quantile), which
    corrects for this; the percentile interval does not, and often lies entirely above the true error. low is 0 where
    the error is within the 97.5 % quantile of a calibrated network with the same confidences (Broecker and Smith 2007,
    Weather and Forecasting 22). Simulated intervals covered the true error in 86 to 98 % of cases with 200 to
    4,000 images.

    Args:
        correct: (N,) of 0 and 1.
        confidence: (N,) largest softmax probability, in (0, 1].
    """
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    one_hot = np.zeros((len(bins), BINS))
    one_hot[np.arange(len(bins)), bins] = 1
    value = float(np.abs((one_hot * (correct - confidence)[:, None]).mean(0)).sum())
    errors = np.abs(resampled_means(one_hot * (correct - confidence)[:, None])).sum(1)
    below, above = np.percentile(errors, [2.5, 97.5])
    low, high = max(0.0, 2 * value - float(above)), min(1.0, max(value, 2 * value - float(below)))
    if value <= np.percentile(_calibrated_errors(confidence, one_hot), 97.5):
        low = 0.0
    return value, min(low, value), high


def _calibrated_errors(confidence: NDArray[np.float64], one_hot: NDArray[np.float64]) -> NDArray[np.float64]:
    """Simulate the errors of calibrated networks: each image is correct with its confidence as probability."""
    generator, count = np.random.default_rng(len(confidence)), len(confidence)
    step = max(1, _BLOCK // count)
    errors = []
    for start in range(0, _DRAWS, step):
        correct = generator.random((min(step, _DRAWS - start), count), dtype=np.float32) < confidence
        errors.append(np.abs((correct - confidence) @ one_hot / count).sum(1))
    return np.concatenate(errors)
