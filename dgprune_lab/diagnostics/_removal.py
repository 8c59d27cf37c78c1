"""What removal does with each image, before and after: what `drop` and `flips` are tables of."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core import BatchNorm, Budget, DgpruneError, Domain, Mask, Outcomes, Scope, Scores, roles_of, yielding
from ..pruning import allocate
from ..scorers import Scorer
from ..study import Study, mask_columns, mask_provenance

Steps = Generator[tuple[int, int], None, pd.DataFrame]
"""Yields (done, total) after every batch, and returns the table."""


@dataclass(frozen=True)
class Removal:
    """What is removed, and which images are looked at."""

    scorers: Sequence[str | Scorer | Scores]
    ratios: Sequence[float]
    scope: Scope = "layer"
    budget: Budget = "filters"
    batchnorm: BatchNorm = "as_is"
    split: str = "report"
    images: int | None = None
    seed: int = 0
    one_layer: bool = False


@dataclass(frozen=True, eq=False)
class Case:
    """One mask on one domain: what the network said of each image before, and what it says after.

    Attributes:
        group: the layer that alone was pruned, or None.
        before: of the full network as given.
        predicted: (N,) classes after.
    """

    study: Study
    domain: Domain
    mask: Mask
    asked: Removal
    group: str | None
    before: Outcomes = field(repr=False)
    predicted: Tensor = field(repr=False)

    @property
    def right(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """(N,) of 0 and 1, right before and right after; None without labels."""
        if self.before.correct is None or self.before.labels is None:
            return None
        after = self.predicted == self.before.labels
        return self.before.correct.double().cpu().numpy(), after.double().cpu().numpy()

    def columns(self) -> dict[str, Any]:
        """The cells that all rows of this case share."""
        study, mask, name, batchnorm = self.study, self.mask, self.domain.name, self.asked.batchnorm
        record = mask_provenance(study.record, mask, batchnorm=batchnorm, study=study)
        got = {} if self.group is None else {"ratio_achieved": float((~mask.keep[self.group]).double().mean())}
        return {
            **mask_columns(mask),
            **got,
            "batchnorm": batchnorm,
            "seed": mask.options.get("seed"),
            "training_seed": study.training_seed,
            "network": study.name,
            "group": self.group,
            "domain": name,
            "role": self.domain.role,
            "split": self.asked.split,
            "images": len(self.before),
            **record.columns(name, self.asked.split, roles=roles_of(study.domains)),
        }


def networks(studies: Study | Sequence[Study]) -> list[Study]:
    """One study or several, each under a name of its own.

    Raises:
        DgpruneError: none, something else, or two of one name.
    """
    listed = [studies] if isinstance(studies, Study) else list(studies)
    if not listed or not all(isinstance(study, Study) for study in listed):
        got = ", ".join(type(item).__name__ for item in listed) or "an empty list"
        raise DgpruneError(f"this needs a study or a list of studies; got {got}.")
    names = [study.name for study in listed]
    twice = next((name for k, name in enumerate(names) if name in names[:k]), None)
    if twice is not None:
        raise DgpruneError(
            f"two studies are called {twice!r}, and the column network could not tell them apart; give each a name of "
            "its own: Study(..., name='...')."
        )
    return listed


def cases(
    studies: Study | Sequence[Study], asked: Removal, *, labelled: bool
) -> Generator[tuple[int, int], None, list[Case]]:
    """Every network under every mask on every domain; yields (done, total) after every batch.

    Args:
        studies: one or several.
        asked: what is removed.
        labelled: leave out domains without labels.

    Raises:
        DgpruneError: no scorer or no ratio; ready Scores for several networks; one layer alone with a scope or count
            that only a whole network has.
    """
    listed = networks(studies)
    _check(listed, asked)
    each = len(asked.scorers) * len(asked.ratios)
    sizes = [
        each * (len(study.graph.groups) if asked.one_layer else 1) * len(_domains(study, labelled)) for study in listed
    ]
    found: list[Case] = []
    for study in listed:
        with study.held():
            for group, mask in _masks(study, asked):
                for domain in _domains(study, labelled):
                    steps = case_steps(study, mask, domain=domain, asked=asked, group=group)
                    found.append((yield from yielding(steps, (len(found), sum(sizes)))))
                    yield len(found), sum(sizes)
    return found


def case_steps(
    study: Study, mask: Mask, *, domain: Domain, asked: Removal, group: str | None = None
) -> Generator[None, None, Case]:
    """One case; yields between batches. The full network is never recalibrated."""
    name, split, images = domain.name, asked.split, asked.images
    before = yield from study.steps(None, domain=name, split=split, images=images)
    after = yield from study.steps(mask, domain=name, split=split, images=images, batchnorm=asked.batchnorm)
    return Case(study, domain, mask, asked, group, before, after.predicted)


def alone(mask: Mask, layer: str) -> Mask:
    """The mask that removes what this one removes of one layer, and leaves all others whole."""
    keep = {name: part if name == layer else torch.ones_like(part) for name, part in mask.keep.items()}
    return replace(mask, keep=keep)


def _domains(study: Study, labelled: bool) -> list[Domain]:
    return [domain for domain in study.domains if domain.labels is not None or not labelled]


def _masks(study: Study, asked: Removal) -> Iterator[tuple[str | None, Mask]]:
    for scores in study.score_all(asked.scorers, seed=asked.seed):
        for ratio in asked.ratios:
            mask = allocate(scores, ratio=ratio, scope=asked.scope, budget=asked.budget)
            if asked.one_layer:
                yield from ((name, alone(mask, name)) for name in study.graph.names)
            else:
                yield None, mask


def _check(studies: Sequence[Study], asked: Removal) -> None:
    if not asked.scorers or not asked.ratios:
        raise DgpruneError("this needs at least one scorer and one ratio.")
    if len(studies) > 1 and any(isinstance(item, Scores) for item in asked.scorers):
        raise DgpruneError("ready Scores belong to one network; pass one study, or scorers by name for several.")
    if asked.one_layer and (asked.scope, asked.budget) != ("layer", "filters"):
        raise DgpruneError(
            "one layer alone loses a share of its own filters: scope must be 'layer' and of 'filters'; "
            f"got scope={asked.scope!r} and of={asked.budget!r}."
        )
