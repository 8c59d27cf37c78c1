"""Predictions for each image before and after removal: the data behind `drop` and `flips`."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..core import (
    BatchNorm,
    Budget,
    DgpruneError,
    Domain,
    Mask,
    Outcomes,
    Provenance,
    Scope,
    Scores,
    roles_of,
    yielding,
)
from ..pruning import allocate
from ..scorers import Scorer, resolve
from ..study import Study, batchnorm_cell, mask_columns, mask_provenance
from ._contract import Row

_MOST = 10_000


@dataclass(frozen=True, kw_only=True)
class Removal:
    """How filters are removed, and on which images the pruned networks are evaluated; `drop` explains each option."""

    scorers: Sequence[str | Scorer | Scores] = ()
    ratios: Sequence[float] = ()
    scope: Scope = "layer"
    budget: Budget = "filters"
    batchnorm: BatchNorm = "recalibrate"
    split: str = "report"
    images: int | None = None
    calibration: int = 500
    seed: int = 0
    one_layer: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Case:
    """One mask on one domain: the predictions of the full and of the pruned network.

    Attributes:
        group: name of the layer if it alone was pruned, otherwise None.
        before: outcomes of the full network as given.
        predicted: (N,) classes that the pruned network predicts.
    """

    study: Study
    domain: Domain
    mask: Mask
    removal: Removal
    group: str | None
    before: Outcomes = field(repr=False)
    predicted: Tensor = field(repr=False)

    def columns(self) -> Row:
        """Return the columns that all rows of this case share."""
        cells = mask_cells(
            self.study, self.mask, batchnorm=self.removal.batchnorm, domain=self.domain, split=self.removal.split
        )
        if self.group is not None:
            cells["ratio_achieved"] = float((~self.mask.keep[self.group]).double().mean())
        return {**cells, "network": self.study.name, "group": self.group, "images": len(self.before)}


def mask_cells(
    study: Study,
    mask: Mask | None,
    *,
    batchnorm: BatchNorm,
    domain: Domain | None = None,
    split: str | None = None,
    provenance: Provenance | None = None,
) -> Row:
    """Return the columns of a row about a pruned network (the full network if `mask` is None), on a domain if given.

    `provenance`, if given, replaces the network's own.
    """
    cells: Row = {"ratio_requested": 0.0, "ratio_achieved": 0.0}
    cells["batchnorm"] = batchnorm_cell(study, "as_is" if mask is None else batchnorm)
    if mask is not None:
        cells = {**mask_columns(mask), "seed": mask.options.get("seed"), "batchnorm": cells["batchnorm"]}
    if provenance is None:
        provenance = study.provenance
        if mask is not None:
            provenance = mask_provenance(provenance, mask, batchnorm=batchnorm, study=study)
    roles = roles_of(study.domains)
    cells |= {"split": split, "training_seed": study.training_seed, "target_aware": provenance.target_aware(roles)}
    if domain is not None and split is not None:
        cells |= {"domain": domain.name, "role": domain.role, **provenance.columns(domain.name, split, roles=roles)}
    return cells


def removal_cases(
    studies: Study | Sequence[Study], removal: Removal, *, labelled: bool
) -> Generator[tuple[int, int], None, list[Case]]:
    """Evaluate every network under every mask on every domain; yield (done, total) after every batch.

    With `labelled`, domains without labels are left out.

    Raises:
        DgpruneError: no study, or two with one name; no scorer or no ratio; ready Scores for several networks; pruning
            of single layers with a scope or budget that needs the whole network.
    """
    networks = [studies] if isinstance(studies, Study) else list(studies)
    _check_request(networks, removal)
    cases: list[Case] = []
    with ExitStack() as unchanged:
        for study in networks:
            unchanged.enter_context(study.assume_unchanged())
        jobs = [
            (study, group, mask, domain)
            for study in networks
            for group, mask in _masks(study, removal)
            for domain in study.domains
            if domain.labels is not None or not labelled
        ]
        for study, group, mask, domain in jobs:
            steps = case_steps(study, mask, domain=domain, removal=removal, group=group)
            cases.append((yield from yielding(steps, (len(cases), len(jobs)))))
            yield len(cases), len(jobs)
    return cases


def case_steps(
    study: Study, mask: Mask, *, domain: Domain, removal: Removal, group: str | None = None
) -> Generator[object, None, Case]:
    """Return one Case; yields between batches. The full network is never recalibrated."""
    options: Any = {"domain": domain.name, "split": removal.split, "images": removal.images}
    before = yield from study.steps(None, **options)
    after = yield from study.steps(mask, **options, batchnorm=removal.batchnorm, calibration=removal.calibration)
    return Case(
        study=study, domain=domain, mask=mask, removal=removal, group=group, before=before, predicted=after.predicted
    )


def check_names(scorers: Sequence[str | Scorer | Scores]) -> None:
    """Refuse two scorers with the same name, which a table could not distinguish."""
    names = [item.scorer if isinstance(item, Scores) else resolve(item).name for item in scorers]
    if (repeated := next((name for k, name in enumerate(names) if name in names[:k]), None)) is not None:
        raise DgpruneError(
            f"scorers: two scorers are called {repeated!r}, and a table could not distinguish them. Leave one out, or "
            "give it another name, for example dataclasses.replace(scores, scorer='...')."
        )


def check_network_count(networks: int) -> None:
    """Refuse more than `_MOST` pruned networks."""
    if networks > _MOST:
        raise DgpruneError(
            f"this would evaluate {networks:,} pruned networks on every domain, at most {_MOST:,} are possible; give "
            "fewer scorers, ratios (dg.grid(0, 0.9, 10)) or seeds."
        )


def only_layer(mask: Mask, layer: str) -> Mask:
    """Return the mask that removes the same filters from one layer, and none from the others."""
    keep = {name: kept if name == layer else torch.ones_like(kept) for name, kept in mask.keep.items()}
    return replace(mask, keep=keep)


def _masks(study: Study, removal: Removal) -> Iterator[tuple[str | None, Mask]]:
    for scores in study.score_all(removal.scorers, seed=removal.seed):
        for ratio in removal.ratios:
            mask = allocate(scores, ratio=ratio, scope=removal.scope, budget=removal.budget)
            if removal.one_layer:
                yield from ((name, only_layer(mask, name)) for name in study.graph.names)
            else:
                yield None, mask


def _check_request(studies: Sequence[Study], removal: Removal) -> None:
    if not studies:
        raise DgpruneError("this needs a study or a list of studies; got an empty list.")
    names = [study.name for study in studies]
    if (repeated := next((name for k, name in enumerate(names) if name in names[:k]), None)) is not None:
        raise DgpruneError(
            f"two studies are called {repeated!r}, and the column network could not distinguish them; give each a name "
            "of its own: Study(..., name='...')."
        )
    if not removal.scorers or not removal.ratios:
        raise DgpruneError("this needs at least one scorer and one ratio.")
    check_names(removal.scorers)
    layers = len(studies[0].graph.names) if removal.one_layer else 1
    check_network_count(len(studies) * len(removal.scorers) * len(removal.ratios) * layers)
    if len(studies) > 1 and any(isinstance(item, Scores) for item in removal.scorers):
        raise DgpruneError("ready Scores belong to one network; pass one study, or scorers by name for several.")
    if removal.one_layer and (removal.scope, removal.budget) != ("layer", "filters"):
        raise DgpruneError(
            "removing from one layer at a time needs scope='layer' and budget='filters'; "
            f"got scope={removal.scope!r} and budget={removal.budget!r}."
        )
