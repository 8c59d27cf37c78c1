"""Columns that a mask adds to a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from ..core import SEEN, STAGES, BatchNorm, DgpruneError, Mask, Provenance, Seen, roles_of
from .study import Study


def mask_columns(mask: Mask) -> dict[str, Any]:
    """The cells of a row that say which mask it is about."""
    return {
        "scorer": mask.scorer,
        "ratio_requested": mask.ratio_requested,
        "ratio_achieved": mask.ratio_achieved,
        "scope": mask.scope,
        "budget": mask.budget,
    }


def left(mask: Mask) -> list[tuple[str, int, str]]:
    """(metric, value, unit) of what a mask leaves."""
    units = {"filters": "count", "parameters": "count", "macs": "per image", "bytes": "bytes"}
    return [(metric, getattr(mask.cost, metric), unit) for metric, unit in units.items()]


def mask_provenance(record: Provenance, mask: Mask, *, batchnorm: BatchNorm, study: Study) -> Provenance:
    """The record of the network that this mask leaves."""
    found = record.adding("scorer", mask.reads)
    if batchnorm == "recalibrate" and study.has_batchnorm:
        found = found.adding("tuning", {f"{d.name}/train": "images" for d in study.sources if "train" in d.splits})
    return found


def pooled(study: Study, split: str, images: int | None, *, reads: Mapping[str, Seen] | None = None) -> dict[str, Any]:
    """The cells of a row about one part of all sources together; the most that a stage has seen of any of them."""
    record = study.record.adding("scorer", reads or {})
    order = get_args(Seen)
    seen = {
        column: max((record.seen(stage, domain.name, split) for domain in study.sources), key=order.index)
        for column, stage in zip(SEEN, STAGES, strict=True)
    }
    return {
        "domain": ", ".join(domain.name for domain in study.sources),
        "role": "source",
        "split": split,
        "images": sum(len(domain.rows(split, images)) for domain in study.sources),
        **seen,
        "target_aware": record.target_aware(roles_of(study.domains)),
    }


def checked_tolerances(tolerance: float | Sequence[float]) -> list[float]:
    """One or several tolerances as a list.

    Raises:
        DgpruneError: none, or one that is not a positive number.
    """
    listed = [tolerance] if isinstance(tolerance, int | float) else list(dict.fromkeys(tolerance))
    for one in listed or [0.0]:
        if not (math.isfinite(one) and one > 0):
            raise DgpruneError(
                f"tolerance must be above 0: how much the loss may grow, so 0.1 is a tenth; got {one!r}."
            )
    return [float(one) for one in listed]


def refuse(study: Study, split: str) -> None:
    """Refuse a study whose loss cannot be measured on this part of its sources."""
    for domain in study.sources:
        if domain.labels is None:
            raise DgpruneError(f"source {domain.name!r} has no labels, so there is no loss to keep.")
        if not len(domain.rows(split)):
            raise DgpruneError(f"source {domain.name!r} has no image in its part {split!r}.")


def named(studies: Study | Sequence[Study], split: str, *, what: str) -> list[tuple[str, Study]]:
    """One study or several, each with a name of its own, all with a loss on this part.

    Raises:
        DgpruneError: none, or one whose loss cannot be measured; `what` begins the sentence.
    """
    listed = [studies] if isinstance(studies, Study) else list(studies)
    if not listed:
        raise DgpruneError(f"{what} needs at least one study; got none.")
    for study in listed:
        refuse(study, split)
    return list(zip(network_names(listed), listed, strict=True))


def network_names(studies: Sequence[Study]) -> list[str]:
    """A name of its own for every study: a repeated one gets a number."""
    names: list[str] = []
    for study in studies:
        count = sum(other.name == study.name for other in studies[: len(names)])
        names.append(f"{study.name} ({count + 1})" if count else study.name)
    return names
