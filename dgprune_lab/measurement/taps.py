"""Hooks of one pass that send every group's maps, at one of three sites, to the collectors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from ..core import CONV, DgpruneError, FilterGraph, FilterGroup
from .activation_maps import ActivationMap, Call, Calls, activation_maps
from .hooks import ConsumerInput, Selection, Site, on_output, produced

MapKey = tuple[str, str]
"""A group, and the layer at which its maps are taken."""
Receive = Callable[[MapKey, Tensor], None]


class Taps:
    """Hooks of one pass on a private copy of the network; each map is selected once and sent to all receivers."""

    def __init__(self, model: nn.Module, graph: FilterGraph) -> None:
        self.model, self.graph = model, graph
        self._receivers: dict[Site, list[Receive]] = {}
        self._calls: dict[Call, list[tuple[ActivationMap, Selection, Callable[[Tensor], None]]]] = defaultdict(list)

    def listen(self, site: Site, receive: Receive) -> None:
        """Call `receive((group, layer), maps)` with every group's maps at a site.

        The layer is the one where the maps are taken: the last consumer, a convolution, or "" behind the activation. If
        the map behind the activation was not found, the input of the last consumer is sent instead.
        """
        if site in self._receivers:
            self._receivers[site].append(receive)
            return
        receivers = self._receivers[site] = [receive]

        def deliver(maps: Tensor, key: MapKey) -> None:
            for receive in receivers:
                receive(key, maps)

        if site == "conv_output":
            for layer in [name for name, module in self.model.named_modules() if isinstance(module, CONV)]:
                for group, index in _complete(self.graph, layer):
                    of, send = Selection(index).of, partial(deliver, key=(group.name, layer))
                    on_output(self.model, layer, lambda y, of=of, send=send: send(of(y)))
            return
        found = activation_maps(self.model, self.graph) if site == "activation" else {}
        for group in self.graph.groups:
            for tap in found.get(group.name, ()):
                send = partial(deliver, key=(group.name, ""))
                self._calls[tap.call].append((tap, Selection(tap.index.flatten()), send))
            if not found.get(group.name):
                consumer = ConsumerInput(group)
                consumer.listen(self.model, partial(deliver, key=(group.name, consumer.layer)))

    def run(self, images: Tensor) -> Tensor:
        """Run the network on a batch, sending its maps to the receivers, and return the logits.

        Raises:
            DgpruneError: the network runs other operations than when its activations were searched.
        """
        if not self._calls:
            return self.model(images)
        missing = set(self._calls)

        def receive(call: Call, result: Tensor) -> None:
            for tap, selection, send in self._calls.get(call, ()):
                if tuple(result.shape[1:]) == tap.shape:
                    missing.discard(call)
                    send(tap.of(result, selection.of))

        with Calls(receive):
            logits = self.model(images)
        if missing:
            raise DgpruneError(
                f"the network runs other operations on these images than on the {' x '.join(map(str, self._size))} "
                "images it was traced with, so the maps behind its activations cannot be identified; take "
                "site='consumer_input'."
            )
        return logits

    @property
    def _size(self) -> torch.Size:
        return torch.Size(self.graph.input_shape)


def _complete(graph: FilterGraph, layer: str) -> Iterator[tuple[FilterGroup, Tensor]]:
    """Yield each group all of whose filters a convolution produces, once each, with their positions on its output."""
    for group in graph.groups:
        for positions, filters in produced(group, layer):
            if len(filters) == len(filters.unique()) == group.filters:
                index = torch.empty(group.filters, dtype=torch.int64)
                index[filters] = positions
                yield group, index
