"""The current state of a study's network, and the results that were computed with it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from ..core import BatchNorm, Domain, Mask, Outcomes, choice, unknown
from ..measurement import Evaluator
from ..pruning import deep_copy, read_groups, refuse_hooks, shared_copy
from .cache import Cache, Key, content

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One evaluation: on which images, with or without BatchNorm recalibration; see `Study.outcomes`."""

    domain: str
    split: str
    batchnorm: BatchNorm
    images: int | None
    calibration: int


class Snapshot:
    """One state of a network, with its groups and what runs it; results are cached under the network's content.

    Attributes:
        network: a copy that shares the weights.
        domains: name -> domain, with its role.
        images: one or two images of the first domain.
        graph: the groups of the network.
        evaluator: runs it, pruned by any mask, over the domains.
        content: a hash of layers, parameters and buffers.
        cache: of the study, bounded in bytes.
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
        self.network, self.content, self.cache = shared_copy(model).to(device), content(model), cache
        self.domains = {domain.name: domain for domain in domains}
        self.images = domains[0].take(torch.arange(min(2, len(domains[0]))), device=device).images
        self.graph = read_groups(self.network, self.images, layers=layers)
        refuse_hooks(model, self.network, self.images)
        self.evaluator = Evaluator(self.network, self.graph, domains=tuple(domains))

    def own_copy(self) -> nn.Module:
        """Return a copy of the network with weights of its own, in eval mode."""
        return deep_copy(self._model).eval().to(self._device)

    def once(self, key: Key, compute: Callable[[], Any]) -> Any:
        """Return the cached value of a key, computed where there is none."""
        key = (*key, self.content)
        value = self.cache.get(key)
        if value is None:
            value = compute()
            self.cache.put(key, value, size=getattr(value, "nbytes", 8 * self.graph.free))
        return value

    def outcomes(self, mask: Mask | None, run: Run) -> Generator[None, None, Outcomes]:
        """Return the outcomes of the network under a mask; yields between batches."""
        steps = partial(self.evaluator.steps, mask)
        return (yield from self._under(mask, run, layer=None, steps=steps, size=lambda found: 24 * len(found)))

    def features(self, mask: Mask | None, run: Run, *, layer: str) -> Generator[None, None, Tensor]:
        """Return the pooled outputs of a group under a mask; yields between batches."""
        steps = partial(self.evaluator.feature_steps, mask, layer=layer)
        return (yield from self._under(mask, run, layer=layer, steps=steps, size=lambda found: found.nbytes))

    def _under(
        self,
        mask: Mask | None,
        run: Run,
        *,
        layer: str | None,
        steps: Callable[..., Generator[None, None, Result]],
        size: Callable[[Result], int],
    ) -> Generator[None, None, Result]:
        choice("batchnorm", run.batchnorm, BatchNorm)
        if run.domain not in self.domains:
            raise unknown("domain", run.domain, self.domains)
        domain, calibration = self.domains[run.domain], run.calibration if run.batchnorm == "recalibrate" else 0
        removed = None if mask is None else mask.key
        key = ("under", self.content, removed, layer, domain.key, run.split, run.images, calibration)
        value = self.cache.get(key)
        if value is None:
            value = yield from steps(domain=domain, split=run.split, images=run.images, calibration=calibration)
            self.cache.put(key, value, size=size(value))
        return value
