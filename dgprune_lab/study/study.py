"""A study: a network, the domains it was trained on, the target domains, and a cache of results."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core import (
    BatchNorm,
    Count,
    Domain,
    FilterGraph,
    Mask,
    Need,
    Outcomes,
    Provenance,
    Scores,
    Seed,
    Statistics,
    checked_name,
    cloned,
    drain,
    provenance_of,
    public,
    threads,
    unknown,
)
from ..measurement import ChanceWatch, has_batchnorm, recalibrate
from ..models import Normalisation, normalised
from ..pruning import deep_copy, device_of, prune, refuse_uncopyable
from ..scorers import Scorer, resolve
from .cache import Cache, stamp
from .domains import in_roles, place_of, prunable_words
from .scorer_inputs import ScorerInputs
from .scoring import Request, score_steps
from .snapshot import Run, Snapshot
from .trained_on import TrainedOn, with_training

Item = str | Scorer | Scores
Options = Mapping[str, Any] | None


@public
class Study:
    """A model and its source and target domains; the first argument of every diagnostic.

    Results are cached by content in 5 % of the available memory (64 MB to 1 GB); a changed model is measured again.

    Args:
        model: any classifier that maps (B, C, H, W) images in [0, 1] to (B, classes) logits; it stays unchanged.
        sources: the domains that the model was trained on.
        targets: domains whose images differ from the sources'; labels are optional.
        normalise: (mean, std) of the images that the network expects, or "imagenet"; None if it takes images in [0, 1].
            If given, it becomes the first module of `study.model`, see `dg.models.normalised`.
        trained_on: what a network from elsewhere was trained on: names of domains, of this study or not, for all of
            their images and labels; {"mnist": ["train"]} for one split; {"mnist_m": {"train": "images"}} for
            images without labels. None for what the network records, else unknown.
        name: name of the study in tables and files.
        layers: "conv" prunes filters of convolutions, "all" hidden units of linear layers too.
        device: where evaluation runs; None for the model's device.
        origin: the Python expression that rebuilds this study, used in code copied from a widget.

    Raises:
        DgpruneError: no source, two domains with one name, images of a size the network rejects, nothing to prune,
            a declared split that a domain does not have.

    >>> import dgprune_lab as dg
    >>> study = dg.demo()
    >>> mask = dg.allocate(study.score("l1"), ratio=0.5)
    >>> study.outcomes(mask, domain="mnist").accuracy < study.outcomes(None, domain="mnist").accuracy
    True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sources: Sequence[Domain],
        targets: Sequence[Domain] = (),
        normalise: Normalisation | None = None,
        trained_on: TrainedOn | None = None,
        name: str = "study",
        layers: Literal["conv", "all"] = "conv",
        device: torch.device | str | None = None,
        origin: str | None = None,
    ) -> None:
        refuse_uncopyable(model)
        self.name, self.origin = checked_name("study", name), origin
        self.layers: Literal["conv", "all"] = layers
        self.device = device_of(model) if device is None else torch.device(device)
        self.sources, self.targets = in_roles(sources, targets, device=self.device)
        shape = self.sources[0].shape
        self.model = model if normalise is None else normalised(model, normalise, channels=shape[0])
        if trained_on is not None:
            self.model = with_training(self.model, trained_on, self.domains)
        self._thread, self._cache = threading.local(), Cache()
        self._stamp: tuple[object, ...] | None = None
        self._chance = ChanceWatch(batchnorm=self.has_batchnorm)
        threads()
        self._current()

    def __repr__(self) -> str:
        sources, targets = (", ".join(repr(domain.name) for domain in part) for part in (self.sources, self.targets))
        parts = [f"{self.graph.free} filters in {len(self.graph.groups)} layers", f"sources {sources}"]
        parts += [f"targets {targets}" if targets else "no target", self.place, prunable_words(self.graph)]
        return f"Study({self.name!r}: {'; '.join(filter(None, parts))})"

    @property
    def place(self) -> str:
        """The device of the evaluation as text: "CPU, 1 thread" or the name of the GPU."""
        return place_of(self.device)

    @property
    def domains(self) -> tuple[Domain, ...]:
        """All domains: the sources, then the targets."""
        return self.sources + self.targets

    def domain(self, name: str) -> Domain:
        """Return the domain of this name."""
        named = {domain.name: domain for domain in self.domains}
        if name not in named:
            raise unknown("domain", name, named)
        return named[name]

    def on(self, device: torch.device | str) -> Study:
        """Return the same study evaluated on another device."""
        options: Any = {name: getattr(self, name) for name in ("sources", "targets", "name", "layers", "origin")}
        return Study(self.model, device=device, **options)

    @property
    def provenance(self) -> Provenance:
        """The data read in the network's training; unknown for a network from elsewhere."""
        return provenance_of(self.model)

    @property
    def training_seed(self) -> int | None:
        """The seed of the network's training, if builder and provenance record one; None for an untrained network."""
        builder = getattr(self.model, "dgprune_builder", None)
        seed = builder[1].get("seed") if builder and self.provenance.training else None
        return None if seed is None else int(seed)

    @property
    def has_batchnorm(self) -> bool:
        """Whether the network has BatchNorm statistics that can be re-estimated."""
        return has_batchnorm(self.model)

    @property
    def content(self) -> str:
        """A hash of the network and its domains as they are now: layers, weights, buffers, images, labels, splits."""
        return hashlib.blake2b(f"{self._current().content} {self.key}".encode(), digest_size=12).hexdigest()

    @property
    def graph(self) -> FilterGraph:
        """The filter groups of the network."""
        return self._current().graph

    @property
    def key(self) -> str:
        """A hash of the domains' content."""
        return hashlib.blake2b("".join(d.key for d in self.domains).encode(), digest_size=8).hexdigest()

    def score(self, scorer: Item, *, seed: Seed = 0, options: Options = None, split: str = "score") -> Scores:
        """Return one number per filter and group, higher = keep.

        Args:
            scorer: a name in the menu, a Scorer of your own, or Scores, which are returned as they are.
            seed: random seed, for a scorer that draws random numbers.
            options: further keyword arguments of the scorer.
            split: the split of each domain that the scorer reads; the provenance records it. "report" reproduces papers
                that score on the images on which they report.

        Raises:
            DgpruneError: an unknown name or option; scores of a wrong shape; a read that was not declared; a scorer
                that cannot run here.
        """
        return self.score_all([scorer], seed=seed, options=options, split=split)[0]

    def score_all(
        self,
        scorers: Sequence[Item],
        *,
        seed: Seed = 0,
        options: Options = None,
        split: str = "score",
        alongside: Sequence[Scorer] = (),
    ) -> list[Scores]:
        """Return the scores of several scorers from one pass over each domain that any of them reads.

        `alongside` are scorers that are likely to be used next: a new pass also measures what they need on the same
        domain, except needs that are large or slow (`core.COSTLY`).
        """
        items = [
            item if isinstance(item, Scores) else Request.of(resolve(item), split, seed=seed, options=options)
            for item in scorers
        ]
        return drain(score_steps(self._current(), items, split=split, alongside=alongside))

    def unavailable(self, scorer: Scorer, *, split: str = "score") -> str | None:
        """Return a sentence on why a scorer cannot run on this split, or None if it can; no images are read."""
        return Request.of(scorer, split).refusal(self._current())

    def statistics(self, domain: str, *, needs: Sequence[Need], split: str = "score") -> Statistics:
        """Return the statistics of one pass over a split of a domain; a cached pass that measured more is reused."""
        return cloned(drain(ScorerInputs(self._current(), split=split).gathered(self.domain(domain), set(needs))))

    def outcomes(
        self,
        mask: Mask | None,
        *,
        domain: str,
        split: str = "report",
        batchnorm: BatchNorm | None = None,
        images: Count | None = None,
        calibration: Count = 500,
    ) -> Outcomes:
        """Return what the network, pruned by a mask, predicts for each image of a split.

        Args:
            mask: the filters to remove; None for the full network as given.
            domain, split: name of a source or target, and the split to evaluate.
            batchnorm: "recalibrate" re-estimates BatchNorm statistics on `calibration` source images after removal;
                "as_is" does not. None: "recalibrate" under a mask, "as_is" for the full network.
            images: number of images to use, the first ones of the split; None for all.
        """
        options: Any = {"batchnorm": batchnorm, "images": images, "calibration": calibration}
        return drain(self.steps(mask, domain=domain, split=split, **options))

    def steps(
        self,
        mask: Mask | None,
        *,
        domain: str,
        split: str = "report",
        batchnorm: BatchNorm | None = None,
        images: Count | None = None,
        calibration: Count = 500,
    ) -> Generator[int, None, Outcomes]:
        """Run `outcomes` as a generator that yields the number of images after each batch; the caller can cancel."""
        run = Run(domain=domain, split=split, batchnorm=batchnorm, images=images, calibration=calibration)
        outcomes = yield from self._current().run(mask, run)
        self._chance.see(outcomes, self.domain(domain), split=split, mask=mask)
        return outcomes

    def feature_steps(
        self,
        mask: Mask | None,
        *,
        layer: str,
        domain: str,
        split: str = "report",
        batchnorm: BatchNorm | None = None,
        images: Count | None = None,
        calibration: Count = 500,
    ) -> Generator[int, None, Tensor]:
        """Return the pooled outputs of a group under a mask, (N, C) float32, zero for removed filters.

        Pooled: the spatial mean at the input of the last layer that consumes the group `layer`; images are in the order
        of the split. Yields between batches; the other arguments are those of `outcomes`.

        Raises:
            DgpruneError: an unknown layer or domain.
        """
        run = Run(domain=domain, split=split, batchnorm=batchnorm, images=images, calibration=calibration, layer=layer)
        return (yield from self._current().run(mask, run))

    def network(self, mask: Mask | None, *, batchnorm: BatchNorm | None = None) -> nn.Module:
        """Return a separate pruned network, ready to save, with its provenance; `batchnorm` as in `outcomes`."""
        batchnorm = batchnorm or ("as_is" if mask is None else "recalibrate")
        small = deep_copy(self.model) if mask is None else prune(self.model, mask)
        return recalibrate(small, self.sources) if batchnorm == "recalibrate" and self.has_batchnorm else small

    @contextmanager
    def assume_unchanged(self) -> Iterator[None]:
        """Within the block, skip the check for a changed network, which reads all weights; in this thread only."""
        self._current()
        self._thread.depth = getattr(self._thread, "depth", 0) + 1
        try:
            yield
        finally:
            self._thread.depth -= 1

    def _current(self) -> Snapshot:
        """Return the snapshot of the network and its domains, taking a new one if any of them has changed."""
        if getattr(self._thread, "depth", 0) and not self._snapshot.evaluator.abandoned:
            return self._snapshot
        with self._cache.lock:
            current = (*stamp(self.model), *(domain.stamp for domain in self.domains))
            if current != self._stamp or self._snapshot.evaluator.abandoned:
                self._snapshot = Snapshot(
                    self.model, domains=self.domains, device=self.device, layers=self.layers, cache=self._cache
                )
                self._stamp = current
            return self._snapshot
