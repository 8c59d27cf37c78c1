"""Rows of the chart that compares two networks, see `compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..core import exposure_label, exposure_of, is_missing, rounded, scorer_exposure
from .drop import change_of, span_rows
from .marks import check_alike, step_above
from .size_and_cost import amount
from .theme import Data, DomainStyle, Rows, domain_styles_of, grouped, interval_of, point_of, records, shortened
from .trade_off_rows import LINE

BOTH = "a - b"
FLIPS = {"turned_wrong": "right_to_wrong", "turned_right": "wrong_to_right"}
CHANGES = {"differences": "difference", "calibration": "calibration_difference"}
_MOST_CLASSES, _MOST_LAYERS, _LETTERS = 30, 16, 24


def compare_data(frame: pd.DataFrame, *, names: tuple[str, str] | None = None) -> Data:
    """Return the named data of the chart from a table of `diagnostics.compare`; `names` as in `compare`."""
    both = [row for row in records(frame) if row["choice"] == BOTH]
    data: Data = {"words": word_rows(frame, names=names)}
    for name, metric in CHANGES.items():
        data[name] = _difference_rows(frame, both, metric)
        data[f"{name}_span"] = span_rows(data[name])
    for name, metric in FLIPS.items():
        data[name] = _flip_rows(frame, both, metric)
    end = step_above(max([row["high"] for name in FLIPS for row in data[name]] or [0.0]))
    data["flips_span"] = [{"value": 0.0}, {"value": float(end)}]
    classes = _class_rows(frame, both)
    shared = span_rows([row for rows in classes.values() for row in rows])
    for k, (domain, rows) in enumerate(classes.items()):
        label, colour = next((row["label"], row["colour"]) for row in rows) if rows else (domain, "")
        data |= {f"classes_{k}": rows, f"classes_{k}_span": shared, f"class_head_{k}": [{"text": label, "ink": colour}]}
    data["layers"] = _layer_rows(both)
    return data


def word_rows(frame: pd.DataFrame, *, names: tuple[str, str] | None = None) -> Rows:
    """Return the lines above the plots: what a and b are, their sizes, and their worst domains."""
    lines, worst = [], []
    for choice, name in zip("ab", names or ("", ""), strict=True):
        rows = [row for row in records(frame) if row["choice"] == choice]
        lines.append(f"{choice}: {_describe_network(rows, name)}")
        worst.append({row["role"]: row for row in rows if row["metric"] == "worst_domain_accuracy"})
    for role in worst[0]:
        texts = [
            f"{choice} {rounded(interval_of(by_role[role])['value'], 1):.1f} % ({by_role[role]['domain']})"
            for choice, by_role in zip("ab", worst, strict=True)
        ]
        lines.append(f"Lowest {role} accuracy: {', '.join(texts)}")
    labelled = {row["domain"] for row in records(frame, metric="right_to_wrong")}
    for row in records(frame, metric="changed"):
        if row["domain"] not in labelled:
            changed = rounded(interval_of(row)["value"], 1)
            lines.append(f"{row['domain']}, without labels: {changed:.1f} % of the predictions differ")
    classes = {row["class"] for row in records(frame, metric="class_difference")}
    if len(classes) > _MOST_CLASSES:
        lines.append(f"Classes: the {_MOST_CLASSES} of {len(classes)} that differ most on any domain")
    differ = [row for row in records(frame, metric="filters_differ") if is_missing(row["group"])]
    lines += [f"Filters that only one of the two keeps: {row['value']:,.0f}" for row in differ]
    return [{"text": text, "y": LINE * k} for k, text in enumerate(lines)]


def _describe_network(rows: Rows, name: str) -> str:
    """Return a network as text: its name, or scorer and ratio; its exposure mark; its number of parameters."""
    if not rows:
        return ""
    first, values = rows[0], {row["metric"]: row["value"] for row in rows}
    scorer = "by hand" if is_missing(first["scorer"]) else str(first["scorer"])
    ratio = first["ratio_achieved"]
    if name:
        text = shortened(name, most=60)
    elif is_missing(ratio):
        text = "a network that dg.prune did not make"
    elif ratio == 0:
        text = "nothing removed"
    else:
        text = f"{shortened(scorer, most=40)}, {rounded(100 * ratio, 1):.1f} % removed"
    text += exposure_label(scorer_exposure(rows))
    size = values.get("parameters")
    return text if size is None else f"{text}; {amount(size, metric='parameters')} parameters"


def _difference_rows(frame: pd.DataFrame, both: Rows, metric: str) -> Rows:
    """Return the rows of one metric's difference on each domain, in percentage points."""
    used = [row for row in both if row["metric"] == metric]
    for alike in grouped(used, lambda row: row["domain"]).values():
        check_alike(alike)
    styles, rows = domain_styles_of(frame), Rows()
    for row in used:
        rows.append({"place": len(rows), "domain": str(row["domain"]), **change_of(row), **_point_fields(row, styles)})
    return rows


def _point_fields(row: Mapping[str, Any], styles: Mapping[str, DomainStyle]) -> dict[str, Any]:
    """Return a domain's point style, `label` (name with exposure mark), and `lines`, the same text in two lines."""
    domain, exposure = str(row["domain"]), exposure_of(row)
    name, mark = shortened(domain, most=_LETTERS), exposure_label(exposure)
    labels = {"label": f"{domain}{mark}", "lines": f"{name}\n{mark.strip()}" if mark else name}
    return {**labels, **point_of(styles[domain], exposure=exposure)}


def _flip_rows(frame: pd.DataFrame, both: Rows, metric: str) -> Rows:
    """Return the share of images that flip on each domain, in percent, with the number of images as text."""
    counts = {row["domain"]: row["value"] for row in both if row["metric"] == f"{metric}_count"}
    styles, rows = domain_styles_of(frame), Rows()
    for row in (row for row in both if row["metric"] == metric):
        text = f"{counts[row['domain']]:,.0f} of {row['images']:,}"
        about = {"place": len(rows), "domain": str(row["domain"]), "text": text}
        rows.append({**about, **interval_of(row), **_point_fields(row, styles)})
    return rows


def _class_rows(frame: pd.DataFrame, both: Rows) -> dict[str, Rows]:
    """Return domain -> the difference per class, in percentage points; if many, for those that differ most."""
    styles = domain_styles_of(frame)
    used = [row for row in both if row["metric"] == "class_difference"]
    largest = _largest_classes(used)
    domains: dict[str, Rows] = {str(row["domain"]): [] for row in used}
    for row in used:
        if row["class"] in largest and not is_missing(row["value"]):
            name = str(row["class"] if is_missing(row["class_name"]) else row["class_name"])
            about = {"class": int(row["class"]), "name": shortened(name, most=12), "images": int(row["images"])}
            domains[str(row["domain"])].append({**about, **change_of(row), **_point_fields(row, styles)})
    return domains


def _largest_classes(rows: Sequence[dict[str, Any]]) -> set[int]:
    """Return the classes whose accuracy differs most on any domain."""
    by_class = grouped((row for row in rows if not is_missing(row["value"])), lambda row: row["class"])
    ordered = sorted(by_class, key=lambda number: -max(abs(row["value"]) for row in by_class[number]))
    return set(ordered[:_MOST_CLASSES])


def _layer_rows(both: Rows) -> Rows:
    """Return the number of filters that differ per layer; if there are many layers, for those with the most."""
    layers = [row for row in both if row["metric"] == "filters_differ" and not is_missing(row["group"])]
    largest = sorted(layers, key=lambda row: -row["value"])[:_MOST_LAYERS]
    names = [(str(row["group"]), row["value"], row["value"]) for row in layers if row in largest]
    if further := len(layers) - len(largest):  # without a bar, which would be the longest
        rest = sum(row["value"] for row in layers) - sum(row["value"] for row in largest)
        names.append((f"{further} further layers", 0, rest))
    return [
        {"place": k, "label": name, "lines": shortened(name, most=_LETTERS), "value": value, "text": f"{count:,.0f}"}
        for k, (name, value, count) in enumerate(names)
    ]
