"""The companion of a network: a module whose weights are how strongly its consecutive layers hang together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

import pandas as pd
import torch
from torch import Tensor, nn

from ..core import (
    NEARLY,
    UNIFORM,
    CoMoments,
    DgpruneError,
    FilterGraph,
    FilterGroup,
    Need,
    Pair,
    Seen,
    Spread,
    WeightMask,
    WeightScores,
    choice,
    pair_names,
    provenance_of,
    set_provenance,
    unknown,
)
from ..measurement import pairs, produced
from ..pruning import rebuild
from ..scorers import LEAST, correlation, expected_floor, say_if_few
from .study import Study

Weights = Literal["none", "rank"]


class GCNet(nn.Module):
    """A network whose weights are rho: `companion(study)` measures one.

    One parameter per pair of consecutive layers, (outputs, filters) float64, named after both (`conv1_to_conv2`).
    `allocate(companion.scores(), ratio=...)` prunes it, `kernels` carries what was pruned back to the network.

    Attributes:
        pairs: in the order of execution.
        images: source -> images per class that were correlated; one number without classes.
        options: by_class, signed, split.
        reads: what was looked at, {"mnist/score": "labels"}.
        graph: the groups of the network.
        magnitude: pair -> (outputs, filters) L1 norm of the kernel between two filters.
    """

    def __init__(
        self,
        graph: FilterGraph,
        *,
        pairs: tuple[Pair, ...],
        rho: Mapping[str, Tensor],
        magnitude: Mapping[str, Tensor],
        images: Mapping[str, tuple[int, ...]],
        options: Mapping[str, Any],
        reads: Mapping[str, Seen],
    ) -> None:
        super().__init__()
        self.graph, self.pairs, self.images = graph, pairs, dict(images)
        self.options, self.reads = dict(options), dict(reads)
        self.magnitude = dict(magnitude)
        for pair in pairs:
            self.register_parameter(pair.name, nn.Parameter(rho[pair.name].clone(), requires_grad=False))

    def forward(self, importance: Tensor) -> Tensor:
        """What arrives at the last layer of an importance of the first group's filters.

        A layer's output gets the mean of rho times importance over all filters that the layer reads. A group gets the
        sum over the layers that write it; one that no measured connection writes, and the first, start as given, or at
        1. So the companion of a chain of layers is a chain of linear layers.

        Args:
            importance: (..., filters of the first group).

        Returns:
            (..., outputs of the last layer).
        """
        first = self.graph[self.pairs[0].group]
        streams = {first.name: importance.to(self.rho(self.pairs[0].name).dtype)}
        received = importance
        for layer, held in self._by_layer():
            parts = [self._stream(streams, pair, importance) @ self.rho(pair.name).T for pair in held]
            received = torch.stack(parts).sum(0) / sum(self.rho(pair.name).shape[1] for pair in held)
            for group in self.graph.groups:
                for positions, filters in produced(group, layer):
                    before = streams.get(group.name, received.new_zeros(*received.shape[:-1], group.filters))
                    streams[group.name] = before.index_add(-1, filters, received[..., positions])
        return received

    def scores(self, *, weights: Weights = "none", start: str | None = None) -> WeightScores:
        """One number per connection, for `allocate`; higher = keep.

        Args:
            weights: "none": rho itself. "rank": the rank of |W| rho within the pair, as a share of its connections;
                |W| is the L1 norm of the kernel between the two filters.
            start: name of a layer. Connections into layers that run before it are scored by |W| alone, from it on as
                `weights` says, all as ranks within their pair, because |W| and rho have no common scale.

        Returns:
            WeightScores under the companion's parameter names, (outputs, filters) each; ranks lie in (0, 1].

        Raises:
            DgpruneError: an unknown choice; a start that no pair leads to.

        Source: Wisell and Yasaei Sekeh 2024, arXiv:2411.09199 (abstract: magnitude and connectivity combined, direct
        pruning of earlier layers); the formulas are our reconstruction.
        """
        choice("weights", weights, Weights)
        layers = list(dict.fromkeys(pair.layer for pair in self.pairs))
        if start is not None and start not in layers:
            raise unknown("layer", start, layers)
        late = set(layers if start is None else layers[layers.index(start) :])
        values = {}
        for pair in self.pairs:
            rho, size = self.rho(pair.name).detach(), self.magnitude[pair.name]
            value = size if pair.layer not in late else rho if weights == "none" else size * rho
            values[pair.name] = value.clone() if weights == "none" and start is None else _ranks(value)
        return WeightScores("gc_net", values, {**self.options, "weights": weights, "start": start}, self.reads)

    def pruned(self, mask: WeightMask) -> GCNet:
        """A companion in which the connections that a mask removes are 0; the argument of `kernels` too.

        Raises:
            DgpruneError: a mask of another companion.
        """
        self._check_fits(mask)
        twin = cast(GCNet, rebuild(self, lambda name, rho: torch.where(mask.keep[name], rho, 0)))
        set_provenance(twin, provenance_of(self).adding("scorer", mask.reads))
        return twin

    def kernels(self, mask: WeightMask) -> WeightMask:
        """The mask of the network's weights that goes with a mask of connections; `masked(study.model, ...)` takes it.

        With connection (j, i) goes every weight of the kernel W[j, i, :, :]; of a linear layer behind a flatten, all
        columns of filter i in row j. Weights that no connection stands for stay.

        Raises:
            DgpruneError: a mask of another companion.
        """
        self._check_fits(mask)
        keep: dict[str, Tensor] = {}
        for pair in self.pairs:
            tensor = f"{pair.layer}.weight"
            held = keep.setdefault(tensor, torch.ones(self.graph.shapes[tensor][0], dtype=torch.bool))
            for axis, positions, filters in _readings(self.graph[pair.group], pair.layer):
                part = held.movedim(axis, 1)
                wanted = mask.keep[pair.name][:, filters]
                part[:, positions] = wanted.view(*wanted.shape, *(1,) * (part.ndim - 2)).expand_as(part[:, positions])
        return WeightMask(keep, mask.ratio_requested, scope=mask.scope, scorer=mask.scorer, reads=mask.reads)

    def rho(self, name: str) -> Tensor:
        """(outputs, filters) the connections of a pair by its name; as `masked` leaves them, where it did."""
        return getattr(self, name)

    @property
    def smallest(self) -> int:
        """Images of the smallest class that was correlated, over all sources."""
        return min(count for held in self.images.values() for count in held if count >= LEAST)

    @property
    def spread(self) -> dict[str, Spread]:
        """How the connections of each pair differ; where they hardly do, what pruning removes is close to random."""
        return {pair.name: Spread.of(self.rho(pair.name)) for pair in self.pairs}

    def summary(self) -> str:
        """A line per pair, and what it means where the connections hardly differ."""
        lines = [f"{pair.group} to {pair.layer}: {pair.words(self.spread[pair.name])}" for pair in self.pairs]
        if any(NEARLY in line for line in lines):
            lines.append(
                f"{NEARLY.capitalize()}: the connections differ less than {UNIFORM} times as much as by chance, so "
                "what pruning removes there is close to random."
            )
        return "\n".join(lines)

    def table(self) -> pd.DataFrame:
        """A row per pair: layers, sizes, mean, spread and quantiles of rho, the chance level, and words."""
        rows = []
        for pair in self.pairs:
            outputs, filters = self.rho(pair.name).shape
            rows.append(
                {
                    "group": pair.group,
                    "layer": pair.layer,
                    "filters": filters,
                    "outputs": outputs,
                    **self.spread[pair.name]._asdict(),
                    "chance_level": pair.chance_level,
                    "chance_level_std": pair.chance_level_std,
                    "expected": pair.expected,
                    "words": pair.words(self.spread[pair.name]),
                }
            )
        return pd.DataFrame(rows)

    def extra_repr(self) -> str:
        return ", ".join(f"{p.name}={'x'.join(map(str, self.rho(p.name).shape))}" for p in self.pairs)

    def _by_layer(self) -> Iterator[tuple[str, list[Pair]]]:
        for layer in dict.fromkeys(pair.layer for pair in self.pairs):
            yield layer, [pair for pair in self.pairs if pair.layer == layer]

    def _stream(self, streams: Mapping[str, Tensor], pair: Pair, like: Tensor) -> Tensor:
        held = streams.get(pair.group)
        return self.rho(pair.name).new_ones(*like.shape[:-1], self.rho(pair.name).shape[1]) if held is None else held

    def _check_fits(self, mask: WeightMask) -> None:
        mine = {pair.name: tuple(self.rho(pair.name).shape) for pair in self.pairs}
        theirs = {name: tuple(part.shape) for name, part in mask.keep.items()}
        if mine != theirs:
            raise DgpruneError(
                f"the mask is not one of this companion, which has {', '.join(mine)}; got {', '.join(theirs)}. "
                "Make it with allocate(companion.scores(), ratio=...)."
            )


def gc_net(study: Study, *, by_class: bool = True, signed: bool = False, split: str = "score") -> GCNet:
    """The companion of a study's network: how strongly consecutive layers hang together on the sources.

    rho_ij = mean over sources (equal weight) and classes of |Pearson(a_i, a_j)|, a = spatial mean of a raw convolution
    output (of a linear layer its output), 0 where a standard deviation is below 1e-3; classes with fewer than 3 images
    are left out. No target is read.

    Which layers are consecutive, and what a layer reads, follows the dependency graph: through normalisation,
    activations, pooling and flattening. Behind a residual addition the response of a filter is the sum of the raw
    outputs of all convolutions that the stream adds up there; behind a depthwise convolution it is that one's;
    through a concatenation a layer makes a pair with each group. Grouped convolutions make no pair as readers.

    Args:
        study: model and domains.
        by_class: within each true class; over all images together, which reads no label, if False.
        signed: the mean of the correlations instead of their absolute values.
        split: the part of the sources that is read; the record says so.

    Returns:
        A Companion, with the chance level of each pair beside it.

    Raises:
        DgpruneError: a source without labels or without 3 images of any class; co-moments above 256 MB; no pair.

    Source: Wisell and Yasaei Sekeh 2024, Ghost-Connect Net, arXiv:2411.09199; only the abstract is available: the
    channel form, the chance level and the mapping back to kernels are our reconstruction.
    """
    need: Need = "class_co_moments" if by_class else "co_moments"
    listed = pairs(study.model, study.graph)
    if not listed:
        raise DgpruneError("this network has no pair of consecutive layers but grouped convolutions to connect.")
    names = pair_names((group.name, layer) for group, layer in listed)
    made = {name: _Sums(group.name, layer) for name, (group, layer) in zip(names, listed, strict=True)}
    images: dict[str, tuple[int, ...]] = {}
    for domain in study.sources:
        held = getattr(study.statistics(domain.name, needs=[need], split=split), need)
        for sums in made.values():
            images[domain.name] = tuple(held[sums.group, sums.layer].images.tolist())
            sums.add(held[sums.group, sums.layer], signed=signed)
    say_if_few(images)
    reads: dict[str, Seen] = {f"{name}/{split}": "labels" if by_class else "images" for name in images}
    network = GCNet(
        study.graph,
        images=images,
        options={"by_class": by_class, "signed": signed, "split": split},
        reads=reads,
        pairs=tuple(sums.pair(name) for name, sums in made.items()),
        rho={name: (sums.rho / len(study.sources)).T.contiguous() for name, sums in made.items()},
        magnitude={
            name: _kernel_size(study.model.get_parameter(f"{layer}.weight"), group, layer)
            for name, (group, layer) in zip(names, listed, strict=True)
        },
    )
    set_provenance(network, study.record.adding("scorer", reads))
    return network.eval()


class _Sums:
    """One pair's connections, and those of the random pairing, summed over the sources."""

    def __init__(self, group: str, layer: str) -> None:
        self.group, self.layer, self.sources = group, layer, 0
        self.rho = self.chance = torch.zeros((), dtype=torch.float64)
        self.expected = 0.0

    def add(self, found: CoMoments, *, signed: bool) -> None:
        self.sources += 1
        self.rho = self.rho + correlation(found, signed=signed)
        self.chance = self.chance + correlation(found, signed=signed, shuffled=True)
        self.expected += expected_floor(found.images, signed=signed)

    def pair(self, name: str) -> Pair:
        chance = self.chance / self.sources
        floor, spread = float(chance.abs().mean()), float(chance.std(correction=0))
        numbers = {"chance_level": floor, "chance_level_std": spread, "expected": self.expected / self.sources}
        return Pair(name=name, group=self.group, layer=self.layer, **numbers)


def _readings(group: FilterGroup, layer: str) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Input axis of a layer's weight, places of a group's filters on it, and the filters there."""
    for member in group.members:
        if member.tensor == f"{layer}.weight" and member.side == "in":
            yield member.axis, member.positions, member.filters


def _kernel_size(weight: Tensor, group: FilterGroup, layer: str) -> Tensor:
    """(outputs, filters) L1 norm of the weights between them."""
    parts = []
    for axis, positions, filters in _readings(group, layer):
        held = weight.detach().abs().double().cpu().movedim(axis, 1)
        held = held.reshape(*held.shape[:2], -1).sum(2)
        parts.append(held.new_zeros(len(held), group.filters).index_add_(1, filters, held[:, positions]))
    return torch.stack(parts).sum(0)


def _ranks(values: Tensor) -> Tensor:
    """The share of the values that are at most each, in (0, 1]."""
    flat = values.flatten()
    below = torch.searchsorted(flat.sort().values, flat, right=True)
    return (below.double() / flat.numel()).view(values.shape)
