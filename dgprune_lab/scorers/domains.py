"""Scorers that compare what a filter shows in two domains: the domain similarity score and its target-free form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import Literal

import torch
from torch import Tensor

from ..core import DgpruneError, Need, choice, note, unknown
from ..measurement import Site
from .contract import scorer
from .view import GroupView

Pairing = Literal["means", "all_pairs", "paired"]
Over = Literal["mean", "min"]
Flat = Literal["predicted_class", "refuse"]
_PAPER = "Sun 2023, Pruning for Better Domain Generalizability, ICML SCIS, arXiv:2306.13237"
_NEEDS: tuple[Need, ...] = ("mean_map", "conv_map", "unit_map", "conv_unit_map", "class_map", "paired", "shifted")


def _gathers(*, site: Site = "consumer_input", pairing: Pairing = "means", **_: object) -> tuple[Need, ...]:
    """The maps of one site; where some are 1 x 1, the means per predicted class come from the same pass."""
    maps: dict[tuple[Site, Pairing], Need] = {
        ("consumer_input", "means"): "mean_map",
        ("conv_output", "means"): "conv_map",
        ("consumer_input", "all_pairs"): "unit_map",
        ("conv_output", "all_pairs"): "conv_unit_map",
    }
    found = maps.get((site, pairing))
    return ("class_map",) if found is None else (found, "class_map")


def _refuses(views: dict[str, GroupView], *, flat: Flat, site: Site = "consumer_input", **_: object) -> str | None:
    single = [name for name, view in views.items() if _is_flat(view, site)]
    if single and flat == "refuse":
        return (
            f"the maps of {', '.join(single)} are 1 x 1, and the cosine of two numbers is 1 or -1; take site='conv_output', "
            "or flat='predicted_class'."
        )
    return None


@scorer(
    "dss",
    needs=_NEEDS[:-1],
    reads={"source": "images", "target": "images"},
    instead="dss_sources",
    gathers=_gathers,
    refuses=_refuses,
    label="Least alike in both looks",
    cite=f"{_PAPER}, the domain similarity score",
)
def dss(
    view: GroupView,
    *,
    source: str | None = None,
    target: str | None = None,
    site: Site = "consumer_input",
    pairing: Pairing = "means",
    flat: Flat = "predicted_class",
) -> Tensor:
    """Cosine between a filter's mean map on a source and on a target: low = it behaves differently there.

    <M_S, M_T> / (|M_S| |M_T|), M = the mean map over images (H x W, not pooled); 0 where a map is zero. Without names
    the mean over all pairs of a source and a target. It looks at target images: target-aware. `site` "consumer_input" is the
    map that the next layer reads, "conv_output" the raw convolution output (mean over the convolutions that write the
    filter). `pairing` "means" compares mean maps; "all_pairs" means of unit maps, the mean cosine over all pairs of
    images; "paired" the i-th image with the i-th, a pass of its own. Where the map is 1 x 1 a cosine says nothing:
    the vector of mean outputs per predicted class stands in, and a note says so, or `flat="refuse"`.
    Returns (C,) in [-1, 1], in [0, 1] behind a ReLU. Source: Sun 2023 and its code, which scores the images of the
    test split that accuracy is then reported on (`split="test"` or "report"); here the part `score` is read.
    """
    choice("pairing", pairing, Pairing)
    _say_if_flat(view, site)
    pairs = list(product(named_domains(source, view.sources), named_domains(target, view.targets)))
    return _mean([_alike(view, pair, site=site, pairing=pairing, flat=flat) for pair in pairs])


@scorer(
    "dss_sources",
    needs=_NEEDS[:-2] + _NEEDS[-1:],
    reads={"source": "images"},
    gathers=_gathers,
    refuses=_refuses,
    label="Least alike in the training looks",
    cite=f"{_PAPER}; ours: between sources",
)
def dss_sources(
    view: GroupView,
    *,
    over: Over = "mean",
    shift: str | None = None,
    site: Site = "consumer_input",
    flat: Flat = "predicted_class",
) -> Tensor:
    """Cosine between a filter's mean maps on two sources, or on a source and a shifted copy of it: no target is read.

    As `dss`, over all pairs of sources: their mean, or their minimum. With one source, or where `shift` names an
    entry of `data.SHIFTS`, each source is compared with a copy of it that is changed so ("noise" unless named; it
    must not be the target's own shift, or it tells about the target).
    Returns (C,) in [-1, 1]. Source: after Sun 2023; comparing sources instead of source and target is ours.
    """
    choice("over", over, Over)
    _say_if_flat(view, site)
    if len(view.sources) < 2 or shift is not None:
        changed = shift or "noise"
        found = [_alike(view, (name, name), site=site, flat=flat, shift=changed) for name in view.sources]
    else:
        found = [_alike(view, pair, site=site, flat=flat) for pair in combinations(view.sources, 2)]
    return torch.stack(found).amin(0) if over == "min" else _mean(found)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """(C,) cosine of the rows of two (C, ...) float64 tensors; 0 where one of them is zero."""
    a, b = first.flatten(1), second.flatten(1)
    scale = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(scale > 0, (a * b).sum(1) / scale.clamp_min(torch.finfo(scale.dtype).tiny), 0).clamp(-1, 1)


def _alike(
    view: GroupView,
    pair: tuple[str, str],
    *,
    site: Site,
    flat: Flat,
    pairing: Pairing = "means",
    shift: str | None = None,
) -> Tensor:
    """(C,) likeness of one pair of domains; with a shift, of a domain and its shifted copy."""
    choice("flat", flat, Flat)
    first, second = pair
    if _is_flat(view, site):
        maps = view.class_map(first), view.class_map(second, shift=shift)
        both = (maps[0].images > 0) & (maps[1].images > 0)
        if int(both.sum()) < 2:
            raise DgpruneError(_too_few(view, pair, int(both.sum()), site=site, shift=shift))
        return cosine(maps[0].mean[both].T, maps[1].mean[both].T)
    if pairing == "paired":
        return view.paired_cosine(first, second, site=site)
    unit = pairing == "all_pairs"
    maps = view.maps(first, site=site, unit=unit), view.maps(second, site=site, unit=unit, shift=shift)
    compare: Callable[[Tensor, Tensor], Tensor] = _dot if unit else cosine
    return _mean([compare(a, b) for a, b in zip(*maps, strict=True)])


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).flatten(1).sum(1)


def _too_few(view: GroupView, pair: tuple[str, str], shared: int, *, site: Site, shift: str | None) -> str:
    """Why the predicted classes cannot stand in for a map here, and what can be done."""
    where = f"{pair[0]!r} and its copy with {shift}" if pair[0] == pair[1] else f"{pair[0]!r} and {pair[1]!r}"
    way = "" if site == "conv_output" or _is_flat(view, "conv_output") else "site='conv_output', "
    return (
        f"the maps of layer {view.name!r} are 1 x 1, so its mean outputs per predicted class are compared, and the "
        f"network predicts {shared or 'no'} class{'' if shared else 'es'} in both {where}, fewer than two classes; "
        f"take {way}a scorer that compares no maps, or a network that tells these images apart."
    )


def _say_if_flat(view: GroupView, site: Site) -> None:
    choice("site", site, Site)
    if _is_flat(view, site):
        note(f"layer {view.name!r}: its maps are 1 x 1, so its mean outputs per predicted class are compared.")


def _is_flat(view: GroupView, site: Site) -> bool:
    places = view.places
    return (places[0] if site == "consumer_input" or len(places) == 1 else min(places[1:])) == 1


def named_domains(name: str | None, known: Sequence[str]) -> Sequence[str]:
    """All of them, or the one that is named."""
    if name is not None and name not in known:
        raise unknown("domain", name, known)
    return known if name is None else (name,)


def _mean(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).mean(0)
