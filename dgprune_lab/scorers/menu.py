"""The menu of scorers: every scorer that ships, written out once, and how one is found and run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..core import DgpruneError, Scores, Seen
from .activations import activation_l1, apoz
from .combined import By, hybrid_scorer, reversed_scorer
from .contract import Menu, Scorer, read_scores
from .domains import dss, dss_sources
from .gc_net import gc_net
from .gradients import taylor, taylor_weight
from .risks import gradient_agreement, gradient_snr, risk_variance
from .sensitivity import sensitivity, sensitivity_sources
from .view import GroupView, ScorerInputs
from .weights import bn_scale, expected_activation, fpgm, l1, l2, lamp, random

SCORERS: Menu[Scorer] = Menu(
    "scorer",
    {
        "l1": l1,
        "l2": l2,
        "bn_scale": bn_scale,
        "expected_activation": expected_activation,
        "fpgm": fpgm,
        "lamp": lamp,
        "activation_l1": activation_l1,
        "apoz": apoz,
        "taylor": taylor,
        "taylor_weight": taylor_weight,
        "dss_sources": dss_sources,
        "risk_variance": risk_variance,
        "gradient_agreement": gradient_agreement,
        "gradient_snr": gradient_snr,
        "gc_net": gc_net,
        "sensitivity_sources": sensitivity_sources,
        "dss": dss,
        "sensitivity": sensitivity,
        "random": random,
        "reverse(l1)": reversed_scorer(l1),
    },
)


def resolve(scorer: str | Scorer) -> Scorer:
    """A scorer by name, or the Scorer itself.

    Raises:
        DgpruneError: a name that is not on the menu (with the nearest that is), or a function without the decorator.
    """
    if isinstance(scorer, Scorer):
        return scorer
    if isinstance(scorer, str):
        return SCORERS[scorer]
    raise DgpruneError(f"a scorer is a name or a function decorated with @dg.scorer(...); got {type(scorer).__name__}.")


def reverse(scorer: str | Scorer) -> Scorer:
    """The same scorer with its sign turned: what it would keep goes first. The control of its direction.

    It reads what the scorer reads, takes its options, and is as target-aware.

    >>> import dgprune_lab as dg
    >>> dg.reverse("dss").name
    'reverse(dss)'
    """
    found = resolve(scorer)
    made = reversed_scorer(found)
    return made if found.instead is None else replace(made, instead=reverse(found.instead))


def hybrid(a: str | Scorer, b: str | Scorer, *, by: By, start: int | None = None) -> Scorer:
    """Two scorers as one: `a` in the early layers and `b` in the later ones, or the mean of their ranks.

    "depth": filters of layers before number `start` (from 0, in the order of execution; half of the layers where not
    given) are scored by `a`, the others by `b`. "rank": the mean of both ranks. In both, scores are replaced by ranks
    scaled to [0, 1] over the whole network, so that two scorers can be compared; within a layer "depth" keeps the order
    of the one that is used. Each runs with its own defaults (`scorer.using(...)` for others); a seed goes to both.
    It reads what either reads, and is target-aware if one is.

    Source: Wisell, Yasaei Sekeh 2024 (arXiv:2411.09199) prune early layers by magnitude and later ones by connectivity;
    any two scorers, and ranks over the network, are ours.

    Raises:
        DgpruneError: `by` is neither; a negative start, or one for "rank".

    >>> import dgprune_lab as dg
    >>> dg.hybrid("l1", "taylor", by="depth").name
    'hybrid(l1, taylor, by depth)'
    """
    first, second = resolve(a), resolve(b)
    made = hybrid_scorer(first, second, by=by, start=start)
    if first.instead is None and second.instead is None:
        return made
    return replace(made, instead=hybrid(first.instead or first, second.instead or second, by=by, start=start))


def refusal(scorer: Scorer, evidence: ScorerInputs, *, options: Mapping[str, Any]) -> str | None:
    """Why a scorer cannot run on this, in a sentence, found without a pass over any domain; None where it can."""
    if scorer.refuses is None:
        return None
    try:
        return scorer.refuses(views_of(scorer, evidence), **options)
    except DgpruneError as error:
        return str(error)


def views_of(scorer: Scorer, evidence: ScorerInputs) -> dict[str, GroupView]:
    """What a scorer gets to see of each group."""
    return {group.name: GroupView(scorer, group, evidence) for group in evidence.graph.groups}


def run(scorer: Scorer, evidence: ScorerInputs, *, options: Mapping[str, Any]) -> Scores:
    """Scores of every group, with the record of what was read.

    Raises:
        DgpruneError: a wrong shape, a non-finite number, or a read that was not declared.
    """
    views = views_of(scorer, evidence)
    if scorer.level == "network":
        given = scorer(views, **options)
        if not isinstance(given, Mapping) or set(given) != set(views):
            raise DgpruneError(
                f"scorer {scorer.name!r} must return a dict with one entry per layer: {', '.join(views)}."
            )
    else:
        given = {name: scorer(view, **options) for name, view in views.items()}
    values = {name: read_scores(given[name], name) for name in views}
    reads: dict[str, Seen] = {f"{domain}/{evidence.split}": what for domain, what in evidence.touched.items()}
    return Scores(scorer.name, values, evidence.graph, dict(options), reads)
