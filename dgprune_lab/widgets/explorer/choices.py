"""The state of the controls, with layers and filters by hand, and the keys under which plans and frames are cached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, NotRequired, TypedDict

import torch

from ...core import BatchNorm, Budget, DgpruneError, FilterGraph, Mask, Reads, Scope, Scores, choice, forced_lists
from ...pruning import Limits, allocate, cached_order, checked_ratio
from ...study import Study
from .frames import percent

CONTROLS = ("ratio", "scorer", "scope", "budget", "batchnorm", "step", "layers", "forced")
_SHARE_OF = {"parameters": " of the parameters", "macs": " of the MACs"}
Key = tuple[Any, ...]
Forced = dict[str, dict[str, list[int]]]


class Choices(TypedDict):
    """The state of the controls. `id` grows with each change; `by` says whether the web page or Python made it.

    `step` is the number of the network that the slider prunes further, 0 for the full one; `layers` and `forced` are
    what is set by hand, as in `dg.allocate`, with the filters' indices in the full network. Defaults: 0 and none.
    """

    id: int
    ratio: float
    scorer: str
    scope: Scope
    budget: Budget
    batchnorm: BatchNorm
    by: str
    step: NotRequired[int]
    layers: NotRequired[Mapping[str, float]]
    forced: NotRequired[Mapping[str, Mapping[str, list[int]]]]


def by_hand(choices: Choices) -> Key:
    """Return what is set by hand, sorted: (layer, ratio) pairs, then (layer, filters) pairs to remove, and to keep.

    >>> view = {"layers": {"b": 0.5, "a": 0.0}, "forced": {"keep": {"a": [7, 3]}}}
    >>> by_hand(view)  # doctest: +SKIP
    ((('a', 0.0), ('b', 0.5)), (), (('a', (3, 7)),))
    """
    forced = choices.get("forced", {})
    lists = [
        tuple((layer, tuple(sorted(filters))) for layer, filters in sorted(forced.get(name, {}).items()) if filters)
        for name in ("remove", "keep")
    ]
    return tuple(sorted(choices.get("layers", {}).items())), *lists


def is_by_hand(choices: Choices) -> bool:
    """Return whether a layer or a filter is set by hand."""
    return any(by_hand(choices))


def setting_words(choices: Choices, *, has_batchnorm: bool, tree: bool) -> str:
    """Return ratio and settings in words; scope, budget and BatchNorm only if they differ from the explorer's defaults.

    With `tree`, name the step too.
    """
    differ = [percent(choices["ratio"]) + _SHARE_OF.get(choices["budget"], "")]
    differ += ["global"] * (choices["scope"] == "global")
    differ += ["BatchNorm as is"] * (has_batchnorm and choices["batchnorm"] == "as_is")
    differ += ["by hand"] * is_by_hand(choices)
    differ += [f"from step {choices.get('step')}"] * bool(tree and choices.get("step"))
    return ", ".join(differ)


def plan_key(choices: Choices) -> Key:
    """Return, as a key, the choices that determine a plan."""
    return choices["scorer"], choices["scope"], choices["budget"], choices.get("step", 0), by_hand(choices)


def frame_key(choices: Choices) -> Key:
    """Return, as a key, the choices that all frames of one curve share."""
    scorer, scope, budget, *rest = plan_key(choices)
    return scorer, scope, budget, choices["batchnorm"], *rest


def choices_of(key: Key, ratio: float) -> Choices:
    """Return the choices of a frame, given its ratio and its key from `frame_key`."""
    scorer, scope, budget, batchnorm, step, (layers, *lists) = key
    pairs = zip(("remove", "keep"), lists, strict=True)
    forced = {name: {layer: list(filters) for layer, filters in indices} for name, indices in pairs if indices}
    setting: Any = {"scorer": scorer, "scope": scope, "budget": budget, "batchnorm": batchnorm, "step": step}
    return Choices(id=0, by="kernel", ratio=ratio, layers=dict(layers), forced=forced, **setting)


def as_lists(key: Any) -> Any:
    """Return a key as nested lists, as the page gets it."""
    return [as_lists(part) for part in key] if isinstance(key, tuple) else key


def checked_choices(choices: Mapping[str, Any], *, scorer: str, graph: FilterGraph, steps: Iterable[int]) -> Choices:
    """Return the choices with their layers and filters by hand in their shortest form, if all are valid.

    Args:
        choices: the choices as they came.
        scorer: name of the scorer in the menu.
        graph: the filter groups of the full network.
        steps: the numbers of the steps that there are.

    Raises:
        DgpruneError: a value that is not valid; the message names the control.
    """
    step, known = choices.get("step", 0), list(steps)
    if isinstance(step, bool) or step not in known:
        numbers = ", ".join(map(str, known))
        raise DgpruneError(f"step must be the number of a step of this explorer ({numbers}); got {step!r}.")
    layers, forced = _checked_by_hand(choices.get("layers") or {}, choices.get("forced") or {}, graph)
    return Choices(
        id=int(choices["id"]),
        ratio=checked_ratio(choices["ratio"]),
        scorer=scorer,
        by=str(choices["by"]),
        scope=choice("scope", choices["scope"], Scope),  # type: ignore[typeddict-item]
        budget=choice("budget", choices["budget"], Budget),  # type: ignore[typeddict-item]
        batchnorm=choice("batchnorm", choices["batchnorm"], BatchNorm),  # type: ignore[typeddict-item]
        step=step,
        layers=layers,
        forced=forced,
    )


def _checked_by_hand(layers: Any, forced: Any, graph: FilterGraph) -> tuple[dict[str, float], Forced]:
    """Check layers and filters by hand, from the page or from Python; patterns become the names of their layers."""
    if not isinstance(layers, Mapping):
        raise DgpruneError(f"layers must map names of layers to ratios, {{'conv2': 0.2}}; got {layers!r:.80}.")
    lists = forced.values() if isinstance(forced, Mapping) and set(forced) <= {"remove", "keep"} else [None]
    if not all(isinstance(filters, Mapping) for filters in lists):
        raise DgpruneError(
            "forced must name filters to remove and to keep, {'remove': {'conv2': [0, 5]}, 'keep': {'conv1': [3]}}; "
            f"got {forced!r:.80}."
        )
    if not layers and not any(lists):
        return {}, {}
    plain: dict[str, float] = {}
    for name, ratio in layers.items():
        try:
            plain[str(name)] = checked_ratio(ratio)
        except DgpruneError as error:
            raise DgpruneError(f"layers, {name!r}: {error}") from None
    limits = Limits.of(graph, layers=plain, max_layer_ratio=None, remove=forced.get("remove"), keep=forced.get("keep"))
    equal = Scores("none", {g.name: torch.zeros(g.filters, dtype=torch.float64) for g in graph.groups}, graph)
    cached_order(equal, scope="layer", limits=limits)  # refuses filters that contradict their layer's ratio
    shortest = forced_lists(limits.remove, limits.keep)
    return dict(limits.ratios), {name: filters for name, filters in shortest.items() if filters}


def arguments(choices: Choices, *, taken: Mask | None, graph: FilterGraph) -> dict[str, Any]:
    """Return what is set by hand as arguments of `dg.allocate`, for the network of a step.

    Args:
        choices: checked choices.
        taken: the step's mask, which tells the filters of the full network that it has; None for the full network.
        graph: the filter groups of the step's network.

    Raises:
        DgpruneError: a filter to keep that the step no longer has.
    """
    layers, removed, kept = by_hand(choices)
    lists: Forced = {"remove": {}, "keep": {}}
    for name, pairs in (("remove", removed), ("keep", kept)):
        for layer, filters in pairs:
            left = list(range(graph[layer].filters)) if taken is None else taken.kept(layer)
            gone = sorted(set(filters) - set(left))
            if gone and name == "keep":
                raise DgpruneError(
                    f"filters {gone[:8]} of layer {layer!r} cannot be kept: they were removed before step "
                    f"{choices.get('step', 0)}. Go back to a step that has them, or take them out of forced['keep']."
                )
            places = [left.index(index) for index in filters if index in left]
            if places and layer in graph.names:
                lists[name][layer] = places
    return {"layers": {name: ratio for name, ratio in layers if name in graph.names}, **lists}


class Cut(NamedTuple):
    """What choices remove from the network of a step.

    Attributes:
        mask: the filters that stay; its `ratio_requested` is that of the choices.
        ratio: the possible ratio nearest to the requested one, which what is set by hand may not allow.
        limits: what is set by hand.
    """

    mask: Mask
    ratio: float
    limits: Limits


def cut(scores: Scores, choices: Choices, *, full: Study, taken: Mask | None) -> Cut:
    """Return what the choices remove from a network with these scores; `taken` as in `arguments`.

    A ratio that layers and filters by hand do not allow is no error: the nearest possible one is used.
    """
    ratio, scope, budget, hand, reads = choices["ratio"], choices["scope"], choices["budget"], {}, None
    limits = Limits()
    if is_by_hand(choices):
        hand, reads = arguments(choices, taken=taken, graph=scores.graph), hand_reads(full)
        limits = Limits.of(scores.graph, **hand, max_layer_ratio=None)
        if limits.ratios or limits.forced:
            low, high = cached_order(scores, scope=scope, limits=limits).possible(budget)
            ratio = min(max(ratio, low), high)
    mask = allocate(scores, ratio=ratio, scope=scope, budget=budget, reads=reads, **hand)
    return Cut(replace(mask, ratio_requested=choices["ratio"]), ratio, limits)


def hand_reads(study: Study) -> Reads:
    """Return what a choice by hand was based on: the explorer shows the user numbers from every `report` split.

    The accuracies beside the controls, and the changes on a filter's card, come from the labels of that split, or from
    its images where there are no labels. So a choice by hand in an explorer with a target is target-aware.
    """
    return {f"{d.name}/report": "images" if d.labels is None else "labels" for d in study.domains}
