"""What a network from elsewhere was trained on, as its user declares it."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from torch import nn

from ..core import MORE, Domain, Provenance, Seen, note, provenance_of, set_provenance, unknown

TrainedOn = Sequence[str] | Mapping[str, Sequence[str] | Mapping[str, Literal["images", "labels"]]]
"""Names of domains, or domain -> splits, or domain -> split -> "images" or "labels"."""


def with_training(model: nn.Module, trained_on: TrainedOn, domains: Sequence[Domain]) -> nn.Module:
    """Return a shallow copy of the network whose provenance holds the declared training.

    The declaration adds to what the network already records of its training.

    Raises:
        DgpruneError: a split that a domain of the study does not have.
    """
    reads = declared_reads(trained_on, domains)
    twin = copy.copy(model)
    set_provenance(twin, provenance_of(model).declaring(reads))
    _note_surprises(provenance_of(twin), {key.rpartition("/")[0] for key in reads}, domains)
    return twin


def declared_reads(trained_on: TrainedOn, domains: Sequence[Domain]) -> dict[str, Seen]:
    """Return the declaration as "domain/split" -> what was read from it; the split "*" stands for every split.

    >>> declared_reads(["photo"], [])
    {'photo/*': 'labels'}
    >>> declared_reads({"photo": ["train"], "sketch": {"train": "images"}}, [])
    {'photo/train': 'labels', 'sketch/train': 'images'}
    """
    named = {domain.name: domain for domain in domains}
    declared = trained_on if isinstance(trained_on, Mapping) else dict.fromkeys(trained_on, (MORE,))
    reads: dict[str, Seen] = {}
    for name, splits in declared.items():
        for split in splits:
            if name in named and split not in (MORE, *named[name].splits):
                raise unknown(f"split of {name!r} in trained_on", split, named[name].splits)
            reads[f"{name}/{split}"] = cast(Seen, splits[split]) if isinstance(splits, Mapping) else "labels"
    return reads


def _note_surprises(provenance: Provenance, declared: set[str], domains: Sequence[Domain]) -> None:
    """Emit notes on targets that were trained on, and on declared names that may be misspelt."""
    for domain in domains:
        if domain.role == "target" and provenance.seen_anywhere("training", domain.name) in ("images", "labels"):
            note(
                f"trained_on: training has read the target {domain.name!r}, so results on it do not measure "
                "generalisation; the column seen_by_training names what was read."
            )
    missing = {domain.name.casefold(): domain.name for domain in domains if domain.name not in declared}
    for name in sorted(declared - {domain.name for domain in domains}):
        for near in difflib.get_close_matches(name.casefold(), missing, n=1, cutoff=0.75):
            what = f"trained_on: {name!r} is not a domain of this study and counts as data from elsewhere"
            note(f"{what}; {missing[near]!r} is one.")
