"""What a saved session holds besides its card: networks, tables, charts and code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import altair as alt
import pandas as pd
from torch import nn

from ...charts import drop, size_and_cost, sweep, trade_off
from ...charts.renderer import vegalite_to_svg
from ...core import DgpruneError
from ..panels.protocol import Tried, View
from .saved_session import network_file
from .session_folder import CHARTS, CODE, PINS, STEPS

_WIDE, _PLOT = 760, 400
_MOVED = ("id", "by", "ratio", "moving")


def session_content(
    networks: Mapping[int, Callable[[], nn.Module]], view: View, *, code: str, tables: Mapping[str, pd.DataFrame]
) -> Iterator[tuple[str, str | nn.Module]]:
    """Yield (name in the folder, text or network) of a session's files, each made when it is asked for.

    Args:
        networks: number of a step -> function that returns its network.
        view: the present view, with everything that was tried.
        code: the code that repeats it.
        tables: "steps" and "pins", tables for people.
    """
    yield CODE, code + "\n"
    for name, file in (("steps", STEPS), ("pins", PINS)):
        if len(tables[name]):
            yield file, tables[name].to_csv()
    for number, network in networks.items():
        yield network_file(number), network()
    if view.present is not None:
        yield "networks/present.safetensors", view.present.network()
    if view.tried:
        frame = tried_frame(view.tried)
        yield "tables/networks.csv", frame.to_csv(index=False)
        for name, chart in _charts(view, frame):
            yield CHARTS.format(name), vegalite_to_svg(chart.to_dict(validate=False))


def tried_frame(tried: tuple[Tried, ...]) -> pd.DataFrame:
    """Return all networks that were tried as one tidy table with the columns `network` and `kind`."""
    return pd.concat([one.table.assign(network=one.name, kind=one.kind) for one in tried], ignore_index=True)


def _charts(view: View, frame: pd.DataFrame) -> Iterator[tuple[str, alt.TopLevelMixin]]:
    """The charts of the present view and of everything tried, those of them for which there are numbers."""
    present = view.present
    curve = [one.table for one in view.tried if present is not None and _settings(one) == _settings(present)]
    makers: dict[str, Callable[[], alt.TopLevelMixin]] = {"trade_off": lambda: trade_off(frame, width=_WIDE)}
    if curve:
        makers["accuracy"] = lambda: sweep(pd.concat(curve, ignore_index=True).drop_duplicates())
    if present is not None and len(present.table):
        full = (view.full or view.study).graph.full._asdict()
        makers["accuracy_change"] = lambda: drop(present.table, width=_PLOT)
        makers["size_and_cost"] = lambda: size_and_cost(present.table, full=full, width=_PLOT)
    for name, make in makers.items():
        try:
            yield name, make()
        except DgpruneError:  # a study without labels has no accuracies
            continue


def _settings(tried: Tried) -> dict[str, Any]:
    """What one curve shares: all choices but the ratio."""
    return {name: value for name, value in tried.choice.items() if name not in _MOVED}
