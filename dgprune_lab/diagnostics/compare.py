"""How do two networks of one study differ: accuracy, classes, single predictions, calibration, filters, size?"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ..core import (
    STAGES,
    BatchNorm,
    Count,
    DgpruneError,
    Domain,
    FilterGroup,
    Mask,
    Outcomes,
    Provenance,
    provenance_of,
    tidy,
    yielding,
)
from ..measurement import CLASS, evaluating, metric_rows, outcome_rows, worst_rows
from ..pruning import device_of, prove_copies, refuse_other_types
from ..stats import intervals
from ..study import Study, mask_provenance, remaining_cost
from ._contract import Steps, diagnostic
from ._removal import mask_cells
from .drop import LEAST
from .flips import flip_rows, flipped

EXTRA = ("choice", "group", *CLASS)
BOTH = "a - b"
Rows = list[dict[str, Any]]


@diagnostic("compare", extra=EXTRA, cite="Efron, Tibshirani 1993, chapter 8; Guo et al. 2017, arXiv:1706.04599")
def compare(
    study: Study,
    a: Mask | nn.Module | None,
    b: Mask | nn.Module | None,
    *,
    batchnorm: BatchNorm = "recalibrate",
    split: str = "report",
    images: Count | None = None,
    progress: bool = False,
) -> Steps:
    """Compare two networks of one study on the same images; `b` is the reference.

    For each of them (column `choice`: "a" or "b"): accuracy, loss (nats) and calibration_error per domain,
    class_accuracy per class, worst_domain_accuracy of the sources and of the targets; filters, parameters, macs, bytes.
    Of both (`choice` "a - b"), per domain:

    difference         accuracy of a minus accuracy of b, in [-1, 1], with a bootstrap interval paired by image.
    class_difference   the same on the images of one class; empty for a class of fewer than 5 images.
    right_to_wrong     share of the images that b classifies correctly and a does not; wrong_to_right the reverse;
                       changed: another class is predicted. With the suffix `_count`, the number of images.
    filters_differ     number of filters that one keeps and the other removes, per layer (column `group`) and in all.

    Domains without labels have only `changed`. The calibration error is that of `stats.calibration_error`.

    Args:
        study: the network and its domains.
        a, b: a mask of the study's network; a network pruned from it, such as one that was fine-tuned; None for the
            full network as given.
        batchnorm: for masks, see `diagnostics.drop`; networks and the full network are measured as they are.
        split, images: compare on the first `images` images of this split; None for all.
        progress: whether to show a progress bar.

    Returns:
        A tidy table with the columns `choice`, `group`, `class` and `class_name`. For a network that `dg.prune` did not
        make there are no rows of filters and size.

    Raises:
        DgpruneError: a mask or network of another study; no image in the split.
    """
    pair = [_choice(study, name, chosen, batchnorm=batchnorm) for name, chosen in (("a", a), ("b", b))]
    for domain in study.domains:
        domain.rows(split)
    return _steps(pair, split=split, images=images)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Choice:
    """One of the two networks.

    Attributes:
        network: a network to measure as it is; None for the study's, under `mask`.
        mask: which filters stay; None where that is unknown.
        full: whether this is the full network as given.
    """

    name: str
    study: Study
    network: nn.Module | None
    mask: Mask | None
    full: bool
    batchnorm: BatchNorm

    @property
    def provenance(self) -> Provenance:
        """What each stage of the network's life has read."""
        if self.network is not None:
            return provenance_of(self.network)
        if self.full or self.mask is None:
            return self.study.provenance
        return mask_provenance(self.study.provenance, self.mask, batchnorm=self.batchnorm, study=self.study)

    def outcomes(self, domain: Domain, *, split: str, images: int | None) -> Generator[Any, None, Outcomes]:
        """Measure on a split, yielding between batches."""
        if self.network is not None:
            return (yield from evaluating(self.network, domain, split, images=images))
        mask, setting = (None, None) if self.full else (self.mask, self.batchnorm)
        return (yield from self.study.steps(mask, domain=domain.name, split=split, images=images, batchnorm=setting))

    def cells(self, *, domain: Domain | None = None, split: str | None = None) -> dict[str, Any]:
        """The columns of a row about this network."""
        mask, setting = None if self.full else self.mask, self.batchnorm
        cells = mask_cells(self.study, mask, batchnorm=setting, domain=domain, split=split, provenance=self.provenance)
        unknown = {"ratio_requested": None, "ratio_achieved": None} if self.mask is None else {}
        return {**cells, **unknown, "choice": self.name}


def _choice(study: Study, name: str, chosen: Mask | nn.Module | None, *, batchnorm: BatchNorm) -> _Choice:
    everything = Mask.by_hand(study.graph, reads={})
    if isinstance(chosen, nn.Module):
        example = study.domains[0].take(torch.arange(1), device=device_of(chosen)).images
        refuse_other_types(chosen, example)
        prove_copies(chosen, example)
        mask = _recorded(everything, chosen)
        return _Choice(name=name, study=study, network=chosen, mask=mask, full=mask is everything, batchnorm="as_is")
    if chosen is not None and {k: len(v) for k, v in chosen.keep.items()} != dict(map(_size, study.graph.groups)):
        raise DgpruneError(f"{name} is a mask of another network than this study's; make it from study.score(...).")
    full = chosen is None
    return _Choice(name=name, study=study, network=None, mask=chosen or everything, full=full, batchnorm=batchnorm)


def _recorded(everything: Mask, network: nn.Module) -> Mask | None:
    """The mask of all rounds by which `dg.prune` made a network, in original indices; None where that is unknown.

    Raises:
        DgpruneError: it was pruned from a network of other layers.
    """
    graph, rounds = everything.graph, getattr(network, "dgprune_masks", ())
    if not rounds:
        shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        whole = all(shapes.get(name) == shape for name, (shape, _) in graph.shapes.items())
        return everything if whole else None
    mask = Mask.from_json(rounds[0], graph=graph)
    left = {name: mask.kept(name) for name in graph.names}
    for inner in rounds[1:]:
        for name, places in inner["keep"].items():  # a layer of one filter is no group of the next round
            left[name] = [left[name][place] for place in places]
    removed = {g.name: sorted(set(range(g.filters)) - set(left[g.name])) for g in graph.groups}
    asked = 1 - math.prod(1 - inner["ratio_requested"] for inner in rounds)
    keep = Mask.by_hand(graph, removed=removed).keep
    return replace(mask, keep=keep, ratio_requested=asked, nested=mask.nested and len(rounds) == 1)


def _size(group: FilterGroup) -> tuple[str, int]:
    return group.name, group.filters


def _steps(pair: list[_Choice], *, split: str, images: int | None) -> Steps:
    """Measure both on every domain, and return the table; yields (done, total)."""
    study, measured, rows = pair[0].study, 0, []
    total = 2 * len(study.domains)
    with study.assume_unchanged():
        for domain in study.domains:
            outcomes = []
            for choice in pair:
                steps = choice.outcomes(domain, split=split, images=images)
                outcomes.append((yield from yielding(steps, (measured, total))))
                measured += 1
                yield measured, total
                cells = choice.cells(domain=domain, split=split)
                metrics = [*outcome_rows(outcomes[-1]), *_more(outcomes[-1], domain)]
                rows += [{**cells, "images": len(outcomes[-1]), **row} for row in metrics]
            rows += _between(pair, outcomes, domain=domain, split=split)
    for choice in pair:
        rows += worst_rows([row for row in rows if row["choice"] == choice.name])
        if choice.mask is not None:
            sizes = remaining_cost(choice.mask)
            rows += [{**choice.cells(), "metric": name, "value": value, "unit": unit} for name, value, unit in sizes]
    return tidy([*rows, *_filters(pair)], extra=EXTRA).astype({"class": "Int64"})


def _more(outcomes: Outcomes, domain: Domain) -> Iterator[dict[str, Any]]:
    return metric_rows(outcomes, domain, metrics=("per_class", "calibration_error"))


def _between(pair: list[_Choice], outcomes: list[Outcomes], *, domain: Domain, split: str) -> Rows:
    """The rows about both networks on one domain: flips, and paired differences where there are labels."""
    first, second = outcomes
    shared = {**_both(pair, domain=domain, split=split), "images": len(first), "interval": "images"}
    rows = flip_rows(flipped(second, first.predicted), shared)
    if first.correct is None or second.correct is None or first.labels is None:
        return rows
    right, labels = np.stack([first.correct.numpy(), second.correct.numpy()]).astype(np.float64), first.labels.numpy()
    for number in (None, *range(domain.classes)):
        mine, other = right if number is None else right[:, labels == number]
        about: dict[str, Any] = {"metric": "difference", "unit": "share"}
        if number is not None:
            name = domain.class_label(number) if domain.class_names else None
            about |= {"metric": "class_difference", "class": number, "class_name": name, "images": len(mine)}
        if number is None or len(mine) >= LEAST:
            low, high = intervals.difference(mine, other)
            about |= {"value": mine.mean() - other.mean(), "low": low, "high": high}
        rows.append({**shared, **about})
    return rows


def _filters(pair: list[_Choice]) -> Rows:
    """How many filters one network keeps and the other removes, in all and per layer; none where that is unknown."""
    first, second = (choice.mask for choice in pair)
    if first is None or second is None:
        return []
    differ: dict[str | None, int] = {name: int((keep ^ second.keep[name]).sum()) for name, keep in first.keep.items()}
    shared = {**_both(pair), "metric": "filters_differ", "unit": "count"}
    return [{**shared, "group": name, "value": value} for name, value in {None: sum(differ.values()), **differ}.items()]


def _both(pair: list[_Choice], *, domain: Domain | None = None, split: str | None = None) -> dict[str, Any]:
    """The columns of a row about both networks: what either has seen, and no ratio."""
    study, (first, second), provenance = pair[0].study, pair, pair[0].provenance
    for stage in STAGES:
        provenance = provenance.adding(stage, getattr(second.provenance, stage))
    cells = mask_cells(study, None, batchnorm="as_is", domain=domain, split=split, provenance=provenance)
    setting = (second if first.full else first).cells()["batchnorm"]
    return {**cells, "ratio_requested": None, "ratio_achieved": None, "batchnorm": setting, "choice": BOTH}
