"""A study: a network, the domains it was trained on, the domains that look different, and what was computed so far."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core import (
    COSTLY,
    LABELLED,
    BatchNorm,
    DgpruneError,
    Domain,
    FilterGraph,
    Mask,
    Need,
    Outcomes,
    Provenance,
    Scores,
    Statistics,
    choice,
    drain,
    provenance_of,
    threads,
    unknown,
)
from ..core import device as pick_device
from ..measurement import Evaluator, has_batchnorm, recalibrate
from ..pruning import deep_copy, prune, read_groups, refuse_hooks, shared_copy
from ..scorers import Scorer, ScorerInputs, refusal, resolve, run
from .cache import Cache, Key, content, stamp
from .scorer_inputs import Passes

_BYTES = 64 * 2**20
_ROOM = 512 * 2**20  # while scorers run: two sources' co-moments of a ResNet-18 take 230 MB


class Study:
    """A model and its source and target domains; the first argument of every diagnostic.

    What was computed is kept, keyed by the content of weights, domain and options, and bounded to 64 MB; a model that
    was changed in place is noticed and read again.

    Args:
        model: any classifier that maps (B, C, H, W) images in [0, 1] to (B, classes) logits; untouched.
        sources: the domains it was trained on.
        targets: the domains that look different; labels are optional.
        name: for tables and files.
        layers: "conv" prunes filters of convolutions, "all" hidden units of linear layers too.
        device: where evaluation runs; where the model is, if None.
        origin: the expression that makes this study again, for code that is copied from a widget.

    Raises:
        DgpruneError: no source, two domains of one name, images of a size the network does not take, nothing to prune.

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
        name: str = "study",
        layers: Literal["conv", "all"] = "conv",
        device: torch.device | str | None = None,
        origin: str | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise DgpruneError(f"a study needs a torch.nn.Module; got {type(model).__name__}.")
        if not sources:
            raise DgpruneError("a study needs at least one source, a domain the network was trained on.")
        self.model, self.name, self.origin = model, name, origin
        self.layers: Literal["conv", "all"] = layers
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.device = self.device if device is None else pick_device(str(device))
        self.sources = tuple(domain.as_role("source").to(self.device) for domain in sources)
        self.targets = tuple(domain.as_role("target").to(self.device) for domain in targets)
        names = [domain.name for domain in self.domains]
        if len(set(names)) < len(names):
            raise DgpruneError(f"the domains of a study need names of their own; got {', '.join(names)}.")
        sizes = {domain.shape for domain in self.domains}
        if len(sizes) > 1:
            listed = ", ".join(f"{d.name} {' x '.join(map(str, d.shape))}" for d in self.domains)
            raise DgpruneError(f"all domains of a study need images of one size; got {listed}.")
        self._lock = threading.RLock()
        self._here = threading.local()
        self._cache = Cache(limit=_BYTES)
        self._stamp: tuple[object, ...] | None = None
        threads()
        self._refresh()

    def __repr__(self) -> str:
        parts = ", ".join(d.name for d in self.sources), ", ".join(d.name for d in self.targets) or "none"
        layers = len(self.graph.groups)
        return (
            f"Study({self.name!r}: {self.graph.free} filters in {layers} layers; sources {parts[0]}; "
            f"targets {parts[1]}; {self.place})"
        )

    @property
    def place(self) -> str:
        """Where it is evaluated, in words: "CPU, 1 thread" or the name of the GPU."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        if self.device.type != "cpu":
            return self.device.type.upper()
        count = threads().count
        return f"CPU, {count} thread{'s' if count > 1 else ''}"

    @property
    def domains(self) -> tuple[Domain, ...]:
        """Sources, then targets."""
        return self.sources + self.targets

    def domain(self, name: str) -> Domain:
        """The domain of this name."""
        for found in self.domains:
            if found.name == name:
                return found
        raise unknown("domain", name, [d.name for d in self.domains])

    def on(self, device: torch.device | str) -> Study:
        """The same study evaluated on another device."""
        return Study(
            self.model,
            sources=self.sources,
            targets=self.targets,
            name=self.name,
            layers=self.layers,
            device=device,
            origin=self.origin,
        )

    @property
    def record(self) -> Provenance:
        """What the network's training looked at; unknown for a network from elsewhere."""
        return provenance_of(self.model)

    @property
    def training_seed(self) -> int | None:
        """The seed of the network's training, where its builder and its record tell one."""
        builder = getattr(self.model, "dgprune_builder", None)
        seed = builder[1].get("seed") if builder and self.record.training is not None else None
        return None if seed is None else int(seed)

    @property
    def has_batchnorm(self) -> bool:
        """Whether re-estimating BatchNorm statistics makes a difference."""
        return has_batchnorm(self.model)

    @property
    def content(self) -> str:
        """A hash of the network as it is now: layers, parameters and buffers."""
        self._refresh()
        return self._content

    @property
    def graph(self) -> FilterGraph:
        """The groups of the network, read once."""
        self._refresh()
        return self._graph

    def score(
        self,
        scorer: str | Scorer | Scores,
        *,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        split: str = "score",
    ) -> Scores:
        """One number per filter and group, higher = keep.

        Args:
            scorer: a name on the menu, a Scorer of one's own, or Scores, which are returned as they are.
            seed: for a scorer that draws.
            options: further keywords of the scorer.
            split: the part of each domain that it reads; the record says so. "report" is what papers do that score on
                the images they report.

        Raises:
            DgpruneError: an unknown name or option; a wrong shape; a read that was not declared; a scorer that cannot
                run here.
        """
        return self.score_all([scorer], seed=seed, options=options, split=split)[0]

    def score_all(
        self,
        scorers: Sequence[str | Scorer | Scores],
        *,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        split: str = "score",
        alongside: Sequence[Scorer] = (),
    ) -> list[Scores]:
        """Scores of several scorers from one pass over each domain that any of them reads.

        `alongside` are further scorers that are likely to be asked for next: a pass that is made leaves what they need
        of the same domain too (but nothing that is large or slow: `contract.COSTLY`).
        """
        self._refresh()
        chosen = [s if isinstance(s, Scores) else resolve(s) for s in scorers]
        settled = [self._settled(item, seed, options) if isinstance(item, Scorer) else {} for item in chosen]
        asked = [(item, given) for item, given in zip(chosen, settled, strict=True) if isinstance(item, Scorer)]
        keys = [self._score_key(item, given, split) for item, given in asked]
        fresh = [pair for pair, key in zip(asked, keys, strict=True) if self._cache.get(key) is None]
        for item, given in fresh:
            if (why := self._refusal(item, given, split)) is not None:
                raise DgpruneError(f"{item.name!r} cannot run here: {why}")
        with self._cache.room(_ROOM):
            self._gather(fresh, split, alongside)
            return [self._scored(item, given, split) for item, given in zip(chosen, settled, strict=True)]

    def _scored(self, item: Scorer | Scores, options: Mapping[str, Any], split: str) -> Scores:
        if isinstance(item, Scores):
            self._check_own(item)
            return item
        key = self._score_key(item, options, split)
        kept = self._cache.get(key)
        if kept is None:
            # The function travels in the cache, so that its id cannot be given to another one meanwhile.
            kept = run(item, self._evidence(item, split), options=options), item.function
            self._cache.put(key, kept, size=8 * self._graph.free)
        return kept[0]

    def _settled(self, scorer: Scorer, seed: int, options: Mapping[str, Any] | None) -> dict[str, Any]:
        drawn = {"seed": seed} if scorer.draws and "seed" not in (options or {}) else {}
        return scorer.settled(dict(options or {}) | drawn)

    def _score_key(self, scorer: Scorer, options: Mapping[str, Any], split: str) -> Key:
        settled = repr(sorted(options.items()))
        return ("scores", self._content, id(scorer.function), repr(scorer), settled, split)

    def statistics(self, domain: str, *, needs: Sequence[Need], split: str = "score") -> Statistics:
        """What one pass over one part of a domain leaves; a pass that gathered more is taken as it is."""
        self._refresh()
        return self._passes.statistics(self.domain(domain), set(needs), split)

    def steps(
        self,
        mask: Mask | None,
        *,
        domain: str,
        split: str = "report",
        batchnorm: BatchNorm = "as_is",
        images: int | None = None,
        calibration: int = 500,
    ) -> Generator[None, None, Outcomes]:
        """`outcomes` as a generator that yields between batches, for whoever must be able to stop."""
        asked = {"domain": domain, "split": split, "images": images, "calibration": calibration}
        return (yield from self._under(mask, None, batchnorm=batchnorm, **asked))

    def outcomes(
        self,
        mask: Mask | None,
        *,
        domain: str,
        split: str = "report",
        batchnorm: BatchNorm = "as_is",
        images: int | None = None,
        calibration: int = 500,
    ) -> Outcomes:
        """What the network, pruned by a mask, does with each image of a part.

        Args:
            mask: what is removed; None for the full network as given.
            domain: name of a source or target.
            split: which part.
            batchnorm: "as_is" or "recalibrate".
            images: only the first so many.
            calibration: source images that statistics are re-estimated on, where they are.
        """
        return drain(
            self.steps(mask, domain=domain, split=split, batchnorm=batchnorm, images=images, calibration=calibration)
        )

    def feature_steps(
        self,
        mask: Mask | None,
        *,
        layer: str,
        domain: str,
        split: str = "report",
        batchnorm: BatchNorm = "as_is",
        images: int | None = None,
        calibration: int = 500,
    ) -> Generator[None, None, Tensor]:
        """(N, C) float32 outputs of a group under a mask, the mean over places; removed filters are zero columns.

        What the last layer that reads the group gets, of images in the order of the part. Yields between batches.

        Args:
            mask, domain, split, batchnorm, images, calibration: as of `outcomes`.
            layer: the group's name.

        Raises:
            DgpruneError: an unknown layer or domain.
        """
        asked = {"domain": domain, "split": split, "images": images, "calibration": calibration}
        return (yield from self._under(mask, layer, batchnorm=batchnorm, **asked))

    def _under(
        self,
        mask: Mask | None,
        layer: str | None,
        *,
        domain: str,
        split: str,
        batchnorm: BatchNorm,
        images: int | None,
        calibration: int,
    ) -> Generator[None, None, Any]:
        """What the network does under a mask, kept: outcomes, or where a layer is named its features."""
        choice("batchnorm", batchnorm, BatchNorm)
        self._refresh()
        found, calibration = self.domain(domain), calibration if batchnorm == "recalibrate" else 0
        which = None if mask is None else mask.key
        key = ("under", self._content, which, layer, found.key, split, images, calibration)
        kept = self._cache.get(key)
        if kept is None:
            evaluator = self._evaluator
            asked: dict[str, Any] = {"domain": found, "split": split, "images": images, "calibration": calibration}
            if layer is None:
                kept = yield from evaluator.steps(mask, **asked)
                size = 24 * len(kept)
            else:
                kept = yield from evaluator.feature_steps(mask, layer=layer, **asked)
                size = kept.nbytes
            self._cache.put(key, kept, size=size)
        return kept

    def network(self, mask: Mask | None, *, batchnorm: BatchNorm = "as_is") -> nn.Module:
        """The pruned network on its own, ready to save, with the record of what was read."""
        small = deep_copy(self.model) if mask is None else prune(self.model, mask)
        return recalibrate(small, self.sources) if batchnorm == "recalibrate" and self.has_batchnorm else small

    def unavailable(self, scorer: Scorer) -> str | None:
        """Why a scorer cannot run here, in a sentence; None where it can (as far as one can tell without a pass)."""
        self._refresh()
        return self._refusal(scorer, scorer.settled({}), "score")

    def _refusal(self, scorer: Scorer, options: Mapping[str, Any], split: str) -> str | None:
        if "target" in scorer.reads and not self.targets:
            return "there are no images of a new look."
        labels = scorer.takes_labels(options)
        for domain in self.domains:
            if labels and scorer.reads.get(domain.role or "source") == "labels" and domain.labels is None:
                return f"it needs labels, and {domain.name!r} has none."
            if domain.role in scorer.reads and not len(domain.splits.get(split, ())):
                return f"domain {domain.name!r} has no image in its part {split!r}."
        return refusal(scorer, self._evidence(scorer, split), options=options)

    @cached_property
    def key(self) -> str:
        """A hash of the domains' content, for the record."""
        return hashlib.blake2b("".join(d.key for d in self.domains).encode(), digest_size=8).hexdigest()

    def _gather(
        self, scorers: Sequence[tuple[Scorer, Mapping[str, Any]]], split: str, alongside: Sequence[Scorer]
    ) -> None:
        for domain in self.domains:
            needs: set[Need] = set()
            later: set[Need] = set()
            for item, options in scorers:
                needs |= _needed(item, options, domain)
            for item in alongside:
                if domain.labels is not None or item.reads.get(domain.role or "source") != "labels":
                    later |= _needed(item, item.settled({}), domain) - COSTLY
            if needs:
                self._passes.statistics(domain, needs, split, alongside=later)

    def _evidence(self, scorer: Scorer, split: str) -> ScorerInputs:
        model = deep_copy(self.model).eval() if "model" in scorer.needs else None
        return self._passes.evidence(split, model=model)

    def _check_own(self, scores: Scores) -> None:
        mine = {g.name: g.filters for g in self.graph.groups}
        if {g.name: g.filters for g in scores.graph.groups} != mine:
            raise DgpruneError(f"the scores of {scores.scorer!r} were made for another network.")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Take the network as unchanged in this thread until the end; looking each time costs 18 ms for a VGG-16."""
        self._refresh()
        self._here.depth = getattr(self._here, "depth", 0) + 1
        try:
            yield
        finally:
            self._here.depth -= 1

    def _refresh(self) -> None:
        """Read the network again if it is not the one that was read."""
        if getattr(self._here, "depth", 0):
            return
        with self._lock:
            found = stamp(self.model)
            if found == self._stamp:
                return
            self._private = shared_copy(self.model).to(self.device)
            self._content = content(self.model)
            example = self.domains[0].take(torch.arange(min(2, len(self.domains[0]))), device=self.device).images
            self._graph = read_groups(self._private, example, layers=self.layers)
            refuse_hooks(self.model, self._private, example)
            self._evaluator = Evaluator(self._private, self._graph, domains=self.domains)
            self._passes = Passes(
                self._private,
                self._graph,
                domains=self.domains,
                evaluator=self._evaluator,
                example=example,
                cache=self._cache,
                content=self._content,
            )
            self._stamp = found


def _needed(scorer: Scorer, options: Mapping[str, Any], domain: Domain) -> set[Need]:
    """What a pass over this domain must leave for a scorer: no label is read of a role of which it declares images."""
    what = scorer.reads.get(domain.role or "source")
    return set() if what is None else scorer.gathered(options) - (LABELLED if what == "images" else frozenset())
