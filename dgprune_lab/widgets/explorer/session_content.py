"""What a saved session holds besides its card: networks, tables, charts and code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec

import pandas as pd
from torch import nn

from ...charts import trade_off
from ...charts.renderer import Drawing
from ...core import tidy
from ..panels.protocol import View
from ..panels.trade_off import distinct, table_of
from .frames import EXTRA
from .pictures import filters_kept_svg, is_labelled, view_charts
from .saved_session import network_file
from .session_folder import CHARTS, CODE, PINS, STEPS

_WIDE = 760


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
        if tried and is_labelled(view):
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
