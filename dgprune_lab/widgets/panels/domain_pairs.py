"""The pairs of domains of a study that a panel can compare, class by class."""

from __future__ import annotations

from itertools import combinations

import torch

from ...core import DgpruneError, Domain
from ...diagnostics._attributions import pair_of
from ...diagnostics.sensitivity import IMAGES
from ...study import Study

SPLIT = "score"

Pair = tuple[str, str]


def pairs(study: Study) -> list[Pair]:
    """Return the pairs of domains that can be compared, the default pair first."""
    able = [domain for domain in labelled(study) if len(domain.splits.get(SPLIT, ()))]
    names = [(a.name, b.name) for a, b in combinations(able, 2) if _classes(a) & _classes(b)]
    try:
        first, second = pair_of(study, None)
    except DgpruneError:
        return names
    return sorted(names, key=lambda pair: pair != (first.name, second.name))


def why_none(study: Study) -> str | None:
    """Return why no two domains can be compared; None if some can."""
    if pairs(study):
        return None
    try:
        first, second = pair_of(study, None)
        for domain in (first, second):
            domain.rows(SPLIT)
    except DgpruneError as error:
        return str(error)
    names = f"{first.name!r} and {second.name!r}"
    return f"domains {names} have no class in common, and only images of one class are compared."


def labelled(study: Study) -> list[Domain]:
    """Return the domains that have labels."""
    return [domain for domain in study.domains if domain.labels is not None]


def _classes(domain: Domain) -> set[int]:
    assert domain.labels is not None
    return set(torch.unique(domain.labels[domain.rows(SPLIT, IMAGES).to(domain.labels.device)]).tolist())
