"""Matching of the filters of two trained networks, one to one, by the correlation of their outputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..core import Domain
from ..measurement import ConsumerInput
from ..pruning import shared_copy
from ..study import Study


class Match(NamedTuple):
    """The matched filters of one layer.

    Attributes:
        other: (C,) for each filter of the first network, the index of the matched filter of the other network.
        correlation: (C,) correlation over images between the outputs of each matched pair, in [-1, 1]; 0 where one of
            them is constant.
    """

    other: Tensor
    correlation: Tensor


def pooled_outputs(study: Study, domains: Sequence[Domain], *, images: int, split: str = "score") -> dict[str, Tensor]:
    """Return group -> (N, C) float32: the spatial mean of every filter's output on each image; no label is read.

    The output is taken at the input of the group's last consumer, averaged over calls if it is called repeatedly.

    Args:
        study: the study whose network is run, on a copy in eval mode.
        domains: the domains that the images come from.
        images: total number of images, shared equally by the domains; a smaller split contributes all of its images.
        split: the split of each domain.
    """
    model = shared_copy(study.model).to(study.device)
    calls: dict[str, list[Tensor]] = defaultdict(list)
    outputs: dict[str, list[Tensor]] = defaultdict(list)
    for group in study.graph.groups:
        ConsumerInput(group).listen(model, lambda y, key=group.name: calls[key].append(y.flatten(2).float().mean(2)))
    for domain in domains:
        per_domain = max(1, images // len(domains))
        for batch in domain.batches(split, images=per_domain, device=study.device):
            with torch.inference_mode():
                model(batch.images)
            for name, means in calls.items():
                outputs[name].append(torch.stack(means).mean(0).cpu())
            calls.clear()
    return {group.name: torch.cat(outputs[group.name]) for group in study.graph.groups}


def matched(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Match]:
    """Find the one-to-one matching within each layer that maximises the sum of the output correlations.

    Pearson's correlations over images, of every filter of one network with every filter of the other, are the weights
    of an assignment problem (Li et al. 2016, Convergent Learning, ICLR, arXiv:1511.07543, section 3, "bipartite
    one-to-one matching"; there correlations are over single positions of the maps too, here over spatial means).

    Args:
        first, second: group -> (N, C) outputs on the same images, as `pooled_outputs` returns them.
    """
    # Imported here because widgets import this folder, and scipy.optimize takes a fifth of a second.
    from scipy.optimize import linear_sum_assignment

    matches = {}
    for name, outputs in first.items():
        correlations = _standardised(outputs).T @ _standardised(second[name])
        rows, columns = map(torch.from_numpy, linear_sum_assignment(correlations.numpy(), maximize=True))
        matches[name] = Match(columns, correlations[rows, columns])
    return matches


def _standardised(outputs: Tensor) -> Tensor:
    """Return the outputs (N, C) in float64, each column centred and scaled to norm 1; a constant column becomes 0."""
    centred = outputs.double() - outputs.double().mean(0)
    norm = centred.norm(dim=0)
    # Rounding alone gives a constant column a norm above zero.
    constant = norm <= 1e-6 * outputs.double().norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    return centred / torch.where(constant, torch.inf, norm)
