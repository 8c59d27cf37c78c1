"""The rows of a training with pruning: its curve, its events, its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...core import Outcomes, Provenance, roles_of
from ...measurement import outcome_rows
from ...stats import intervals
from ...study import Study

Rows = list[dict[str, Any]]
CURVE = ("epoch", "stage", "event")
EVENT = ("event", "epoch", "stage", "layers", "filters")
END = ("epoch", "stage", "event")


def curve_rows(
    about: Mapping[str, Any],
    held_out: Mapping[str, Outcomes],
    train: Mapping[str, Outcomes],
    *,
    loss: float | None,
    study: Study,
    record: Provenance,
    split: str,
) -> Rows:
    """Accuracy and loss of every domain on the measured part and of sources on training images; the epoch's loss."""
    rows = [
        {**about, **part, **row}
        for outcomes, name in ((held_out, split), (train, "train"))
        for part, found in _parts(outcomes, name, study, record)
        for row in outcome_rows(found)
    ]
    if loss is not None:
        rows.append({**about, "split": "train", "metric": "training_loss", "value": loss, "unit": "nats"})
    return plain(rows)


def event_rows(
    about: Mapping[str, Any],
    before: Mapping[str, Outcomes],
    after: Mapping[str, Outcomes],
    removed: Mapping[str, Sequence[int]],
    *,
    study: Study,
    record: Provenance,
    split: str,
) -> Rows:
    """Per domain with labels: accuracy before and after the event, the change, and the relative drop."""
    count = sum(map(len, removed.values()))
    words = ", ".join(f"{layer} ({len(gone)} filter{'s' if len(gone) > 1 else ''})" for layer, gone in removed.items())
    shared = {**about, "layers": words, "filters": count}
    rows: Rows = []
    for part, now in _parts(after, split, study, record):
        then = before[part["domain"]]
        if then.correct is None or now.correct is None:
            continue
        b, a = then.correct.double().numpy(), now.correct.double().numpy()
        low, high = intervals.over_images(np.stack([b, a], axis=1))
        found = [
            ("accuracy_before", b.mean(), low[0], high[0]),
            ("accuracy_after", a.mean(), low[1], high[1]),
            ("change", a.mean() - b.mean(), *intervals.difference(a, b)),
        ]
        if not intervals.at_chance(b, classes=study.domain(part["domain"]).classes):
            ends = intervals.relative_drops(a[:, None], b)
            found.append(("relative_drop", (b.mean() - a.mean()) / b.mean(), *(float(end[0]) for end in ends)))
        else:
            found.append(("relative_drop", None, None, None))
        rows += [
            {
                **shared,
                **part,
                "metric": metric,
                "value": value,
                "low": least,
                "high": most,
                "interval": "images",
                "unit": "share",
            }
            for metric, value, least, most in found
        ]
    return plain(rows)


def end_rows(
    about: Mapping[str, Any],
    reported: Mapping[str, Outcomes],
    train: Mapping[str, Outcomes],
    *,
    study: Study,
    record: Provenance,
    split: str,
) -> Rows:
    """Accuracy and loss of every domain on the reported part; of sources on their train part, and the gap."""
    rows = curve_rows(about, reported, train, loss=None, study=study, record=record, split=split)
    for part, found in _parts(reported, split, study, record):
        if part["domain"] in train and found.correct is not None:
            gap = train[part["domain"]].accuracy - found.accuracy
            rows.append({**about, **part, "metric": "gap", "value": gap, "unit": "share"})
    return plain(rows)


def mean_stability(events: pd.DataFrame, *, domain: str | None) -> float:
    """100 (1 - mean relative drop) over the events of the training; see `PruningRun.stability`."""
    counted = [row for row in events.to_dict("records") if row["metric"] == "relative_drop" and row["epoch"] > 0]
    drops = [r["value"] for r in counted if (r["role"] == "source" if domain is None else r["domain"] == domain)]
    if not drops:
        return 100.0
    known = [drop for drop in drops if not math.isnan(drop)]
    return 100 * (1 - sum(known) / len(known)) if known else math.nan


def plain(value: Any) -> Any:
    """The same in lists, dicts and numbers that JSON can hold; NaN, which it cannot, is None."""
    if isinstance(value, Mapping):
        return {str(key): plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [plain(held) for held in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _parts(outcomes: Mapping[str, Outcomes], split: str, study: Study, record: Provenance) -> Any:
    """The cells about each domain, with what it did there."""
    roles = roles_of(study.domains)
    for name, found in outcomes.items():
        part = {"domain": name, "role": roles[name], "split": split, "images": len(found)}
        yield {**part, **record.columns(name, split, roles=roles)}, found
