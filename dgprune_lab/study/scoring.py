"""Scores of several scorers, computed from shared passes and cached by scorer, options and network."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..core import COSTLY, LABELLED, DgpruneError, Domain, Need, Scores, unknown
from ..scorers import Scorer, refusal, run
from .cache import Key
from .fingerprint import Fingerprint, fingerprint
from .scorer_inputs import ScorerInputs
from .snapshot import Snapshot

if TYPE_CHECKING:
    from .study import Study

_ROOM = 512 * 2**20  # while scorers run: the co-moments of two sources of a ResNet-18 take 230 MB


@dataclass(frozen=True)
class Request:
    """A scorer with the options and the split with which it runs."""

    scorer: Scorer
    options: Mapping[str, Any]
    split: str

    @classmethod
    def of(
        cls, scorer: Scorer, split: str = "score", *, seed: int = 0, options: Mapping[str, Any] | None = None
    ) -> Request:
        """Return a request, with the scorer's default options filled in."""
        defaults = {"seed": seed} if scorer.draws else {}
        return cls(scorer, scorer.settled({**defaults, **(options or {})}), split)

    def needs(self, domain: Domain) -> set[Need]:
        """Return the statistics that the scorer needs of this domain.

        Those that need labels are left out if the scorer declares that it reads only the images.
        """
        what = self.scorer.reads.get(domain.role or "source")
        return set() if what is None else self.scorer.gathered(self.options) - (LABELLED if what == "images" else set())

    def inputs(self, snapshot: Snapshot) -> ScorerInputs:
        """Return the data that the scorer reads; a scorer that reads the network gets a private copy of it."""
        model = snapshot.own_copy() if "model" in self.scorer.needs else None
        return ScorerInputs(snapshot, split=self.split, model=model)

    def lacks_labels(self, domain: Domain) -> bool:
        """Return whether the scorer declares that it reads labels of this domain although the domain has none."""
        return domain.labels is None and self.scorer.reads.get(domain.role or "source") == "labels"

    def refusal(self, snapshot: Snapshot) -> str | None:
        """Return a sentence on why the scorer cannot run, or None if it can; no images are read."""
        scorer, domains = self.scorer, snapshot.domains.values()
        if "target" in scorer.reads and all(domain.role != "target" for domain in domains):
            return "the study has no target."
        takes_labels = scorer.takes_labels(self.options)
        for domain in domains:
            if takes_labels and self.lacks_labels(domain):
                return f"it needs labels, and {domain.name!r} has none."
            if domain.role in scorer.reads and not len(domain.splits.get(self.split, ())):
                others = ", ".join(name for name, rows in domain.splits.items() if len(rows)) or "no split"
                return (
                    f"domain {domain.name!r} has no image in its split {self.split!r}, only in {others}; "
                    "study.score(..., split=...) reads another split, and the table records it."
                )
        return refusal(scorer, self.inputs(snapshot), options=self.options)

    @cached_property
    def read(self) -> Fingerprint:
        """Fingerprint of the scorer's function, with the variables that it reads now, and of its options."""
        return fingerprint(self.scorer.function, dict(self.options))

    def key(self, snapshot: Snapshot) -> Key:
        """Return the key of the scores in the cache."""
        read = [domain.key for domain in snapshot.domains.values() if domain.role in self.scorer.reads]
        return ("scores", snapshot.content, self.read.key, repr(self.scorer), self.split, *read)

    def scores(self, snapshot: Snapshot) -> Scores:
        """Return the scores, from the cache or computed."""
        cached = snapshot.cache.get(self.key(snapshot))
        if cached is None:
            scores = run(self.scorer, self.inputs(snapshot), options=self.options)
            # Keep the objects that are hashed by id, so that no id is reused.
            cached = replace(scores, network=snapshot.content), self.read.objects
            snapshot.cache.put(self.key(snapshot), cached, size=8 * snapshot.graph.free)
        return cached[0]


def scoring(
    study: Study, scorer: Scorer | Scores, *, alongside: Sequence[Scorer] = ()
) -> Generator[tuple[int, int], None, Scores]:
    """Run `Study.score` as a generator that yields (images read, images in total); `alongside` as in `score_all`."""
    item = scorer if isinstance(scorer, Scores) else Request.of(scorer)
    return (yield from score_steps(study._current(), [item], split="score", alongside=alongside))[0]


def score_steps(
    snapshot: Snapshot, items: Sequence[Request | Scores], *, split: str, alongside: Sequence[Scorer] = ()
) -> Generator[tuple[int, int], None, list[Scores]]:
    """Compute the scores of several requests in one pass over each domain; see `Study.score_all`."""
    splits = dict.fromkeys(name for domain in snapshot.domains.values() for name in domain.splits)
    reads = any(isinstance(item, Request) and item.scorer.reads for item in items)
    if split not in splits and (reads or split != "score"):  # the default may be missing if no image is read
        raise unknown("split", split, splits)
    fresh = [r for r in items if isinstance(r, Request) and snapshot.cache.get(r.key(snapshot)) is None]
    for request in fresh:
        if (why := request.refusal(snapshot)) is not None:
            raise DgpruneError(f"{request.scorer.name!r} cannot run here: {why}")
    with snapshot.cache.room(_ROOM):
        inputs, later = ScorerInputs(snapshot, split=split), [Request.of(scorer) for scorer in alongside]
        read = {d.name: set[Need]().union(*(request.needs(d) for request in fresh)) for d in snapshot.domains.values()}
        used = [snapshot.domains[name] for name, needs in read.items() if needs]
        done, total = 0, sum(len(domain.rows(split)) for domain in used)
        for domain in used:
            extra = (r.needs(domain) for r in later if not r.lacks_labels(domain))
            for images in inputs.gathered(domain, read[domain.name], alongside=set[Need]().union(*extra) - COSTLY):
                done += images
                yield done, total
        return [item.scores(snapshot) if isinstance(item, Request) else _check_scores(item, snapshot) for item in items]


def _check_scores(scores: Scores, snapshot: Snapshot) -> Scores:
    """Return the given scores; raise an error if they do not fit this network or were computed for another."""
    fits = {g.name: g.filters for g in scores.graph.groups} == {g.name: g.filters for g in snapshot.graph.groups}
    if not fits:
        raise DgpruneError(f"the scores of {scores.scorer!r} were made for another network; call study.score again.")
    if scores.network not in (None, snapshot.content):
        raise DgpruneError(
            f"the scores of {scores.scorer!r} were computed for another network, or for this one before its weights "
            "changed. Score this network: study.score(...); or, to use them all the same, declare them as your own: "
            "dg.Scores(scores.scorer, scores.values, study.graph, reads=scores.reads)."
        )
    return scores
