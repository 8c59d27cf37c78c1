"""Scorers made of other scorers: turned around, or two together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from ..core import DgpruneError, Need, choice
from .contract import Scorer
from .view import GroupView

By = Literal["depth", "rank"]
Views = dict[str, GroupView]


def expression(scorer: Scorer) -> str:
    """What to write for a scorer inside another expression."""
    return scorer.code or repr(scorer.name)


def reversed_scorer(scorer: Scorer) -> Scorer:
    """`reverse` of a Scorer."""

    def turned(view: Any, **options: Any) -> Any:
        given = scorer(view, **options)
        return {name: -value for name, value in given.items()} if isinstance(given, Mapping) else -given

    words = scorer.function.__doc__ or ""
    return replace(
        scorer,
        name=f"reverse({scorer.name})",
        label=f"Reversed: {scorer.label}",
        control=True,
        instead=None,
        given={},
        plain=None,
        code=f"dg.reverse({expression(scorer)})",
        function=_like(scorer.function, turned, f"The reverse of this: {words}"),
    )


def hybrid_scorer(a: Scorer, b: Scorer, *, by: By, start: int | None) -> Scorer:
    """`hybrid` of two Scorers."""
    choice("by", by, By)
    if start is not None and (start < 0 or by == "rank"):
        raise DgpruneError(f"start is the number of a layer, 0 or more, and belongs to by='depth'; got {start}.")
    where = "" if start is None else f" from {start}"
    draws = a.draws or b.draws

    def both(views: Views, *, seed: int = 0) -> dict[str, Tensor]:
        early, late = (_ranks(_given(one, views, seed)) for one in (a, b))
        if by == "rank":
            return {name: (early[name] + late[name]) / 2 for name in views}
        first = len(views) // 2 if start is None else start
        return {name: (early if view.depth < first else late)[name] for name, view in views.items()}

    def gathers(**_: Any) -> tuple[Need, ...]:
        return tuple(sorted(a.gathered(_defaults(a)) | b.gathered(_defaults(b))))

    def refuses(views: Views, **_: Any) -> str | None:
        for one in (a, b):
            if one.refuses is not None and (why := one.refuses(_seen_by(one, views), **_defaults(one))) is not None:
                return f"{one.name}: {why}"
        return None

    def steady(views: Views) -> dict[str, Tensor]:
        return both(views)

    function: Callable[..., dict[str, Tensor]] = both if draws else steady
    how = "the first in early layers, the second in later ones" if by == "depth" else "the mean of their ranks"
    function.__doc__ = f"{a.name} and {b.name} together: {how}.\n\nRanks over the whole network, scaled to [0, 1]."
    labelled = {role for one in (a, b) for role, what in one.reads.items() if what == "labels"}
    reads: dict[str, Literal["images", "labels"]] = {
        role: "labels" if role in labelled else "images" for role in {**a.reads, **b.reads}
    }
    return Scorer(
        f"hybrid({a.name}, {b.name}, by {by}{where})",
        function,
        tuple(sorted({*a.needs, *b.needs})),
        reads,
        "network",
        None,
        "; ".join(dict.fromkeys(one.cite for one in (a, b) if one.cite)),
        f"{a.label} + {b.label}",
        draws,
        gathers,
        refuses,
        code=f"dg.hybrid({expression(a)}, {expression(b)}, by={by!r}{'' if start is None else f', start={start}'})",
    )


def _defaults(scorer: Scorer) -> dict[str, Any]:
    return scorer.settled({})


def _given(scorer: Scorer, views: Views, seed: int) -> Mapping[str, Tensor]:
    options = _defaults(scorer) | ({"seed": seed} if scorer.draws else {})
    views = _seen_by(scorer, views)
    if scorer.level == "network":
        return scorer(views, **options)
    return {name: scorer(view, **options) for name, view in views.items()}


def _seen_by(scorer: Scorer, views: Views) -> Views:
    """Each part of a hybrid sees only what it declares itself, as it would alone."""
    return {name: view.seen_by(scorer) for name, view in views.items()}


def _ranks(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ranks over the whole network in [0, 1], ties sharing their mean rank."""
    flat = torch.cat([value.detach().cpu().double() for value in values.values()])
    ranks = torch.from_numpy(np.asarray(rankdata(flat.numpy()), dtype=np.float64) - 1) / max(len(flat) - 1, 1)
    return dict(zip(values, ranks.split([len(value) for value in values.values()]), strict=True))


def _like(function: Callable[..., Any], made: Callable[..., Any], words: str) -> Callable[..., Any]:
    """`made` with the parameters of `function`, so that its options are the same."""
    made.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    made.__doc__ = words
    return made
