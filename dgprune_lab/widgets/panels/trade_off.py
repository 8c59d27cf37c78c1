"""The panel "Trade-off": every network tried as a point, its size or cost against its accuracy."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import pandas as pd

from ...charts.trade_off import BELOW, trade_off_chart
from ...charts.trade_off_rows import NAMES, RATIO, ROLES, Cost, trade_off_data
from ...study import Study
from .domains import why_no_accuracy
from .protocol import Frames, Panel, Row, Tried, View, controls_of

_WIDTH, _HEIGHT = 780, 240


class TradeOffPanel(Panel):
    """Each step, pin and measured ratio of the explorer: filters, parameters, MACs, bytes or latency against accuracy.

    It measures nothing itself. `selected["cost"]` is the size or cost that is drawn.
    """

    name, label = "trade_off", "Trade-off"
    charts: Mapping[str, Row] = {}  # made for the roles of the study

    def unavailable(self, study: Study) -> str | None:
        """Return why the panel cannot be shown (no domain has labels), or None."""
        return why_no_accuracy(study)

    def tick(self, view: View) -> Frames:
        """Return a frame with what has been measured so far."""
        tried = [each for each in distinct(view.tried) if len(each.table)]
        if not tried:
            return {"text": "Nothing has been measured yet.", "controls": [], "hidden": ["trade_off"]}
        table = table_of(tried)
        cost, control = self._select_cost(table)
        roles = ROLES if view.study.targets else ROLES[:1]
        data = trade_off_data(table, cost=cost, roles=roles, width=_WIDTH, height=_HEIGHT)
        choices = {each.name: dict(each.choice) for each in tried}
        data = {
            name: [{**row, "choice": choices[row["network"]]} for row in rows] if name.startswith("points") else rows
            for name, rows in data.items()
            if name != "key"  # the text above names the networks
        }
        present = view.present and controls_of(view.present.choice)
        picked = next(({"network": each.name} for each in tried if controls_of(each.choice) == present), {})
        frame: dict[str, Any] = {"charts": {"trade_off": _make_spec(roles)}, "trade_off": data, "hidden": []}
        return {**frame, "text": _describe_points(data), "controls": [control], "picked": picked}

    def background(self, view: View) -> Iterator[Frames]:
        """Yield the frame again, with the ratios that were measured in the background."""
        yield self.tick(view)

    def _select_cost(self, table: pd.DataFrame) -> tuple[Cost, Row]:
        """Return the size or cost to draw, and the menu of those that were measured."""
        costs: list[Cost] = [cost for cost in get_args(Cost) if (table["metric"] == cost).any()]
        chosen = (self.selected or {}).get("cost", "parameters")
        cost = chosen if chosen in costs else costs[0]
        choices = [[name, NAMES[name]] for name in costs]
        return cost, {"name": "cost", "label": "Size or cost", "value": cost, "choices": choices}


@functools.cache
def _make_spec(roles: tuple[str, ...]) -> Row:
    return trade_off_chart(roles=roles, width=_WIDTH, height=_HEIGHT).to_dict()


def distinct(tried: Sequence[Tried]) -> list[Tried]:
    """Return the networks, omitting measured ratios that are also a step or a pin; a repeated name gets a number."""
    saved = [controls_of(each.choice) for each in tried if each.kind != "ratio"]
    networks = [each for each in tried if each.kind != "ratio" or controls_of(each.choice) not in saved]
    counts = Counter[str]()
    for k, each in enumerate(networks):
        counts[each.name] += 1
        if (count := counts[each.name]) > 1:
            networks[k] = replace(each, name=f"{each.name} ({count})")
    return networks


def table_of(tried: Sequence[Tried]) -> pd.DataFrame:
    """Return the tables of several networks as one, with the columns `network` and `kind`."""
    kinds = {"ratio": RATIO}
    tables = [each.table.assign(network=each.name, kind=kinds.get(each.kind, each.kind)) for each in tried]
    return pd.concat(tables, ignore_index=True)


def _describe_points(data: Row) -> str:
    """Return the names of the numbered networks, and how to read the chart."""
    points = [row for name, rows in data.items() if name.startswith("points") for row in rows]
    names = {int(row["number"]): row["called"] for row in points if row["number"]}
    key = "; ".join(f"{number} {names[number]}" for number in sorted(names))
    small = "Small points: measured ratios. " * any(row["kind"] == RATIO for row in points)
    return "\n".join(filter(None, [key, f"{small}A click goes to a network. {BELOW[0]}", BELOW[1]]))
