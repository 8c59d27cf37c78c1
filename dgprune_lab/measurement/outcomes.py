"""Outcomes per image, and the cost of a network, as tidy rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import (
    Batch,
    BatchNorm,
    Count,
    DgpruneError,
    Domain,
    Outcomes,
    check_domains,
    drain,
    full_precision,
    note,
    provenance_of,
    public,
    roles_of,
    tidy,
)
from ..pruning import device_of, prove_copies, refuse_other_types, shared_copy
from .batch_size import TOO_LITTLE, batch_size, layout_of
from .chance import ChanceWatch
from .collectors import check_classes, check_finite
from .metrics import (
    CLASS,
    LATENCY_IMAGES,
    Metric,
    cost_rows,
    latency_row,
    mask_columns,
    metric_rows,
    outcome_rows,
    timings,
    worst_rows,
)
from .recalibrate import has_batchnorm, recalibrate


@public
def evaluate(
    model: nn.Module, domain: Domain, split: str = "report", *, images: Count | None = None, size: Count | None = None
) -> Outcomes:
    """Return a network's predictions and losses for each image of a split; a private copy runs, in eval mode.

    Args:
        model: the network; it stays unchanged.
        domain: the domain of the images.
        split: the split of the domain.
        images: number of images, from the start of the split; None for all.
        size: images per batch; by default as many as fit in 256 MB of feature maps on a CPU (at most 250), or in half
            of a GPU's free memory. Halved, with a note, on out-of-memory.

    Raises:
        DgpruneError: no images, logits that are not finite, fewer outputs than classes, a network that cannot be
            copied.
    """
    example = domain.take(torch.arange(min(2, len(domain)))).images
    refuse_other_types(model, example)
    prove_copies(model, example)
    return drain(evaluating(model, domain, split, images=images, size=size))


def evaluating(
    model: nn.Module, domain: Domain, split: str, *, images: int | None = None, size: int | None = None
) -> Generator[None, None, Outcomes]:
    """Run `evaluate`, yielding between batches, so that the caller can cancel."""
    layout, twin, outcomes = layout_of(model, domain), shared_copy(model), []
    size = size or batch_size(model, domain.take(torch.arange(1), device=device_of(model)).images)
    for batch in domain.batches(split, size=size, images=images, device=device_of(model), layout=layout):
        outcomes.append(batch_outcomes(twin, batch, domain))
        yield
    return join(outcomes, domain)


class BatchOutcomes(NamedTuple):
    """Outcomes of a batch, on the network's device so that a GPU need not wait for the CPU, and the row numbers.

    `numbers` is (5, B): predicted class, its softmax probability, loss, label (0 if unknown), whether all logits are
    finite.
    """

    numbers: Tensor
    index: Tensor


def batch_outcomes(model: Callable[[Tensor], Tensor], batch: Batch, domain: Domain) -> BatchOutcomes:
    """Return the outcomes of one batch.

    Raises:
        DgpruneError: no logits, or labels for which the network has no output.
    """
    with torch.inference_mode(), full_precision(batch.images.device):
        logits = _run_in_halves(model, batch.images)
        check_classes(logits, domain)
        predicted = logits.argmax(1)
        labels = torch.zeros_like(predicted) if batch.labels is None else batch.labels
        loss = F.cross_entropy(logits, labels, reduction="none")
        dtype = torch.promote_types(loss.dtype, torch.float32)  # float32 holds whole numbers up to 16 million
        parts = predicted, logits.to(dtype).softmax(1).amax(1), loss, labels, logits.isfinite().all(1)
        return BatchOutcomes(torch.stack([part.to(dtype) for part in parts]), batch.index)


def _run_in_halves(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the model's output; on out-of-memory, compute it in halves, with a note."""
    try:
        return model(images)
    except torch.OutOfMemoryError:
        if len(images) == 1:
            raise DgpruneError(TOO_LITTLE) from None
    # Outside the handler, which would keep the failed pass alive.
    half = -(-len(images) // 2)
    note(f"memory ran out at {len(images)} images a batch; going on with {half}.")
    return torch.cat([_run_in_halves(model, part) for part in images.split(half)])


def join(batches: Sequence[BatchOutcomes], domain: Domain) -> Outcomes:
    """Return the outcomes of several batches of a domain.

    Raises:
        DgpruneError: no batches, or logits that are not finite.
    """
    if not batches:
        raise DgpruneError("there is no image to evaluate; the split is empty.")
    predicted, confidence, loss, labels, finite = torch.cat([batch.numbers for batch in batches], 1).cpu()
    check_finite(finite, domain)
    labelled = domain.labels is not None
    return Outcomes(
        predicted=predicted.long(),
        confidence=confidence.to(torch.float64, copy=True),
        loss=loss.to(torch.float64, copy=True) if labelled else torch.full_like(loss, torch.nan, dtype=torch.float64),
        index=torch.cat([batch.index for batch in batches]),
        labels=labels.long() if labelled else None,
    )


@public
def measure(
    model: nn.Module,
    domains: Domain | Sequence[Domain],
    *,
    split: str = "report",
    batchnorm: BatchNorm = "as_is",
    images: Count | None = None,
    latency: bool = True,
    metrics: Sequence[Metric] = (),
) -> pd.DataFrame:
    """Return accuracy and loss per domain, with intervals over images, and parameters, MACs, bytes and latency.

    The loss is the mean negative log-likelihood (cross-entropy) in nats.

    Args:
        model: the network; it stays unchanged.
        domains: one or several domains, with the roles that a study gives them: batchnorm="recalibrate" needs sources.
            For a domain without a role the column `target_aware` may be empty.
        split: the split to report.
        batchnorm: "as_is" for the network as given; "recalibrate" to re-estimate BatchNorm statistics on source train
            images first.
        images: number of images, from the start of each split; None for all.
        latency: whether to measure latency: one batch of 32 images, median and range of 21 runs after a warm-up, or of
            at least five if 21 take over 10 s.
        metrics: further rows. "worst_domain": the lowest accuracy of the sources and of the targets, in a row that
            names the domain (metric `worst_domain_accuracy`). "per_class": the accuracy on the images of each class
            (`class_accuracy`, columns `class` and `class_name`). "calibration_error": the expected calibration error
            in 15 bins (Guo et al. 2017, arXiv:1706.04599), see `stats.calibration_error`.

    Returns:
        A tidy table. Accuracy in [0, 1]; latency in ms per batch; MACs per image.

    Raises:
        DgpruneError: no domain; metrics that need labels if no domain has any; a network that cannot be copied.

    >>> import dgprune_lab as dg
    >>> study = dg.demo()
    >>> table = dg.measure(study.model, study.sources, images=100, latency=False)
    >>> sorted(table.metric.unique())
    ['accuracy', 'bytes', 'loss', 'macs', 'parameters']
    """
    domains = [domains] if isinstance(domains, Domain) else list(domains)
    if not domains:
        raise DgpruneError("measure needs at least one domain; pass domains=.")
    if metrics and all(domain.labels is None for domain in domains):
        raise DgpruneError(f"metrics: {', '.join(metrics)} need labels, and no domain has any; leave metrics out.")
    check_domains(domains)
    example = domains[0].take(torch.arange(min(2, len(domains[0])))).images
    refuse_other_types(model, example)
    prove_copies(model, example)
    if batchnorm == "recalibrate":
        model = recalibrate(model, domains)
    provenance, rows = provenance_of(model), []
    roles = roles_of(domains)
    setting = batchnorm if has_batchnorm(model) else None
    watch = ChanceWatch(batchnorm=setting == "as_is", pruned=bool(getattr(model, "dgprune_masks", ())))
    shared = {"batchnorm": setting, **mask_columns(model), "target_aware": provenance.target_aware(roles)}
    for domain in domains:
        outcomes = drain(evaluating(model, domain, split, images=images))
        watch.see(outcomes, domain, split=split)
        columns = {"domain": domain.name, "role": domain.role, "split": split, "images": len(outcomes)}
        columns |= provenance.columns(domain.name, split, roles=roles)
        cells = [*outcome_rows(outcomes), *metric_rows(outcomes, domain, metrics=metrics)]
        rows += [{**shared, **columns, **row} for row in cells]
    rows += worst_rows(rows) if "worst_domain" in metrics else ()
    rows += [{**shared, **row} for row in cost_rows(model, domains[0])]
    if latency:
        example = domains[0].take(domains[0].rows(split, LATENCY_IMAGES), device=device_of(model)).images
        rows.append({**shared, **latency_row(list(timings(model, example)), len(example))})
    return tidy(rows, extra=CLASS).astype({"class": "Int64"}) if "per_class" in metrics else tidy(rows)
