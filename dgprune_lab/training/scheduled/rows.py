"""The table rows of a training run with pruning: its curve, its events, its end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...core import Domain, Outcomes, Provenance, roles_of
from ...measurement import outcome_rows
from ...stats import intervals
from ...study import Study

Rows = list[dict[str, Any]]
ByDomain = Mapping[str, Outcomes]
CURVE = END = ("epoch", "stage", "event")
EVENT = ("event", "epoch", "stage", "layers", "filters")


@dataclass(frozen=True)
class Where:
    """What the rows describe: the domains, the network's provenance, and the measured split."""

    study: Study
    provenance: Provenance
    split: str

    def cells(self, outcomes: ByDomain, split: str | None = None) -> Iterator[tuple[dict[str, Any], Outcomes]]:
        """Yield the columns that describe each domain, with the outcomes on it."""
        roles, split = roles_of(self.study.domains), split or self.split
        for name, measured in outcomes.items():
            cells = {"domain": name, "role": roles[name], "split": split, "images": len(measured)}
            yield {**cells, **self.provenance.columns(name, split, roles=roles)}, measured

    def of_events(self, domain: Domain | None) -> dict[str, Any]:
        """The columns of a row about all events, on one domain or (None) on the sources together."""
        roles = roles_of(self.study.domains)
        if domain is None:
            return {"target_aware": self.provenance.target_aware(roles)}
        seen = self.provenance.columns(domain.name, self.split, roles=roles)
        return {"domain": domain.name, "role": domain.role, **seen}


def curve_rows(
    where: Where, about: Mapping[str, Any], *, measured: ByDomain, train: ByDomain, loss: float | None = None
) -> Rows:
    """Return rows of accuracy and loss (all domains on the measured split, sources on train), and of training loss."""
    cells = [*where.cells(measured), *where.cells(train, "train")]
    rows = [{**about, **shared, **row} for shared, outcomes in cells for row in outcome_rows(outcomes)]
    if loss is not None:
        rows.append({**about, "split": "train", "metric": "training_loss", "value": loss, "unit": "nats"})
    return plain(rows)


def event_rows(
    where: Where, about: Mapping[str, Any], *, before: ByDomain, after: ByDomain, removed: Mapping[str, Sequence[int]]
) -> Rows:
    """Return rows for each labelled domain: accuracy before and after the event, their difference, relative drop."""
    layers = [f"{layer} ({len(filters)} filter{'s' if len(filters) > 1 else ''})" for layer, filters in removed.items()]
    about = {**about, "layers": ", ".join(layers), "filters": sum(map(len, removed.values()))}
    rows: Rows = []
    for cells, outcomes in where.cells(after):
        earlier = before[cells["domain"]]
        if earlier.correct is None or outcomes.correct is None:
            continue
        b, a = earlier.correct.double().numpy(), outcomes.correct.double().numpy()
        low, high = intervals.over_images(np.stack([b, a], axis=1))
        values: dict[str, tuple[Any, Any, Any]] = {
            "accuracy_before": (b.mean(), low[0], high[0]),
            "accuracy_after": (a.mean(), low[1], high[1]),
            "accuracy_change": (a.mean() - b.mean(), *intervals.difference(a, b)),
            "relative_drop": (None, None, None),
        }
        if not intervals.at_chance(b, classes=where.study.domain(cells["domain"]).classes):
            least, most = intervals.relative_drops(a[:, None], b)
            values["relative_drop"] = ((b.mean() - a.mean()) / b.mean(), float(least[0]), float(most[0]))
        for metric, (value, least, most) in values.items():
            numbers = {"metric": metric, "value": value, "low": least, "high": most}
            rows.append({**about, **cells, **numbers, "interval": "images", "unit": "share"})
    return plain(rows)


def end_rows(where: Where, about: Mapping[str, Any], *, measured: ByDomain, train: ByDomain) -> Rows:
    """Return rows: accuracy and loss, of every domain on the reported split and of sources on train; the gap."""
    rows = curve_rows(where, about, measured=measured, train=train)
    for cells, outcomes in where.cells(measured):
        if cells["domain"] in train and outcomes.correct is not None:
            gap = train[cells["domain"]].accuracy - outcomes.accuracy
            rows.append({**about, **cells, "metric": "generalization_gap", "value": gap, "unit": "share"})
    return plain(rows)


def mean_stability(events: pd.DataFrame, *, domain: str | None) -> float:
    """Return 100 (1 - mean relative drop) over the events during training; see `PruningRun.stability`."""
    which = events["role"] == "source" if domain is None else events["domain"] == domain
    drops = events.loc[(events["metric"] == "relative_drop") & (events["epoch"] > 0) & which, "value"].tolist()
    if not drops:
        return 100.0
    known = [drop for drop in drops if not math.isnan(drop)]
    return 100 * (1 - sum(known) / len(known)) if known else math.nan


def plain(value: Any) -> Any:
    """Return a value as lists, dicts and numbers that JSON can hold; NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
