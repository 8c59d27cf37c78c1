"""What one explorer has asked and measured so far; no widget in here."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypedDict

import pandas as pd

from ...core import BatchNorm, Budget, Mask, Scope, Scores, choice, roles_of, tidy, yielding
from ...measurement import LATENCY_IMAGES
from ...pruning import allocate, checked_ratio, removal_order
from ...scorers import SCORERS, Scorer, resolve
from ...study import Study, left, mask_columns, mask_provenance
from ..panels.protocol import ESTIMATE_IMAGES
from . import payloads as frames

_QUICK = 0.25  # all images take less than this: no estimate is needed first


class Choices(TypedDict):
    """What the controls say; `id` grows with every request, `by` tells whether the page or a cell moved them."""

    id: int
    ratio: float
    scorer: str
    scope: Scope
    budget: Budget
    batchnorm: BatchNorm
    by: str


class Measurements:
    """A study under one menu of scorers: masks, plans, and every frame that was measured.

    Attributes:
        study: what it is about.
        menu: scorers by name.
        evaluations: how many networks were evaluated because they were asked for, and to fill curves.
    """

    def __init__(self, study: Study, *, scorers: Sequence[str | Scorer | Scores]) -> None:
        self.study = study
        self.menu: dict[str, Scorer | Scores] = dict(SCORERS)
        self.evaluations = {"requested": 0, "background": 0}
        self._measured: dict[str, dict[float, frames.Row]] = {}
        self._plans: dict[str, frames.Row] = {}
        self._content = study.content
        self._dense_latency: list[float] | None = None
        self._seconds = 1.0
        for item in scorers:
            self.admit(item)

    def admit(self, item: str | Scorer | Scores) -> str:
        """Put a scorer on the menu and return its name; one of the same name is replaced and measured anew."""
        if isinstance(item, str):
            return item if item in self.menu else resolve(item).name
        name = item.scorer if isinstance(item, Scores) else resolve(item).name
        if self.menu.get(name) is not item:
            self.menu[name] = item
            for held in (self._measured, self._plans):
                for key in [key for key in held if key.split("|")[0] == name]:
                    del held[key]
        return name

    def checked(self, view: Mapping[str, Any]) -> Choices:
        """The view, if its ratio, scorer, scope, count and BatchNorm setting exist.

        Raises:
            DgpruneError: they do not.
        """
        name = self.admit(view["scorer"])
        return Choices(
            id=int(view["id"]),
            ratio=checked_ratio(view["ratio"]),
            scorer=name,
            by=str(view["by"]),
            scope=choice("scope", view["scope"], Scope),  # type: ignore[typeddict-item]
            budget=choice("budget", view["budget"], Budget),  # type: ignore[typeddict-item]
            batchnorm=choice("batchnorm", view["batchnorm"], BatchNorm),  # type: ignore[typeddict-item]
        )

    def words(self) -> frames.Row:
        """What a page must know before anything is measured."""
        scorers = [item for item in self.menu.values() if isinstance(item, Scorer)]
        found = frames.static_state(self.study, scorers=scorers)
        for item in self.menu.values():
            if isinstance(item, Scores):
                found["scorers"].append(frames.given_scores(self.study, item))
        return {**found, "device": self.study.place}

    def unavailable(self, name: str) -> str | None:
        """Why a scorer of the menu cannot run here; None where it can."""
        item = self.menu[name]
        return self.study.unavailable(item) if isinstance(item, Scorer) else None

    def label(self, view: Choices) -> str:
        """Plain words for a view."""
        return f"{frames.label(self.study, self.menu[view['scorer']])}, {100 * view['ratio']:.0f} %"

    def scores(self, view: Choices) -> Scores:
        """The scores behind a view; a pass that they take serves the other scorers of the menu too."""
        others = [item for item in self.menu.values() if isinstance(item, Scorer)]
        return self.study.score_all([self.menu[view["scorer"]]], alongside=others)[0]

    def mask(self, view: Choices) -> Mask:
        """The filters that stay in a view."""
        return allocate(self.scores(view), ratio=view["ratio"], scope=view["scope"], budget=view["budget"])

    def plan(self, view: Choices) -> frames.Row:
        """Which filters leave in what order, with a step for this very ratio, and what the choice looked at.

        A network that was changed in place is noticed here: nothing measured before is about it.
        """
        if self.study.content != self._content:
            self._content = self.study.content
            self._measured.clear()
            self._plans.clear()
            self._dense_latency = None
        key = frames.key_of(view["scorer"], view["scope"], view["budget"])
        scores = self.scores(view)
        if key not in self._plans:
            self._plans[key] = frames.plan(scores, scope=view["scope"], budget=view["budget"])
        made = self._plans[key]
        if all(step["ratio"] != view["ratio"] for step in made["steps"]):
            order = removal_order(scores, scope=view["scope"])
            extra = frames.step(scores, order, ratio=view["ratio"], scope=view["scope"], budget=view["budget"])
            made = self._plans[key] = {**made, "steps": sorted([*made["steps"], extra], key=lambda s: s["ratio"])}
        record = mask_provenance(self.study.record, self.mask(view), batchnorm=view["batchnorm"], study=self.study)
        return {**made, "looked": frames.notice(self.study, record)}

    def rows(self, view: Choices) -> list[frames.Row]:
        """Every frame of this view's curve, by ratio."""
        held = self._measured.get(frame_key(view), {})
        return [held[ratio] for ratio in sorted(held)]

    def exact(self, view: Choices) -> frames.Row | None:
        """The frame of this very ratio on all images; None where it is not measured."""
        row = self._measured.get(frame_key(view), {}).get(view["ratio"])
        return None if row is None or row["estimate"] else row

    def measure(self, view: Choices) -> Generator[bool, None, None]:
        """Measure a view: an estimate first where all images would take long; yields True when a frame is new."""
        mask = self.mask(view)
        self.evaluations["requested"] += 1
        if self._seconds > _QUICK:
            yield from self._added(
                view, frames.measured(self.study, mask, batchnorm=view["batchnorm"], images=ESTIMATE_IMAGES)
            )
        start = time.perf_counter()
        yield from self._added(view, frames.measured(self.study, mask, batchnorm=view["batchnorm"]))
        self._seconds = time.perf_counter() - start

    def fill(self, view: Choices) -> Generator[tuple[int, int], None, None]:
        """Measure the ratios of the curve that are missing, nearest first; yields (done, total) after each step."""
        held = self._measured.setdefault(frame_key(view), {})
        missing = [r for r in frames.CURVE_RATIOS if r not in held or held[r]["estimate"]]
        total = len(frames.CURVE_RATIOS)
        for done, ratio in enumerate(
            sorted(missing, key=lambda r: abs(r - view["ratio"])), start=total - len(missing) + 1
        ):
            near: Choices = {**view, "ratio": ratio}
            self.evaluations["background"] += 1
            for new in self._added(near, frames.measured(self.study, self.mask(near), batchnorm=view["batchnorm"])):
                yield (done if new else done - 1), total

    def time(self, view: Choices) -> Generator[None, None, None]:
        """Add the latency of a view that was measured, compared with the full network's."""
        if self._dense_latency is None:
            self._dense_latency = yield from frames.latency(self.study, None)
        row = self.exact(view)
        if row is not None and row["latency"] is None:
            found = yield from frames.latency(self.study, self.mask(view))
            images = min(LATENCY_IMAGES, len(self.study.domains[0].rows("report")))
            words = frames.latency_words(found, dense=self._dense_latency, images=images)
            self._measured[frame_key(view)][view["ratio"]] = {**row, "latency": words}

    def table(self, view: Choices) -> pd.DataFrame | None:
        """A measured view as a tidy table; None where it is not measured."""
        row = self.exact(view)
        return None if row is None else _table(self.study, self.mask(view), row, view["batchnorm"])

    def _added(self, view: Choices, steps: Generator[None, None, frames.Row]) -> Generator[bool, None, None]:
        found = yield from yielding(steps, False)
        self._measured.setdefault(frame_key(view), {})[view["ratio"]] = found
        yield True


def frame_key(view: Choices) -> str:
    """The name under which the frames of a view's curve are kept."""
    return frames.key_of(view["scorer"], view["scope"], view["budget"], view["batchnorm"])


def _table(study: Study, mask: Mask, row: frames.Row, batchnorm: BatchNorm) -> pd.DataFrame:
    record, roles = mask_provenance(study.record, mask, batchnorm=batchnorm, study=study), roles_of(study.domains)
    shared = {
        **mask_columns(mask),
        "batchnorm": batchnorm,
        "seed": mask.options.get("seed"),
        "training_seed": study.training_seed,
        "target_aware": record.target_aware(roles),
    }
    rows: list[dict[str, Any]] = []
    for found in row["domains"]:
        domain = study.domain(found["name"])
        here = {
            **shared,
            "domain": domain.name,
            "role": domain.role,
            "split": "report",
            "images": len(domain.rows("report")),
            "interval": "images",
            "unit": "share",
            **record.columns(domain.name, "report"),
        }
        metric = "agreement" if found["agreement"] else "accuracy"
        rows.append({**here, "metric": metric, "value": found["value"], "low": found["low"], "high": found["high"]})
        if found["change"] is not None:
            ends = {"low": found["change_low"], "high": found["change_high"]}
            rows.append({**here, "metric": "change", "value": found["change"], **ends})
    rows += [{**shared, "metric": metric, "value": value, "unit": unit} for metric, value, unit in left(mask)]
    return tidy(rows)
