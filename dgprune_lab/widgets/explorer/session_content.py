"""What a saved session holds besides its card: networks, tables, charts and code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import pandas as pd
from torch import nn

from ...charts import drop, size_and_cost, sweep, trade_off
from ...charts.renderer import Drawing
from ...core import tidy
from ..panels.protocol import Row, Tried, View
from ..panels.trade_off import distinct, table_of
from .frames import EXTRA
from .grid_picture import filters_kept_svg
from .saved_session import network_file
from .session_folder import CHARTS, CODE, PINS, STEPS

_WIDE, _PLOT = 760, 400
_MOVED = ("id", "by", "ratio", "moving")


def session_content(
    networks: Mapping[int, Callable[[], nn.Module]], view: View, *, code: str, tables: Mapping[str, pd.DataFrame]
) -> Iterator[tuple[str, str | bytes | nn.Module]]:
    """Yield (name in the folder, text, bytes or network) of a session's files, each made when it is asked for.

    Tables are written as CSV, and as Parquet too where pyarrow is installed (extra `[parquet]`): it is 100 MB on the
    disk, which nobody who reads CSV should have to fetch.

    Args:
        networks: number of a step -> function that returns its network.
        view: the present view, with everything that was tried.
        code: the code that repeats it.
        tables: "steps" and "pins", tables for people.
    """
    with Drawing() as drawing:
        tried = distinct(view.tried)
        table = table_of(tried) if tried else tidy([], extra=EXTRA)
        charts = dict(view_charts(view))
        if tried and _labelled(view):
            charts = {"trade_off": trade_off(table, width=_WIDE).to_dict(validate=False), **charts}
        drawing.begin(list(charts.values()))
        yield CODE, code + "\n"
        for name, file in (("steps", STEPS), ("pins", PINS)):
            if len(tables[name]):
                yield from _table(tables[name].reset_index(), file)
        for number, network in networks.items():
            yield network_file(number), network()
        if tried:
            yield from _table(table, "tables/networks.csv")
        if view.present is not None:
            yield "networks/present.safetensors", view.present.network()
            forced = view.present.choice.get("forced") or {}
            yield CHARTS.format("filters_kept"), filters_kept_svg(view.present.mask, forced=forced, silent=view.silent)
        for name, svg in zip(charts, drawing.finish(), strict=True):
            yield CHARTS.format(name), svg


def _table(table: pd.DataFrame, file: str) -> Iterator[tuple[str, str | bytes]]:
    yield file, table.to_csv(index=False)
    if find_spec("pyarrow"):
        yield file.replace(".csv", ".parquet"), table.to_parquet(index=False)


def view_charts(view: View) -> Iterator[tuple[str, Row]]:
    """Yield (name, specification) of the charts of the present view with its curve, those that have numbers."""
    present, labelled = view.present, _labelled(view)
    if present is None:
        return
    curve = [one for one in distinct(view.tried) if _settings(one) == _settings(present)]
    of_ratio = {one.choice["ratio"]: one.table for one in curve}  # a step and its pin are one network
    if curve and labelled:
        yield "accuracy", sweep(pd.concat(of_ratio.values(), ignore_index=True)).to_dict(validate=False)
    if len(present.table):
        full = (view.full or view.study).graph.full._asdict()
        yield "size_and_cost", size_and_cost(present.table, full=full, width=_PLOT).to_dict(validate=False)
        if labelled:
            yield "accuracy_change", drop(present.table, width=_PLOT).to_dict(validate=False)


def _labelled(view: View) -> bool:
    return any(domain.labels is not None for domain in view.study.domains)


def _settings(tried: Tried) -> dict[str, Any]:
    """What one curve shares: all choices but the ratio."""
    return {name: value for name, value in tried.choice.items() if name not in _MOVED}
