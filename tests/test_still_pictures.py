"""Notebooks that are read without a kernel: pictures in place of widgets, in the live bundle and as they are stored."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import altair as alt
import nbformat
import pandas as pd
import pytest
from nbconvert import HTMLExporter
from PIL import Image
from tqdm.notebook import tqdm

import dgprune_lab as dg
import dgprune_lab.commands.run_notebooks as run_notebooks_module
from dgprune_lab.commands.run_notebooks import code_hash, run_notebook, run_notebooks
from dgprune_lab.commands.still_outputs import still_outputs
from dgprune_lab.widgets import LiveChart
from dgprune_lab.widgets.explorer.pictures import panel_charts
from dgprune_lab.widgets.worker import Worker

VIEW = "application/vnd.jupyter.widget-view+json"
CHART = alt.Chart(alt.InlineData(values=[{"a": 1}, {"a": 3}])).mark_point().encode(x="a:Q")
SVG = dg.charts.svg(CHART)


def bundle(widget: Any) -> dict[str, Any]:
    shown = widget._repr_mimebundle_()
    return shown[0] if isinstance(shown, tuple) else shown


def shown(data: dict[str, Any]) -> dict[str, Any]:
    return {"output_type": "execute_result", "execution_count": 7, "metadata": {}, "data": data}


def written(*sources: str) -> nbformat.NotebookNode:
    cells = [nbformat.v4.new_code_cell(source, id=f"c{k}") for k, source in enumerate(sources)]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture(scope="module")
def page() -> str:
    """The bundle of a chart, as a page and a saved notebook get it."""
    chart = LiveChart(CHART)
    try:
        return bundle(chart)["text/html"]
    finally:
        chart.close()


def test_a_live_explorer_is_shown_without_waiting_and_the_command_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = dg.Explorer(dg.demo(), scorer="random")
    waits: list[float] = []
    waiting = Worker.wait
    try:
        monkeypatch.setattr(Worker, "wait", lambda worker, *_, timeout: waits.append(timeout))
        assert VIEW in bundle(explorer) and not waits
        monkeypatch.setenv("DGPRUNE_PICTURES", "whole")
        monkeypatch.setattr(Worker, "wait", lambda worker, *names, timeout: waiting(worker, "exact", timeout=timeout))
        data = bundle(explorer)
        text = data["text/html"]
        assert VIEW not in data, "a page of nbconvert would take the live widget, whose code comes from the web"
        assert text.count("data:image/svg+xml;base64,") == 2 and "<svg" not in text
        assert "Run this cell for the live explorer" in text
    finally:
        explorer.close()


def test_the_picture_of_a_panel_holds_what_its_page_shows() -> None:
    point = {"mark": "point", "data": {"name": "now", "values": []}, "usermeta": {"follows": {"ratio": "at"}}}
    point |= {"params": [{"name": "at", "value": 0.0}, {"name": "zoom", "select": "interval"}]}
    two = {"hconcat": [{"mark": "bar", "data": {"name": "bars", "values": []}}]}
    rows = [{"a": 1}]
    state = {"charts": {"point": point, "two": two, "none": two, "out": two}, "hidden": ["out"], "picked": None}
    state["data"] = {"point": {"now": rows}, "two": {"bars": rows}, "none": {"bars": []}, "out": {"bars": rows}}
    first, second = panel_charts(state, {"ratio": 0.4, "scorer": "l1"})
    assert first["data"]["values"] == rows and second["hconcat"][0]["data"]["values"] == rows
    assert first["params"] == [{"name": "at", "value": 0.4}, {"name": "zoom", "select": "interval"}]
    assert point["params"][0]["value"] == 0.0 and two["hconcat"][0]["data"]["values"] == [], "the panel's own stay"


def test_a_widget_becomes_words_and_a_picture(page: str) -> None:
    picture, words = still_outputs(
        [shown({VIEW: {"model_id": "1"}, "text/html": page, "text/plain": "<at 0x12>"})], count=3
    )
    drawn = Image.open(io.BytesIO(base64.b64decode(picture["data"]["image/png"])))
    assert drawn.format == "PNG" and drawn.size[0] == round(1.5 * picture["metadata"]["image/png"]["width"])
    assert min(drawn.convert("L").tobytes()) < 200, "something is drawn"
    assert picture["output_type"] == "display_data" and words["output_type"] == "execute_result"
    assert words["execution_count"] == 3 and set(words["data"]) == {"text/html"}
    assert words["data"]["text/html"] == "<p>Run this cell for the live chart.</p>", "no element stays open"


def test_what_is_folded_stays_folded() -> None:
    text = f"<div><p>Which?</p><details><summary>Show</summary>{SVG}</details></div>"
    (one,) = still_outputs([shown({VIEW: {}, "text/html": text})], count=1)
    kept = "".join(one["data"]["text/html"])
    assert re.search(r'<details><summary>Show</summary><img alt="chart" width="\d+" src="data:image/png;base64,', kept)
    assert "svg" not in kept


def test_charts_tables_and_text_stay_readable() -> None:
    stream = {"output_type": "stream", "name": "stdout", "text": "a\nb\n"}
    table = shown({"text/html": "<table>\n<tr><td>1</td></tr></table>", "text/plain": "   0\n0  1"})
    first, second, third = still_outputs(
        [shown({"image/svg+xml": SVG, "text/plain": "alt.Chart(...)"}), table, stream], count=1
    )
    assert set(first["data"]) == {"image/png"}
    assert set(second["data"]) == {"text/html", "text/plain"} and second["metadata"] == {}
    assert third["text"] == ["a\n", "b\n"]


def test_a_styled_table_is_stored_alike_in_every_run() -> None:
    tables = [pd.DataFrame({"a": [1.0]}).style.set_caption("one row").to_html() for _ in range(2)]
    texts = [{"text/html": one, "text/plain": "<pandas.Styler at 0x7fd65757c410>"} for one in tables]
    assert texts[0] != texts[1]
    first, second = (still_outputs([shown(data)], count=4) for data in texts)
    assert first == second and set(first[0]["data"]) == {"text/html"}
    assert "T_4_0_row0" in "".join(first[0]["data"]["text/html"])


def test_a_widget_without_a_picture_is_refused_and_a_progress_bar_left_out() -> None:
    with tqdm(unit="run", total=3) as known, tqdm(unit="run") as unknown:
        bars = [shown({VIEW: {}, "text/plain": repr(bar.container)}) for bar in (known, unknown)]
    assert still_outputs(bars, count=1) == []
    with pytest.raises(dg.DgpruneError, match="this widget has no picture: IntSlider"):
        still_outputs([shown({VIEW: {}, "text/plain": "IntSlider(value=3)"})], count=1)


@pytest.mark.slow
def test_a_notebook_runs_and_is_stored_alike_twice(tmp_path: Path) -> None:
    path = tmp_path / "mine.ipynb"
    chart = "import altair as alt\nfrom dgprune_lab.widgets import LiveChart\n"
    chart += 'LiveChart(alt.Chart(alt.InlineData(values=[{"a": 1}])).mark_point().encode(x="a:Q"))'
    notebook = written("print(1)\nx = 2", chart)
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    nbformat.write(notebook, path)
    said: list[str] = []
    run_notebooks([str(path)], say=said.append)
    once = path.read_bytes()
    assert re.fullmatch(r"mine\.ipynb: \d+ s, \d+ MB, \d+ kB", said[0])
    stored = json.loads(once)
    assert stored["metadata"]["dgprune_lab"]["ran"] == code_hash(stored) and "widgets" not in stored["metadata"]
    assert VIEW not in once.decode() and [cell["execution_count"] for cell in stored["cells"]] == [1, 2]
    assert [set(output["data"]) for output in stored["cells"][1]["outputs"]] == [{"image/png"}, {"text/html"}]
    ran = run_notebook(path)
    assert path.read_bytes() == once and ran.cells == 2 and ran.memory > 20e6 and ran.seconds > 0
    html, _ = HTMLExporter().from_filename(str(path))
    picture = stored["cells"][1]["outputs"][0]["data"]["image/png"]
    assert html.count(picture) == 1 and "Run this cell for the live chart" in html
    stored["cells"][0]["source"] = "x = 3"
    assert code_hash(stored) != stored["metadata"]["dgprune_lab"]["ran"]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"output_type": "stream", "name": "stderr", "text": "no"}, "mine.ipynb, cell 1 writes to stderr.*: no"),
        (shown({"text/plain": "<object at 0x7f1122334455>"}), "mine.ipynb shows what only this machine has: .*0x7f"),
        (shown({"text/html": f"<p>{Path.cwd()}/x</p>", "text/plain": "x"}), "shows what only this machine has"),
    ],
)
def test_what_a_reader_must_not_see_is_refused_and_nothing_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: dict[str, Any], words: str
) -> None:
    @contextmanager
    def kernel(path: Path, folder: str) -> Iterator[Any]:
        client = SimpleNamespace(nb=nbformat.read(path, as_version=4))
        client.execute_cell = lambda cell, _: cell.update(outputs=[output])
        yield client, lambda: 1

    path = tmp_path / "mine.ipynb"
    nbformat.write(written("1"), path)
    before = path.read_bytes()
    monkeypatch.setattr(run_notebooks_module, "_kernel", kernel)
    with pytest.raises(dg.DgpruneError, match=words):
        run_notebook(path)
    assert path.read_bytes() == before


def test_an_unknown_name_is_refused_before_anything_runs() -> None:
    with pytest.raises(dg.DgpruneError, match=r"unknown notebook '00_strat'.*Did you mean '00_start'"):
        run_notebooks(["00_strat"])


def test_a_notebook_saved_live_is_a_page_with_its_picture(page: str) -> None:
    """nbconvert takes the picture where no state of the widgets is stored, as JupyterLab leaves it by default."""
    notebook = written("chart")
    data = {VIEW: {"model_id": "1", "version_major": 2, "version_minor": 0}, "text/html": page}
    notebook.cells[0].outputs = [nbformat.v4.new_output("display_data", data)]
    html, _ = HTMLExporter().from_notebook_node(notebook)
    assert "data:image/svg+xml;base64," in html and VIEW not in html
