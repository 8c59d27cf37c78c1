"""Rows of `measure` that are asked for: the worst domain, accuracy per class, expected calibration error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ..core import DgpruneError, Domain, Outcomes
from ..stats import calibration_error, intervals

Metric = Literal["worst_domain", "per_class", "calibration_error"]
WORST = "worst_domain_accuracy"
CLASS = ("class", "class_name")
"""Extra columns of the rows per class."""


def metric_rows(outcomes: Outcomes, domain: Domain, *, metrics: Sequence[Metric]) -> Iterator[dict[str, Any]]:
    """Yield the rows of one domain for the metrics that were asked for; none without labels."""
    if outcomes.correct is None or outcomes.labels is None:
        return
    correct, labels = outcomes.correct.double().numpy(), outcomes.labels.numpy()
    shared = {"interval": "images", "unit": "share"}
    if "per_class" in metrics:
        for number in range(domain.classes):
            right = correct[labels == number]
            low, high = intervals.over_images(right) if len(right) else (np.nan, np.nan)
            value = right.mean() if len(right) else np.nan
            name = domain.class_label(number) if domain.class_names else None
            cells = {"metric": "class_accuracy", "class": number, "class_name": name, "images": len(right)}
            yield {**shared, **cells, "value": value, "low": float(low), "high": float(high)}
    if "calibration_error" in metrics:
        assert outcomes.confidence is not None
        value, low, high = calibration_error(correct, outcomes.confidence.numpy())
        yield {**shared, "metric": "calibration_error", "value": value, "low": low, "high": high}


def worst_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield, for each role, the row of the domain with the lowest accuracy, as the metric `worst_domain_accuracy`.

    low and high are the lowest of all domains' lows and highs: where several domains are equally hard, each of them can
    be the worst by chance. The interval covers the lowest true accuracy in 95 % of cases where one domain is clearly
    the worst, in 100 (.975^k - .025^k) % where k domains are equal (93 % for three).
    """
    for role in dict.fromkeys(row["role"] for row in rows):
        of_role = [row for row in rows if row["role"] == role and row["metric"] == "accuracy"]
        if of_role:
            ends = {end: min(row[end] for row in of_role) for end in ("low", "high")}
            aware = [row["target_aware"] for row in of_role]
            known = True if True in aware else None if None in aware else False
            yield {**min(of_role, key=lambda row: row["value"]), **ends, "metric": WORST, "target_aware": known}


def check_metrics(metrics: Sequence[Metric], domains: Sequence[Domain]) -> None:
    """Refuse metrics that need labels where no domain has any."""
    if metrics and all(domain.labels is None for domain in domains):
        raise DgpruneError(f"metrics: {', '.join(metrics)} need labels, and no domain has any; leave metrics out.")
