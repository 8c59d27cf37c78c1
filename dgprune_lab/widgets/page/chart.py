"""Any chart live in a notebook, without network access: its sliders, brushes and tooltips work."""

from __future__ import annotations

import altair as alt
import traitlets

from ...charts import svg
from ...core import public
from . import static as assets
from .comm import CommWidget
from .vega import shared_static


@public
class LiveChart(CommWidget):
    """An Altair chart drawn in the page by the toolkit's own Vega; a saved notebook shows it as a picture.

    Inputs bound to the chart's parameters stand below it and receive keyboard events. They act only in the page:
    nothing is sent to Python.

    Args:
        chart: any Altair chart that contains its data.

    >>> import altair as alt
    >>> chart = alt.Chart(alt.InlineData(values=[{"a": 1}])).mark_point().encode(x="a:Q")
    >>> LiveChart(chart).static["spec"]["mark"]["type"]
    'point'
    """

    _esm = assets.module("live_chart")
    _css = assets.style("live_chart")

    static = traitlets.Dict().tag(sync=True)

    def __init__(self, chart: alt.TopLevelMixin) -> None:
        self.chart = chart
        super().__init__(static={"spec": chart.to_dict(), **shared_static()})

    def still(self) -> str:
        """Return the chart as a picture (HTML)."""
        return assets.picture(None, svg(self.chart), what="chart")
