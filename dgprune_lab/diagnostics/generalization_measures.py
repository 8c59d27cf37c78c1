"""Simpler measures that are said to tell which of several networks generalises best, to hold prunability against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from torch import Tensor, nn

from ..core import DgpruneError, drain, note, tidy
from ..measurement import WeightMasking, prunable
from ..models.networks import build
from ..pruning import private
from ..stats import intervals
from ..study import Study, checked_tolerances, named, network_names, pooled
from ._contract import diagnostic
from ._loss_curve import LossCurve
from ._weight_noise import Shaken, largest_noise, margins
from .prunability import prunability as prunability_of

Better = Literal["lower", "higher"]
Rows = list[dict[str, Any]]

EXTRA = ("network", "better", "tolerance", "training_loss")
_KUHN = "Kuhn et al. 2021, arXiv:2103.06002, for the list; the definitions here are ours"
_TENTH = 10.0


@diagnostic("parameter_count", extra=EXTRA, cite=_KUHN)
def parameter_count(studies: Study | Sequence[Study]) -> pd.DataFrame:
    """Number of parameters; fewer is said to generalise better. Metric "parameter_count", a row per network."""
    return _table(
        studies,
        "parameter_count",
        "count",
        "lower",
        lambda study: float(sum(p.numel() for p in study.model.parameters())),
    )


@diagnostic("l2_norm", extra=EXTRA, cite=_KUHN)
def l2_norm(studies: Study | Sequence[Study]) -> pd.DataFrame:
    """sqrt(sum w^2) over the weights of convolution and linear layers; smaller is said to generalise better.

    Metric "l2_norm", a row per network. It says little about networks with BatchNorm, which undoes the scale.
    """
    return _table(studies, "l2_norm", "norm", "lower", lambda study: _norm(prunable(study.model)))


@diagnostic("distance_from_initialisation", extra=EXTRA, cite=_KUHN)
def distance_from_initialisation(studies: Study | Sequence[Study]) -> pd.DataFrame:
    """|w - w_0| over the weights of convolution and linear layers; nearer is said to generalise better.

    w_0 are the weights that the network's builder draws from its seed. Metric "distance_from_initialisation", a row
    per network; empty, and said, where builder and seed are not known.
    """

    def distance(study: Study) -> float:
        first = _initial(study.model)
        if first is None:
            note(
                f"{study.name}: the distance from its initial weights is unknown, since this network does not say how "
                "it was built; networks of dgprune_lab.models do."
            )
            return math.nan
        now, before = prunable(study.model), prunable(first)
        return _norm({name: weight.detach().cpu() - before[name].detach() for name, weight in now.items()})

    return _table(studies, "distance_from_initialisation", "norm", "lower", distance)


@diagnostic("margin", extra=EXTRA, cite=_KUHN)
def margin(studies: Study | Sequence[Study], *, images: int | None = None, split: str = "train") -> pd.DataFrame:
    """The 10th percentile over training images of true logit - largest other one; larger is said to be better.

    Metric "margin" (logits), a row per network, interval over images.

    Args:
        studies: one or several networks with their sources.
        images: only the first so many of each source.
        split: the part that is read.

    Raises:
        DgpruneError: sources without labels.
    """
    rows: Rows = []
    for name, study in named(studies, split, what="this measure"):
        twin = WeightMasking(private(study.model).to(study.device), domains=study.sources)
        twin.zero(1.0)
        values = margins(drain(twin.outputs(study.sources, split=split, images=images)))
        draw = np.random.default_rng(len(values))
        count = len(values)
        tenths = [np.percentile(values[draw.integers(0, count, count)], _TENTH) for _ in range(intervals.RESAMPLES)]
        low, high = np.percentile(tenths, [100 * (1 - intervals.LEVEL) / 2, 100 * (1 + intervals.LEVEL) / 2])
        rows.append(
            {
                **_about(name, study, "margin", "logits", "higher"),
                **pooled(study, split, images),
                "interval": "images",
                "value": float(np.percentile(values, _TENTH)),
                "low": low,
                "high": high,
            }
        )
    return tidy(rows, extra=EXTRA)


@diagnostic("sharpness", extra=EXTRA, cite=_KUHN)
def sharpness(
    studies: Study | Sequence[Study],
    *,
    tolerance: float = 0.1,
    draws: int = 3,
    images: int | None = None,
    split: str = "train",
    seed: int = 0,
) -> pd.DataFrame:
    """The largest sigma at which Gaussian noise on the weights keeps the training loss; larger is said to be better.

    max { sigma : mean over draws of L(w + sigma u) <= (1 + tolerance) L(w) }, u standard normal on every weight of the
    convolution and linear layers, the same draws for every sigma. Bracketed by doubling or halving from a hundredth of
    the weights' root mean square, then halved ten times on a log scale: exact to a thousandth of itself.

    Args:
        studies: one or several networks with their sources.
        tolerance: how much the loss may grow, as a share of it.
        draws: of the noise.
        images: only the first so many of each source.
        split: the part that the loss is measured on.
        seed: of the first draw.

    Returns:
        Metric "sharpness", a row per network, in units of a weight; training_loss beside it.

    Raises:
        DgpruneError: tolerance <= 0, no draw, sources without labels, a training loss of 0.
    """
    (checked,) = checked_tolerances(tolerance)
    _check_draws(draws)
    rows: Rows = []
    for name, study in named(studies, split, what="this measure"):
        shaken = Shaken(study, draws=draws, seed=seed, split=split, images=images)
        full = _checked_loss(shaken.loss(0.0), name)
        rows.append(
            {
                **_about(name, study, "sharpness", "sigma", "higher"),
                **pooled(study, split, images),
                "seed": seed,
                "tolerance": checked,
                "training_loss": full,
                "value": largest_noise(shaken, limit=(1 + checked) * full),
            }
        )
    return tidy(rows, extra=EXTRA)


@diagnostic("random_perturbation", extra=EXTRA, cite=_KUHN)
def random_perturbation(
    studies: Study | Sequence[Study],
    *,
    tolerance: float = 0.1,
    draws: int = 3,
    step: float = 0.01,
    images: int | None = None,
    split: str = "train",
    seed: int = 0,
) -> pd.DataFrame:
    """Prunability with a random direction in place of pruning, as long as what pruning removes: the control of it.

    min { a : mean over draws of L(w + |w - w_a| u / |u|) <= (1 + tolerance) L(w) }, w_a = the share a of largest |w|
    kept, u standard normal; lower is said to be better. Found as prunability's fast search does, on a grid.

    Args:
        studies: one or several networks with their sources.
        tolerance: how much the loss may grow, as a share of it.
        draws: directions, the same for every share.
        step: of the grid.
        images: only the first so many of each source.
        split: the part that the loss is measured on.
        seed: of the first draw.

    Returns:
        Metric "random_perturbation" (share), a row per network, interval over images; training_loss beside it.

    Raises:
        DgpruneError: tolerance <= 0, no draw, sources without labels, a training loss of 0.
    """
    (checked,) = checked_tolerances(tolerance)
    _check_draws(draws)
    rows: Rows = []
    for name, study in named(studies, split, what="this measure"):
        shaken = Shaken(study, draws=draws, seed=seed, split=split, images=images, unit=True)
        curve = LossCurve(shaken.like_pruning, step=step, name=name)
        drain(curve.bracket(checked))
        ((low, high),) = curve.resampled([checked], whole=False)
        rows.append(
            {
                **_about(name, study, "random_perturbation", "share", "lower"),
                **pooled(study, split, images),
                "seed": seed,
                "tolerance": checked,
                "training_loss": curve.full,
                "interval": "images",
                "value": curve.read(checked).contiguous,
                "low": low,
                "high": high,
            }
        )
    return tidy(rows, extra=EXTRA)


@diagnostic("generalization_measures", extra=EXTRA, cite=_KUHN)
def generalization_measures(
    studies: Study | Sequence[Study],
    *,
    tolerance: float = 0.1,
    draws: int = 3,
    images: int | None = None,
    split: str = "train",
    seed: int = 0,
) -> pd.DataFrame:
    """Prunability (fast) and every measure it is said to beat, for the same networks, as one table.

    Metrics: prunability, parameter_count, l2_norm, distance_from_initialisation, margin, sharpness,
    random_perturbation, training_loss; column `better` says whether a lower or a higher value is said to generalise
    better. Args, units and errors: as those functions; a note where the training losses differ.
    """
    listed = [studies] if isinstance(studies, Study) else list(studies)
    shared: dict[str, Any] = {"tolerance": tolerance, "images": images, "split": split, "seed": seed}
    first = prunability_of(listed, search="fast", **shared)
    found = first[first["metric"] == "prunability"].assign(better="lower")
    losses = found.assign(
        metric="training_loss", value=found["training_loss"], low=None, high=None, interval=None, unit="nats"
    )
    parts = [
        found,
        parameter_count(listed),
        l2_norm(listed),
        distance_from_initialisation(listed),
        margin(listed, images=images, split=split),
        sharpness(listed, draws=draws, **shared),
        random_perturbation(listed, draws=draws, **shared),
        losses,
    ]
    rows: Rows = [row for part in parts for row in _plain(part)]
    return tidy(rows, extra=EXTRA)


def _plain(frame: pd.DataFrame) -> Rows:
    """The rows of a table with the shared columns and this file's, cells that are empty left out."""
    names = [name for name in tidy([], extra=EXTRA).columns if name in frame.columns]
    rows = cast("Rows", cast(pd.DataFrame, frame[names]).to_dict("records"))
    return [{name: value for name, value in row.items() if pd.notna(value)} for row in rows]


def _table(
    studies: Study | Sequence[Study], metric: str, unit: str, better: Better, value: Callable[[Study], float]
) -> pd.DataFrame:
    """A row per network of a measure of its weights alone."""
    listed = [studies] if isinstance(studies, Study) else list(studies)
    rows = [
        {**_about(name, study, metric, unit, better), "value": value(study)}
        for name, study in zip(network_names(listed), listed, strict=True)
    ]
    return tidy(rows, extra=EXTRA)


def _about(name: str, study: Study, metric: str, unit: str, better: Better) -> dict[str, Any]:
    return {"network": name, "metric": metric, "unit": unit, "better": better, "training_seed": study.training_seed}


def _norm(tensors: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors.values()))


def _initial(model: nn.Module) -> nn.Module | None:
    """The network as its builder made it; None where nobody says how."""
    builder = getattr(model, "dgprune_builder", None)
    if builder is None:
        return None
    first = build(builder[0], **builder[1])
    now, before = prunable(model), prunable(first)
    same = now.keys() == before.keys() and all(now[name].shape == before[name].shape for name in now)
    return first if same else None


def _checked_loss(loss: float, name: str) -> float:
    if loss == 0 or not math.isfinite(loss):
        raise DgpruneError(
            f"the training loss of {name!r} is {loss:g}, so a tolerance relative to it has no meaning; use a network "
            "stopped at a loss above 0."
        )
    return loss


def _check_draws(draws: int) -> None:
    if draws < 1:
        raise DgpruneError(f"draws must be at least 1; got {draws}.")
