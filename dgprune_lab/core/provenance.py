"""The record of what each stage of a network's life has looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from .errors import DgpruneError
from .tables import SEEN, Seen

if TYPE_CHECKING:
    from .domain import Domain

Stage = Literal["training", "scorer", "finetuning", "selection"]
Reads = Mapping[str, Seen] | None
Roles = Mapping[str, str | None]

STAGES: tuple[Stage, ...] = get_args(Stage)
CHOOSING: tuple[Stage, ...] = ("scorer", "finetuning", "selection")
"""The stages that make a number target-aware; what training has read has a column of its own."""
MORE = "*"
"""In place of a part: beyond what is listed something was read that nobody knows."""
_LEAST_FIRST: tuple[Seen, ...] = ("none", "unknown", "images", "labels")
_ADDS = ("images", "labels")  # labels of other images add to having seen the very images; nothing else does
_WHO = {"scorer": "this choice", "finetuning": "fine-tuning", "selection": "the selection of this network"}


class Notice(NamedTuple):
    """One line for a page: a sign ("◇", or "?" where nobody knows) and a sentence that is exactly true."""

    sign: str
    text: str


@dataclass(frozen=True)
class Provenance:
    """Per stage, what was read of each part: {"mnist/train": "labels"}; None where nobody knows.

    A bare network from elsewhere is unknown in its training, never "none". Stages that have not happened are empty.
    What is known stays known when something unknown follows: the part `"*"` then stands for the rest.
    """

    training: Reads = None
    scorer: Reads = field(default_factory=dict)
    finetuning: Reads = field(default_factory=dict)
    selection: Reads = field(default_factory=dict)

    def seen(self, stage: Stage, domain: str, split: str) -> Seen:
        """What this stage has read of this part of this domain."""
        entries = _entries(getattr(self, stage))
        return entries.get(f"{domain}/{split}", entries.get(MORE, "none"))

    def seen_anywhere(self, stage: Stage, domain: str) -> Seen:
        """The most that this stage has read of any part of this domain."""
        entries = _entries(getattr(self, stage))
        found: list[Seen] = [what for name, _, what in _parts(entries) if name == domain]
        return _most(*found, entries.get(MORE, "none"))

    def targets_seen(self, roles: Roles) -> list[str]:
        """Return the targets of which scorer, fine-tuning or selection looked at any split, in the order of `roles`."""
        return [name for name, is_target in self._verdicts(roles).items() if is_target]

    def target_aware(self, roles: Roles, domain: str | None = None) -> bool | None:
        """Return the cell `target_aware` of a row about this domain; None where nobody knows.

        On a row about a target: whether scorer, fine-tuning or selection looked at any split of it. On a row about a
        source, or about no domain: whether they looked at any target. A domain without a role counts as a target if
        training is known not to have read it.

        Args:
            roles: domain name -> "source", "target" or None; see `roles_of`.
            domain: what the row reports; None for a row about no single domain.
        """
        verdicts = self._verdicts(roles)
        if domain is not None and roles.get(domain) != "source":
            verdicts = {domain: verdicts[domain]} if domain in verdicts else {}
        if True in verdicts.values():
            return True
        return None if None in verdicts.values() or self._is_open else False

    def _verdicts(self, roles: Roles) -> dict[str, bool | None]:
        """Each domain that a choosing stage looked at -> whether it is a target."""
        seen = {name for stage in CHOOSING for name, _, _ in _parts(_entries(getattr(self, stage)))}
        return {name: self._is_target(name, roles) for name in sorted(seen, key=lambda name: _place(name, roles))}

    @property
    def _is_open(self) -> bool:
        """Whether a choosing stage may have looked at more than is known."""
        return any("unknown" in _entries(getattr(self, stage)).values() for stage in CHOOSING)

    def columns(self, domain: str, split: str, *, roles: Roles | None = None) -> dict[str, str | bool | None]:
        """Return the cells of a row about this split: the four seen_by_*, and target_aware where roles are given."""
        seen = {name: self.seen(stage, domain, split) for name, stage in zip(SEEN, STAGES, strict=True)}
        return seen if roles is None else {**seen, "target_aware": self.target_aware(roles, domain)}

    def notice(self, roles: Roles, *, split: str) -> Notice | None:
        """Who looked at what, in one sentence: any part of a target, or the very part that is reported of a source.

        Args:
            roles: of the domains that are reported.
            split: the part that is reported.

        Returns:
            None where scorer, tuning and selection are known to have looked at none of this.
        """
        clauses, unknown = [], []
        for stage in CHOOSING:
            entries = _entries(getattr(self, stage))
            if found := self._phrases(entries, roles, split):
                clauses.append(f"{_WHO[stage]} looked at {' and at '.join(found)}")
            if "unknown" in entries.values():
                unknown.append(f"nobody said what {'else ' if found else ''}{_WHO[stage]} looked at")
        if not clauses and not unknown:
            return None
        start = "Target-aware" if self.targets_seen(roles) else "Seen" if clauses else "Unknown"
        return Notice("◇" if clauses else "?", f"{start}: {'; '.join([*clauses, *unknown])}.")

    def _phrases(self, entries: Mapping[str, Seen], roles: Roles, split: str) -> list[str]:
        """What one stage looked at, as ends of a sentence; the images that are reported first."""
        very = {name: what for name, part, what in _parts(entries) if part == split and name in roles}
        others: dict[str, Seen] = {}
        for name, part, what in _parts(entries):
            if not (part == split and name in roles) and self._is_target(name, roles):
                others[name] = _most(what, others.get(name, "none"))
        others = {name: what for name, what in others.items() if name not in very or (very[name], what) == _ADDS}
        phrases = []
        for held in (very, others):
            for what in ("labels", "images"):
                names = sorted((name for name in held if held[name] == what), key=lambda name: _place(name, roles))
                if names and held is very:
                    whose = "" if len(names) == len(roles) else f" of {_listed(names)}"
                    phrases.append(f"the {what}{whose} it is tested on")
                elif names:
                    phrases.append(f"{what} of {_listed(names)} (others than those it is tested on)")
        return phrases

    def _is_target(self, name: str, roles: Roles) -> bool | None:
        role = roles.get(name)
        if role is not None:
            return role == "target"
        return {"none": True, "unknown": None}.get(self.seen_anywhere("training", name), False)

    def adding(self, stage: Stage, entries: Reads) -> Provenance:
        """The record with more reading in one stage; see `merged`."""
        return replace(self, **{stage: merged(getattr(self, stage), entries)})

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, for a card or a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Provenance:
        """The record a file holds; a file without one gives an unknown training.

        Raises:
            DgpruneError: it is no record.
        """
        if value is None:
            return cls()
        if not isinstance(value, Mapping) or set(value) - set(STAGES):
            raise DgpruneError(f"a record has the stages {', '.join(STAGES)}; got {value!r}.")
        for stage, reads in value.items():
            if reads is not None and not (
                isinstance(reads, Mapping) and all(w in _LEAST_FIRST for w in reads.values())
            ):
                raise DgpruneError(
                    f"a record's stage {stage!r} maps parts to {', '.join(_LEAST_FIRST)}; got {reads!r}."
                )
        return cls(**value)


def merged(one: Reads, other: Reads) -> Reads:
    """What two readings have read together: of each part the more.

    Labels cover images, images cover unknown, unknown covers nothing. Where all of one reading is unknown, what the
    other is known to have read stays, and `"*"` says that there was more.

    >>> merged({"a/score": "images"}, {"a/score": "labels", "b/score": "images"})
    {'a/score': 'labels', 'b/score': 'images'}
    >>> merged({"a/score": "images"}, None)
    {'a/score': 'images', '*': 'unknown'}
    """
    held: dict[str, Seen] = {}
    for reads in (one, other):
        for part, what in _entries(reads).items():
            held[part] = _most(what, held.get(part, "none"))
    return None if set(held) == {MORE} else held


def declared(reads: Mapping[str, Any] | None, *, what: str) -> Reads:
    """What a user says that something has read; None, nothing said, stays unknown.

    Args:
        reads: {"mnist_m/score": "images"} or "labels" per part; {} for nothing at all.
        what: the object they belong to, for the error message.

    Raises:
        DgpruneError: a key that names no part of a domain, or something else than images or labels.
    """
    if reads is None:
        return None
    for part, use in reads.items() if isinstance(reads, Mapping) else [(reads, None)]:
        domain, _, split = part.rpartition("/") if isinstance(part, str) else ("", "", "")
        if not domain or not split or use not in ("images", "labels"):
            raise DgpruneError(
                f"reads of {what} must name parts and what was read of each, {{'mnist_m/score': 'images'}} or 'labels', "
                f"and {{}} for nothing; got {reads!r}."
            )
    return dict(reads)


def roles_of(domains: Iterable[Domain]) -> dict[str, str | None]:
    """Domain name -> role, in their order."""
    return {domain.name: domain.role for domain in domains}


def provenance_of(model: Any) -> Provenance:
    """What each stage of this network's life has looked at; unknown for a bare network from elsewhere."""
    return getattr(model, "dgprune_provenance", Provenance())


def set_provenance(model: Any, record: Provenance) -> None:
    """Attach the record that `provenance_of` reads."""
    model.dgprune_provenance = record


def _entries(reads: Reads) -> Mapping[str, Seen]:
    """A stage's parts without those of which nothing was read; `"*"` is only ever unknown."""
    given: Mapping[str, Seen] = {MORE: "unknown"} if reads is None else reads
    given = {part: what for part, what in given.items() if what != "none"}
    return {**given, MORE: "unknown"} if MORE in given else given


def _parts(entries: Mapping[str, Seen]) -> Iterator[tuple[str, str, Seen]]:
    """(domain, split, what) of every part that images or labels were read of; a domain's name may hold a slash."""
    for part, what in entries.items():
        domain, slash, split = part.rpartition("/")
        if slash and what in ("images", "labels"):
            yield domain, split, what


def _place(name: str, roles: Roles) -> tuple[int, str]:
    """Where a domain stands in a list: in the order of the roles, strangers last and by name."""
    return list(roles).index(name) if name in roles else len(roles), name


def _most(*what: Seen) -> Seen:
    return _LEAST_FIRST[max(map(_LEAST_FIRST.index, what))]


def _listed(names: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
