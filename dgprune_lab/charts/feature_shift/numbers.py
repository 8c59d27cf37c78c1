"""The numbers of `feature_shift` against the ratio: small plots, a line per pair of domains, or per domain.

Named data, all of which a page may swap: one set per metric and layer, called like the metric (of the k-th of several
layers `mmd_k`), whose rows are measured points: removed (%), value, low, high, label, colour, dash, shape, fill,
looked; and `lines`, the legend: text, colour, dash, shape, fill, kind ("pair", "other"), line.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, Literal

import altair as alt

from ...core import Exposure, exposure_label, exposure_of, is_missing, strongest_exposure
from ..theme import QUIET, SOLID, DomainStyle, beside, layered, mark_of, named, scorer_styles, shortened
from .map import Rows

METRICS = {
    "mmd": ("MMD, squared", "0: domains not told apart"),
    "coral": ("CORAL", "0: equal covariances"),
    "proxy_a_distance": ("Proxy A-distance", "2: told apart, 0: not at all"),
    "cka": ("CKA of full and pruned", "1: the same but for turning"),
    "silhouette_classes": ("Silhouette of the classes", "1: classes lie apart, 0: not"),
    "silhouette_domains": ("Silhouette of the domains", "1: domains lie apart, 0: not"),
}
_ORDER = (("mmd", "cka"), ("coral", "silhouette_classes"), ("proxy_a_distance", "silhouette_domains"))
_PAIRS = ("mmd", "coral", "proxy_a_distance")
_ALONE = DomainStyle(QUIET, SOLID, "circle", "")
_PALE = 0.14


def number_data(
    rows: Sequence[Mapping[str, Any]], layers: Sequence[str], *, style: Mapping[str, DomainStyle]
) -> dict[str, Rows]:
    """The named data of the numbers, from rows of a tidy table."""
    drawn = [row for row in rows if row["metric"] in METRICS]
    looks_by_line = _looks(drawn, style)
    data: dict[str, Rows] = {name: [] for k in range(len(layers)) for name in _names(k, len(layers)).values()}
    seen: dict[str, list[Exposure]] = {}
    for row in sorted(drawn, key=lambda row: float(row["ratio_requested"])):
        name, exposure = _label(row), exposure_of(row)
        seen.setdefault(name, []).append(exposure)
        value, low, high = (None if is_missing(row[end]) else float(row[end]) for end in ("value", "low", "high"))
        k = layers.index(str(row["group"]))
        data[_names(k, len(layers))[row["metric"]]].append(
            {
                "removed": round(100 * float(row["ratio_requested"]), 4),
                "value": value,
                "low": low,
                "high": high,
                "label": name,
                **mark_of(looks_by_line[name], exposure=exposure, keep_colour=True),
            }
        )
    pairs = {_label(row) for row in drawn if row["metric"] in _PAIRS}
    data["lines"] = _legend(
        looks_by_line, {name: strongest_exposure(found) for name, found in seen.items()}, pairs=pairs
    )
    return data


def number_chart(
    data: Mapping[str, Rows] | None = None, *, layers: Sequence[str] = ("",), at: float | None = None
) -> alt.HConcatChart:
    """The numbers over these data, which may be empty and be fed later; a rule stands at the ratio `at`, the page's."""
    count = max(len(layers), 1)
    empty: Mapping[str, Rows] = {name: [] for k in range(count) for name in [*_names(k, count).values(), "lines"]}
    whole = beside(number_plots(data or empty, layers))
    whole.padding = {"left": 4, "right": 12, "top": 4, "bottom": 6}
    ruled: Any = alt.param(name="at", value=0.0 if at is None else at).param
    whole.params = [ruled]
    whole.usermeta = {"embedOptions": {"actions": False}, "follows": {"ratio": "at"}, "calm": 120}
    return whole


def number_plots(data: Mapping[str, Rows], layers: Sequence[str]) -> Any:
    """One layer: two columns of metrics. Several: a column per layer, a row per metric with one axis for all."""
    few = len(layers) < 2
    wide, high, across = (146, 84, len(_ORDER[0])) if few else (max(72, 460 // len(layers)), 62, len(layers))
    order = [(metric, 0) for pair in _ORDER for metric in pair]
    if not few:
        order = [(metric, k) for metric in METRICS for k in range(len(layers))]
    cells = [_small(data, metric, k, layers=layers).properties(width=wide, height=high) for metric, k in order]
    # Flush: a title that is wider than its plot must not push the next column away.
    grid = alt.concat(*cells, columns=across, spacing={"column": 58 if few else 42, "row": 62}, bounds="flush")
    pairs, others = (_lines(data, kind) for kind in ("pair", "other"))
    return alt.vconcat(grid, alt.hconcat(pairs, others, spacing=18), spacing=14)


def _small(data: Mapping[str, Rows], metric: str, k: int, *, layers: Sequence[str]) -> alt.LayerChart:
    """One metric of one layer against the ratio: zero, the current ratio, intervals, lines and dots."""
    few = len(layers) < 2
    title, meaning = METRICS[metric]
    name = _names(k, max(len(layers), 1))[metric]
    ends = alt.Scale(domain=[0, 1], nice=False) if metric == "cka" else alt.Scale(nice=True, zero=True)
    under = "Removed (%)" if metric in (_ORDER[-1] if few else _ORDER[-1][-1:]) else None
    x = alt.X(
        "removed:Q",
        scale=alt.Scale(domain=[0, 100], nice=False),
        title=under,
        axis=alt.Axis(values=[0, 50, 100], minExtent=14),
    )
    value, low = (
        alt.Y(f"{end}:Q", scale=ends, title=None, axis=alt.Axis(tickCount=3, minExtent=30)) for end in ("value", "low")
    )
    colour, dash = alt.Stroke("colour:N", scale=None), alt.StrokeDash("dash:N", scale=None)
    tips = [
        alt.Tooltip("label:N", title="Of"),
        alt.Tooltip("removed:Q", title="Removed %", format=".3~g"),
        alt.Tooltip("value:Q", title=title, format=".3~g"),
        alt.Tooltip("low:Q", title="from", format=".3~g"),
        alt.Tooltip("high:Q", title="to", format=".3~g"),
        alt.Tooltip("looked:N", title="Looked at before"),
    ]
    again = alt.Chart(alt.NamedData(name=name))
    zero = alt.Chart(alt.InlineData(values=[{}])).encode(y=alt.datum(0))
    here = alt.Chart(alt.InlineData(values=[{}])).transform_calculate(here="100 * at")
    chart = layered(
        zero.mark_rule(style="ink", strokeWidth=1, opacity=0.45),
        here.mark_rule(style="ink", strokeWidth=1, opacity=0.6, strokeDash=[3, 2]).encode(
            x=alt.X("here:Q", title=under)
        ),
        alt.Chart(named(name, data[name]))
        .mark_area(opacity=_PALE)
        .encode(x=x, y=low, y2="high:Q", color=alt.Color("colour:N", scale=None), detail="label:N"),
        again.mark_rule(strokeWidth=1.4, opacity=0.45).encode(x=x, y=low, y2="high:Q", stroke=colour),
        again.mark_line(strokeWidth=1.8).encode(x=x, y=value, stroke=colour, strokeDash=dash, detail="label:N"),
        again.mark_point(size=24, strokeWidth=1.2, opacity=1).encode(
            x=x,
            y=value,
            stroke=colour,
            fill=alt.Fill("fill:N", scale=None),
            shape=alt.Shape("shape:N", scale=None),
            tooltip=tips,
        ),
    )
    if few:
        return chart.properties(title=_title(title, meaning))
    return chart.properties(title=_title(" " if k else f"{title}. {meaning}", layers[k]))


def _title(text: str, below: str) -> alt.Title:
    return alt.Title(
        text=text, subtitle=below, fontSize=12, subtitleFontSize=10.5, offset=4, frame="group", subtitlePadding=5
    )


def _legend(
    looks_by_line: Mapping[str, DomainStyle], exposures: Mapping[str, Exposure], *, pairs: Container[str]
) -> Rows:
    """The rows of `lines`: what each line is of, and below it the mark of what was looked at."""
    rows: Rows = []
    for name, look in looks_by_line.items():
        side = {"kind": "pair" if name in pairs else "other"}
        rows.append(
            {**side, **mark_of(look, exposure=exposures[name], keep_colour=True), "text": shortened(name, most=32)}
        )
        if exposures[name]:
            rows.append(
                {
                    **side,
                    **mark_of(look),
                    "text": exposure_label(exposures[name]).strip(),
                    "colour": "transparent",
                    "fill": "transparent",
                }
            )
    return [{**row, "line": k} for k, row in enumerate(rows)]


def _lines(data: Mapping[str, Rows], kind: Literal["pair", "other"]) -> alt.LayerChart:
    """Half of the legend below: a stretch of each line, its mark, and what it is of."""
    line = alt.Y("line:O", axis=None, sort=None)
    first = alt.Chart(named("lines", data["lines"]) if kind == "pair" else alt.NamedData(name="lines"))
    base = first.transform_filter(f"datum.kind === '{kind}'")
    colour, dash = alt.Stroke("colour:N", scale=None), alt.StrokeDash("dash:N", scale=None)
    return layered(
        base.mark_rule(strokeWidth=1.8).encode(
            x=alt.value(0), x2=alt.value(34), y=line, stroke=colour, strokeDash=dash
        ),
        base.mark_point(size=24, strokeWidth=1.2, opacity=1).encode(
            x=alt.value(17),
            y=line,
            stroke=colour,
            fill=alt.Fill("fill:N", scale=None),
            shape=alt.Shape("shape:N", scale=None),
        ),
        base.mark_text(style="words", align="left", baseline="middle", fontSize=11, limit=150).encode(
            x=alt.value(42), y=line, text="text:N"
        ),
    ).properties(width=186, height=alt.Step(16))


def _names(k: int, layers: int) -> dict[str, str]:
    """metric -> the name of its data, of the k-th layer."""
    return {metric: metric if layers < 2 else f"{metric}_{k}" for metric in METRICS}


def _label(row: Mapping[str, Any]) -> str:
    """What a line is of: a pair of domains, a domain, or all images."""
    if row["metric"] in _PAIRS:
        return f"{row['other']} and {row['domain']}"
    return "all images" if is_missing(row["domain"]) else str(row["domain"])


def _looks(rows: Sequence[Mapping[str, Any]], domains: Mapping[str, DomainStyle]) -> dict[str, DomainStyle]:
    """A look per line: pairs in colours of their own, domains in theirs."""
    spare, found = scorer_styles(), {}
    for row in sorted(rows, key=lambda row: list(METRICS).index(row["metric"])):
        name = _label(row)
        if name not in found:
            found[name] = next(spare) if row["metric"] in _PAIRS else domains.get(name, _ALONE)
    return found
