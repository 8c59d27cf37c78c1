"""Which filter of one training is which of another: matched one to one by what they say about the same images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core import Domain, FilterGroup
from ..pruning import private
from ..study import Study


class Match(NamedTuple):
    """One layer's filters, matched.

    Attributes:
        other: (C,) number of the other network's filter that matches each filter of the first.
        correlation: (C,) of the outputs of each matched pair over images, in [-1, 1]; 0 where one never changes.
    """

    other: Tensor
    correlation: Tensor


def pooled_outputs(study: Study, domains: Sequence[Domain], *, images: int, split: str = "score") -> dict[str, Tensor]:
    """Per group, (N, C) float32: the spatial mean of every filter's output on each image; no label is read.

    A group's output is what its last consumer reads; of a layer that is called twice, the mean of both.

    Args:
        study: whose network is run, in eval mode, on a private copy.
        domains: where the images come from.
        images: how many in all, shared equally by the domains; a smaller part gives what it has.
        split: the part of each domain.
    """
    twin = private(study.model).to(study.device)
    heard: dict[str, list[Tensor]] = defaultdict(list)
    kept: dict[str, list[Tensor]] = defaultdict(list)
    for group in study.graph.groups:
        twin.get_submodule(group.consumers[-1]).register_forward_pre_hook(_listen(group, heard))
    for domain in domains:
        share = max(1, images // len(domains))
        for batch in domain.batches(split, images=share, device=study.device):
            with torch.inference_mode():
                twin(batch.images)
            for name, calls in heard.items():
                kept[name].append(torch.stack(calls).mean(0).cpu())
            heard.clear()
    return {group.name: torch.cat(kept[group.name]) for group in study.graph.groups}


def matched(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Match]:
    """The one-to-one matching within each layer that maximises the sum of the output correlations.

    Pearson's correlation over images of every filter of the one network with every filter of the other, then the
    assignment problem (Li et al. 2016, Convergent Learning, ICLR, arXiv:1511.07543, section 3, "bipartite one-to-one
    matching"; there over single positions of the maps too, here over their spatial means).

    Args:
        first, second: group -> (N, C) outputs on the same images, as `pooled_outputs` gives them.
    """
    # Here and not above: widgets import this folder, and this module of scipy costs a fifth of a second.
    from scipy.optimize import linear_sum_assignment

    found = {}
    for name, mine in first.items():
        table = _standardised(mine).T @ _standardised(second[name])
        rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
        found[name] = Match(torch.from_numpy(columns), table[torch.from_numpy(rows), torch.from_numpy(columns)])
    return found


def _standardised(outputs: Tensor) -> Tensor:
    """(N, C) float64, every column centred and of length one; zero where it never changes."""
    centred = outputs.double() - outputs.double().mean(0)
    length = centred.norm(dim=0)
    # Rounding alone gives a constant column a length above zero.
    steady = length <= 1e-6 * outputs.double().norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    return centred / torch.where(steady, torch.inf, length)


def _listen(group: FilterGroup, heard: dict[str, list[Tensor]]) -> Callable[..., None]:
    """A hook that keeps the spatial mean of each filter; reduced at once, as an in-place layer would rewrite it."""
    places, filters = group.consumer_inputs[group.consumers[-1]]
    index = places[filters.argsort(stable=True)]

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        y = inputs[0].detach()
        y = y.movedim(-1, 1) if isinstance(module, nn.Linear) else y
        y = y.index_select(1, index.to(y.device))
        heard[group.name].append(y.reshape(len(y), group.filters, -1).float().mean(2))

    return hook
