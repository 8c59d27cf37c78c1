"""The domains in a panel: their styles and pictures, the predictions on them, and the pairs that can be compared."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from ...charts import DomainStyle, domain_styles
from ...charts.pixels.thumbnails import data_url
from ...core import DgpruneError, Domain, Mask, yielding
from ...diagnostics._attributions import pair_of
from ...diagnostics._removal import Case, Removal, case_steps
from ...diagnostics.sensitivity import IMAGES
from ...study import Study
from .protocol import Frames, View

SPLIT = "score"

Pair = tuple[str, str]


def pairs(study: Study) -> list[Pair]:
    """Return the pairs of domains that can be compared, the default pair first."""
    comparable = [domain for domain in labelled(study) if len(domain.splits.get(SPLIT, ()))]
    names = [(a.name, b.name) for a, b in combinations(comparable, 2) if _class_indices(a) & _class_indices(b)]
    try:
        first, second = pair_of(study, None)
    except DgpruneError:
        return names
    return sorted(names, key=lambda pair: pair != (first.name, second.name))


def why_no_pairs(study: Study) -> str | None:
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
    return f"domains {names} have no class in common, and images are compared only within a class."


def labelled(study: Study) -> list[Domain]:
    """Return the domains that have labels."""
    return [domain for domain in study.domains if domain.labels is not None]


def why_no_accuracy(study: Study) -> str | None:
    """Return why the accuracy cannot be measured on any domain; None if it can."""
    return None if labelled(study) else "no domain has labels, so the accuracy cannot be measured."


def styles_of(study: Study) -> dict[str, DomainStyle]:
    """Return the style of each domain."""
    return domain_styles((domain.name, str(domain.role)) for domain in study.domains)


def class_of(domain: Domain, index: int | None) -> int | str | None:
    """Return the name of a class if the domain has class names, otherwise the index."""
    return domain.class_label(index) if domain.class_names and index is not None else index


def why_no_pictures(domain: Domain) -> str | None:
    """Return why a domain's images cannot be shown as pictures; None if they can."""
    channels = domain.shape[0]
    if channels in (1, 3, 4):
        return None
    return f"images of {channels} channels cannot be shown as pictures; 1, 3 or 4 can."


def thumbnails(domain: Domain, rows: Tensor) -> list[str]:
    """Return these images of a domain as data URLs."""
    pixels = (domain.take(rows, device="cpu").images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [data_url(np.ascontiguousarray(image)) for image in pixels]


def removal_of(view: View) -> Removal:
    """Return the removal settings of a view: BatchNorm, images and calibration."""
    return Removal(batchnorm=view.batchnorm, images=view.images, calibration=view.calibration)


def case_frames(view: View, mask: Mask, domains: Iterable[Domain]) -> Generator[Frames, None, list[Case]]:
    """Return the predictions before and after removal on these domains; yield empty frames between batches."""
    cases: list[Case] = []
    for domain in domains:
        steps = case_steps(view.study, mask, domain=domain, removal=removal_of(view))
        cases.append((yield from yielding(steps, {})))
    return cases


def _class_indices(domain: Domain) -> set[int]:
    assert domain.labels is not None
    return set(torch.unique(domain.labels[domain.rows(SPLIT, IMAGES).to(domain.labels.device)]).tolist())
