"""Scorers that compare a filter's mean maps on two domains: the domain similarity score and its target-free form."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Literal, get_args

import torch
from torch import Tensor

from ..core import DgpruneError, Need, note, unknown
from ..measurement import Site
from .contract import scorer
from .inputs import MAP_NEEDS
from .view import GroupView

Pairing = Literal["means", "all_pairs", "paired"]
Over = Literal["mean", "min"]
Flat = Literal["predicted_class", "refuse"]
_NEEDS: tuple[Need, ...] = (*MAP_NEEDS.values(), "class_map", "paired", "shifted")


def _gathers(*, site: Site = "activation", pairing: Pairing = "means", **_: object) -> tuple[Need, ...]:
    """Return the needs for the maps at a site and for means per predicted class, which replace 1 x 1 maps."""
    need = MAP_NEEDS.get((site, pairing == "all_pairs"))
    return ("class_map",) if need is None or pairing == "paired" else (need, "class_map")


def _refuses(views: dict[str, GroupView], *, flat: Flat, site: Site = "activation", **_: object) -> str | None:
    single = [name for name, view in views.items() if _is_flat(view, site)]
    if not single or flat != "refuse":
        return None
    wider = _wider_site([views[name] for name in single])
    return (
        f"the maps of {', '.join(single)} are 1 x 1, and the cosine of two numbers is 1 or -1; take "
        f"{f'site={wider!r}, or ' if wider else ''}flat='predicted_class'."
    )


@scorer(
    "dss",
    needs=_NEEDS[:-1],
    reads={"source": "images", "target": "images"},
    instead="dss_sources",
    gathers=_gathers,
    refuses=_refuses,
    label="DSS (source vs target)",
)
def dss(
    view: GroupView,
    *,
    source: str | None = None,
    target: str | None = None,
    site: Site = "activation",
    pairing: Pairing = "means",
    flat: Flat = "predicted_class",
) -> Tensor:
    """Cosine between a filter's mean maps on a source and on a target; dissimilar filters are removed first.

    <M_S, M_T> / (|M_S| |M_T|), M = the mean map over images (H x W, not pooled); 0 where a map is zero. Without names,
    the mean over all pairs of a source and a target. It reads target images, so it is target-aware. `site` "activation"
    is the map right after the ReLU or other activation (of a residual stream, after the sum), before any pooling;
    "consumer_input" the map that the next layer gets, after pooling; "conv_output" the raw convolution output (mean
    over the convolutions that produce the filter). If the activation cannot be found, the consumer input is compared,
    with a note. `pairing` "means" compares mean maps; "all_pairs" compares means of unit maps, which is the mean cosine
    over all pairs of images; "paired" compares the i-th images of both domains, in a separate pass. Where maps are
    1 x 1, a cosine is meaningless: the vector of mean outputs per predicted class replaces the map, with a note, or
    `flat="refuse"` raises an error.
    Returns (C,) in [-1, 1], in [0, 1] after a ReLU. Source: Sun 2023, Pruning for Better Domain Generalizability,
    ICML SCIS, arXiv:2306.13237, the domain similarity score, and its code, which on digits compares the maps after the
    ReLU and on ResNet-50 the raw convolution outputs, and scores on the images of the test split on which accuracy is
    then reported (`split="test"` or "report"); here the split `score` is read.
    """
    _note_site(view, site)
    pairs = list(product(named_domains(source, view.sources), named_domains(target, view.targets)))
    return _mean([_similarity(view, pair, site=site, pairing=pairing, flat=flat) for pair in pairs])


@scorer(
    "dss_sources",
    needs=_NEEDS[:-2] + _NEEDS[-1:],
    reads={"source": "images"},
    gathers=_gathers,
    refuses=_refuses,
    label="DSS (between sources)",
)
def dss_sources(
    view: GroupView,
    *,
    over: Over = "mean",
    shift: str | None = None,
    site: Site = "activation",
    flat: Flat = "predicted_class",
) -> Tensor:
    """Cosine between a filter's mean maps on two sources (or a shifted copy); dissimilar filters are removed first.

    As `dss`, but the mean or minimum over all pairs of sources; no target is read. With one source, or if `shift` names
    an entry of `data.SHIFTS`, each source is compared with a shifted copy of itself (by default "noise"; it must not be
    the target's own shift, which would leak information about the target).
    Returns (C,) in [-1, 1]. Source: after Sun 2023, Pruning for Better Domain Generalizability, ICML SCIS,
    arXiv:2306.13237; comparing sources instead of source and target is ours.
    """
    _note_site(view, site)
    if len(view.sources) < 2 or shift is not None:
        shift, pairs = shift or "noise", [(name, name) for name in view.sources]
    else:
        pairs = list(combinations(view.sources, 2))
    similarities = [_similarity(view, pair, site=site, flat=flat, shift=shift) for pair in pairs]
    return torch.stack(similarities).amin(0) if over == "min" else _mean(similarities)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine (C,) between the rows of two (C, ...) float64 tensors; 0 where one row is zero."""
    a, b = first.flatten(1), second.flatten(1)
    scale = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(scale > 0, (a * b).sum(1) / scale.clamp_min(torch.finfo(scale.dtype).tiny), 0).clamp(-1, 1)


def _similarity(
    view: GroupView,
    pair: tuple[str, str],
    *,
    site: Site,
    flat: Flat,
    pairing: Pairing = "means",
    shift: str | None = None,
) -> Tensor:
    """Return the (C,) similarity of filters' maps on two domains or, with a shift, on a domain and its shifted copy."""
    first, second = pair
    if _is_flat(view, site):
        a, b = view.class_map(first), view.class_map(second, shift=shift)
        shared = (a.images > 0) & (b.images > 0)
        if int(shared.sum()) < 2:
            raise DgpruneError(_too_few_classes(view, pair, shared=int(shared.sum()), site=site, shift=shift))
        return cosine(a.mean[shared].T, b.mean[shared].T)
    if pairing == "paired":
        return view.paired_cosine(first, second, site=site)
    unit = pairing == "all_pairs"
    maps = view.maps(first, site=site, unit=unit), view.maps(second, site=site, unit=unit, shift=shift)
    return _mean([(a * b).flatten(1).sum(1) if unit else cosine(a, b) for a, b in zip(*maps, strict=True)])


def _too_few_classes(view: GroupView, pair: tuple[str, str], *, shared: int, site: Site, shift: str | None) -> str:
    """Return the message that says why means per predicted class cannot replace a map, and what to do."""
    domains = f"{pair[0]!r} and its copy with {shift}" if pair[0] == pair[1] else f"{pair[0]!r} and {pair[1]!r}"
    wider = _wider_site([view])
    other_site = f"site={wider!r}, " if wider else ""
    return (
        f"the maps of layer {view.name!r} are 1 x 1, so its mean outputs per predicted class are compared, and the "
        f"network predicts {shared or 'no'} class{'' if shared else 'es'} in both {domains}, fewer than two; take "
        f"{other_site}a scorer that compares no maps, or a network that predicts several classes on these images."
    )


def _note_site(view: GroupView, site: Site) -> None:
    """Issue a note if other values replace the maps at this site."""
    if site == "activation" and not view.activation_found:
        note(
            f"layer {view.name!r}: its activation could not be found among the network's operations, so the map that "
            f"{view.consumers[-1]!r} reads is compared (site='consumer_input')."
        )
    if _is_flat(view, site):
        note(f"layer {view.name!r}: its maps are 1 x 1, so its mean outputs per predicted class are compared.")


def _wider_site(views: Sequence[GroupView]) -> Site | None:
    """Return a site at which the maps of all these groups are larger than 1 x 1, or None."""
    return next((site for site in get_args(Site) if min(view.places(site) for view in views) > 1), None)


def _is_flat(view: GroupView, site: Site) -> bool:
    return view.places(site) == 1


def named_domains(name: str | None, known: Sequence[str]) -> Sequence[str]:
    """Return the domain with this name, or all known ones if the name is None."""
    if name is not None and name not in known:
        raise unknown("domain", name, known)
    return known if name is None else (name,)


def _mean(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).mean(0)
