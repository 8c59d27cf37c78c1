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


def checked_options(scorer: Scorer, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options a scorer runs with, its defaults filled in.

    Raises:
        DgpruneError: an option it does not take.
    """
    known = scorer.options
    for key in options:
        if key not in known:
            takes = ", ".join(known) or "none"
            raise DgpruneError(f"scorer {scorer.name!r} has no option {key!r}; it takes: {takes}.")
    return {key: options.get(key, parameter.default) for key, parameter in known.items()}


def run(scorer: Scorer, evidence: Evidence, *, options: Mapping[str, Any], split: str = "score") -> Scores:
    """Scores of every group, with the record of what was read.

    Raises:
        DgpruneError: a wrong shape, a non-finite number, or a read that was not declared.
    """
    views = {group.name: GroupView(scorer, group, evidence) for group in evidence.graph.groups}
    if scorer.level == "network":
        given = scorer(views, **options)
        if not isinstance(given, Mapping) or set(given) != set(views):
            raise DgpruneError(
                f"scorer {scorer.name!r} must return a dict with one entry per layer: {', '.join(views)}."
            )
    else:
        given = {name: scorer(view, **options) for name, view in views.items()}
    values = {name: read_scores(given[name], name) for name in views}
    reads: dict[str, Seen] = {}
    for name, role in evidence.roles.items():
        if role in scorer.reads:
            reads[f"{name}/{split}"] = scorer.reads[role]
    return Scores(scorer.name, values, evidence.graph, dict(options), reads)
