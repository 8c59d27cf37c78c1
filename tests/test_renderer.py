"""Pictures: on white; under a limit of address space drawn by a child process or refused in a sentence, no abort."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import psutil
import pytest
from PIL import Image

import dgprune_lab as dg
from dgprune_lab.charts import renderer
from dgprune_lab.charts.renderer import Drawing, svg_to_png, vegalite_to_svg

resource = pytest.importorskip("resource", reason="limits of POSIX")

LIMIT = 24 * 2**30

_SCRIPT = f"""
import resource
import altair as alt, pandas as pd
from dgprune_lab.charts.theme import finish
from dgprune_lab.core import DgpruneError
from dgprune_lab.charts.theme import svg

resource.setrlimit(resource.RLIMIT_AS, ({LIMIT}, {LIMIT}))
chart = alt.Chart(pd.DataFrame({{"a": [1, 2]}})).mark_point().encode(x="a:Q")
chart = finish(alt.layer(chart), width=50, height=50, padding={{"left": 9, "right": 9, "top": 9, "bottom": 9}})
try:
    svg(chart)
except DgpruneError as error:
    print("refused:", error)
print("shown:", chart._repr_mimebundle_()["text/plain"])
"""


def test_under_a_limit_that_may_be_lifted_a_child_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)  # not in this process
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = psutil.Process().memory_info().vms
    spec = {"data": {"values": [{"a": 1}]}, "mark": "point", "encoding": {"x": {"field": "a", "type": "quantitative"}}}
    resource.setrlimit(resource.RLIMIT_AS, (max(LIMIT, used + 8 * 2**30), before[1]))
    try:
        assert vegalite_to_svg(spec).startswith("<svg")
        with pytest.raises(dg.DgpruneError, match=r"could not be drawn: Vega-Lite to SVG conversion failed"):
            vegalite_to_svg({**spec, "mark": "nothing"})
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_under_a_hard_limit_a_sentence_says_what_to_do() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, env=environment)
    assert child.returncode == 0, child.stderr
    refused, shown = child.stdout.splitlines()
    for line in (refused, shown):
        assert "the picture could not be drawn: this process may use 24 GB of address space (ulimit -v)" in line
        assert "ulimit -v unlimited" in line


def test_a_picture_is_on_white_and_what_is_half_transparent_keeps_its_colour() -> None:
    shape = '<rect width="20" height="20" fill="#0000FF" opacity="0.5"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20">{shape}</svg>'
    drawn = Image.open(io.BytesIO(svg_to_png(svg, scale=1))).convert("RGBA")
    assert drawn.getpixel((30, 10)) == (255, 255, 255, 255)
    assert drawn.getpixel((10, 10)) == pytest.approx((127, 127, 255, 255), abs=1)
    marks = {"mark": "point", "data": {"values": [{"a": 1}]}, "config": {"background": "transparent"}}
    assert re.search(r'<rect width="\d+" height="\d+" fill="#FFFFFF"/>', vegalite_to_svg(marks))


SPECS = [{"mark": mark, "data": {"values": [{"a": 1}]}, "encoding": {"x": {"field": "a"}}} for mark in ("point", "bar")]


def test_a_child_draws_what_this_process_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [vegalite_to_svg(spec) for spec in SPECS]
    with monkeypatch.context() as patch:
        patch.setattr(renderer, "vegalite_to_svg", None)  # not in this process
        with Drawing() as drawing:
            drawing.begin(SPECS)
            assert drawing.finish() == expected
        with Drawing() as drawing:
            drawing.begin([])
            assert drawing.finish() == []


def test_no_child_is_left_behind() -> None:
    def children() -> set[int]:
        return {child.pid for child in psutil.Process().children()}

    before = children()
    with Drawing() as drawing:
        assert children() > before
        drawing.begin(SPECS)
    with pytest.raises(KeyboardInterrupt), Drawing():
        raise KeyboardInterrupt
    assert children() == before


@pytest.mark.parametrize("child", ["import sys; sys.exit(3)", "import os; os.kill(os.getpid(), 9)", None])
def test_charts_are_drawn_here_where_no_child_can(child: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [vegalite_to_svg(spec) for spec in SPECS]
    command = ("/nowhere/python",) if child is None else (sys.executable, "-c", child)
    monkeypatch.setattr(renderer, "_COMMAND", command)
    with Drawing() as drawing:
        drawing.begin([*SPECS, {**SPECS[0], "description": "long" * 100_000}])
        assert drawing.finish()[:2] == expected
