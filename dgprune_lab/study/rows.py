"""Columns of table rows on a mask, its provenance, or all sources together; unique names for several studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from ..core import SEEN, STAGES, BatchNorm, DgpruneError, Mask, Provenance, Seen, roles_of
from .study import Study


def mask_columns(mask: Mask) -> dict[str, Any]:
    """Return the columns of a row that describe its mask."""
    return {
        "scorer": mask.scorer,
        "ratio_requested": mask.ratio_requested,
        "ratio_achieved": mask.ratio_achieved,
        "scope": mask.scope,
        "budget": mask.budget,
    }


def batchnorm_cell(study: Study, batchnorm: str) -> str | None:
    """Return the value of the column `batchnorm`: the setting, or None for a network without BatchNorm."""
    return batchnorm if study.has_batchnorm else None


def remaining_cost(mask: Mask) -> list[tuple[str, int, str]]:
    """Return (metric, value, unit) for the number of filters, parameters, MACs and bytes that a mask leaves."""
    units = {"filters": "count", "parameters": "count", "macs": "per image", "bytes": "bytes"}
    return [(metric, getattr(mask.cost, metric), unit) for metric, unit in units.items()]


def mask_provenance(provenance: Provenance, mask: Mask, *, batchnorm: BatchNorm, study: Study) -> Provenance:
    """Return the provenance of a network pruned by this mask and, if `batchnorm` is "recalibrate", recalibrated."""
    provenance = provenance.adding("scorer", mask.reads).adding("selection", mask.selection)
    if batchnorm != "recalibrate" or not study.has_batchnorm:
        return provenance
    reads: dict[str, Seen] = {f"{d.name}/train": "images" for d in study.sources if len(d.splits.get("train", ()))}
    return provenance.adding("finetuning", reads)


def pooled(
    study: Study,
    split: str,
    *,
    images: int | None,
    reads: Mapping[str, Seen] | None = None,
    provenance: Provenance | None = None,
) -> dict[str, Any]:
    """Return the columns of a row on one split of all sources, pooled; seen_by_* say the most seen of any source.

    `provenance` replaces that of the network; the `reads` of a scorer are added to it.
    """
    provenance, order = (provenance or study.provenance).adding("scorer", reads or {}), get_args(Seen)
    seen = {
        column: max((provenance.seen(stage, domain.name, split) for domain in study.sources), key=order.index)
        for column, stage in zip(SEEN, STAGES, strict=True)
    }
    return {
        "domain": ", ".join(domain.name for domain in study.sources),
        "role": "source",
        "split": split,
        "images": sum(len(domain.rows(split, images)) for domain in study.sources),
        **seen,
        "target_aware": provenance.target_aware(roles_of(study.domains)),
    }


def require_labels(study: Study, split: str) -> None:
    """Raise an error if the study's loss cannot be measured on this split of its sources."""
    for domain in study.sources:
        if domain.labels is None:
            raise DgpruneError(f"source {domain.name!r} has no labels, so its loss cannot be measured.")
        if not len(domain.rows(split)):
            raise DgpruneError(f"source {domain.name!r} has no image in its split {split!r}.")


def why_no_loss(study: Study, split: str) -> str | None:
    """Return why the loss of a study cannot be measured on this split of its sources; None if it can."""
    try:
        require_labels(study, split)
    except DgpruneError as error:
        return str(error)
    return None


def labelled_studies(studies: Study | Sequence[Study], split: str, *, what: str) -> list[tuple[str, Study]]:
    """Return (unique name, study) for each of one or several studies; each must have a measurable loss on this split.

    Raises:
        DgpruneError: no study, or one whose loss cannot be measured; `what` begins the message.
    """
    studies = [studies] if isinstance(studies, Study) else list(studies)
    if not studies:
        raise DgpruneError(f"{what} needs at least one study; got none.")
    for study in studies:
        require_labels(study, split)
    return list(zip(network_names(studies), studies, strict=True))


def network_names(studies: Sequence[Study]) -> list[str]:
    """Return a unique name for every study: a repeated name gets a number, as in "lenet (2)"."""
    names: list[str] = []
    for study in studies:
        count = sum(other.name == study.name for other in studies[: len(names)])
        names.append(f"{study.name} ({count + 1})" if count else study.name)
    return names
