"""Simpler measures that have been proposed to predict generalisation: baselines for prunability."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from torch import Tensor, nn

from ..core import Count, Positive, Repeats, Seed, drain, note, tidy, unknown
from ..measurement import WeightMasking, prunable
from ..models.networks import build
from ..pruning import shared_copy
from ..stats import intervals
from ..study import Study
from ._contract import Row, Rows, diagnostic
from ._loss_curve import LossCurve, check_full_loss
from ._measures import EXTRA, Studies, of_images, of_weights
from ._weight_noise import SEARCHED, WeightNoise, largest_noise, margins
from .curvature_measures import hessian_trace, sam_sharpness
from .prunability import prunability as prunability_of

_KUHN = "Kuhn et al. 2021, arXiv:2103.06002, for the list; the definitions here are ours"
_TENTH = 10.0


@diagnostic("parameter_count", extra=EXTRA, cite=_KUHN)
def parameter_count(studies: Studies) -> pd.DataFrame:
    """Count the parameters; fewer are predicted to generalise better. Metric "parameter_count", a row per network."""

    def count(study: Study) -> float:
        return float(sum(parameter.numel() for parameter in study.model.parameters()))

    return of_weights(studies, "parameter_count", unit="count", value=count)


@diagnostic("l2_norm", extra=EXTRA, cite=_KUHN)
def l2_norm(studies: Studies) -> pd.DataFrame:
    """Return sqrt(sum w^2) over weights of convolution and linear layers; smaller is predicted to generalise better.

    Metric "l2_norm", a row per network. It means little with BatchNorm, which cancels the scale of the weights.
    """
    return of_weights(studies, "l2_norm", unit="norm", value=lambda study: _norm(prunable(study.model).values()))


@diagnostic("distance_from_initialisation", extra=EXTRA, cite=_KUHN)
def distance_from_initialisation(studies: Studies) -> pd.DataFrame:
    """Return |w - w_0| over the weights of convolution and linear layers; smaller is predicted to generalise better.

    w_0 are the weights that the network's builder draws from its seed. Metric "distance_from_initialisation", a row
    per network; empty, with a note, if builder and seed are unknown, or make layers with other names or sizes.
    """

    def distance(study: Study) -> float:
        initial = _rebuild_initial(study.model)
        if isinstance(initial, str):
            note(f"{study.name}: the distance from its initial weights is unknown, because {initial}.")
            return math.nan
        before = prunable(initial)
        return _norm(weight.detach().cpu() - before[name].detach() for name, weight in prunable(study.model).items())

    return of_weights(studies, "distance_from_initialisation", unit="norm", value=distance)


@diagnostic("margin", extra=EXTRA, cite=_KUHN)
def margin(studies: Studies, *, images: Count | None = None, split: str = "train") -> pd.DataFrame:
    """Return the 10th percentile over training images of the true class's logit minus the largest other logit.

    Larger is predicted to generalise better. Metric "margin" (logits), a row per network, interval over images.

    Args:
        studies, images, split: see `sharpness`.

    Raises:
        DgpruneError: sources without labels.
    """

    def row(_: str, study: Study) -> Row:
        masking = WeightMasking(shared_copy(study.model).to(study.device), domains=study.sources)
        masking.zero(1.0)
        values = margins(drain(masking.outputs(study.sources, split=split, images=images)))
        draw, count = np.random.default_rng(len(values)), len(values)
        tenths = [np.percentile(values[draw.integers(0, count, count)], _TENTH) for _ in range(intervals.RESAMPLES)]
        low, high = np.percentile(tenths, intervals.TAILS)
        return {"value": float(np.percentile(values, _TENTH)), "low": low, "high": high, "interval": "images"}

    shared = {"metric": "margin", "unit": "logits", "better_direction": "higher"}
    return of_images(studies, shared, row=row, split=split, images=images)


@diagnostic("sharpness", extra=EXTRA, cite=_KUHN)
def sharpness(
    studies: Studies,
    *,
    tolerance: Positive = 0.1,
    draws: Repeats = 3,
    images: Count | None = None,
    split: str = "train",
    seed: Seed = 0,
) -> pd.DataFrame:
    """Return the largest sigma at which Gaussian noise on the weights keeps the training loss; larger is better.

    max { sigma : mean over draws of L(w + sigma u) <= (1 + tolerance) L(w) }, u standard normal on every weight of the
    convolution and linear layers, the same draws for every sigma. Bracketed by doubling or halving from a hundredth of
    the weights' root mean square (from .01 where all weights are 0), then bisected ten times on a log scale: the
    relative precision is .001. Empty, with a note, where no sigma from 1e-9 to 1e6 times the first one is the limit.

    Args:
        studies: one or several networks with their sources.
        tolerance: allowed increase of the loss, as a fraction of the loss.
        draws: number of noise samples.
        images: measure the loss on the first `images` images of each source only.
        split: the split on which the loss is measured.
        seed: random seed of the first noise sample.

    Returns:
        Metric "sharpness", a row per network, in units of a weight; column `training_loss` is L(w).

    Raises:
        DgpruneError: tolerance <= 0, draws < 1, sources without labels, a training loss of 0.
    """

    def row(name: str, study: Study) -> Row:
        noise = WeightNoise(study, draws=draws, seed=seed, split=split, images=images)
        full = noise.loss(0.0)
        check_full_loss(full, name=name)
        value = largest_noise(noise, limit=(1 + tolerance) * full)
        if math.isnan(value):
            smallest, largest = SEARCHED
            note(
                f"{name}: the sharpness is unknown, because the training loss does not pass its limit at any size of "
                f"noise from {smallest:g} to {largest:g} times the first that was tried."
            )
        return {"value": value, "training_loss": full}

    shared = {
        "metric": "sharpness",
        "unit": "sigma",
        "better_direction": "higher",
        "seed": seed,
        "tolerance": tolerance,
    }
    return of_images(studies, shared, row=row, split=split, images=images)


@diagnostic("random_perturbation", extra=EXTRA, cite=_KUHN)
def random_perturbation(
    studies: Studies,
    *,
    tolerance: Positive = 0.1,
    draws: Repeats = 3,
    step: Positive = 0.01,
    images: Count | None = None,
    split: str = "train",
    seed: Seed = 0,
) -> pd.DataFrame:
    """Return the control for prunability: a random perturbation of the same norm in place of pruning.

    min { a : mean over draws of L(w + |w - w_a| u / |u|) <= (1 + tolerance) L(w) }, w_a = w with only the share a of
    largest |w| kept, u standard normal; lower is predicted to generalise better. Searched as by "fast" `prunability`.

    Args:
        studies, tolerance, images, split, seed: see `sharpness`.
        draws: number of random directions u, the same for every share.
        step: distance between neighbouring shares of the grid.

    Returns:
        Metric "random_perturbation" (share), a row per network, interval over images; column `training_loss` is L(w).

    Raises:
        DgpruneError: tolerance <= 0, draws < 1, sources without labels, a training loss of 0.
    """

    def row(name: str, study: Study) -> Row:
        noise = WeightNoise(study, draws=draws, seed=seed, split=split, images=images, unit=True)
        norm = noise.masking.removed_norm  # of the weights that pruning removes if it keeps a share
        curve = LossCurve(lambda share, most: noise.losses(norm(share)), step=step, name=name)
        drain(curve.bracket(tolerance))
        ((low, high),) = curve.resampled([tolerance], smallest=False)
        value = curve.read(tolerance).contiguous_end
        return {"value": value, "low": low, "high": high, "training_loss": curve.full, "interval": "images"}

    shared = {"metric": "random_perturbation", "unit": "share", "better_direction": "lower"}
    return of_images(studies, {**shared, "seed": seed, "tolerance": tolerance}, row=row, split=split, images=images)


@diagnostic("generalization_measures", extra=EXTRA, cite=_KUHN)
def generalization_measures(
    studies: Studies,
    *,
    measures: Sequence[str] | None = None,
    tolerance: Positive = 0.1,
    draws: Repeats = 3,
    images: Count | None = None,
    split: str = "train",
    seed: Seed = 0,
) -> pd.DataFrame:
    """Return prunability ("fast") and simpler measures of the same networks in one table.

    Metrics: prunability, parameter_count, l2_norm, distance_from_initialisation, margin, sharpness,
    random_perturbation, sam_sharpness, hessian_trace, training_loss; column `better_direction` says whether a lower or
    a higher value is predicted to generalise better. For the other arguments, units and errors see these functions; a
    note warns if the training losses differ.

    Args:
        measures: which of the simpler measures to compute, by their metric; None for all. Prunability and the training
            loss are always in the table.
        draws: number of noise samples of sharpness and random_perturbation; hessian_trace always takes two.

    Raises:
        DgpruneError: an unknown measure.
    """
    networks = [studies] if isinstance(studies, Study) else list(studies)
    shared: dict[str, Any] = {"tolerance": tolerance, "images": images, "split": split, "seed": seed}
    empty = {"low": None, "high": None, "interval": None}
    simpler: dict[str, Callable[[], pd.DataFrame]] = {
        "parameter_count": lambda: parameter_count(networks),
        "l2_norm": lambda: l2_norm(networks),
        "distance_from_initialisation": lambda: distance_from_initialisation(networks),
        "margin": lambda: margin(networks, images=images, split=split),
        "sharpness": lambda: sharpness(networks, draws=draws, **shared),
        "random_perturbation": lambda: random_perturbation(networks, draws=draws, **shared),
        "sam_sharpness": lambda: sam_sharpness(networks, images=images, split=split),
        "hessian_trace": lambda: hessian_trace(networks, images=images, split=split, seed=seed),
    }
    for name in measures or ():
        if name not in simpler:
            raise unknown("measure", name, simpler)
    frame = prunability_of(networks, search="fast", **shared)
    measured = frame[frame["metric"] == "prunability"].assign(better_direction="lower")
    losses = measured.assign(metric="training_loss", value=measured["training_loss"], unit="nats", **empty)
    chosen = [make() for name, make in simpler.items() if measures is None or name in measures]
    columns = tidy([], extra=EXTRA).columns
    rows: Rows = []
    for table in [measured, *chosen, losses]:
        records = cast("Rows", table[columns.intersection(table.columns)].to_dict("records"))
        rows += [{name: value for name, value in row.items() if pd.notna(value)} for row in records]
    return tidy(rows, extra=EXTRA)


def _norm(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))


def _rebuild_initial(model: nn.Module) -> nn.Module | str:
    """Return the network with its builder's initial weights, or the reason why there is none."""
    builder = getattr(model, "dgprune_builder", None)
    if builder is None:
        return "the network does not record how it was built; networks of dgprune_lab.models do"
    initial = build(builder[0], **builder[1])
    current, before = prunable(model), prunable(initial)
    same_layers = current.keys() == before.keys() and all(current[name].shape == before[name].shape for name in current)
    return initial if same_layers else "its layers have other names or sizes than its builder gave it, as after pruning"
