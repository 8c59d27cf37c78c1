"""The current state of a study's network, and the results that were computed with it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from ..core import BatchNorm, DgpruneError, Domain, Mask, choice, cloned, give_back_memory, unknown
from ..measurement import Evaluator
from ..pruning import deep_copy, read_groups, refuse_other_types, shared_copy
from .cache import Cache, Key, content


@dataclass(frozen=True, kw_only=True)
class Run:
    """The options of `Study.outcomes` or, if `layer` is set, of `Study.feature_steps`.

    `batchnorm` None stands for the default: "recalibrate" under a mask, "as_is" for the full network.
    """

    domain: str
    split: str
    batchnorm: BatchNorm | None
    images: int | None
    calibration: int
    layer: str | None = None


class Snapshot:
    """One state of a study's network, with its groups and evaluator; results are cached under the network's content.

    Attributes:
        network: a copy of the network that shares its weights.
        domains: name -> domain, with its role.
        images: one or two images of the first domain.
        graph: the filter groups of the network.
        evaluator: runs the network, pruned by any mask, over the domains.
        content: a hash of layers, parameters and buffers.
        cache: the cache of the study, with a limit in bytes.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        domains: Sequence[Domain],
        device: torch.device,
        layers: Literal["conv", "all"],
        cache: Cache,
    ) -> None:
        self._model, self._device = model, device
        self.images = domains[0].take(torch.arange(min(2, len(domains[0]))), device=device).images
        refuse_other_types(model, self.images)
        self.graph = read_groups(model, self.images, layers=layers)
        give_back_memory()  # memory of the copies that tested the groups: 0.3 GB for an Inception-v4
        self.network, self.content, self.cache = shared_copy(model).to(device), content(model), cache
        self.domains = {domain.name: domain for domain in domains}
        self._filters = {group.name: group.filters for group in self.graph.groups}
        self.evaluator = Evaluator(self.network, self.graph, domains=tuple(domains))

    def own_copy(self) -> nn.Module:
        """Return a copy of the network with its own weights, in eval mode."""
        return deep_copy(self._model).eval().to(self._device)

    def once(self, key: Key, compute: Callable[[], Any]) -> Any:
        """Return the cached value of a key, or compute and cache it."""
        key = (*key, self.content)
        value = self.cache.get(key)
        if value is None:
            value = compute()
            self.cache.put(key, value, size=getattr(value, "nbytes", 8 * self.graph.free))
        return value

    def run(self, mask: Mask | None, run: Run) -> Generator[int, None, Any]:
        """Return outcomes or, if `run.layer` is set, that layer's features under a mask; cached; yields per batch."""
        batchnorm = run.batchnorm or ("as_is" if mask is None else "recalibrate")
        choice("batchnorm", batchnorm, BatchNorm)
        if run.domain not in self.domains:
            raise unknown("domain", run.domain, self.domains)
        if mask is not None and {name: len(kept) for name, kept in mask.keep.items()} != self._filters:
            raise DgpruneError(
                "the mask was made for another network: its layers or numbers of filters differ. Make it again from "
                "study.score and dg.allocate."
            )
        domain, calibration = self.domains[run.domain], run.calibration if batchnorm == "recalibrate" else 0
        removed = None if mask is None else mask.key
        calibrated = [source.key for source in self.domains.values() if source.role == "source" and calibration]
        key = ("run", self.content, removed, run.layer, domain.key, run.split, run.images, calibration, *calibrated)
        value: Any = self.cache.get(key)
        if value is None:
            evaluator, layer = self.evaluator, run.layer
            steps = evaluator.steps if layer is None else partial(evaluator.feature_steps, layer=layer)
            value = yield from steps(mask, domain=domain, split=run.split, images=run.images, calibration=calibration)
            self.cache.put(key, value, size=24 * len(value) if layer is None else value.nbytes)
        return cloned(value)
