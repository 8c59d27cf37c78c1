"""The menu of scorers, and how one is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..contract import Menu, Scorer, read_scores
from ..types.errors import DgpruneError
from ..types.filters import Scores
from ..types.tables import Seen
from .activations import activation_l1, apoz
from .gradients import taylor, taylor_weight
from .torch_pruning import from_torch_pruning
from .view import Evidence, GroupView
from .weights import bn_scale, fpgm, l1, l2, lamp, random

SCORERS: Menu[Scorer] = Menu(
    "scorer",
    {
        "l1": l1, "l2": l2, "bn_scale": bn_scale, "fpgm": fpgm, "lamp": lamp,
        "activation_l1": activation_l1, "apoz": apoz, "taylor": taylor, "taylor_weight": taylor_weight,
        "random": random,
    },
)  # fmt: skip

__all__ = ["SCORERS", "Evidence", "GroupView", "from_torch_pruning", "resolve", "run"]


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


def refusal(scorer: Scorer, evidence: Evidence, *, options: Mapping[str, Any]) -> str | None:
    """Why a scorer cannot run on this, in a sentence, found without a pass over any domain; None where it can."""
    if scorer.refuses is None:
        return None
    try:
        return scorer.refuses(views_of(scorer, evidence), **options)
    except DgpruneError as error:
        return str(error)


def views_of(scorer: Scorer, evidence: Evidence) -> dict[str, GroupView]:
    """What a scorer gets to see of each group."""
    return {group.name: GroupView(scorer, group, evidence) for group in evidence.graph.groups}


def run(scorer: Scorer, evidence: Evidence, *, options: Mapping[str, Any]) -> Scores:
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
