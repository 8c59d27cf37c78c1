"""A made-up but realistic state of the explorer: three domains, five layers, three scorers, a grid of 20 ratios."""

from __future__ import annotations

import random
from typing import Any

from dgprune_lab import charts
from dgprune_lab.widgets.page import static

GROUPS = [("conv1", 24), ("conv2", 32), ("conv3", 48), ("conv4", 64), ("conv5", 96)]
RATIOS = [round(0.05 * k, 2) for k in range(20)]
HOSTILE = "mnist_m['x'].<img src=http://example.invalid/x onerror=alert(1)></script>"
LOOKED = "Target-aware: this choice looked at images of mnist_m (others than those it is tested on)."
# name: (label, kind, steepness)
SCORERS = {
    "l1": ("Smallest weights", "weights", 7.0),
    "taylor": ("Least change of the loss", "training", 9.0),
    "dss": ("Looks alike on both ◇ target-aware", "target", 6.0),
    "random": ("By chance", "control", 1.4),
}


def make_static(target: str = "mnist_m") -> dict[str, Any]:
    names = [("mnist", "source"), ("uci_digits", "source"), (target, "target")]
    found = charts.domain_styles(names)
    return {
        "domains": [
            {
                "name": name,
                "role": role,
                "colour": found[name].colour,
                "dash": list(found[name].dash),
                "shape": found[name].shape,
                "chance": 0.1,
            }
            for name, role in names
        ],
        "groups": [{"name": f"features.{name}", "filters": filters} for name, filters in GROUPS],
        "scorers": [
            {
                "name": name,
                "label": label,
                "kind": kind,
                "summary": "Sum of the absolute weights of a filter.\ns = sum |w|",
                "cite": "Li et al. 2017, arXiv:1608.08710",
                "unavailable": None,
                "instead": "l1" if kind == "target" else None,
                "options": [
                    {"name": "mode", "value": "joint", "choices": ["additive", "joint"]},
                    {"name": "target", "value": None, "choices": [None, "mnist_m"]},
                    {"name": "beta", "value": 1.0, "choices": None},
                ],
            }
            for name, (label, kind, _) in SCORERS.items()
        ]
        + [
            {
                "name": "bn_scale",
                "label": "Smallest BatchNorm scale",
                "kind": "weights",
                "summary": "",
                "cite": "",
                "unavailable": "no BatchNorm here",
                "instead": None,
                "options": [],
            }
        ],
        "has_batchnorm": True,
        "device": "CPU, 1 thread",
        "full": {"filters": 264, "parameters": 104_346, "macs": 6_214_400, "bytes": 431_000},
        "specs": static.specs(),
        "host": "anywidget:none",
    }


def make_plan(scorer: str) -> dict[str, Any]:
    draw = random.Random(scorer)
    groups = []
    for _, filters in GROUPS:
        rank = list(range(filters))
        draw.shuffle(rank)
        groups.append(
            {"rank": rank, "score": [round(0.01 + place / filters + 0.001 * draw.random(), 5) for place in rank]}
        )
    steps = []
    for k in range(100):
        kept = [max(1, filters - round(filters * k / 100)) for _, filters in GROUPS]
        share = sum(kept) / 264
        steps.append(
            {
                "ratio": k / 100,
                "ratio_achieved": round(1 - share, 4),
                "kept": kept,
                "filters": sum(kept),
                "parameters": round(104_346 * share**1.9),
                "macs": round(6_214_400 * share**1.8),
                "bytes": round(431_000 * share**1.9),
            }
        )
    looked = {"sign": "◇", "text": LOOKED} if scorer == "dss" else None
    return {"key": f"{scorer}|layer|filters", "groups": groups, "steps": steps, "looked": looked}


def make_row(scorer: str, ratio: float, *, target: str = "mnist_m", estimate: bool = False) -> dict[str, Any]:
    steep = SCORERS[scorer][2]
    domains, told = [], []
    for name, top, bend in (("mnist", 0.97, 1.0), ("uci_digits", 0.958, 0.8), (target, 0.58, 0.42)):
        value = 0.1 + (top - 0.1) * (1 - ratio ** (steep * bend))
        wide = 0.03 if estimate else 0.014
        domains.append(
            {
                "name": name,
                "value": value,
                "low": max(value - wide, 0),
                "high": min(value + wide, 1),
                "change": value - top,
                "change_low": value - top - wide,
                "change_high": min(value - top + wide, 0.02 + value - top),
                "seen": "target-aware" if scorer == "dss" and name == target else "",
                "looked": "yes, other images of this domain" if scorer == "dss" and name == target else "no",
            }
        )
        seen = " (target-aware)" if domains[-1]["seen"] else ""
        told.append(f"{name}{seen} {100 * top:.0f} → {100 * value:.0f} %")
    start = "Half of the filters are gone" if ratio == 0.5 else f"{100 * ratio:.0f} % of the filters are gone"
    return {
        "ratio": ratio,
        "estimate": estimate,
        "images": 250 if estimate else 1000,
        "sentence": f"{start}: {', '.join(told)}",
        "domains": domains,
        "latency": {"text": "4.1 ms for 32 images (3.9 to 4.6); no clear difference from the full network"},
    }


def make_frames(scorer: str, *, target: str = "mnist_m", batchnorm: str = "recalibrate") -> dict[str, Any]:
    return {
        "key": f"{scorer}|layer|filters|{batchnorm}",
        "rows": [make_row(scorer, ratio, target=target) for ratio in RATIOS],
    }


def make_state(target: str = "mnist_m") -> dict[str, Any]:
    scorers = list(SCORERS)
    return {
        "static": make_static(target),
        "choice": {
            "id": 0,
            "ratio": 0.5,
            "scorer": "l1",
            "scope": "layer",
            "budget": "filters",
            "batchnorm": "recalibrate",
            "by": "kernel",
        },
        "status": {"ack": 0, "progress": None, "error": None, "message": None},
        "pins": [],
        "panels": {"list": [], "open": None, "charts": {}, "data": {}, "text": None, "error": None},
        "plans_by_key": [make_plan(scorer) for scorer in scorers],
        "frames_by_key": [make_frames(scorer, target=target) for scorer in scorers],
    }
