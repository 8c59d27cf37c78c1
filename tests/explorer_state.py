"""A made-up but realistic state of the explorer: three domains, five layers, four scorers, a grid of 20 ratios.

Python makes every row of the charts from a tidy table, as it does for a real one.
"""

from __future__ import annotations

import functools
import pickle
import random
from typing import Any

from dgprune_lab.charts import drop, size_and_cost, sweep
from dgprune_lab.charts.marks import LABEL_HEIGHT
from dgprune_lab.charts.size_and_cost import size_row
from dgprune_lab.core import exposure_of, tidy
from dgprune_lab.widgets.explorer.frames import Frame, curve_rows, frame_of

GROUPS = [("conv1", 24), ("conv2", 32), ("conv3", 48), ("conv4", 64), ("conv5", 96)]
FULL = {"filters": 264, "parameters": 104_346, "macs": 6_214_400, "bytes": 431_000}
RATIOS = [round(0.05 * k, 2) for k in range(20)]
HOSTILE = "mnist_m['x'].<img src=http://example.invalid/x onerror=alert(1)></script>"
EXPOSURE = "Target-aware: the scorer looked at images of mnist_m (not the reported ones)."
# name: (label, kind, steepness)
SCORERS = {
    "l1": ("L1 norm (weights)", "weights", 7.0),
    "taylor": ("Taylor (gate)", "source", 9.0),
    "dss": ("DSS (source vs target) ◇ target-aware", "target", 6.0),
    "random": ("By chance", "control", 1.4),
}
# What the scorer looked at, by the mark that this makes: "seen" of a source, the others of the target.
SEEN: dict[str, dict[str, Any]] = {
    "": {"seen_by_scorer": "none", "target_aware": False},
    "?": {"seen_by_scorer": "unknown", "target_aware": None},
    "seen": {"seen_by_scorer": "images", "target_aware": False},
    "target-aware": {"seen_by_scorer": "none", "target_aware": True},
    "target-aware, seen": {"seen_by_scorer": "images", "target_aware": True},
}


def make_static(target: str = "mnist_m") -> dict[str, Any]:
    options = [
        {"name": "mode", "value": "joint", "choices": ["additive", "joint"]},
        {"name": "target", "value": None, "choices": [None, "mnist_m"]},
        {"name": "beta", "value": 1.0, "choices": None},
    ]
    summary = "Sum of the absolute weights of a filter; small sums are removed first.\ns = sum |w|"
    shared = {"summary": summary, "cite": "Li et al. 2017, arXiv:1608.08710", "unavailable": None, "options": options}
    scorers = [
        {"name": name, "label": label, "kind": kind, "instead": "l1" if kind == "target" else None, **shared}
        for name, (label, kind, _) in SCORERS.items()
    ]
    missing = {"name": "bn_scale", "label": "BatchNorm scale", "kind": "weights", "summary": "", "cite": ""}
    empty = tidy([])
    return {
        "domains": [
            {"name": "mnist", "role": "source"},
            {"name": "uci_digits", "role": "source"},
            {"name": target, "role": "target"},
        ],
        "groups": [{"name": f"features.{name}", "filters": filters} for name, filters in GROUPS],
        "scorers": [*scorers, {**missing, "unavailable": "no BatchNorm here", "instead": None, "options": []}],
        "has_batchnorm": True,
        "device": "CPU, 1 thread",
        "chance": [{"value": 10.0, "label": "chance"}],
        "label_height": LABEL_HEIGHT,
        "specs": {"a": sweep(empty).to_dict(), "c": size_and_cost(empty).to_dict(), "d": drop(empty).to_dict()},
        "host": "anywidget:none",
    }


def make_plan(scorer: str) -> dict[str, Any]:
    draw = random.Random(scorer)
    groups = []
    for name, filters in GROUPS:
        rank = list(range(filters))
        draw.shuffle(rank)
        scores = [round(0.01 + place / filters + 0.001 * draw.random(), 5) for place in rank]
        about = {"name": f"features.{name}", "index": list(range(filters)), "full": filters}
        groups.append({**about, "rank": rank, "score": scores})
    steps = []
    for k in range(100):
        kept = [max(1, filters - round(filters * k / 100)) for _, filters in GROUPS]
        share = sum(kept) / 264
        powers = {"filters": 1.0, "parameters": 1.9, "macs": 1.8, "bytes": 1.9}
        costs = {metric: round(FULL[metric] * share**power) for metric, power in powers.items()}
        left = [size_row(metric, value, full=FULL[metric]) for metric, value in costs.items()]
        steps.append({"ratio": k / 100, "ratio_achieved": round(1 - share, 4), "kept": kept, "left": left, **costs})
    exposure = {"sign": "◇", "text": EXPOSURE} if scorer == "dss" else None
    return {"key": [scorer, "layer", "filters"], "groups": groups, "steps": steps, "exposure": exposure}


def make_frame(
    scorer: str, ratio: float, *, target: str = "mnist_m", estimate: bool = False, exposure: str | None = None
) -> Frame:
    """What was measured at a ratio; `exposure` is the mark of one domain, see `SEEN`."""
    steep, wide = SCORERS[scorer][2], 0.03 if estimate else 0.014
    mark = ("target-aware" if scorer == "dss" else "") if exposure is None else exposure
    rows: list[dict[str, Any]] = []
    parts = []
    for name, role, top, bend in (
        ("mnist", "source", 0.97, 1.0),
        ("uci_digits", "source", 0.958, 0.8),
        (target, "target", 0.58, 0.42),
    ):
        value = 0.1 + (top - 0.1) * (1 - ratio ** (steep * bend))
        marked = name == ("uci_digits" if mark == "seen" else target)
        seen = {**SEEN[mark if marked else ""], "seen_by_finetuning": "none", "seen_by_selection": "none"}
        cells = {"scorer": scorer, "ratio_requested": ratio, "domain": name, "role": role, "unit": "share", **seen}
        change = value - top
        ends = {"low": max(value - wide, 0), "high": min(value + wide, 1)}
        high = min(change + wide, 0.02 + change)
        cells["images"] = 250 if estimate else 1000
        rows.append({**cells, "metric": "accuracy", "value": value, **ends})
        rows.append({**cells, "metric": "accuracy_change", "value": change, "low": change - wide, "high": high})
        said = " (target-aware)" if exposure_of(cells) == "target-aware" else ""
        parts.append(f"{name}{said} {100 * top:.0f} → {100 * value:.0f} %")
    sentence = f"{100 * ratio:.0f} % of the filters removed: {', '.join(parts)}"
    return frame_of(tidy(rows), sentence=sentence, estimate=estimate)


def make_curve(*frames: Frame, scorer: str = "l1", batchnorm: str = "recalibrate") -> dict[str, Any]:
    """The value of the trait `frames`."""
    text = "4.1 ms for 32 images (3.9 to 4.6); no clear difference from the full network"
    ordered = sorted(frames, key=lambda frame: frame.payload["ratio"])
    return {
        "key": [scorer, "layer", "filters", batchnorm],
        "rows": [{**frame.payload, "latency": {"text": text}} for frame in ordered],
        "lines": curve_rows([point for frame in ordered if not frame.is_estimate for point in frame.points]),
    }


def make_state(target: str = "mnist_m", *, exposure: str | None = None) -> dict[str, Any]:
    """A state that the caller may change."""
    return pickle.loads(_made(target, exposure))


@functools.cache
def _made(target: str, exposure: str | None) -> bytes:
    choice = {"id": 0, "ratio": 0.5, "scorer": "l1", "scope": "layer", "budget": "filters", "by": "kernel"}
    state = {
        "static": make_static(target),
        "choice": {**choice, "batchnorm": "recalibrate"},
        "status": {"ack": 0, "progress": None, "error": None, "message": None},
        "pins": [],
        "panels": {"list": [], "open": None, "charts": {}, "data": {}, "text": None, "error": None, "ack": 0},
        "plans": [make_plan(scorer) for scorer in SCORERS],
        "curves": [
            make_curve(*(make_frame(s, ratio, target=target, exposure=exposure) for ratio in RATIOS), scorer=s)
            for s in SCORERS
        ],
    }
    return pickle.dumps(state)
