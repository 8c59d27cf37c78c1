"""Scorers made of other scorers: reversed, or two combined."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..core import DgpruneError, Need
from .contract import Scorer, What
from .view import GroupView

By = Literal["depth", "rank"]
Views = dict[str, GroupView]


def reversed_scorer(scorer: Scorer) -> Scorer:
    """Return the reversed Scorer; see `reverse`."""

    def negated(view: Any, **options: Any) -> Any:
        scores = scorer(view, **options)
        return {name: -value for name, value in scores.items()} if isinstance(scores, Mapping) else -scores

    negated.__signature__ = inspect.signature(scorer.function)  # type: ignore[attr-defined]
    negated.__doc__ = f"Reversed: removes first what the following keeps. {scorer.function.__doc__ or ''}"
    return replace(
        scorer,
        name=f"reverse({scorer.name})",
        label=f"{scorer.label}, reversed",
        control=True,
        instead=None,
        preset={},
        base=None,
        code=f"dg.reverse({_expression(scorer)})",
        function=negated,
    )


def hybrid_scorer(a: Scorer, b: Scorer, *, by: By, start: int | None) -> Scorer:
    """Return the combination of two Scorers; see `hybrid`."""
    if start is not None and (start < 0 or by == "rank"):
        raise DgpruneError(f"start is the number of a layer, 0 or more, and belongs to by='depth'; got {start}.")
    labels = {role for part in (a, b) for role, what in part.reads.items() if what == "labels"}
    reads: dict[str, What] = {role: "labels" if role in labels else "images" for role in {**a.reads, **b.reads}}
    code = f"by={by!r}{'' if start is None else f', start={start}'}"

    def gathers(**_: Any) -> tuple[Need, ...]:
        return tuple(sorted(a.gathered(a.settled({})) | b.gathered(b.settled({}))))

    def refuses(views: Views, **_: Any) -> str | None:
        for part in (a, b):
            why = None if part.refuses is None else part.refuses(_seen_by(part, views), **part.settled({}))
            if why is not None:
                return f"{part.name}: {why}"
        return None

    return Scorer(
        name=f"hybrid({a.name}, {b.name}, by {by}{'' if start is None else f' from {start}'})",
        function=_hybrid(a, b, by=by, start=start),
        needs=tuple(sorted({*a.needs, *b.needs})),
        reads=reads,
        level="network",
        cite="; ".join(dict.fromkeys(part.cite for part in (a, b) if part.cite)),
        label=f"{a.label} + {b.label}",
        draws=a.draws or b.draws,
        gathers=gathers,
        refuses=refuses,
        code=f"dg.hybrid({_expression(a)}, {_expression(b)}, {code})",
    )


def _hybrid(a: Scorer, b: Scorer, *, by: By, start: int | None) -> Callable[..., dict[str, Tensor]]:
    def both(views: Views, *, seed: int = 0) -> dict[str, Tensor]:
        early, late = (_ranks(_scores(part, views, seed=seed)) for part in (a, b))
        if by == "rank":
            return {name: (early[name] + late[name]) / 2 for name in views}
        first = len(views) // 2 if start is None else start
        return {name: (early if view.depth < first else late)[name] for name, view in views.items()}

    def without_seed(views: Views) -> dict[str, Tensor]:
        return both(views)

    function: Callable[..., dict[str, Tensor]] = both if a.draws or b.draws else without_seed
    how = "the first in early layers, the second in later ones" if by == "depth" else "the mean of their ranks"
    function.__doc__ = f"{a.name} and {b.name} combined: {how}.\n\nRanks over the whole network, scaled to [0, 1]."
    return function


def _expression(scorer: Scorer) -> str:
    """The Python expression of a scorer inside another expression."""
    return scorer.code or repr(scorer.name)


def _scores(scorer: Scorer, views: Views, *, seed: int) -> Mapping[str, Tensor]:
    options = scorer.settled({}) | ({"seed": seed} if scorer.draws else {})
    views = _seen_by(scorer, views)
    if scorer.level == "network":
        return scorer(views, **options)
    return {name: scorer(view, **options) for name, view in views.items()}


def _seen_by(scorer: Scorer, views: Views) -> Views:
    """Return views through which one part of a hybrid can read only what it declares itself."""
    return {name: view.seen_by(scorer) for name, view in views.items()}


def _ranks(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ranks of the scores over the whole network, scaled to [0, 1]; ties share their mean rank."""
    from scipy.stats import rankdata

    flat = torch.cat([value.detach().cpu().double() for value in values.values()])
    ranks = torch.from_numpy(np.asarray(rankdata(flat.numpy()), dtype=np.float64) - 1) / max(len(flat) - 1, 1)
    return dict(zip(values, ranks.split([len(value) for value in values.values()]), strict=True))
