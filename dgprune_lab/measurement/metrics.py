"""Rows of `measure`: size, cost and latency, the worst domain, accuracy per class, expected calibration error."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..core import Domain, MacCounter, Outcomes
from ..pruning import device_of, shared_copy
from ..stats import calibration_error, intervals

Metric = Literal["worst_domain", "per_class", "calibration_error"]
WORST = "worst_domain_accuracy"
CLASS = ("class", "class_name")
"""Extra columns of the rows per class."""
LATENCY_IMAGES, LATENCY_REPEATS = 32, 21
_MIN_REPEATS, _MAX_SECONDS = 5, 10.0


def metric_rows(outcomes: Outcomes, domain: Domain, *, metrics: Sequence[Metric]) -> Iterator[dict[str, Any]]:
    """Yield the rows of one domain for the requested metrics; none without labels."""
    if outcomes.correct is None or outcomes.labels is None:
        return
    correct, labels = outcomes.correct.double().numpy(), outcomes.labels.numpy()
    shared = {"interval": "images", "unit": "share"}
    if "per_class" in metrics:
        for number in range(domain.classes):
            of_class = correct[labels == number]
            low, high = intervals.over_images(of_class) if len(of_class) else (np.nan, np.nan)
            value = of_class.mean() if len(of_class) else np.nan
            name = domain.class_label(number) if domain.class_names else None
            cells = {"metric": "class_accuracy", "class": number, "class_name": name, "images": len(of_class)}
            yield {**shared, **cells, "value": value, "low": float(low), "high": float(high)}
    if "calibration_error" in metrics:
        assert outcomes.confidence is not None
        value, low, high = calibration_error(correct, outcomes.confidence.numpy())
        yield {**shared, "metric": "calibration_error", "value": value, "low": low, "high": high}


def worst_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield, for each role, the row of the domain with the lowest accuracy, as the metric `worst_domain_accuracy`.

    low and high are the lowest of all domains' lows and highs, since any of several equally hard domains can be the
    worst by chance. The interval covers the lowest true accuracy in 95 % of cases where one domain is clearly the
    worst, and in 100 (.975^k - .025^k) % where k domains are equal (93 % for three).
    """
    for role in dict.fromkeys(row["role"] for row in rows):
        of_role = [row for row in rows if row["role"] == role and row["metric"] == "accuracy"]
        if of_role:
            bounds = {bound: min(row[bound] for row in of_role) for bound in ("low", "high")}
            flags = [row["target_aware"] for row in of_role]
            aware = True if True in flags else None if None in flags else False
            yield {**min(of_role, key=lambda row: row["value"]), **bounds, "metric": WORST, "target_aware": aware}


def cost_rows(model: nn.Module, domain: Domain) -> list[dict[str, Any]]:
    """Return rows with the parameter count, MACs per image (as counted by `MacCounter`) and bytes (with buffers)."""
    twin = shared_copy(model)
    example = domain.take(domain.rows(next(iter(domain.splits)), 1), device=device_of(model)).images
    with MacCounter() as counter, torch.no_grad():
        twin(example)
    parameters = sum(p.numel() for p in model.parameters())
    size = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    return [
        {"metric": "parameters", "value": parameters, "unit": "count"},
        {"metric": "macs", "value": counter.total, "unit": "per image"},
        {"metric": "bytes", "value": size, "unit": "bytes"},
    ]


def timings(model: nn.Module, images: Tensor, *, repeats: int = LATENCY_REPEATS) -> Iterator[float]:
    """Yield the milliseconds of each of `repeats` forward passes of one batch, after two warm-up passes.

    After 10 seconds, stop once five passes are timed.
    """
    twin, end = shared_copy(model), time.perf_counter() + _MAX_SECONDS
    for k in range(repeats + 2):
        if k >= 2 + _MIN_REPEATS and time.perf_counter() > end:
            return
        _synchronize(images)
        start = time.perf_counter()
        with torch.inference_mode():
            twin(images)
        _synchronize(images)
        if k >= 2:
            yield (time.perf_counter() - start) * 1e3


def latency_row(milliseconds: Sequence[float], images: int) -> dict[str, Any]:
    """Return a row with the median and range of the milliseconds per batch."""
    return {
        "metric": "latency",
        "value": statistics.median(milliseconds),
        "low": min(milliseconds),
        "high": max(milliseconds),
        "interval": "range",
        "unit": f"ms per {images} images",
        "images": images,
    }


def _synchronize(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def mask_columns(model: nn.Module) -> dict[str, Any]:
    """Return columns about the mask by which a network was pruned; none if it was not, or in several rounds."""
    masks = getattr(model, "dgprune_masks", ())
    if len(masks) != 1:
        return {}
    columns = ("scorer", "ratio_requested", "ratio_achieved", "scope", "budget")
    return {**{name: masks[0][name] for name in columns}, "seed": masks[0]["options"].get("seed")}


def outcome_rows(outcomes: Outcomes) -> list[dict[str, Any]]:
    """Return rows with accuracy and mean loss of one evaluation, with intervals over images; none without labels."""
    if outcomes.correct is None:
        return []
    values = np.stack([outcomes.correct.double().numpy(), outcomes.loss.numpy()], axis=1)
    low, high = intervals.over_images(values)
    mean = values.mean(0)
    return [
        {"metric": name, "value": mean[k], "low": low[k], "high": high[k], "interval": "images", "unit": unit}
        for k, (name, unit) in enumerate((("accuracy", "share"), ("loss", "nats")))
    ]
