"""Chart A: accuracy per domain against the share of the filters that is removed.

Named data, all of which a live page may replace: `view.data(name, rows)`; `removed`, `value`, `low`, `high` in percent:

| name | one row is | fields |
|---|---|---|
| curves | a measured point | domain, removed, value, low, high, stretch, colour, dash, shape, fill, ring, looked |
| gaps | an end of a stretch that was not measured | domain, removed, value, gap, colour |
| now | the current ratio | removed |
| dots | a domain at the current ratio | as in curves, and opacity |
| names | a domain's name and the height at which it stands | domain, label, value, colour, shape, fill, ring |
| pinned | a measured point of a pinned view | pin, domain, removed, value, colour, opacity |
| letters | the letter of a pin on its curve | pin, domain, removed, value, colour, opacity |
| full | the full network, as given, on a domain | domain, value |
| chance | a chance level | value, label |

`pin` is a letter, "a" to "c", which has its own dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import altair as alt
import pandas as pd

from ..core import (
    DgpruneError,
    Exposure,
    Positive,
    Share,
    Side,
    Tidy,
    exposure_label,
    exposure_of,
    is_missing,
    public,
    scorer_exposure,
    strongest_exposure,
    with_scorer_exposure,
)
from .curve_names import letter_rows, names_inside, obstacles, pinned_rows, place_names
from .marks import (
    COLOUR,
    LABEL_HEIGHT,
    LEFT,
    OPACITY,
    TEXT_COLOUR,
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
    PIN_DASHES,
    Data,
    Rows,
    beside,
    check_present,
    domain_styles_of,
    finish,
    grouped,
    interval_of,
    mark_of,
    records,
    role_label,
    scorer_styles,
    shortened,
    titled,
)

PADDING = {"left": 46, "right": 10, "top": 10, "bottom": 36}
ACCURACY = "accuracy"
LONGEST: Exposure = "target-aware, seen"
NAMES = ("curves", "gaps", "now", "dots", "names", "pinned", "letters", "full", "chance")
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
    width: Side = 420,
    height: Side = 300,
) -> alt.LayerChart | alt.HConcatChart:
    """Draw a metric of each domain against the share removed.

    One scorer: a line per domain with its interval, named at the left. Several scorers: a panel per domain, a line per
    scorer, named at its end. A hollow diamond around the points, with text after the name, marks domains that
    the scorer, fine-tuning or selection looked at.
    Neighbouring ratios at most `step` apart are joined by a solid line; a wider gap, where nothing was measured, by
    faint dots.

    Args:
        frame: a tidy table; the rows whose metric is `metric` are drawn, several seeds as mean and range.
        now: the current ratio (0 to 1), drawn as a rule with a dot per domain.
        pinned: at most three views to compare with, name -> tidy table; each has a letter (a, b, c) and a dash.
        chance: the chance level (0 to 1).
        step: largest distance between neighbouring ratios that are joined by a solid line.
        metric: name of the metric to draw.
        width, height: size of one plot, in pixels.
    """
    check_present(frame, "metric", metric)
    if "stage" in frame.columns:
        raise DgpruneError("frame is the table of a training, with several networks per ratio; use charts.training.")
    named = [f"{letter}: {shortened(name, most=40)}" for letter, name in zip(PIN_DASHES, pinned or (), strict=False)]
    title = titled(metric.capitalize(), frame, below=[*_describe_prunable(frame), *named])
    scorers = list(dict.fromkeys(str(row["scorer"]) for row in records(frame) if not is_missing(row["scorer"])))
    if len(scorers) > 1:
        panels = _draw_domain_panels(frame, scorers, metric=metric, size=(width, height), chance=chance, step=step)
        return beside(*panels, title=title)
    data = sweep_data(sweep_points(frame, metric=metric), now=now, chance=chance, step=step, height=height, width=width)
    for letter, other in zip(PIN_DASHES, (pinned or {}).values(), strict=False):
        data["pinned"] += pinned_rows(sweep_points(other, metric=metric), letter=letter)
        data["letters"] += letter_rows(data["pinned"], letter=letter)
    return finish(_draw_layers(data, metric=metric), width=width, height=height, padding=PADDING, title=title)


def _describe_prunable(frame: pd.DataFrame) -> list[str]:
    """Return a line that says which filters the ratios are shares of, if not all filters can be pruned."""
    columns = ("prunable", "of_all")
    if frame.empty or not set(columns) <= set(frame.columns):
        return []
    prunable, total = (int(frame[name].iloc[0]) for name in columns)
    if prunable >= total:
        return []
    return [f"Removed: a share of the {prunable:,} of {total:,} filters that can be pruned."]


def sweep_points(frame: pd.DataFrame, *, metric: str = ACCURACY) -> Rows:
    """Return the measured points in percent, one per domain and ratio, several seeds as mean and range.

    In each row, `label` is the text after the domain's name: its exposure mark, or else its role; `below` is a line
    for a mark that is too long for `label`; `exposure` is the mark itself; `given` is True for the full network as
    given.
    """
    styles = domain_styles_of(frame)
    groups = grouped(records(frame, metric=metric), lambda row: (str(row["domain"]), float(row["ratio_requested"])))
    points: Rows = []
    for (domain, ratio), rows in groups.items():
        check_alike(rows)
        values, lows, highs = zip(*(interval_of(row).values() for row in rows), strict=True)
        exposure = strongest_exposure(map(exposure_of, rows))
        label, below = domain_label(styles[domain].role, exposure), ""
        if exposure == LONGEST:
            label, below = "", exposure_label(exposure).strip()
        place = {"domain": domain, "removed": round(100.0 * ratio, 4), "value": sum(values) / len(values)}
        texts: dict[str, Any] = {"exposure": exposure, "label": label, "below": below}
        ends = {"low": min(lows), "high": max(highs)}
        # With re-estimated BatchNorm, the network measured at 0 % is not the full network as given.
        texts["given"] = ratio == 0 and all(row.get("batchnorm") != "recalibrate" for row in rows)
        points.append({**place, **ends, **texts, **mark_of(styles[domain], exposure=exposure)})
    order = list(styles)
    return sorted(points, key=lambda row: (order.index(row["domain"]), row["removed"]))


def sweep_data(
    points: Sequence[Mapping[str, Any]],
    *,
    now: float | None,
    chance: float | None,
    step: float,
    height: int,
    width: int = 420,
    letters: int = 27,
    ends: tuple[float, float] | None = None,
) -> Data:
    """Return the chart's named data from the `sweep_points` of one plot; the options are those of `sweep`.

    Names stand inside the plot at the left, at free heights near the full network's; or, with the `ends` (lowest,
    highest) of the vertical axis, at the ends of the lines, of at most `letters` characters.
    """
    data: Data = {name: [] for name in NAMES}
    for rows in grouped(map(dict, points), lambda row: row["domain"]).values():
        data["names"] += _end_name_rows(rows[-1], letters) if ends else [_inside_name_row(rows[0])]
        _add_domain(data, rows, now=now, step=step)
    if now is not None:
        data["now"] = [{"removed": 100.0 * now}]
    if chance is not None:
        data["chance"] = [{"value": 100.0 * chance, "label": "chance"}]
    low, high = ends or (0.0, 100.0)
    gap = (high - low) * LABEL_HEIGHT / max(height, 1)
    if ends:
        data["names"] = spread(data["names"], gap=gap, low=low, high=high)
    else:
        data["names"] = place_names(data["names"], gap=gap, width=width, **obstacles(data, gap=max(gap, 0.5)))
    return data


def domain_label(role: str, exposure: Exposure) -> str:
    """Return the suffix of a domain's name: its exposure mark, or else its role.

    >>> domain_label("target", ""), domain_label("target", "?"), domain_label("target", "target-aware")
    (' (target)', ' (target) ?', ' (target-aware)')
    """
    return role_label(role) + exposure_label(exposure) if exposure in ("", "?") else f" ({exposure})"


def line_label(name: str, suffix: str, *, letters: int = 27) -> str:
    """Return a domain's name followed by `suffix`, the name shortened so that the label is not too long."""
    return shortened(name, most=min(22, max(7, letters - len(suffix)))) + suffix


def _end_name_rows(row: Mapping[str, Any], letters: int) -> Rows:
    """Return the label at a line's end, preceded by `below` if any: of two at one height, the first is drawn lower."""
    end = {key: row[key] for key in ("domain", "removed", "value", "colour")}
    label = line_label(row["domain"], row["label"], letters=letters)
    return [{**end, "label": line} for line in (row["below"], label) if line]


def _inside_name_row(row: Mapping[str, Any]) -> dict[str, Any]:
    suffix = f"{row['label']} {row['below']}".rstrip()
    style = {key: row[key] for key in ("domain", "value", "colour", "shape", "fill", "ring")}
    return {**style, "label": line_label(row["domain"], suffix, letters=44)}


def _add_domain(data: Data, rows: Rows, *, now: float | None, step: float) -> None:
    """Add one domain's points to the named data, divided into measured ranges and the gaps between them."""
    stretch = 0
    for before, row in zip([None, *rows], rows, strict=False):
        end = {key: row[key] for key in ("domain", "removed", "value", "colour")}
        if before is not None and row["removed"] - before["removed"] > 100.0 * step + 1e-6:
            stretch += 1
            data["gaps"] += [{**{key: at[key] for key in end}, "gap": stretch} for at in (before, row)]
        is_full = [row.pop(name) for name in ("label", "below", "exposure", "given")][-1]
        data["curves"].append({**row, "stretch": stretch})
        if is_full:
            data["full"].append({"domain": row["domain"], "value": row["value"]})
        if now is not None and abs(row["removed"] - 100.0 * now) < 1e-6:
            data["dots"].append({**row, "opacity": 1.0})


def _draw_layers(data: Mapping[str, Rows], *, metric: str, suffix: str = "", room: int | None = None) -> alt.LayerChart:
    """Draw all marks of one plot; `suffix` ends the names of the data.

    Names are at the left inside the plot, or, if `room` (their largest width in pixels) is given, at the ends of lines.
    """
    rows = {name: rows_of(f"{name}{suffix}", data[name]) for name in NAMES}
    scale = alt.Scale(domain=[0, 100], nice=False)
    x = REMOVED.axis(tickCount=5)
    y = alt.Y("value:Q", scale=scale, title=f"{metric.capitalize()} (%)", axis=alt.Axis(tickCount=5))
    fields = {"domain": "Domain", "removed": ("Removed %", ".0f"), "value": (f"{metric.capitalize()} %", ".1f")}
    tips = tooltip(fields, ends=".1f", looked=True)
    dashes = alt.Scale(domain=[*PIN_DASHES], range=[[*dash] for dash in PIN_DASHES.values()])
    dash = alt.StrokeDash("pin:N", legend=None, scale=dashes)
    pin: dict[str, Any] = {"x": x, "y": y, "opacity": OPACITY}
    letter = {**pin, "text": alt.Text("pin:N"), "fill": TEXT_COLOUR}
    chance = rows["chance"].mark_text(style="quiet", align="left", dx=5, dy=-6)
    now = rows["now"].mark_rule(style="ink", strokeWidth=1.2, opacity=0.75).encode(x=x).properties(name=f"now{suffix}")
    names = names_inside(rows["names"], y=y) if room is None else [line_names(rows["names"], x=x, y=y, limit=room)]
    return layered(
        rows["chance"].mark_rule(style="quiet", strokeDash=[2, 2]).encode(y=y),
        chance.encode(x=LEFT, y=y, text=alt.Text("label:N")),
        rows["full"].mark_rule(style="ink", strokeDash=list(DASHED), opacity=0.28).encode(y=y),
        rows["pinned"]
        .mark_line(strokeWidth=1.6)
        .encode(**pin, stroke=COLOUR, strokeDash=dash, detail=[alt.Detail("pin:N"), alt.Detail("domain:N")])
        .properties(name=f"pinned{suffix}"),
        *curve_layers(rows["curves"], rows["gaps"], x=x, value=y, tips=tips),
        now,
        *interval_marks(rows["dots"], y, at={"x": x}, tips=tips, size=70, opacity=OPACITY),
        rows["letters"].mark_text(style="halo", strokeWidth=4, strokeJoin="round").encode(**letter),
        rows["letters"].mark_text(fontWeight=700).encode(**letter),
        *names,
    )


def _draw_domain_panels(
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
                mark = mark_of(styles[scorer], exposure=row["exposure"])
                points.append({**row, "domain": scorer, "label": label, "below": "", **mark})
        data = sweep_data(points, now=None, height=size[1], letters=38, ends=(0.0, 100.0), **options)
        # Data sets of a concatenation share one namespace, so those of each panel get a suffix.
        panel = _draw_layers(data, metric=metric, suffix=f"_{len(panels)}", room=220)
        title = alt.Title(text=domain + role_label(style.role), color=style.colour)
        panels.append(panel.properties(width=size[0], height=size[1], title=title))
    return panels
