"""The numbers of `feature_shift` against the ratio: small plots, a line per pair of domains, or per domain.

Named data, all of which a live page may replace: one set per metric and layer, named after the metric (`mmd_k` for the
k-th of several layers), a row per measured point: removed (%), value, low, high, label, colour, dash, shape, fill,
looked; and `lines`, the legend: text, colour, dash, shape, fill, looked, kind ("pair", "other"), line.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, Literal

import altair as alt

from ...core import Exposure, exposure_label, exposure_of, is_missing, strongest_exposure
from ..marks import COLOUR, DASH, LEFT, for_field, layered, point_marks, rows_of, tooltip
from ..theme import QUIET, SOLID, Data, DomainStyle, Rows, beside, mark_of, scorer_styles, shortened

METRICS = {
    "mmd": ("MMD, squared", "0: domains not separable"),
    "coral": ("CORAL", "0: equal covariances"),
    "proxy_a_distance": ("Proxy A-distance", "2: separable, 0: not at all"),
    "cka": ("CKA of full and pruned", "1: the same but for rotation"),
    "silhouette_classes": ("Silhouette of the classes", "1: apart, 0: overlap, < 0: mixed"),
    "silhouette_domains": ("Silhouette of the domains", "1: apart, 0: overlap, < 0: mixed"),
}
EXPLAINED = {
    "mmd": [
        "How different the features of two domains are: images of one domain compared with each other,",
        "and with images of the other. 0: not distinguished. A removed filter counts as 0 for every image.",
    ],
    "coral": [
        "How different the covariances of the features of two domains are, averaged over pairs of filters.",
        "0: equal. It does not see where the domains lie.",
    ],
    "proxy_a_distance": [
        "How well a linear classifier tells two domains apart by their features alone.",
        "2: without an error. 0: no better than a coin. It does not see how far apart they are.",
    ],
    "cka": [
        "How alike the features of one image are in the full and in the pruned network.",
        "1: the same, up to rotation and scale. 0: unrelated.",
    ],
    "silhouette_classes": [
        "How near an image is to those of its own class, compared with the nearest other class.",
        "1: apart. 0: they overlap. Below 0: images are, on average, nearer to another class than to their own.",
    ],
    "silhouette_domains": [
        "How near an image is to those of its own domain, compared with the nearest other domain.",
        "1: apart. 0: they overlap. Below 0: images are, on average, nearer to another domain than to their own.",
    ],
}
_ORDER = {2: ("mmd", "cka", "coral", "silhouette_classes", "proxy_a_distance", "silhouette_domains"), 3: tuple(METRICS)}
_PAIRS = ("mmd", "coral", "proxy_a_distance")
_THREE_COLUMNS = 610  # pixels
_ALONE = DomainStyle(colour=QUIET, dash=SOLID, shape="circle")


def number_data(rows: Sequence[Mapping[str, Any]], layers: Sequence[str], *, styles: Mapping[str, DomainStyle]) -> Data:
    """Return the named data of the numbers, from rows of a tidy table."""
    used = [row for row in rows if row["metric"] in METRICS]
    line_styles = _line_styles(used, styles)
    data: Data = {name: [] for k in range(len(layers)) for name in _data_names(k, len(layers)).values()}
    exposures: dict[str, list[Exposure]] = {}
    for row in sorted(used, key=lambda row: float(row["ratio_requested"])):
        label, exposure = _line_label(row), exposure_of(row)
        exposures.setdefault(label, []).append(exposure)
        name = _data_names(layers.index(str(row["group"])), len(layers))[row["metric"]]
        numbers = {end: None if is_missing(row[end]) else float(row[end]) for end in ("value", "low", "high")}
        mark = mark_of(line_styles[label], exposure=exposure)
        data[name].append({"removed": round(100 * float(row["ratio_requested"]), 4), **numbers, "label": label, **mark})
    pairs = {_line_label(row) for row in used if row["metric"] in _PAIRS}
    strongest: dict[str, Exposure] = {label: strongest_exposure(seen) for label, seen in exposures.items()}
    data["lines"] = _line_rows(line_styles, strongest, pairs=pairs)
    return data


def number_chart(
    data: Mapping[str, Rows] | None = None,
    *,
    layers: Sequence[str] = ("",),
    at: float | None = None,
    columns: Literal[2, 3] = 3,
    title: alt.Title | None = None,
) -> alt.HConcatChart:
    """Return the plots of these data, which may come later; a rule marks the current ratio `at` of the page.

    `narrow` in `usermeta` is the chart with two columns, for a page that is too narrow for three.
    """
    count = max(len(layers), 1)
    empty: Data = {name: [] for k in range(count) for name in [*_data_names(k, count).values(), "lines"]}
    chart = beside(number_plots(data or empty, layers, columns=columns), padding=(4, 12, 4, 6), title=title)
    ratio: Any = alt.param(name="at", value=0.0 if at is None else at).param
    chart.params = [ratio]
    chart.usermeta = {"embedOptions": {"actions": False}, "follows": {"ratio": "at"}, "calm": 120}
    if columns == 3 and data is None:
        chart.usermeta["narrow"] = {"below": _THREE_COLUMNS, "spec": number_chart(at=at, columns=2).to_dict()}
    return chart


def number_plots(data: Mapping[str, Rows], layers: Sequence[str], *, columns: Literal[2, 3] = 3) -> Any:
    """Return a plot per metric: in `columns` columns for one layer, in a column per layer for several."""
    single = len(layers) < 2
    width, height, across = (146, 84, columns) if single else (max(72, 460 // len(layers)), 62, len(layers))
    order = [(metric, 0) for metric in _ORDER[columns]]
    if not single:
        order = [(metric, k) for metric in METRICS for k in range(len(layers))]
    plots = [
        _draw_plot(data, metric, k=k, layers=layers, last=place >= len(order) - across).properties(
            width=width, height=height
        )
        for place, (metric, k) in enumerate(order)
    ]
    # Flush: a title wider than its plot must not push the next column away.
    spacing = {"column": 58 if single else 42, "row": 72}
    grid = alt.concat(*plots, columns=across, spacing=spacing, bounds="flush")
    pairs, others = (_draw_legend(data, kind) for kind in ("pair", "other"))
    return alt.vconcat(grid, alt.hconcat(pairs, others, spacing=18), spacing=14)


def _draw_plot(
    data: Mapping[str, Rows],
    metric: str,
    *,
    k: int,
    layers: Sequence[str],
    last: bool,
    ticks: Sequence[int] = (0, 50, 100),
    live: bool = True,
) -> alt.LayerChart:
    """Draw a layer's metric against the ratio: zero line, a live page's current ratio, intervals, lines and dots."""
    title, meaning = METRICS[metric]
    name = _data_names(k, max(len(layers), 1))[metric]
    scale = alt.Scale(domain=[0, 1], nice=False) if metric == "cka" else alt.Scale(nice=True, zero=True)
    below = "Removed (%)" if last else None
    percent = alt.Scale(domain=[0, 100], nice=False)
    x = alt.X("removed:Q", scale=percent, title=below, axis=alt.Axis(values=list(ticks), minExtent=14))
    y = alt.Y("value:Q", scale=scale, title=None, axis=alt.Axis(tickCount=3, minExtent=30))
    ends = {"x": x, "y": for_field(y, "low"), "y2": alt.Y2("high:Q")}
    fields = {"label": "Of", "removed": ("Removed %", ".3~g"), "value": (title, ".3~g")}
    tips = tooltip(fields, ends=".3~g", looked=True)
    base = rows_of(name, data[name])
    single = alt.Chart(alt.InlineData(values=[{}]))
    rule: dict[str, Any] = {"style": "ink", "strokeWidth": 1}
    now = single.transform_calculate(now="100 * at").mark_rule(opacity=0.6, strokeDash=[3, 2], **rule)
    band = base.mark_area(opacity=0.14)
    chart = layered(
        single.mark_rule(opacity=0.45, **rule).encode(y=alt.YDatum(0)),
        *([now.encode(x=alt.X("now:Q", title=below))] if live else []),
        band.encode(**ends, color=alt.Color("colour:N", scale=None), detail=alt.Detail("label:N")),
        base.mark_rule(strokeWidth=1.4, opacity=0.45).encode(**ends, stroke=COLOUR),
        base.mark_line(strokeWidth=1.8).encode(x=x, y=y, stroke=COLOUR, strokeDash=DASH, detail=alt.Detail("label:N")),
        *point_marks(base, size=24, stroke=1.2, at={"x": x, "y": y}, tips=tips),
    )
    if len(layers) > 1:
        title, meaning = " " if k else f"{title}. {meaning}", layers[k]
    small: dict[str, Any] = {"fontSize": 12, "subtitleFontSize": 10.7, "offset": 4, "subtitlePadding": 5}
    return chart.properties(title=alt.Title(text=title, subtitle=meaning, frame="group", **small))


def large_plot(data: Mapping[str, Rows], metric: str, *, layer: str) -> alt.LayerChart:
    """Return one metric's plot by itself, without a title."""
    plot = _draw_plot(data, metric, k=0, layers=[layer], last=True, ticks=(0, 25, 50, 75, 100), live=False)
    plot.title = alt.Undefined
    return plot


def legend_of(data: Mapping[str, Rows]) -> alt.LayerChart:
    """Return the legend of the lines of one metric."""
    lines = [{**row, "kind": "pair"} for row in data["lines"]]
    return _draw_legend({"lines": lines}, "pair", letters=210)


def _line_rows(styles: Mapping[str, DomainStyle], exposures: Mapping[str, Exposure], *, pairs: Container[str]) -> Rows:
    """Return the rows of the legend: the name of each line, and below it the exposure mark of its domains."""
    rows: Rows = []
    for name, style in styles.items():
        kind, mark = "pair" if name in pairs else "other", mark_of(style, exposure=exposures[name])
        rows.append({"kind": kind, **mark, "text": shortened(name, most=32)})
        if exposures[name]:
            clear = {"colour": "transparent", "fill": "transparent"}
            rows.append({"kind": kind, **mark_of(style), **clear, "text": exposure_label(exposures[name]).strip()})
    return [{**row, "line": k} for k, row in enumerate(rows)]


def _draw_legend(data: Mapping[str, Rows], kind: Literal["pair", "other"], *, letters: int = 150) -> alt.LayerChart:
    """Draw half of the legend: for each line a sample, its mark, and its name in at most `letters` pixels."""
    y = alt.Y("line:O", axis=None, sort=None)
    base = rows_of("lines", data["lines"]) if kind == "pair" else alt.Chart(alt.NamedData(name="lines"))
    base = base.transform_filter(f"datum.kind === '{kind}'")
    text = base.mark_text(style="words", align="left", baseline="middle", fontSize=11, limit=letters)
    return layered(
        base.mark_rule(strokeWidth=1.8).encode(x=LEFT, x2=alt.X2Value(34), y=y, stroke=COLOUR, strokeDash=DASH),
        *point_marks(base, size=24, stroke=1.2, at={"x": alt.XValue(17), "y": y}),
        text.encode(x=alt.XValue(42), y=y, text=alt.Text("text:N")),
    ).properties(width=letters + 36, height=alt.Step(16))


def _data_names(k: int, layers: int) -> dict[str, str]:
    """Return metric -> name of its data for the k-th layer."""
    return {metric: metric if layers < 2 else f"{metric}_{k}" for metric in METRICS}


def _line_label(row: Mapping[str, Any]) -> str:
    """Return the name of a line: a pair of domains, a domain, or all images."""
    if row["metric"] in _PAIRS:
        return f"{row['other']} and {row['domain']}"
    return "all images" if is_missing(row["domain"]) else str(row["domain"])


def _line_styles(rows: Sequence[Mapping[str, Any]], domains: Mapping[str, DomainStyle]) -> dict[str, DomainStyle]:
    """Return line name -> style: each pair of domains has a colour of its own, and a domain keeps its usual style."""
    spare, styles = scorer_styles(), {}
    for row in sorted(rows, key=lambda row: list(METRICS).index(row["metric"])):
        label = _line_label(row)
        if label not in styles:
            styles[label] = next(spare) if row["metric"] in _PAIRS else domains.get(label, _ALONE)
    return styles
