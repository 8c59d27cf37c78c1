"""The menu of built-in scorers; functions to look up, reverse, combine and run scorers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..core import DgpruneError, Need, Scores, Seen, public, reproducible
from .activations import activation_l1, apoz
from .contract import Menu, Scorer, What
from .domains import dss, dss_sources
from .gc_net import gc_net
from .gradients import taylor, taylor_weight
from .inputs import Inputs
from .risks import gradient_agreement, gradient_snr, risk_variance
from .sensitivity import sensitivity, sensitivity_sources
from .view import GroupView
from .weights import bn_scale, expected_activation, fpgm, l1, l2, lamp, random

By = Literal["depth", "rank"]
Views = dict[str, GroupView]


def resolve(scorer: str | Scorer) -> Scorer:
    """Return the scorer of this name; a Scorer is returned as it is.

    Raises:
        DgpruneError: a name not in the menu (the message suggests the nearest one), or an undecorated function.
    """
    if isinstance(scorer, Scorer):
        return scorer
    if isinstance(scorer, str):
        return SCORERS[scorer]
    raise DgpruneError(f"a scorer is a name or a function decorated with @dg.scorer(...); got {type(scorer).__name__}.")


@public
def reverse(scorer: str | Scorer) -> Scorer:
    """Return a control: a scorer with the opposite sign, so that what the given scorer keeps is removed first.

    The reversed scorer reads the same data, takes the same options, and is target-aware if the given one is.

    >>> import dgprune_lab as dg
    >>> dg.reverse("dss").name
    'reverse(dss)'
    """
    scorer = resolve(scorer)

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
        instead=None if scorer.instead is None else reverse(scorer.instead),
        preset={},
        base=None,
        code=f"dg.reverse({_expression(scorer)})",
        function=negated,
    )


@public
def hybrid(a: str | Scorer, b: str | Scorer, *, by: By, start: int | None = None) -> Scorer:
    """Combine two scorers: `a` in the early layers and `b` in the later ones, or the mean of their ranks.

    "depth": filters of layers before number `start` (from 0, in the order of execution; half of the layers if None)
    are scored by `a`, the others by `b`. "rank": the score is the mean of both ranks. In both cases scores are replaced
    by ranks over the whole network, scaled to [0, 1], so that the two are comparable; within a layer, "depth" keeps the
    order of the scorer that is used. Each scorer runs with its own defaults (set others with `scorer.using(...)`);
    both get the same seed. The result reads the data that either reads, and is target-aware if either is.

    Source: Wisell, Yasaei Sekeh 2024 (arXiv:2411.09199) prune early layers by magnitude and later ones by connectivity;
    any two scorers, and ranks over the network, are ours.

    Raises:
        DgpruneError: `by` is neither "depth" nor "rank"; a negative `start`, or a `start` given for "rank".

    >>> import dgprune_lab as dg
    >>> dg.hybrid("l1", "taylor", by="depth").name
    'hybrid(l1, taylor, by depth)'
    """
    a, b = resolve(a), resolve(b)
    if start is not None and (start < 0 or by == "rank"):
        raise DgpruneError(f"start is the number of a layer, 0 or more, and belongs to by='depth'; got {start}.")
    labels = {role for part in (a, b) for role, what in part.reads.items() if what == "labels"}
    reads: dict[str, What] = {role: "labels" if role in labels else "images" for role in {**a.reads, **b.reads}}
    code = f"by={by!r}{'' if start is None else f', start={start}'}"

    def gathers(**_: Any) -> tuple[Need, ...]:
        return tuple(sorted(a.gathered(a.settled({})) | b.gathered(b.settled({}))))

    def refuses(views: Views, **_: Any) -> str | None:
        for part in (a, b):
            reason = None if part.refuses is None else part.refuses(_restrict_views(part, views), **part.settled({}))
            if reason is not None:
                return f"{part.name}: {reason}"
        return None

    has_instead = a.instead is not None or b.instead is not None
    return Scorer(
        name=f"hybrid({a.name}, {b.name}, by {by}{'' if start is None else f' from {start}'})",
        function=_hybrid(a, b, by=by, start=start),
        needs=tuple(sorted({*a.needs, *b.needs})),
        reads=reads,
        level="network",
        instead=hybrid(a.instead or a, b.instead or b, by=by, start=start) if has_instead else None,
        cite="; ".join(dict.fromkeys(part.cite for part in (a, b) if part.cite)),
        label=f"{a.label} + {b.label}",
        draws=a.draws or b.draws,
        gathers=gathers,
        refuses=refuses,
        code=f"dg.hybrid({_expression(a)}, {_expression(b)}, {code})",
    )


def _hybrid(a: Scorer, b: Scorer, *, by: By, start: int | None) -> Callable[..., dict[str, Tensor]]:
    def combine(views: Views, *, seed: int = 0) -> dict[str, Tensor]:
        early, late = (_ranks(_scores(part, views, seed=seed)) for part in (a, b))
        if by == "rank":
            return {name: (early[name] + late[name]) / 2 for name in views}
        first = len(views) // 2 if start is None else start
        return {name: (early if view.depth < first else late)[name] for name, view in views.items()}

    def without_seed(views: Views) -> dict[str, Tensor]:
        return combine(views)

    function: Callable[..., dict[str, Tensor]] = combine if a.draws or b.draws else without_seed
    rule = "the first in early layers, the second in later ones" if by == "depth" else "the mean of their ranks"
    function.__doc__ = f"{a.name} and {b.name} combined: {rule}.\n\nRanks over the whole network, scaled to [0, 1]."
    return function


def _expression(scorer: Scorer) -> str:
    """Return a scorer as part of a Python expression."""
    return scorer.code or repr(scorer.name)


def _scores(scorer: Scorer, views: Views, *, seed: int) -> Mapping[str, Tensor]:
    options = scorer.settled({}) | ({"seed": seed} if scorer.draws else {})
    views = _restrict_views(scorer, views)
    if scorer.level == "network":
        return scorer(views, **options)
    return {name: scorer(view, **options) for name, view in views.items()}


def _restrict_views(scorer: Scorer, views: Views) -> Views:
    """Return views through which a part of a hybrid can read only the data that it declares itself."""
    return {name: view.seen_by(scorer) for name, view in views.items()}


def _ranks(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the ranks of the scores over the whole network, scaled to [0, 1]; ties share their mean rank."""
    from scipy.stats import rankdata

    flat = torch.cat([value.detach().cpu().double() for value in values.values()])
    ranks = torch.from_numpy(np.asarray(rankdata(flat.numpy()), dtype=np.float64) - 1) / max(len(flat) - 1, 1)
    return dict(zip(values, ranks.split([len(value) for value in values.values()]), strict=True))


_WEIGHTS = (l1, l2, bn_scale, expected_activation, fpgm, lamp)
_ON_SOURCES = (activation_l1, apoz, taylor, taylor_weight)
_BETWEEN_SOURCES = (dss_sources, risk_variance, gradient_agreement, gradient_snr, gc_net, sensitivity_sources)
_TARGET_AWARE = (dss, sensitivity)
_CONTROLS = (random, reverse(l1))
_BUILT_IN = (*_WEIGHTS, *_ON_SOURCES, *_BETWEEN_SOURCES, *_TARGET_AWARE, *_CONTROLS)
SCORERS: Menu[Scorer] = Menu("scorer", {scorer.name: scorer for scorer in _BUILT_IN})


def refusal(scorer: Scorer, inputs: Inputs, *, options: Mapping[str, Any]) -> str | None:
    """Return a sentence on why a scorer cannot run on these inputs, or None if it can; no pass is run."""
    if scorer.refuses is None:
        return None
    try:
        return scorer.refuses(_views(scorer, inputs), **options)
    except DgpruneError as error:
        return str(error)


def run(scorer: Scorer, inputs: Inputs, *, options: Mapping[str, Any]) -> Scores:
    """Run a scorer; return its scores for every group and, with them, a record of the data that it read.

    Raises:
        DgpruneError: scores of a wrong shape or not finite, or a read that the scorer does not declare.
    """
    views = _views(scorer, inputs)
    with reproducible("scorer", scorer.name, str(options.get("seed"))):  # a user's scorer may draw globally
        if scorer.level == "network":
            scores = _call(scorer, views, options, where="")
        else:
            scores = {name: _call(scorer, view, options, where=f" at layer {name!r}") for name, view in views.items()}
    if not isinstance(scores, Mapping) or set(scores) != set(views):
        raise DgpruneError(f"scorer {scorer.name!r} must return a dict with one entry per layer: {', '.join(views)}.")
    values = {name: _as_scores(scores[name], scorer.name, name) for name in views}
    reads: dict[str, Seen] = {f"{domain}/{inputs.split}": what for domain, what in inputs.touched.items()}
    return Scores(scorer=scorer.name, values=values, graph=inputs.graph, options=dict(options), reads=reads)


def _views(scorer: Scorer, inputs: Inputs) -> dict[str, GroupView]:
    return {group.name: GroupView(scorer, group, inputs=inputs) for group in inputs.graph.groups}


def _call(scorer: Scorer, view: Any, options: Mapping[str, Any], *, where: str) -> Any:
    """Return the result of the scorer's function; turn an exception in it into an error that names the scorer."""
    try:
        return scorer(view, **options)
    except (DgpruneError, MemoryError):
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".rstrip(": ")
        hint = " view.sources and view.targets hold only what reads={...} declares." * isinstance(error, IndexError)
        raise DgpruneError(f"the function of scorer {scorer.name!r} stopped{where} ({cause}); fix it.{hint}") from error


def _as_scores(value: Any, scorer: str, group: str) -> Tensor:
    """Return a scorer's result for a group as a float64 tensor on the CPU; `Scores` checks its shape and values."""
    if isinstance(value, np.ndarray | list | tuple):
        with suppress(TypeError, ValueError, RuntimeError):
            value = torch.as_tensor(value)
    if not isinstance(value, Tensor):
        raise DgpruneError(
            f"scorer {scorer!r} must return a tensor (C,), one number per filter; for layer {group!r} it gave "
            f"{type(value).__name__}."
        )
    return value if value.is_meta or value.is_complex() else value.detach().to("cpu").double()
