"""Measures of curvature that are proposed to predict generalisation: the Hessian's trace, and the sharpness of SAM."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch

from ..core import Count, DgpruneError, Positive, Repeats, Seed, drain, note
from ..measurement import Curvature
from ..stats import Floats, intervals
from ..study import Study
from ._contract import Row, diagnostic
from ._measures import EXTRA, Studies, of_images

PER_SQUARE = "nats per squared weight"
_LARGEST = 1e30  # a sum of larger numbers could overflow float32


@diagnostic(
    "sam_sharpness",
    extra=EXTRA,
    cite="Foret et al. 2021, Sharpness-Aware Minimization for Efficiently Improving Generalization, arXiv:2010.01412",
)
def sam_sharpness(
    studies: Studies, *, radius: Positive = 0.05, images: Count | None = None, split: str = "train"
) -> pd.DataFrame:
    """Return how much the loss rises within a small ball around the weights; lower is predicted to generalise better.

    max { L(w + e) - L(w) : |e| <= radius }, to first order: e = radius g / |g|, g the gradient of the mean loss L over
    all images together, in all parameters. This is the ascent step of SAM; the maximum may be higher.

    Args:
        studies: one or several networks with their sources.
        radius: Euclidean norm of e; the paper's value is .05.
        images: measure on the first `images` images of each source only.
        split: the split of the images.

    Returns:
        Metric "sam_sharpness" (nats), a row per network, interval over images for this e; column `training_loss` is
        L(w). Empty, with a note, where the gradient is 0. It depends on the scale of the weights, which BatchNorm
        cancels in part.

    Raises:
        DgpruneError: sources without labels, a loss that is not finite.
    """

    def row(name: str, study: Study) -> Row:
        curvature = Curvature(study.model, study.sources, split=split, images=images, device=study.device)
        before = finite_losses(drain(curvature.losses()), name=name)
        gradient = drain(curvature.gradient())
        norm = float(gradient.double().norm())
        cells = {"training_loss": float(before.mean())}
        if norm == 0:
            note(f"{name}: the gradient of the training loss is 0, so the step of sam_sharpness has no direction.")
            return {**cells, "value": math.nan}
        rise = drain(curvature.losses(gradient * (radius / norm))) - before
        return {**cells, **over_images(rise)}

    shared = {"metric": "sam_sharpness", "unit": "nats", "better_direction": "lower"}
    return of_images(studies, shared, row=row, split=split, images=images)


@diagnostic("hessian_trace", extra=EXTRA, cite="Hutchinson 1989")
def hessian_trace(
    studies: Studies, *, draws: Repeats = 2, images: Count | None = None, split: str = "train", seed: Seed = 0
) -> pd.DataFrame:
    """Return the trace of the mean loss's Hessian in all parameters; lower is predicted to generalise better.

    Hutchinson's estimator: the mean over draws, and over batches of at most 100 images, of z' H z, with a new vector z
    of random signs for every batch and draw. The interval is Student's t over draws. See `flatness` for the assumptions
    about ReLU and BatchNorm.

    Args:
        studies, images, split: see `sam_sharpness`.
        draws: number of estimates; each costs about six forward passes. No interval with one.
        seed: random seed of the signs.

    Returns:
        Metric "hessian_trace" (nats per squared weight), a row per network; column `training_loss` is L(w).

    Raises:
        DgpruneError: sources without labels, a loss that is not finite, an operation without second derivative.
    """

    def row(name: str, study: Study) -> Row:
        curvature = Curvature(study.model, study.sources, split=split, images=images, device=study.device)
        loss = finite_losses(drain(curvature.losses()), name=name)
        estimates = drain(curvature.trace(draws=draws, seed=seed))
        return {**trace_cells(estimates), "training_loss": float(loss.mean())}

    shared = {"metric": "hessian_trace", "unit": PER_SQUARE, "better_direction": "lower", "seed": seed}
    return of_images(studies, shared, row=row, split=split, images=images)


def trace_cells(estimates: Floats) -> Row:
    """Return the columns of a row from independent estimates of a trace."""
    value, low, high = intervals.over_seeds(list(estimates))
    return {"value": value} if len(estimates) < 2 else {"value": value, "low": low, "high": high, "interval": "draws"}


def over_images(values: torch.Tensor) -> Row:
    """Return the columns of a row from one value per image: their mean, with its interval unless all are equal."""
    cells: Row = {"value": float(values.mean())}
    if (values == values[0]).all():
        return cells
    low, high = intervals.over_images(np.minimum(values.numpy(), _LARGEST))
    return {**cells, "low": float(low), "high": float(high), "interval": "images"}


def finite_losses(losses: torch.Tensor, *, name: str) -> torch.Tensor:
    """Return the losses; refuse them if one is not finite. A loss of 0 is fine here."""
    if not losses.isfinite().all():
        raise DgpruneError(
            f"the training loss of {name!r} is not finite, so nothing can be said of its surroundings; take a network "
            "whose training has not diverged."
        )
    return losses
