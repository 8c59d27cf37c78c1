"""What the explorer and the report show, as plain values: plans (which filters stay) and frames (what was measured)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
from torch import Tensor

from ...charts import domain_styles
from ...core import (
    EXPOSURE_WORDS,
    MORE,
    BatchNorm,
    Budget,
    FilterGroup,
    Mask,
    Outcomes,
    Provenance,
    Scope,
    Scores,
    exposure_label,
    exposure_of,
    roles_of,
)
from ...data import SHIFTS
from ...diagnostics.drop import change
from ...measurement import LATENCY_IMAGES, latency_row, timings
from ...pruning import Order, removal_order
from ...scorers import Scorer
from ...stats import intervals
from ...study import Study, mask_provenance
from ..panels.labels import label

PLAN_RATIOS = [round(k / 100, 2) for k in range(100)]
CURVE_RATIOS = [round(k / 20, 2) for k in range(20)]
Row = dict[str, Any]


def key_of(scorer: str, scope: str, budget: str, batchnorm: str | None = None) -> str:
    """The name under which a plan (without `batchnorm`) or frames (with it) are kept."""
    return "|".join(part for part in (scorer, scope, budget, batchnorm) if part is not None)


def plan(scores: Scores, *, scope: Scope, budget: Budget, ratios: Sequence[float] = PLAN_RATIOS) -> Row:
    """Which filters leave in what order, and what is left at every ratio: all a page needs to follow a slider."""
    order = removal_order(scores, scope=scope)
    return {
        "key": key_of(scores.scorer, scope, budget),
        "groups": [
            {
                "rank": _ranks(scores.values[g.name], g).tolist(),
                "score": np.round(scores.values[g.name].numpy(), 6).tolist(),
            }
            for g in scores.graph.groups
        ],
        "steps": [step(scores, order, ratio=ratio, scope=scope, budget=budget) for ratio in ratios],
        "spread": spread(scores),
    }


def spread(scores: Scores) -> str:
    """How far the scores lie apart, in words: scores that crowd together rank by next to nothing."""
    flat = np.concatenate([value.numpy() for value in scores.values.values()])
    low, first, third, high = (
        f"{value:.3g}".replace("-", "\N{MINUS SIGN}") for value in np.quantile(flat, [0, 0.25, 0.75, 1])
    )
    return f"Scores from {low} to {high}; the middle half from {first} to {third}."


def step(scores: Scores, order: Order, *, ratio: float, scope: Scope, budget: Budget) -> Row:
    """What is left at one ratio."""
    graph = scores.graph
    gone = order.gone(order.count(graph, ratio, budget))
    keep = {group.name: order.of_group(group, gone) for group in graph.groups}
    mask = Mask(keep, ratio, graph, scope, budget, scores.scorer)
    return {
        "ratio": ratio,
        "ratio_achieved": mask.ratio_achieved,
        "kept": [int(part.sum()) for part in keep.values()],
        **mask.cost._asdict(),
    }


def _ranks(values: Tensor, group: FilterGroup) -> Tensor:
    """(C,) place of each filter in the order of leaving, 0 first; filters of one unit stand together."""
    count = group.units.bincount()
    mean = values.new_zeros(len(count)).scatter_add_(0, group.units, values) / count
    by_unit = mean[group.units].numpy()
    order = np.lexsort((np.arange(group.filters), group.units.numpy(), by_unit))
    ranks = values.new_zeros(group.filters).long()
    ranks[order] = ranks.new_tensor(range(group.filters))
    return ranks


def measured(
    study: Study, mask: Mask, *, batchnorm: BatchNorm, images: int | None = None, split: str = "report"
) -> Generator[None, None, Row]:
    """Evaluate every domain under a mask, yielding between batches; returns the frame."""
    calibration = 500 if images is None else min(500, images)
    after: dict[str, Outcomes] = {}
    for domain in study.domains:
        after[domain.name] = yield from study.steps(
            mask, domain=domain.name, split=split, batchnorm=batchnorm, images=images, calibration=calibration
        )
    full: dict[str, Outcomes] = {}
    for domain in study.domains:
        full[domain.name] = yield from study.steps(None, domain=domain.name, split=split, images=images)
    record = mask_provenance(study.record, mask, batchnorm=batchnorm, study=study)
    rows, roles = [], roles_of(study.domains)
    for domain in study.domains:
        cells = record.columns(domain.name, split, roles=roles)
        exposure = exposure_of({"domain": domain.name, "role": domain.role, **cells})
        numbers = _numbers(after[domain.name], full[domain.name])
        rows.append({"name": domain.name, **numbers, "seen": exposure, "looked": EXPOSURE_WORDS[exposure]})
    return {
        "ratio": mask.ratio_requested,
        "estimate": images is not None,
        "images": max(len(o) for o in after.values()),
        "sentence": sentence(mask, rows),
        "domains": rows,
        "latency": None,
    }


def _numbers(after: Outcomes, full: Outcomes) -> Row:
    """Accuracy and its change with intervals; without labels, agreement with the full network."""
    moved = change(after, full)
    if after.correct is None or moved is None:
        same = (after.predicted == full.predicted).double().numpy()
        low, high = intervals.over_images(same)
        nothing = {"change": None, "change_low": None, "change_high": None, "before": None}
        return {"value": float(same.mean()), "low": float(low), "high": float(high), "agreement": True, **nothing}
    low, high = intervals.over_images(after.correct.double().numpy())
    return {
        "value": after.accuracy,
        "low": float(low),
        "high": float(high),
        "agreement": False,
        "before": full.accuracy,
        "change": moved[0],
        "change_low": moved[1],
        "change_high": moved[2],
    }


def sentence(mask: Mask, rows: Sequence[Row]) -> str:
    """One line that says what removal did: "Half of the filters are gone: mnist 97 → 95 %, mnist_m 58 → 41 %".

    A domain that was looked at carries the word for it: "mnist_m (target-aware) 58 → 41 %".
    """
    what = {"filters": "the filters", "parameters": "the weights", "macs": "the computation"}[mask.budget]
    share = mask.ratio_achieved
    if mask.cost.filters == mask.graph.free:
        start = "Nothing is removed"
    elif abs(share - 0.5) < 0.005:
        start = f"Half of {what} {'is' if mask.budget == 'macs' else 'are'} gone"
    else:
        start = f"{share:.0%} of {what} {'is' if mask.budget == 'macs' else 'are'} gone".replace("%", " %")
    parts = []
    for row in rows:
        seen = row["seen"]
        name = row["name"] + (f" ({seen})" if seen not in ("", "?") else exposure_label(seen))
        if row["agreement"]:
            parts.append(f"{name} {100 * row['value']:.0f} % as before (no labels)")
        else:
            parts.append(f"{name} {100 * row['before']:.0f} → {100 * row['value']:.0f} %")
    return f"{start}: {', '.join(parts)}"


def latency(study: Study, mask: Mask | None) -> Generator[None, None, list[float]]:
    """Milliseconds of 21 batches of 32 images, yielding between them."""
    domain = study.domains[0]
    images = domain.take(domain.rows("report", LATENCY_IMAGES), device=study.device).images
    found = []
    for one in timings(study.network(mask).to(study.device), images):
        found.append(one)
        yield
    return found


def latency_words(found: list[float], *, dense: list[float], images: int) -> Row:
    """Median and range in words, compared with the full network's: ranges that overlap tell no difference."""
    row = latency_row(found, images)
    text = f"{row['value']:.1f} ms for {images} images ({row['low']:.1f} to {row['high']:.1f})"
    overlap = min(found) <= max(dense) and min(dense) <= max(found)
    middle = float(np.median(dense))
    text += "; no clear difference from the full network" if overlap else f"; full network {middle:.1f} ms"
    return {"text": text, "value": row["value"], "low": row["low"], "high": row["high"]}


def notice(study: Study, record: Provenance, *, split: str = "report") -> Row | None:
    """The line above the charts that says what the choice behind a mask looked at; None where it looked at nothing."""
    found = record.notice(roles_of(study.domains), split=split)
    return None if found is None else found._asdict()


def given_scores(study: Study, scores: Scores) -> Row:
    """The menu's entry for scores that were passed in ready."""
    read = "nobody said what" if scores.reads is None else ", ".join(scores.reads).replace(MORE, "more") or "nothing"
    words = label(study, scores)
    return {
        "name": scores.scorer,
        "label": words,
        "kind": "target" if "target-aware" in words else "given",
        "summary": f"Scores that were passed in. Looked at: {read}.",
        "cite": "",
        "unavailable": None,
        "instead": None,
        "options": [],
    }


def option_controls(study: Study, scorer: Scorer) -> list[Row]:
    """What a page needs to offer a scorer's keywords: {name, value, choices}, or no choices for a number.

    Only keywords that are one of a few words, a switch, a number, a domain or a shift are offered.
    """
    plain = scorer.plain or scorer
    hints = get_type_hints(plain.function)
    named = {
        "source": [d.name for d in study.sources],
        "target": [d.name for d in study.targets],
        "shift": list(SHIFTS),
    }
    found = []
    for name, parameter in plain.options.items():
        hint, value = hints.get(name), scorer.given.get(name, parameter.default)
        if get_origin(hint) is Literal:
            found.append({"name": name, "value": value, "choices": list(get_args(hint))})
        elif hint is bool:
            found.append({"name": name, "value": value, "choices": [True, False]})
        elif name in named and parameter.default is None:
            found.append({"name": name, "value": value, "choices": [None, *named[name]]})
        elif hint is float:
            found.append({"name": name, "value": value, "choices": None})
    return found


def _instead(study: Study, scorer: Scorer, menu: Sequence[Scorer]) -> str | None:
    """Name of the scorer to offer in place of one that looked at the target, if it is there and can run."""
    twin = (
        scorer.instead
        if isinstance(scorer.instead, Scorer)
        else next((s for s in menu if s.name == scorer.instead), None)
    )
    return None if twin is None or study.unavailable(twin) is not None else twin.name


def static_state(study: Study, *, scorers: Sequence[Scorer]) -> Row:
    """What does not change while an explorer lives: domains, layers, scorers, the full network."""
    found = domain_styles((d.name, d.role or "source") for d in study.domains)
    full = study.graph.cost()
    return {
        "domains": [
            {
                "name": d.name,
                "role": d.role,
                "colour": found[d.name].colour,
                "dash": list(found[d.name].dash),
                "shape": found[d.name].shape,
                "chance": 1 / d.classes if d.classes else None,
            }
            for d in study.domains
        ],
        "groups": [{"name": g.name, "filters": g.filters} for g in study.graph.groups],
        "scorers": [
            {
                "name": s.name,
                "label": label(study, s),
                "kind": s.kind,
                "cite": s.cite,
                "summary": f"{s.summary}\n{s.formula}".strip(),
                "instead": _instead(study, s, scorers),
                "unavailable": study.unavailable(s),
                "options": option_controls(study, s),
            }
            for s in scorers
        ],
        "refused": dict(study.graph.refused),
        "has_batchnorm": study.has_batchnorm,
        "full": full._asdict(),
    }
