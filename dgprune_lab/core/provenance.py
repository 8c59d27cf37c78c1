"""Provenance: which data each stage of a network's life has read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from torch import nn

from .border import public
from .errors import DgpruneError
from .frozen import Frozen
from .kinds import SEEN
from .tables import Seen

if TYPE_CHECKING:
    from .domain import Domain

Stage = Literal["training", "scorer", "finetuning", "selection"]
Reads = Mapping[str, Seen] | None
Roles = Mapping[str, str | None]

STAGES: tuple[Stage, ...] = get_args(Stage)
CHOOSING: tuple[Stage, ...] = ("scorer", "finetuning", "selection")
"""The stages that make a number target-aware; what training has read has a separate column."""
MORE = "*"
"""Key in place of a split, for further, unknown data read; after a domain's name ("mnist/*"), for all its splits."""
LEAST_FIRST: tuple[Seen, ...] = ("none", "unknown", "images", "labels")
_BOTH_NAMED = ("images", "labels")  # reported images and labels of other ones; else the reported split alone is named
_BY_HAND = "the scorer, or the choice by hand,"
_STAGE_NAMES = {"scorer": "the scorer", "finetuning": "fine-tuning", "selection": "the selection of this network"}


class Notice(NamedTuple):
    """A line of text for a page: a sign ("◇", or "?" for unknown) and a sentence."""

    sign: str
    text: str


@public
@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What each stage read of each split: {"mnist/train": "labels"}; None for unknown.

    The training of a network from elsewhere is unknown, never "none". Stages that have not happened are empty. Where
    unknown reads follow known ones, the known entries stay and the entry `"*"` marks the unknown rest. `declared`:
    training was unknown until the user declared it; fine-tuning and choices before that stay unrecorded.
    """

    training: Reads = None
    scorer: Reads = field(default_factory=dict)
    finetuning: Reads = field(default_factory=dict)
    selection: Reads = field(default_factory=dict)
    declared: bool = False

    def __post_init__(self) -> None:
        for stage in STAGES:
            if (entries := getattr(self, stage)) is not None:
                self.__dict__[stage] = Frozen(check_reads(entries, what=f"stage {stage!r}") or {})

    def seen(self, stage: Stage, domain: str, split: str) -> Seen:
        """Return what this stage has read of a split of a domain."""
        entries = self._entries(stage)
        known: list[Seen] = [entries[key] for key in (f"{domain}/{split}", f"{domain}/{MORE}") if key in entries]
        return _strongest(known) if known else entries.get(MORE, "none")

    def seen_anywhere(self, stage: Stage, domain: str) -> Seen:
        """Return the most that this stage has read of any split of a domain."""
        entries = self._entries(stage)
        return _strongest([entries.get(MORE, "none"), *(use for name, _, use in _splits(entries) if name == domain)])

    def targets_seen(self, roles: Roles) -> list[str]:
        """Return the targets that scorer, fine-tuning or selection looked at (any split), in the order of `roles`."""
        return [name for name, is_target in self._verdicts(roles).items() if is_target]

    def target_aware(self, roles: Roles, domain: str | None = None) -> bool | None:
        """Return the value of the column `target_aware` for a row about this domain; None for unknown.

        In a row about a target: whether scorer, fine-tuning or selection looked at any split of it. In a row about a
        source, or about no domain: whether they looked at any target. A domain without a role counts as a target if
        training is known not to have read it.

        Args:
            roles: domain name -> "source", "target" or None; see `roles_of`.
            domain: name of the domain that the row reports; None for a row about no single domain.
        """
        verdicts = self._verdicts(roles)
        if domain is not None and roles.get(domain) != "source":
            verdicts = {domain: verdicts[domain]} if domain in verdicts else {}
        if True in verdicts.values():
            return True
        unsure = None in verdicts.values() or any("unknown" in self._entries(stage).values() for stage in CHOOSING)
        return None if unsure else False

    def columns(self, domain: str, split: str, *, roles: Roles | None = None) -> dict[str, str | bool | None]:
        """Return the columns of a row about this split: the four seen_by_*, and target_aware where roles are given."""
        stages = zip(SEEN, STAGES, strict=True)
        seen: dict[str, str | bool | None] = {name: self.seen(stage, domain, split) for name, stage in stages}
        return seen if roles is None else {**seen, "target_aware": self.target_aware(roles, domain)}

    def notice(self, roles: Roles, *, split: str, by_hand: bool = False) -> Notice | None:
        """Return one sentence on which stage looked at any split of a target, or at the reported split of a source.

        Args:
            roles: name -> role of the domains that are reported.
            split: the split that is reported.
            by_hand: whether layers or filters may have been set by hand, which counts as the stage "scorer".

        Returns:
            The sentence; None where scorer, fine-tuning and selection are known to have looked at none of these.
        """
        clauses, unknown = [], []
        names = {**_STAGE_NAMES, "scorer": _BY_HAND} if by_hand else _STAGE_NAMES
        for stage in CHOOSING:
            phrases = self._phrases(stage, roles, split)
            if phrases:
                clauses.append(f"{names[stage]} looked at {' and at '.join(phrases)}")
            if "unknown" in self._entries(stage).values():
                unknown.append(f"what {'else ' if phrases else ''}{names[stage]} looked at is not recorded")
        if not clauses and not unknown:
            return None
        start = "Target-aware" if self.targets_seen(roles) else "Seen" if clauses else "Unknown"
        return Notice("◇" if clauses else "?", f"{start}: {'; '.join([*clauses, *unknown])}.")

    def adding(self, stage: Stage, entries: Reads) -> Provenance:
        """Return the provenance with further reads in one stage; see `merged`."""
        return replace(self, **{stage: merged(getattr(self, stage), entries)})

    def declaring(self, training: Mapping[str, Seen]) -> Provenance:
        """Return the provenance in which training has read the recorded splits and these ones, and nothing unknown."""
        known: dict[str, Seen] = {key: use for key, use in (self.training or {}).items() if key != MORE}
        return replace(self, training=merged(known, training), declared=self.is_from_elsewhere)

    @property
    def is_from_elsewhere(self) -> bool:
        """Whether a part of the network's life is not recorded: its training is unknown, or was so until declared."""
        return self.declared or MORE in _entries(self.training)

    def to_json(self) -> dict[str, Any]:
        """Return the stages as plain dictionaries, for a JSON card."""
        reads = {stage: getattr(self, stage) for stage in STAGES}
        stages = {stage: None if entries is None else dict(entries) for stage, entries in reads.items()}
        return {**stages, "declared": True} if self.declared else stages

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Provenance:
        """Return the provenance that a JSON card holds; for None, one whose training is unknown.

        Raises:
            DgpruneError: the value is no provenance.
        """
        if value is None:
            return cls()
        if not isinstance(value, Mapping) or set(value) - {*STAGES, "declared"}:
            raise DgpruneError(f"a provenance has the stages {', '.join(STAGES)}; got {value!r}.")
        for stage, reads in ((stage, reads) for stage, reads in value.items() if stage in STAGES):
            is_valid = isinstance(reads, Mapping) and all(use in LEAST_FIRST for use in reads.values())
            if reads is not None and not is_valid:
                raise DgpruneError(f"stage {stage!r} maps splits to one of {', '.join(LEAST_FIRST)}; got {reads!r}.")
        return cls(**{**value, "declared": value.get("declared") is True})

    def _entries(self, stage: Stage) -> Mapping[str, Seen]:
        return _entries(getattr(self, stage))

    def _verdicts(self, roles: Roles) -> dict[str, bool | None]:
        """Return whether each domain that scorer, fine-tuning or selection read is a target (None: unknown)."""
        seen = {name for stage in CHOOSING for name, _, _ in _splits(self._entries(stage))}
        return {name: self._is_target(name, roles) for name in _ordered(seen, roles)}

    def _is_target(self, name: str, roles: Roles) -> bool | None:
        if (role := roles.get(name)) is not None:
            return role == "target"
        return {"none": True, "unknown": None}.get(self.seen_anywhere("training", name), False)

    def _phrases(self, stage: Stage, roles: Roles, split: str) -> list[str]:
        """Return what one stage looked at, as phrases that end a sentence, the reported split first."""
        reported: dict[str, Seen] = {}
        others: dict[str, Seen] = {}
        for name, other, use in _splits(self._entries(stage)):
            if other == split and name in roles:
                reported[name] = use
            elif self._is_target(name, roles):
                others[name] = _strongest([use, others.get(name, "none")])
        others = {k: use for k, use in others.items() if k not in reported or (reported[k], use) == _BOTH_NAMED}
        phrases = []
        for what in ("labels", "images"):
            if names := _ordered((name for name in reported if reported[name] == what), roles):
                whose = "" if len(names) == len(roles) else f" of {_join_names(names)}"
                phrases.append(f"the reported {what}{whose}")
        for what in ("labels", "images"):
            if names := _ordered((name for name in others if others[name] == what), roles):
                phrases.append(f"{what} of {_join_names(names)} (not the reported ones)")
        return phrases


def merged(first: Reads, second: Reads) -> Reads:
    """Merge two records of reads; for each split the stronger of the two uses stays.

    Labels are stronger than images, images than unknown. Where one record is unknown (None), the entries of the other
    stay, and `"*"` marks that more may have been read.

    >>> merged({"a/score": "images"}, {"a/score": "labels", "b/score": "images"})
    {'a/score': 'labels', 'b/score': 'images'}
    >>> merged({"a/score": "images"}, None)
    {'a/score': 'images', '*': 'unknown'}
    """
    uses: dict[str, Seen] = {}
    for reads in (first, second):
        for key, use in _entries(reads).items():
            uses[key] = _strongest([use, uses.get(key, "none")])
    return None if set(uses) == {MORE} else uses


def declared(reads: Mapping[str, Any] | None, *, what: str) -> Reads:
    """Check and return the reads that a user declares; None stays unknown.

    Args:
        reads: what was read of each split, "images" or "labels": {"mnist_m/score": "images"}; {} for nothing.
        what: the object that the reads belong to, for the error message.

    Raises:
        DgpruneError: a key that names no split of a domain, or a value other than "images" or "labels".
    """
    if reads is None:
        return None
    for key, use in reads.items():
        domain, _, split = key.rpartition("/") if isinstance(key, str) else ("", "", "")
        if not domain or not split or use not in ("images", "labels"):
            raise DgpruneError(
                f"reads of {what} must name splits and what was read of each, {{'mnist_m/score': 'images'}} or "
                f"'labels', and {{}} for nothing; got {reads!r}."
            )
    return dict(reads)


def check_reads(reads: Reads, *, what: str) -> Reads:
    """Return a record of reads; refuse a key that names no split, which would count as if nothing had been read."""
    for key in reads or ():
        domain, _, split = key.rpartition("/")
        if key != MORE and not (domain and split):
            raise DgpruneError(
                f"reads of {what} must name splits, such as 'mnist_m/score', or 'mnist_m/*' for all splits of a "
                f"domain; got {key!r}."
            )
    return reads


def roles_of(domains: Iterable[Domain]) -> dict[str, str | None]:
    """Return domain name -> role, in the order of the domains."""
    return {domain.name: domain.role for domain in domains}


@public
def provenance_of(model: nn.Module) -> Provenance:
    """Return what each stage of this network's life has read; unknown for a network from elsewhere."""
    return getattr(model, "dgprune_provenance", Provenance())


def set_provenance(model: Any, provenance: Provenance) -> None:
    """Attach a provenance to a network; `provenance_of` returns it."""
    model.dgprune_provenance = provenance


def _entries(reads: Reads) -> Mapping[str, Seen]:
    """Return the entries of a stage without splits that were not read; the value of `"*"` is always "unknown"."""
    entries: Mapping[str, Seen] = {MORE: "unknown"} if reads is None else reads
    return {key: "unknown" if key == MORE else use for key, use in entries.items() if use != "none"}


def _splits(entries: Mapping[str, Seen]) -> Iterator[tuple[str, str, Seen]]:
    """Yield (domain, split, use) of every split whose images or labels were read; a domain's name may hold "/"."""
    for key, use in entries.items():
        domain, slash, split = key.rpartition("/")
        if slash and use in ("images", "labels"):
            yield domain, split, use


def _ordered(names: Iterable[str], roles: Roles) -> list[str]:
    """Return the names in the order of `roles`; names without a role come last, sorted."""
    order = list(roles)
    return sorted(names, key=lambda name: (order.index(name) if name in roles else len(order), name))


def _strongest(uses: Iterable[Seen]) -> Seen:
    return LEAST_FIRST[max(map(LEAST_FIRST.index, uses))]


def _join_names(names: list[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
