"""Outcomes per image, and what a network costs, as tidy rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import Batch, BatchNorm, DgpruneError, Domain, Outcomes, choice, note, provenance_of, roles_of, tidy
from ..pruning import device_of, private
from ..stats import intervals
from .cost import LATENCY_IMAGES, cost_rows, latency_row, time_model
from .memory_format import layout_of
from .recalibrate import recalibrate


def evaluate(
    model: nn.Module, domain: Domain, split: str = "report", *, images: int | None = None, size: int = 250
) -> Outcomes:
    """What a network predicts for each image of a part, in eval mode, on a private copy.

    Args:
        model: untouched.
        domain: where the images come from.
        split: which part of it.
        images: only the first so many.
        size: images per batch; halved, and said, when memory runs out.

    Raises:
        DgpruneError: no images, non-finite logits, fewer outputs than classes.
    """
    batches = domain.batches(split, size=size, images=images, device=device_of(model), layout=layout_of(model, domain))
    return join(outcome_batches(private(model), batches, domain))


def evaluating(
    model: nn.Module, domain: Domain, split: str, *, images: int | None = None
) -> Generator[None, None, Outcomes]:
    """`evaluate`, yielding between batches, so that one can stop there."""
    layout = layout_of(model, domain)
    batches = domain.batches(split, size=250, images=images, device=device_of(model), layout=layout)
    parts: list[Outcomes] = []
    for part in outcome_batches(private(model), batches, domain):
        parts.append(part)
        yield
    return join(parts)


def outcome_batches(model: Callable[[Tensor], Tensor], batches: Iterable[Batch], domain: Domain) -> Iterator[Outcomes]:
    """Outcomes batch by batch, so that a caller can stop between two.

    Raises:
        DgpruneError: non-finite logits, or labels that the network has no output for.
    """
    for images, labels, index in batches:
        with torch.inference_mode():
            logits = _logits(model, images)
            if not isinstance(logits, Tensor) or logits.ndim != 2:
                got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
                raise DgpruneError(f"the network must return logits of shape (images, classes); it returned {got}.")
            if not torch.isfinite(logits).all():
                raise DgpruneError(
                    f"the network gives NaN or infinite logits on domain {domain.name!r}; check its weights."
                )
            if labels is not None and domain.classes > logits.shape[1]:
                raise DgpruneError(
                    f"domain {domain.name!r} has labels to {domain.classes - 1}, the network {logits.shape[1]} outputs."
                )
            loss = (
                torch.full((len(images),), torch.nan)
                if labels is None
                else F.cross_entropy(logits, labels, reduction="none")
            )
        yield Outcomes(
            logits.argmax(1).cpu().clone(), loss.cpu().double().clone(), index, None if labels is None else labels.cpu()
        )


def _logits(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The model's output; where memory runs out, in halves, and said."""
    try:
        return model(images)
    except torch.OutOfMemoryError:
        if len(images) == 1:
            raise DgpruneError(
                "the device has too little memory for a single image; use a smaller network or the CPU."
            ) from None
    # Outside the handler, which would keep the failed pass alive.
    half = -(-len(images) // 2)
    note(f"memory ran out at {len(images)} images a batch; going on with {half}.")
    return torch.cat([_logits(model, part) for part in images.split(half)])


def join(parts: Iterable[Outcomes]) -> Outcomes:
    """The batches of one evaluation as one.

    Raises:
        DgpruneError: there are none.
    """
    listed = list(parts)
    if not listed:
        raise DgpruneError("there is no image to evaluate; the part is empty.")
    labels = None if listed[0].labels is None else torch.cat([p.labels for p in listed if p.labels is not None])
    return Outcomes(
        torch.cat([p.predicted for p in listed]),
        torch.cat([p.loss for p in listed]),
        torch.cat([p.index for p in listed]),
        labels,
    )


def measure(
    model: nn.Module,
    domains: Domain | Sequence[Domain],
    *,
    split: str = "report",
    batchnorm: BatchNorm = "as_is",
    images: int | None = None,
    latency: bool = True,
) -> pd.DataFrame:
    """Accuracy and loss per domain with intervals over images; parameters, MACs, bytes and latency of the network.

    Args:
        model: untouched.
        domains: one or several, from a study in their roles: sources are needed for batchnorm="recalibrate". Of a
            domain without a role the column `target_aware` may say "unknown".
        split: which part is reported.
        batchnorm: "as_is", or "recalibrate": statistics re-estimated on source train images first.
        images: only the first so many of each part.
        latency: whether to time it: one batch of 32 images, median and range of 21 runs after a warm-up.

    Returns:
        A tidy table. Shares in [0, 1]; latency in ms per batch; MACs per image.

    >>> import dgprune_lab as dg
    >>> study = dg.demo()
    >>> table = dg.measure(study.model, study.sources, images=100, latency=False)
    >>> sorted(table.metric.unique())
    ['accuracy', 'bytes', 'loss', 'macs', 'parameters']
    """
    choice("batchnorm", batchnorm, BatchNorm)
    listed = [domains] if isinstance(domains, Domain) else list(domains)
    if not listed:
        raise DgpruneError("measure needs at least one domain.")
    if batchnorm == "recalibrate":
        model = recalibrate(model, listed)
    record, rows = provenance_of(model), []
    about = {"batchnorm": batchnorm, **_removed(model), "target_aware": record.target_aware(roles_of(listed))}
    for domain in listed:
        outcomes = evaluate(model, domain, split, images=images)
        part = {"domain": domain.name, "role": domain.role, "split": split, "images": len(outcomes)}
        rows += [{**about, **part, **row, **record.columns(domain.name, split)} for row in outcome_rows(outcomes)]
    rows += [{**about, **row} for row in cost_rows(model, listed[0])]
    if latency:
        example = listed[0].take(listed[0].rows(split, LATENCY_IMAGES), device=device_of(model)).images
        rows.append({**about, **latency_row(time_model(model, example), len(example))})
    return tidy(rows)


def _removed(model: nn.Module) -> dict[str, Any]:
    """Which mask a network was pruned by, for its rows; nothing for a full one, or after several rounds."""
    masks = getattr(model, "dgprune_masks", ())
    if len(masks) != 1:
        return {}
    (mask,) = masks
    return {
        "scorer": mask["scorer"],
        "ratio_requested": mask["ratio_requested"],
        "ratio_achieved": mask["ratio_achieved"],
        "scope": mask["scope"],
        "budget": mask["budget"],
        "seed": mask["options"].get("seed"),
    }


def outcome_rows(outcomes: Outcomes) -> list[dict[str, Any]]:
    """Accuracy and mean loss of one evaluation, with intervals over images; none without labels."""
    if outcomes.correct is None:
        return []
    values = np.stack([outcomes.correct.double().numpy(), outcomes.loss.numpy()], axis=1)
    low, high = intervals.over_images(values)
    mean = values.mean(0)
    return [
        {"metric": name, "value": mean[k], "low": low[k], "high": high[k], "interval": "images", "unit": unit}
        for k, (name, unit) in enumerate((("accuracy", "share"), ("loss", "nats")))
    ]
