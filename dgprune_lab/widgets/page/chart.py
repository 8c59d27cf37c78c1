"""Any chart live in a notebook, without a network: its sliders, brushes and tooltips work."""

from __future__ import annotations

from typing import Any

import traitlets

from ... import charts
from . import static as assets
from .comm import CommWidget
from .vega import vega_host


class LiveChart(CommWidget):
    """An Altair chart drawn in the page by the toolkit's own Vega; a saved notebook shows it as a picture.

    Inputs that the chart binds to its parameters stand below it and keep their keys to themselves. Nothing is sent to
    Python: what they change happens in the page.

    Args:
        chart: any Altair chart; its data must be in it.

    >>> import altair as alt
    >>> Shown(alt.Chart(alt.InlineData(values=[{"a": 1}])).mark_point().encode(x="a:Q")).static["spec"]["mark"]["type"]
    'point'
    """

    _esm = assets.module("shown")
    _css = assets.style("shown")

    static = traitlets.Dict().tag(sync=True)

    def __init__(self, chart: Any) -> None:
        self.chart = chart
        super().__init__(static={"spec": chart.to_dict(), "host": vega_host().ref})

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        if isinstance(data, dict):
            data["text/html"] = assets.picture(None, charts.svg(self.chart), what="chart")
        return bundle
