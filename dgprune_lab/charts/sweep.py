"""Chart A: accuracy per domain against the share of the filters that is removed.

Named data, all of which a page may swap with `view.data(name, rows)`; `removed`, `value`, `low`, `high` in percent:

| name | one row is | fields |
|---|---|---|
| curves | a measured point | domain, removed, value, low, high, stretch, colour, dash, shape, fill, looked |
| gaps | an end of a stretch that was not measured | domain, removed, value, gap, colour |
| now | the current ratio | removed |
| dots | a domain at the current ratio | domain, removed, value, low, high, colour, dash, shape, fill, opacity, looked |
| names | the name at a line's end, and the line below it | domain, label, removed, value, colour |
| pinned | a measured point of a pinned view | pin, domain, removed, value |
| full | the full network as given on a domain | domain, value |
| chance | a chance level | value, label |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import altair as alt
import pandas as pd

from ..core import (
    Count,
    DgpruneError,
    Exposure,
    Positive,
    Share,
    Tidy,
    exposure_label,
    exposure_of,
    is_missing,
    public,
    scorer_exposure,
    strongest_exposure,
    with_scorer_exposure,
)
from .marks import (
    LABEL_HEIGHT,
    LEFT,
    OPACITY,
    check_alike,
    curve_layers,
    interval_marks,
    layered,
    line_names,
    rows_of,
    spread,
    tooltip,
)
from .theme import (
    DASHED,
    DOTTED,
    Data,
    Rows,
    beside,
    check_held,
    domain_styles_of,
    finish,
    interval_of,
    mark_of,
    records,
    role_label,
    scorer_styles,
    shortened,
    titled,
)

PADDING = {"left": 52, "right": 140, "top": 10, "bottom": 36}
ACCURACY = "accuracy"
LONGEST: Exposure = "target-aware, seen"
NAMES = ("curves", "gaps", "now", "dots", "names", "pinned", "full", "chance")
REMOVED = alt.X("removed:Q", scale=alt.Scale(domain=[0, 100], nice=False), title="Removed (%)")


@public
def sweep(
    frame: Tidy,
    *,
    now: Share | None = None,
    pinned: Mapping[str, pd.DataFrame] | None = None,
    chance: Share | None = None,
    step: Positive = 0.05,
    metric: str = ACCURACY,
    width: Count = 420,
    height: Count = 300,
) -> alt.LayerChart | alt.HConcatChart:
    """Draw a metric of each domain against the share removed; names stand at the ends of the lines.

    One scorer: a line per domain with its interval. Several scorers: a panel per domain, a line per scorer. A hollow
    diamond, with text after the name, marks domains at which scorer, fine-tuning or selection have looked.
    Neighbouring ratios at most `step` apart are joined by a solid line; a wider gap, where nothing was measured, by
    faint dots.

    Args:
        frame: a tidy table; the rows whose metric is `metric` are drawn, several seeds become mean and range.
        now: the current ratio (0 to 1), drawn as a rule with a dot per domain.
        pinned: name -> tidy table of a view to compare with; drawn grey and dotted.
        chance: the chance level (0 to 1).
        step: largest distance between neighbouring ratios that are joined by a solid line.
        metric: name of the metric to draw.
        width, height: size of one plot, in pixels.
    """
    check_held(frame, "metric", metric)
    if "stage" in frame.columns:
        raise DgpruneError("frame is the table of a training, with several networks per ratio; use charts.training.")
    title = titled(metric.capitalize(), frame, below=_refused(frame))
    scorers = list(dict.fromkeys(str(row["scorer"]) for row in records(frame) if not is_missing(row["scorer"])))
    if len(scorers) > 1:
        panels = _by_domain(frame, scorers, metric=metric, size=(width, height), chance=chance, step=step)
        return beside(*panels, title=title)
    data = sweep_data(sweep_points(frame, metric=metric), now=now, chance=chance, step=step, height=height)
    for label, other in (pinned or {}).items():
        data["pinned"] += [
            {"pin": label, **{key: row[key] for key in ("domain", "removed", "value")}}
            for row in sweep_points(other, metric=metric)
        ]
    return finish(_layers(data, metric=metric), width=width, height=height, padding=PADDING, title=title)


def _refused(frame: pd.DataFrame) -> list[str]:
    """What a ratio is a share of, where not all filters can be pruned."""
    columns = ("prunable", "of_all")
    if frame.empty or not set(columns) <= set(frame.columns):
        return []
    can, every = (int(frame[name].iloc[0]) for name in columns)
    if can >= every:
        return []
    return [f"Removed: a share of the {can:,} of {every:,} filters that can be pruned."]


def sweep_points(frame: pd.DataFrame, *, metric: str = ACCURACY) -> Rows:
    """Return the measured points in percent, one per domain and ratio, several seeds as mean and range.

    In each row, `label` follows the name: the mark of what was seen of the domain, or else its role; `below` is a line
    for a mark that is too long for `label`; `exposure` is the mark itself; `given` is True for the full network as
    given.
    """
    styles = domain_styles_of(frame)
    groups: dict[tuple[str, float], Rows] = {}
    for row in records(frame, metric=metric):
        groups.setdefault((str(row["domain"]), float(row["ratio_requested"])), []).append(row)
    points: Rows = []
    for (domain, ratio), rows in groups.items():
        check_alike(rows)
        values, lows, highs = zip(*(interval_of(row).values() for row in rows), strict=True)
        exposure = strongest_exposure(map(exposure_of, rows))
        label, below = domain_label(styles[domain].role, exposure), ""
        if exposure == LONGEST:
            label, below = "", exposure_label(exposure).strip()
        place = {"domain": domain, "removed": round(100.0 * ratio, 4), "value": sum(values) / len(values)}
        words: dict[str, Any] = {"exposure": exposure, "label": label, "below": below}
        ends = {"low": min(lows), "high": max(highs)}
        # Of a network whose BatchNorm was re-estimated, what is measured at 0 % is not the full network as given.
        words["given"] = ratio == 0 and all(row.get("batchnorm") != "recalibrate" for row in rows)
        points.append({**place, **ends, **words, **mark_of(styles[domain], exposure=exposure)})
    order = list(styles)
    return sorted(points, key=lambda row: (order.index(row["domain"]), row["removed"]))


def sweep_data(
    points: Sequence[Mapping[str, Any]],
    *,
    now: float | None,
    chance: float | None,
    step: float,
    height: int,
    letters: int = 27,
    span: tuple[float, float] = (0.0, 100.0),
) -> Data:
    """Return the chart's named data from the `sweep_points` of one plot; now, chance, step and height: see `sweep`.

    Labels have at most `letters` characters (long names are shortened) and stay within `span`, the vertical axis.
    """
    data: Data = {name: [] for name in NAMES}
    for domain in dict.fromkeys(row["domain"] for row in points):
        _add_domain(data, [dict(row) for row in points if row["domain"] == domain], now=now, step=step, letters=letters)
    low, high = span
    data["names"] = spread(data["names"], gap=(high - low) * LABEL_HEIGHT / max(height, 1), low=low, high=high)
    if now is not None:
        data["now"] = [{"removed": 100.0 * now}]
    if chance is not None:
        data["chance"] = [{"value": 100.0 * chance, "label": "chance"}]
    return data


def domain_label(role: str, exposure: Exposure) -> str:
    """Return the suffix of a domain's name: its role, or instead the mark of what was seen of it.

    >>> domain_label("target", ""), domain_label("target", "?"), domain_label("target", "target-aware")
    (' (target)', ' (target) ?', ' (target-aware)')
    """
    return role_label(role) + exposure_label(exposure) if exposure in ("", "?") else f" ({exposure})"


def line_label(name: str, words: str, *, letters: int = 27) -> str:
    """Return a domain's name followed by `words`, the name shortened so that the label is not too long."""
    return shortened(name, most=min(22, max(7, letters - len(words)))) + words


def _add_domain(data: Data, rows: Rows, *, now: float | None, step: float, letters: int) -> None:
    """Add one domain's points to the named data, divided into measured ranges and the gaps between them."""
    stretch = 0
    for before, row in zip([None, *rows], rows, strict=False):
        end = {key: row[key] for key in ("domain", "removed", "value", "colour")}
        if before is not None and row["removed"] - before["removed"] > 100.0 * step + 1e-6:
            stretch += 1
            data["gaps"] += [{**{key: at[key] for key in end}, "gap": stretch} for at in (before, row)]
        words, below, given, _ = (row.pop(name) for name in ("label", "below", "given", "exposure"))
        data["curves"].append({**row, "stretch": stretch})
        if given:
            data["full"].append({"domain": row["domain"], "value": row["value"]})
        if now is not None and abs(row["removed"] - 100.0 * now) < 1e-6:
            data["dots"].append({**row, "opacity": 1.0})
        if row is rows[-1]:
            label = line_label(row["domain"], words, letters=letters)
            # Of two labels at one height the first is placed below.
            data["names"] += [{**end, "label": line} for line in (below, label) if line]


def _layers(
    data: Mapping[str, Rows], *, metric: str, suffix: str = "", room: int = PADDING["right"] + 10
) -> alt.LayerChart:
    """Draw all marks of one plot; `suffix` ends the names of the data, `room` is a label's largest width in pixels."""
    rows = {name: rows_of(f"{name}{suffix}", data[name]) for name in NAMES}
    scale = alt.Scale(domain=[0, 100], nice=False)
    x = REMOVED.axis(tickCount=5)
    y = alt.Y("value:Q", scale=scale, title=f"{metric.capitalize()} (%)", axis=alt.Axis(tickCount=5))
    fields = {"domain": "Domain", "removed": ("Removed %", ".0f"), "value": (f"{metric.capitalize()} %", ".1f")}
    tips = tooltip(fields, ends=".1f", looked=True)
    pinned = rows["pinned"].mark_line(style="pinned", strokeDash=list(DOTTED), strokeWidth=2)
    chance = rows["chance"].mark_text(style="quiet", align="left", dx=5, dy=-6)
    return layered(
        rows["chance"].mark_rule(style="quiet", strokeDash=[2, 2]).encode(y=y),
        chance.encode(x=LEFT, y=y, text="label:N"),
        rows["full"].mark_rule(style="ink", strokeDash=list(DASHED), opacity=0.28).encode(y=y),
        pinned.encode(x=x, y=y, detail=["pin:N", "domain:N"]),
        *curve_layers(rows["curves"], rows["gaps"], x=x, value=y, tips=tips),
        rows["now"].mark_rule(style="ink", strokeWidth=1.2, opacity=0.75).encode(x=x),
        *interval_marks(rows["dots"], y, at={"x": x}, tips=tips, size=70, opacity=OPACITY),
        line_names(rows["names"], x=x, y=y, limit=room),
    )


def _by_domain(
    frame: pd.DataFrame, scorers: Sequence[str], *, metric: str, size: tuple[int, int], **options: Any
) -> list[alt.LayerChart]:
    """Draw a panel per domain with a line per scorer, named at its end; all panels have the same axes."""
    styles = dict(zip(scorers, scorer_styles(), strict=False))
    panels: list[alt.LayerChart] = []
    for domain, style in domain_styles_of(frame).items():
        points: Rows = []
        for scorer in scorers:
            rows = cast(pd.DataFrame, frame[(frame["domain"] == domain) & (frame["scorer"] == scorer)])
            for row in sweep_points(rows, metric=metric):
                label = exposure_label(with_scorer_exposure(row["exposure"], scorer_exposure(records(rows))))
                mark = mark_of(styles[scorer], exposure=row["exposure"], keep_colour=True)
                points.append({**row, "domain": scorer, "label": label, "below": "", **mark})
        data = sweep_data(points, now=None, height=size[1], letters=38, **options)
        # Datasets of a concatenation share one namespace, so each panel's get its own suffix.
        panel = _layers(data, metric=metric, suffix=f"_{len(panels)}", room=220)
        title = alt.Title(text=domain + role_label(style.role), color=style.colour)
        panels.append(panel.properties(width=size[0], height=size[1], title=title))
    return panels
