"""The state of a page before anything is measured: domains, layers, charts, and the menu of scorers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal, get_args, get_origin, get_type_hints

from ...charts import drop, size_and_cost, sweep
from ...charts.marks import LABEL_HEIGHT
from ...core import MORE, DgpruneError, Scores, tidy
from ...data import SHIFTS
from ...scorers import Scorer
from ...study import Study
from ..panels.menu_scores import label
from ..panels.protocol import Item, Row


def static_state(study: Study, *, items: Sequence[Item]) -> Row:
    """Return the part of an explorer's state that stays constant, except `scorers`, which grows with the menu."""
    levels = dict.fromkeys(100 / domain.classes for domain in study.domains if domain.classes)
    return {
        "domains": [{"name": domain.name, "role": domain.role} for domain in study.domains],
        "groups": [{"name": group.name, "filters": group.filters} for group in study.graph.groups],
        "scorers": [
            _scorer_entry(study, item, items) if isinstance(item, Scorer) else _scores_entry(study, item)
            for item in sorted(items, key=lambda item: isinstance(item, Scores))
        ],
        "refused": dict(study.graph.refused),
        "prunable": [study.graph.free, study.graph.total],
        "has_batchnorm": study.has_batchnorm,
        "chance": [{"value": level, "label": "chance"} for level in levels],
        "device": study.place,
        "label_height": LABEL_HEIGHT,
        "specs": _specs(),
    }


@cache
def _specs() -> Row:
    empty = tidy([])
    return {"a": sweep(empty).to_dict(), "c": size_and_cost(empty).to_dict(), "d": drop(empty).to_dict()}


def _scorer_entry(study: Study, item: Scorer, items: Sequence[Item]) -> Row:
    return {
        "name": item.name,
        "label": label(study, item),
        "kind": item.kind,
        "cite": item.cite,
        "summary": f"{item.summary}\n{item.formula}".strip(),
        "instead": _instead(study, item, items),
        "unavailable": study.unavailable(item),
        "options": option_controls(study, item),
    }


def _scores_entry(study: Study, scores: Scores) -> Row:
    reads = "not recorded" if scores.reads is None else ", ".join(scores.reads).replace(MORE, "more") or "nothing"
    text = label(study, scores)
    return {
        "name": scores.scorer,
        "label": text,
        "kind": "target" if "target-aware" in text else "given",
        "summary": f"Ready-made scores. Data used: {reads}.",
        "cite": "",
        "unavailable": _unfit(study, scores),
        "instead": None,
        "options": [],
    }


def _unfit(study: Study, scores: Scores) -> str | None:
    """Why ready-made scores do not fit the network of a step; None if they do."""
    try:
        study.score(scores)
    except DgpruneError as error:
        return str(error)
    return None


def option_controls(study: Study, scorer: Scorer) -> list[Row]:
    """Return a control {name, value, choices} for each option of a scorer; choices are None for a number.

    Only options that are literal values, switches, numbers, domains or shifts are offered.
    """
    plain = scorer.base or scorer
    hints = get_type_hints(plain.function)
    named = {"source": [d.name for d in study.sources], "target": [d.name for d in study.targets], "shift": [*SHIFTS]}
    controls = []
    for name, parameter in plain.options.items():
        hint = hints.get(name)
        if get_origin(hint) is Literal:
            choices = list(get_args(hint))
        elif hint is bool:
            choices = [True, False]
        elif name in named and parameter.default is None:
            choices = [None, *named[name]]
        elif hint is float:
            choices = None
        else:
            continue
        controls.append({"name": name, "value": scorer.preset.get(name, parameter.default), "choices": choices})
    return controls


def _instead(study: Study, item: Scorer, items: Sequence[Item]) -> str | None:
    """Name of the target-free scorer to offer instead of a target-aware one, if it is in the menu and can run."""
    twin = item.instead
    if not isinstance(twin, Scorer):
        twin = next((other for other in items if isinstance(other, Scorer) and other.name == twin), None)
    return None if twin is None or study.unavailable(twin) is not None else twin.name
