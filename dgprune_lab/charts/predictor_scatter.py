"""A measure of many networks against how they generalise; Kendall's tau updates for networks selected by pointer.

The page computes tau from the points alone: a brush selects networks, each is paired with every other, and
concordant minus discordant pairs are counted. Named data:

| name | one row is | fields |
|---|---|---|
| networks | a trained network | network (text), measures, outcomes, levels: name -> value |
| levels | a level of a hyperparameter | hyperparameter, key, label, line (pixels), colour, shape |
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import altair as alt

from ..core import DgpruneError, NetworkTable, Side, Tidy, network_table, public, unknown
from .marks import COLOUR, LEFT, SHAPE, TEXT_COLOUR, layered, menu, rows_of, tooltip
from .theme import Rows, finish, plain, role_label, scorer_styles, shortened

MOST = 400
"""Maximum number of networks; more would make too many pairs for a page to follow the pointer."""
_LEVELS, _LETTERS, _LINE, _LEGEND = 8, 22, 18, 150
_NONE_SELECTED = "Drag over points to select some."
_PADDING = {"left": 64, "right": _LEGEND, "top": 48, "bottom": 60}


@public
def predictor_scatter(
    frame: Tidy,
    *,
    hyperparameters: Sequence[str],
    measure: str | None = None,
    outcome: str = "loss",
    width: Side = 520,
    height: Side = 340,
) -> alt.LayerChart:
    """Draw a measure against an outcome, a point per converged network, with tau-a over all and over the selected ones.

    Tau is signed as in `experiments.predictors`: above 0 the measure predicts correctly. In a live page
    (`dg.widgets.LiveChart(chart)`) measure, outcome and the hyperparameter that colours the points are chosen below the
    chart, and tau follows the rectangle that is dragged over points; a double click removes it.

    Args:
        frame: a table of many networks, as for `experiments.predictors`.
        hyperparameters: columns in which the networks differ, other than training_seed.
        measure: measure that is shown first; None for the first of the table.
        outcome: outcome that is shown first, on the first domain of the table.
        width, height: size of the plot, in pixels.

    Raises:
        DgpruneError: an unknown column, measure or outcome; no converged network, or more than 400.
    """
    table = network_table(frame, hyperparameters=hyperparameters)
    count = int(table.settings["converged"].sum())
    if not 0 < count <= MOST:
        raise DgpruneError(f"the scatter draws 1 to {MOST} converged networks; frame holds {count}. Pass a part of it.")
    measures = list(table.measures)
    first = measures[0] if measure is None else measure
    if first not in measures:
        raise unknown("measure", first, measures)
    places = {place: _label_outcome(table, place) for place in table.outcomes}
    start = next((label for (name, _), label in places.items() if name == outcome), None)
    if start is None:
        raise unknown("outcome", outcome, sorted({name for name, _ in places}))
    title = alt.Title(text="Does the measure order the networks as they generalise?", offset=8)
    layers = _draw_layers(table, places, hyperparameters=hyperparameters, height=height)
    chart = finish(layers, width=width, height=height, padding=_PADDING, title=title)
    brushes: Any = chart.params
    chart.params = [
        menu("measure", measures, value=first, labels=[plain(name) for name in measures]),
        menu("outcome", list(places.values()), value=start, labels=list(places.values())),
        menu("colour", hyperparameters, value=hyperparameters[0], labels=[plain(name) for name in hyperparameters]),
        *brushes,
    ]
    return chart


def network_rows(table: NetworkTable, places: Mapping[Any, str], *, hyperparameters: Sequence[str]) -> Rows:
    """Return the chart's rows of converged networks; a value that is missing is None."""
    rows: Rows = []
    for network, settings in table.settings[table.settings["converged"]].iterrows():
        levels = {name: str(settings[name]) for name in hyperparameters}
        about = ", ".join(f"{plain(name)} {level}" for name, level in levels.items())
        measures = {name: _finite_or_none(table.measures.at[network, name]) for name in table.measures}
        outcomes = {label: _finite_or_none(table.outcomes[place].at[network]) for place, label in places.items()}
        seed = f", training seed {settings['training_seed']}"
        rows.append({"network": about + seed, "measures": measures, "outcomes": outcomes, "levels": levels})
    return rows


def level_rows(table: NetworkTable, *, hyperparameters: Sequence[str]) -> Rows:
    """Return the legend: colour and mark of each level of each hyperparameter; after eight levels they repeat."""
    rows: Rows = []
    for name in hyperparameters:
        levels = table.settings[name].drop_duplicates().sort_values()
        styles = list(islice(scorer_styles(), _LEVELS))
        for k, level in enumerate(levels):
            style = {"colour": styles[k % _LEVELS].colour, "shape": styles[k % _LEVELS].shape}
            label = shortened(f"{plain(name)} {level}", most=_LETTERS)
            rows.append({"hyperparameter": name, "key": f"{name}={level}", "label": label, "line": _LINE * k, **style})
    return rows


def _draw_layers(
    table: NetworkTable, places: Mapping[Any, str], *, hyperparameters: Sequence[str], height: int
) -> alt.LayerChart:
    """Draw points, a legend, the titles of the axes, and tau of all and of the selected networks."""
    legend = rows_of("levels", level_rows(table, hyperparameters=hyperparameters))
    brush = alt.selection_interval(name="brush", zoom=False)
    base = rows_of("networks", network_rows(table, places, hyperparameters=hyperparameters))
    base = base.transform_calculate(x="datum.measures[measure]", y="datum.outcomes[outcome]")
    base = base.transform_filter("isValid(datum.x) && isValid(datum.y)")
    styled = base.transform_calculate(key="colour + '=' + datum.levels[colour]").transform_lookup(
        lookup="key", from_=alt.LookupData(data=alt.NamedData(name="levels"), key="key", fields=["colour", "shape"])
    )
    scale, axis = alt.Scale(zero=False, padding=12), alt.Axis(tickCount=6, format=".3~g", title=None)
    x, y = alt.X("x:Q", scale=scale, axis=axis), alt.Y("y:Q", scale=scale, axis=axis)
    tips = tooltip({"network": "Network", "x": ("Measure", ".4~g"), "y": ("Outcome", ".4~g")})
    opacity: Any = alt.when(brush).then(alt.value(1)).otherwise(alt.value(0.25))
    points = styled.mark_point(size=46, strokeWidth=1).encode(
        x=x, y=y, stroke=COLOUR, fill=TEXT_COLOUR, shape=SHAPE, opacity=opacity, tooltip=tips
    )
    entries = legend.transform_filter("datum.hyperparameter === colour")
    at: Any = {"y": {"expr": "8 + datum.line"}}
    right = {"expr": "width + 16"}
    return layered(
        entries.mark_point(size=46, opacity=1, x=right, **at).encode(stroke=COLOUR, fill=TEXT_COLOUR, shape=SHAPE),
        entries.mark_text(style="words", align="left", baseline="middle", dx=11, x=right, **at).encode(
            text=alt.Text("label:N")
        ),
        points.add_params(brush),
        *_draw_titles(table, height=height),
        _draw_tau(base, table, "All", y=-34),
        _draw_tau(base.transform_filter(brush), table, "Selected:", y=-16, otherwise=_NONE_SELECTED),
    )


def _draw_titles(table: NetworkTable, *, height: int) -> list[alt.Chart]:
    """Write the axis titles, which follow the menus, and whether low or high measures are predicted to be better."""
    better = _vega_object({name: f"{direction} is predicted to be better" for name, direction in table.better.items()})
    blank = alt.Chart(alt.InlineData(values=[{}]))
    below = {"expr": f"replace(measure, /_/g, ' ') + ': ' + {better}[measure]"}
    return [
        blank.mark_text(style="words", align="center", text=below, x={"expr": "width / 2"}, y=height + 36),
        blank.mark_text(style="words", align="center", angle=270, text={"expr": "outcome"}, x=-50, y=height / 2),
    ]


def _draw_tau(points: alt.Chart, table: NetworkTable, prefix: str, *, y: int, otherwise: str = "") -> alt.Chart:
    """Write tau-a over these points: each is paired with every other, and signs of differences are compared.

    While nothing is selected, the text `otherwise`, if given, replaces it.
    """
    signs = _vega_object({name: -1 if direction == "lower" else 1 for name, direction in table.better.items()})
    outcomes = _vega_object(
        {_label_outcome(table, place): -1 if table.better[place[0]] == "lower" else 1 for place in table.outcomes}
    )
    sign = "((datum.{0} > datum.other.{0}) - (datum.{0} < datum.other.{0}))"
    others: Any = [alt.JoinAggregateFieldDef(op="values", field="x", **{"as": "other"})]
    label = (
        f"'{prefix} ' + datum.networks + ' networks, tau-a ' + "
        "(datum.pairs > 0 ? format(datum.agree / datum.pairs, '+.3f') : 'needs two')"
    )
    if otherwise:
        label = f"length(data('brush_store')) ? {label} : '{otherwise}'"
    counts = (
        points.transform_joinaggregate(others)
        .transform_flatten(["other"])
        .transform_calculate(
            same=f"{sign.format('x')} * {sign.format('y')} * {signs}[measure] * {outcomes}[outcome]",
            own="datum.network === datum.other.network ? 1 : 0",
        )
        .transform_aggregate(agree="sum(same)", networks="sum(own)", all="count()")
        .transform_calculate(pairs="datum.all - datum.networks")
        .transform_calculate(label=label)
    )
    return counts.mark_text(style="strong", align="left", fontWeight=600, y=y).encode(x=LEFT, text=alt.Text("label:N"))


def _label_outcome(table: NetworkTable, place: tuple[str, str]) -> str:
    """Return an outcome on a domain as text."""
    return f"{plain(place[0])} on {place[1]}{role_label(table.rows[place].get('role'))}"


def _vega_object(values: Mapping[str, Any]) -> str:
    """Return a mapping as a Vega expression."""
    return json.dumps(values, ensure_ascii=True)


def _finite_or_none(value: Any) -> float | None:
    return float(value) if value == value and abs(value) != float("inf") else None
