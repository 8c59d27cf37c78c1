"""GC-Net: a companion network whose weights are the correlations between consecutive layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

import pandas as pd
import torch
from torch import Tensor, nn

from ..core import (
    NEARLY,
    UNIFORM,
    DgpruneError,
    FilterGraph,
    FilterGroup,
    Pair,
    Seen,
    Spread,
    WeightMask,
    WeightScores,
    provenance_of,
    public,
    set_provenance,
    unknown,
)
from ..measurement import produced
from ..pruning import rebuild
from ..scorers import MIN_IMAGES

Weights = Literal["none", "rank"]


@public
class GCNet(nn.Module):
    """A network whose weights are rho, the correlations between layers: `gc_net(study)` measures one.

    One parameter per pair of consecutive layers, (outputs, filters) float64, named after both (`conv1_to_conv2`).
    `allocate(network.scores(), ratio=...)` makes a mask of connections, which `kernels` maps to the study's network.

    Attributes:
        pairs: the pairs of consecutive layers, in the order of execution.
        images: source -> number of images of each class that rho was computed on; a single number if not by class.
        options: the values of by_class, signed and split.
        reads: what was read of each split, {"mnist/score": "labels"}.
        graph: the filter groups of the network.
        magnitude: pair -> (outputs, filters) L1 norm of the kernel from each filter to each output.
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
        self.graph, self.pairs, self.images, self.magnitude = graph, pairs, dict(images), dict(magnitude)
        self.options, self.reads = dict(options), dict(reads)
        for pair in pairs:
            self.register_parameter(pair.name, nn.Parameter(rho[pair.name].clone(), requires_grad=False))

    def forward(self, importance: Tensor) -> Tensor:
        """Propagate the importance of the first group's filters to the outputs of the last layer.

        The importance of a layer's output is the mean of rho times importance over all filters that the layer consumes.
        That of a group's filter is the sum over the layers that produce it, or 1 if no measured pair does. So the
        GC-Net of a chain of layers is a chain of linear layers.

        Args:
            importance: (..., filters of the first group).

        Returns:
            (..., outputs of the last layer).
        """
        first = self.graph[self.pairs[0].group]
        streams = {first.name: importance.to(self.rho(self.pairs[0].name).dtype)}
        received, batch = importance, importance.shape[:-1]
        for layer in self._layers:
            entering = [(pair.group, self.rho(pair.name)) for pair in self.pairs if pair.layer == layer]
            parts = [
                (streams[group] if group in streams else rho.new_ones(*batch, rho.shape[1])) @ rho.T
                for group, rho in entering
            ]
            received = torch.stack(parts).sum(0) / sum(rho.shape[1] for _, rho in entering)
            for group in self.graph.groups:
                for positions, filters in produced(group, layer):
                    before = streams.get(group.name, received.new_zeros(*batch, group.filters))
                    streams[group.name] = before.index_add(-1, filters, received[..., positions])
        return received

    def scores(self, *, weights: Weights = "none", start: str | None = None) -> WeightScores:
        """Return one number per connection, for `allocate`; higher = keep.

        Args:
            weights: "none": rho itself. "rank": the rank of |W| rho within the pair, divided by the number of its
                connections; |W| is the L1 norm of the kernel from the filter to the output.
            start: name of a layer. Connections into layers that run before it are scored by |W| alone, the others by
                `weights`; all are ranked within their pair, because |W| and rho have no common scale.

        Returns:
            WeightScores under GC-Net's parameter names, (outputs, filters) each; ranks lie in (0, 1].

        Raises:
            DgpruneError: an unknown choice; a `start` that is not a layer of any pair.

        Source: Wisell and Yasaei Sekeh 2024, arXiv:2411.09199 (abstract: magnitude and connectivity combined, direct
        pruning of earlier layers); the formulas are our reconstruction.
        """
        layers = self._layers
        if start is not None and start not in layers:
            raise unknown("layer", start, layers)
        late = layers if start is None else layers[layers.index(start) :]
        values = {}
        for pair in self.pairs:
            rho, size = self.rho(pair.name).detach(), self.magnitude[pair.name]
            value = size if pair.layer not in late else rho if weights == "none" else size * rho
            values[pair.name] = value.clone() if weights == "none" and start is None else _ranks(value)
        options = {**self.options, "weights": weights, "start": start}
        return WeightScores("gc_net", values, options=options, reads=self.reads)

    def pruned(self, mask: WeightMask) -> GCNet:
        """Return a copy of the GC-Net in which the connections that a mask removes are 0.

        Raises:
            DgpruneError: a mask of another GC-Net.
        """
        self._check_fits(mask)
        twin = cast(GCNet, rebuild(self, lambda name, rho: torch.where(mask.keep[name], rho, 0)))
        set_provenance(twin, provenance_of(self).adding("scorer", mask.reads))
        return twin

    def kernels(self, mask: WeightMask) -> WeightMask:
        """Turn a mask of connections into a mask of the study network's weights, for `masked`.

        Connection (j, i) stands for every weight of the kernel W[j, i, :, :]; in a linear layer after a flatten, for
        all columns of filter i in row j. Weights without a connection are kept.

        Raises:
            DgpruneError: a mask of another GC-Net.
        """
        self._check_fits(mask)
        keep: dict[str, Tensor] = {}
        for pair in self.pairs:
            tensor = f"{pair.layer}.weight"
            weights = keep.setdefault(tensor, torch.ones(self.graph.shapes[tensor][0], dtype=torch.bool))
            for axis, positions, filters in input_positions(self.graph[pair.group], pair.layer):
                by_input = weights.movedim(axis, 1)
                kept = mask.keep[pair.name][:, filters]
                by_input[:, positions] = kept.view(*kept.shape, *(1,) * (weights.ndim - 2))
        return WeightMask(keep, mask.ratio_requested, scope=mask.scope, scorer=mask.scorer, reads=mask.reads)

    def rho(self, name: str) -> Tensor:
        """Return the connections rho of the pair of this name, (outputs, filters); 0 where `masked` removed them."""
        if name not in (known := [pair.name for pair in self.pairs]):
            raise unknown("pair", name, known)
        return getattr(self, name)

    @property
    def smallest(self) -> int:
        """Number of images of the smallest class that was used, over all sources."""
        return min(count for counts in self.images.values() for count in counts if count >= MIN_IMAGES)

    @property
    def spread(self) -> dict[str, Spread]:
        """The distribution of rho over each pair's connections; where it is narrow, pruning is close to random."""
        return {pair.name: Spread.of(self.rho(pair.name)) for pair in self.pairs}

    def summary(self) -> str:
        """Return a text with a line per pair, and an explanation if some pair's connections hardly differ."""
        spread = self.spread
        lines = [f"{pair.group} to {pair.layer}: {pair.words(spread[pair.name])}" for pair in self.pairs]
        if any(NEARLY in line for line in lines):
            lines.append(
                f"{NEARLY.capitalize()}: the connections differ less than {UNIFORM} times as much as by chance, so "
                "pruning them is close to random."
            )
        return "\n".join(lines)

    def table(self) -> pd.DataFrame:
        """Return a row per pair: layers and sizes; mean, spread, quantiles and null level of rho; and a summary."""
        rows, spread = [], self.spread
        for pair in self.pairs:
            outputs, filters = self.rho(pair.name).shape
            sizes = {"group": pair.group, "layer": pair.layer, "filters": filters, "outputs": outputs}
            null = {"rho_null": pair.null, "rho_null_spread": pair.null_spread, "rho_null_expected": pair.null_expected}
            summary = pair.words(spread[pair.name])
            rows.append({**sizes, **spread[pair.name]._asdict(), **null, "words": summary})
        return pd.DataFrame(rows)

    def extra_repr(self) -> str:
        return ", ".join(f"{p.name}={'x'.join(map(str, self.rho(p.name).shape))}" for p in self.pairs)

    @property
    def _layers(self) -> list[str]:
        """Names of the layers that consume a group, in the order of execution."""
        return list(dict.fromkeys(pair.layer for pair in self.pairs))

    def _check_fits(self, mask: WeightMask) -> None:
        expected = {pair.name: tuple(self.rho(pair.name).shape) for pair in self.pairs}
        if expected != {name: tuple(part.shape) for name, part in mask.keep.items()}:
            raise DgpruneError(
                f"the mask does not fit this GC-Net, which has {', '.join(expected)}; got {', '.join(mask.keep)}. "
                "Make it with allocate(network.scores(), ratio=...)."
            )


def input_positions(group: FilterGroup, layer: str) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (input axis of a layer's weight, positions on it that a group's filters occupy, the filters there)."""
    for member in group.members:
        if member.tensor == f"{layer}.weight" and member.side == "in":
            yield member.axis, member.positions, member.filters


def _ranks(values: Tensor) -> Tensor:
    """Return for each value the share of all values that are at most as large, in (0, 1]."""
    flat = values.flatten()
    below = torch.searchsorted(flat.sort().values, flat, right=True)
    return (below.double() / flat.numel()).view(values.shape)
