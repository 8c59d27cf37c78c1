"""How flat is the loss around a trained network? Curvature, gradient covariance, and the loss along eigenvectors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..core import Count, DgpruneError, Mask, Repeats, Seed, tidy, yielding
from ..measurement import Curvature, lanczos_vectors
from ..pruning import masked
from ..study import Study, batchnorm_cell, labelled_studies, mask_columns, mask_provenance, pooled
from ._contract import Row, Rows, Steps, diagnostic, map_steps
from .curvature_measures import PER_SQUARE, finite_losses, over_images, trace_cells

_Progress = tuple[int, int, str]

EXTRA = ("network", "rank", "step", "weight_norm", "training_loss")
STEPS = tuple(round(0.001 * k, 3) for k in range(-10, 11))
NORMS = "weight norms"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The options of `flatness`."""

    top: int = 2
    images: int | None = 250
    split: str = "train"
    seed: int = 0
    draws: int = 4
    steps: tuple[float, ...] = STEPS


@dataclass(frozen=True, kw_only=True, eq=False)
class Surroundings:
    """The measurements around one network: the rows of the table, and the unit eigenvectors (P, top)."""

    setting: Setting
    curvature: Curvature
    vectors: Tensor
    shared: Row
    rows: Rows


@diagnostic(
    "flatness",
    extra=EXTRA,
    cite="Bartoldson et al. 2020, The Generalization-Stability Tradeoff in Neural Network Pruning, arXiv:1906.03728",
)
def flatness(
    studies: Study | Sequence[Study],
    *,
    top: Count = 2,
    images: Count | None = 250,
    split: str = "train",
    seed: Seed = 0,
    draws: Repeats = 4,
    steps: Sequence[float] = STEPS,
    mask: Mask | None = None,
    progress: bool = False,
) -> Steps:
    """Return how the training loss curves around a network: eigenvalues, traces, and the loss along eigenvectors.

    L is the mean cross-entropy of the images, in eval mode, as a function of all parameters w (BatchNorm's scale and
    shift among them, its running statistics as they are). ReLU and max pooling count as linear on each side of their
    kinks, as PyTorch differentiates them: the kinks affect the loss along the eigenvectors, not the Hessian.

    Args:
        studies: one or several networks with their sources; targets are not read.
        top: number of eigenvalues.
        images: measure on the first `images` images of each source only; None for all.
        split: the split of the images.
        seed: random seed of the search's first vector and of the trace's signs.
        draws: number of estimates of the trace; see `hessian_trace`.
        steps: positions along each eigenvector at which the loss is measured, in units of |w|; () for none.
        mask: locate the network pruned by this mask too: parameters that it removes are 0, the others unchanged.
        progress: whether to show a progress bar.

    Returns:
        A tidy table; columns `weight_norm`, |w| over all parameters, and `training_loss`, L(w). Metrics:
        "hessian_eigenvalue", the largest ones (column `rank`, 1 = largest); "hessian_top_sum", their sum, which is not
        the trace (`rank` = top); "hessian_trace", interval over draws; "gradient_covariance_trace", the mean over
        images of the squared norm of the gradient of one image's loss (uncentred), interval over images; "loss" (nats),
        L(w + step |w| v) with v the unit eigenvector of this rank, interval over images. The sign of v is arbitrary; it
        is chosen so that its entry of largest magnitude is positive. With a mask p: "pruned_loss", L(w_p);
        "pruned_distance", |w_p - w|; "pruned_step", v (w_p - w), the step closest to w_p on each eigenvector;
        "pruned_off_plane", the distance of w_p from the plane of the first two eigenvectors; distances in units of |w|.

    Raises:
        DgpruneError: sources without labels, a loss that is not finite, an operation without second derivative,
            more eigenvalues than parameters, eigenvectors beyond 2.1 GB or half of the available memory, a
            mask with several networks, or of another network.
    """
    named = dict(labelled_studies(studies, split, what="flatness"))
    if mask is not None and len(named) > 1:
        raise DgpruneError(f"mask belongs to one network; got {len(named)} studies. Call flatness for each by itself.")
    if not all(math.isfinite(step) for step in steps):
        raise DgpruneError("steps must be finite numbers, 0.01 is a hundredth of the weights' norm.")
    setting = Setting(
        top=top, images=images, split=split, seed=seed, draws=draws, steps=tuple(float(step) for step in steps)
    )
    return _steps(named, setting, mask=mask)


def _steps(studies: Mapping[str, Study], setting: Setting, *, mask: Mask | None) -> Steps:
    rows: Rows = []
    for name, study in studies.items():
        measured = yield from surroundings(study, setting, name=name)
        rows += measured.rows
        if mask is not None:
            rows += yield from yielding(pruned_rows(study, measured, mask), (1, 1))
    return tidy(rows, extra=EXTRA)


def surroundings(study: Study, setting: Setting, *, name: str) -> Generator[_Progress, None, Surroundings]:
    """Measure one network; yields (done, total, what is measured) between batches, total being an estimate."""
    curvature = Curvature(study.model, study.sources, split=setting.split, images=setting.images, device=study.device)
    curvature.check_top(setting.top)
    total, numbers = estimate_passes(curvature, setting) * curvature.batches + curvature.images, itertools.count(1)

    def counted(steps: Generator[None, None, Any], stage: str) -> Generator[_Progress, None, Any]:
        def progress(_: None) -> _Progress:
            done = next(numbers)
            return done, max(done, total), stage

        return map_steps(steps, progress)

    before = finite_losses((yield from counted(curvature.losses(), "loss")), name=name)
    squares = yield from counted(curvature.squared_gradients(), "gradient of each image")
    trace = yield from counted(curvature.trace(draws=setting.draws, seed=setting.seed), "trace")
    values, vectors = yield from counted(curvature.top(setting.top, seed=setting.seed), "eigenvalues")
    shared: Row = {
        "network": name,
        "training_seed": study.training_seed,
        "batchnorm": batchnorm_cell(study, "as_is"),
        "weight_norm": float(curvature.weights.double().norm()),
        "training_loss": float(before.mean()),
        **pooled(study, setting.split, images=setting.images),
    }
    covariance = {"metric": "gradient_covariance_trace", "unit": "squared nats per squared weight"}
    seeded: Row = {**shared, "seed": setting.seed}
    eigenvalue = {**seeded, "metric": "hessian_eigenvalue", "unit": PER_SQUARE}
    rows: Rows = [{**eigenvalue, "rank": k + 1, "value": float(value)} for k, value in enumerate(values)]
    rows.append({**eigenvalue, "metric": "hessian_top_sum", "rank": setting.top, "value": float(values.sum())})
    rows.append({**seeded, "metric": "hessian_trace", "unit": PER_SQUARE, **trace_cells(trace)})
    rows.append({**shared, **covariance, **over_images(squares)})
    for rank, step in itertools.product(range(1, setting.top + 1), setting.steps):
        displacement = vectors[:, rank - 1] * (step * shared["weight_norm"])
        losses = yield from counted(curvature.losses(displacement), "loss along the eigenvectors")
        cells = {"metric": "loss", "unit": "nats", "rank": rank, "step": step}
        rows.append({**seeded, **cells, **over_images(losses)})
    return Surroundings(setting=setting, curvature=curvature, vectors=vectors, shared=shared, rows=rows)


def estimate_passes(curvature: Curvature, setting: Setting) -> int:
    """Estimate how many passes over the images a measurement takes, each of them forward or with gradients."""
    products = min(lanczos_vectors(setting.top) + 2, len(curvature.weights))
    return 2 + products + len(setting.steps) * setting.top


def pruned_rows(study: Study, measured: Surroundings, mask: Mask) -> Generator[None, None, Rows]:
    """Return the rows about the network pruned by a mask; yields between batches."""
    shift = measured.curvature.displacement(masked(study.model, mask))
    losses = yield from measured.curvature.losses(shift)
    unit = measured.shared["weight_norm"]
    distance, steps = float(shift.double().norm()) / unit, shift.double() @ measured.vectors.double() / unit
    off_plane = math.sqrt(max(0.0, distance**2 - float(steps[:2].square().sum())))
    provenance = mask_provenance(study.provenance, mask, batchnorm="as_is", study=study)
    split, images = measured.shared["split"], measured.setting.images
    shared = {**measured.shared, **mask_columns(mask), **pooled(study, split, images=images, provenance=provenance)}
    metrics: Rows = [
        {"metric": "pruned_loss", "unit": "nats", **over_images(losses)},
        {"metric": "pruned_distance", "unit": NORMS, "value": distance},
        {"metric": "pruned_off_plane", "unit": NORMS, "value": off_plane},
        *({"metric": "pruned_step", "unit": NORMS, "rank": k + 1, "value": float(v)} for k, v in enumerate(steps)),
    ]
    return [{**shared, **row} for row in metrics]
