"""What a panel is told and may say, without a page: controls, cells, brushes, and its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import pytest
from read_study import read_study

import dgprune_lab as dg
from dgprune_lab.widgets import Panel, View

CONTROL = {"name": "layer", "label": "Layer", "value": "conv1", "choices": [["conv1", "first"], ["conv2", "second"]]}


def is_working() -> bool:
    """Whether the thread of an explorer is alive."""
    return any(thread.name == "dgprune-explorer" for thread in threading.enumerate())


class Plain(Panel):
    """A panel of this test's own, which takes no filters and keeps nothing running."""

    label, charts = "Plain", {"chart": {"mark": "point"}}

    def __init__(self, name: str = "plain", *, why: str | None = None) -> None:
        self.name, self.why = name, why
        self.seen: list[Any] = []

    def unavailable(self, study: dg.Study) -> str | None:
        return self.why

    def tick(self, view: View) -> Any:
        self.seen.append(view.selected)
        layer = (view.selected or {}).get("layer", "conv1")
        return {"chart": {"rows": [{"layer": layer}]}, "controls": [{**CONTROL, "value": layer}]}


class Full(Plain):
    """One that has all of it."""

    takes_filters = True

    def __init__(self, name: str = "full", *, why: str | None = None, raises: bool = False) -> None:
        super().__init__(name, why=why)
        self.closed, self.raises = 0, raises

    def close(self) -> None:
        self.closed += 1
        if self.raises:
            raise RuntimeError("already closed")


@pytest.fixture(scope="module")
def study() -> dg.Study:
    return read_study()


@pytest.fixture
def made(study: dg.Study) -> Generator[Callable[..., dg.Explorer], None, None]:
    found: list[dg.Explorer] = []

    def make(*panels: Any) -> dg.Explorer:
        found.append(dg.Explorer(study, panels=panels))
        assert found[-1].wait()
        return found[-1]

    yield make
    for explorer in found:
        explorer.close()


def say(explorer: dg.Explorer, **content: Any) -> Mapping[str, Any]:
    """What the page would send; the panels afterwards."""
    explorer.handle_message(content)
    assert explorer.wait_idle()
    return explorer.panels


def test_a_control_reaches_the_panel_and_what_none_offers_does_not(made: Any) -> None:
    panel = Plain()
    explorer = made(panel)
    told = say(explorer, type="panel", name="plain")
    assert told["controls"] == [CONTROL] and set(told["data"]) == {"chart"}, "controls are no chart's data"
    told = say(explorer, type="control", name="layer", value="conv2")
    assert panel.selected == {"layer": "conv2"} and panel.seen[-1] == {"layer": "conv2"}
    assert told["controls"][0]["value"] == "conv2" and told["data"]["chart"]["rows"] == [{"layer": "conv2"}]
    for name, value in (("layer", "conv9"), ("page", 3), ("layer", None), (None, "conv1"), ("layer", ["conv1"])):
        say(explorer, type="control", name=name, value=value)
        assert panel.selected == {"layer": "conv2"}, (name, value)
    told = say(explorer, type="panel", name=None)
    assert told["controls"] == [] and told["open"] is None


def test_a_number_reaches_the_panel_between_its_ends_and_a_press_once_a_button_offers_it(made: Any) -> None:
    panel = Plain()
    field = {"kind": "number", "name": "most", "label": "At most", "value": 3, "low": 1, "high": 9}
    action = {"label": "Find", "message": {"type": "press", "name": "find"}}
    panel.tick = lambda view: {"controls": [field], "actions": [action], "hidden": ["chart"]}  # type: ignore[method-assign]
    explorer = made(panel)
    told = say(explorer, type="panel", name="plain")
    assert (told["controls"], told["actions"], told["hidden"]) == ([field], [action], ["chart"])
    for value, held in ((9, 9), (2.5, 2.5), (0, 2.5), (9.1, 2.5), ("4", 2.5), (True, 2.5), (None, 2.5), ([], 2.5)):
        say(explorer, type="control", name="most", value=value)
        assert panel.selected == {"most": held}, value
    say(explorer, type="press", name="stop")
    assert "pressed" not in panel.selected
    say(explorer, type="press", name="find")
    assert panel.selected["pressed"] == "find"


def test_a_set_of_filters_opens_the_panel_and_a_single_one_replaces_it(made: Any) -> None:
    panel = Full()
    explorer = made(panel)
    cells = [{"group": "conv1", "filter": 0}, {"group": "conv2", "filter": 3}]
    told = say(explorer, type="filter", cells=[*cells, {"group": 3, "filter": 1}, {"group": "conv2"}, 7])
    assert told["open"] == "full" and panel.selected["cells"] == [("conv1", 0), ("conv2", 3)]
    told = say(explorer, type="filter", group="conv2", filter=1, number=1)
    assert panel.selected == {"group": "conv2", "filter": 1, "cells": None}
    assert told["picked"] == {"group": "conv2", "filter": 1}
    assert say(explorer, type="filter", cells=cells, number=2)["picked"] == {}


def test_a_frame_keeps_what_it_leaves_out(made: Any) -> None:
    panel = Plain()
    cell = {"group": "conv1", "filter": 3}
    frames = [{"picked": cell, "controls": [CONTROL]}, {"text": "words"}, {"chart": {"more": []}}]
    panel.tick = lambda view: iter(frames)  # type: ignore[method-assign]
    told = say(made(panel), type="panel", name="plain")
    assert (told["picked"], told["controls"], told["text"]) == (cell, [CONTROL], "words")
    assert told["data"] == {"chart": {"more": []}}


def test_what_the_page_numbers_is_answered_before_the_panel_ticks(made: Any) -> None:
    explorer = made(Plain())
    say(explorer, type="panel", name="plain")
    assert explorer.panels["ack"] == 0
    told: list[Mapping[str, Any]] = []
    explorer.observe(lambda event: told.append(event["new"]), "panels")
    say(explorer, type="control", name="layer", value="conv2", number=7)
    assert (told[0]["ack"], told[0]["controls"][0]["value"]) == (7, "conv2")
    assert told[0]["data"]["chart"]["rows"] == [{"layer": "conv1"}], "the panel has not ticked yet"
    say(explorer, type="filter", group="conv2", filter=1, number=8)
    assert (explorer.panels["ack"], explorer.panels["picked"]) == (8, {"group": "conv2", "filter": 1})
    say(explorer, type="control", name="layer", value="nowhere", number=9)
    assert (explorer.panels["ack"], explorer.panels["controls"][0]["value"]) == (9, "conv2"), "refused, but heard"


def test_what_a_tick_found_before_the_last_pick_is_not_shown(made: Any) -> None:
    panel, begun, go = Plain(), threading.Event(), threading.Event()
    explorer = made(panel)
    say(explorer, type="panel", name="plain")

    def slow(view: View) -> Iterator[Any]:
        if view.selected["layer"] == "conv2":
            begun.set()
            assert go.wait(30)
        yield Plain.tick(panel, view)

    panel.tick = slow  # type: ignore[method-assign]
    told: list[str] = []
    explorer.observe(lambda event: told.append(event["new"]["controls"][0]["value"]), "panels")
    explorer.handle_message({"type": "control", "name": "layer", "value": "conv2"})
    assert begun.wait(30)
    explorer.handle_message({"type": "control", "name": "layer", "value": "conv1"})
    go.set()
    assert explorer.wait_idle()
    assert panel.seen[-2:] == [{"layer": "conv2"}, {"layer": "conv1"}]
    assert "conv2" not in told and explorer.panels["controls"][0]["value"] == "conv1"


@pytest.mark.parametrize(
    ("sent", "held"),
    [
        ({"x": [3, 1.5], "y": None}, {"x": [1.5, 3], "y": None}),
        ({"x": [0, 1], "y": [2, 4]}, {"x": [0, 1], "y": [2, 4]}),
        ({"x": None, "y": None}, None),
        ({}, None),
        ({"x": [1, None], "y": "ab"}, None),
    ],
)
def test_a_brush_reaches_the_panel(made: Any, sent: dict[str, Any], held: Any) -> None:
    panel = Plain()
    explorer = made(panel)
    say(explorer, type="panel", name="plain")
    say(explorer, type="brush", x=[9, 9.5], y=None)
    say(explorer, type="brush", **sent)
    assert panel.selected == {"brush": held} == panel.seen[-1]


def test_a_brush_goes_with_the_chart_that_it_was_drawn_in(made: Any) -> None:
    panel = Plain()
    explorer = made(panel)
    say(explorer, type="panel", name="plain")
    say(explorer, type="control", name="layer", value="conv2")
    say(explorer, type="brush", x=[0, 1], y=None)
    say(explorer, type="panel", name=None)
    say(explorer, type="panel", name="plain")
    assert panel.seen[-1] == {"layer": "conv2", "brush": None}, "what the panel itself shows is kept"


@pytest.mark.parametrize("raises", [False, True])
def test_a_panel_ends_when_nobody_sees_it_any_more(made: Any, raises: bool) -> None:
    panel, other = Full(raises=raises), Plain()
    explorer = made(panel, other)
    ends = [panel.closed]

    def after(act: Callable[[], Any]) -> int:
        act()
        assert explorer.wait_idle()
        ends.append(panel.closed)
        return ends[-1] - ends[-2]

    assert after(lambda: say(explorer, type="panel", name="full")) == 0
    assert after(lambda: say(explorer, type="panel", name="full")) == 0, "it stays open"
    assert after(lambda: say(explorer, type="panel", name="plain")) == 1
    assert after(lambda: say(explorer, type="panel", name=None)) == 0, "it was closed before"
    say(explorer, type="panel", name="full")
    assert after(lambda: say(explorer, type="panel", name=None)) == 1
    say(explorer, type="panel", name="full")
    assert after(lambda: explorer.set_trait("_view_count", 1)) == 0
    assert after(lambda: explorer.set_trait("_view_count", 2)) == 0
    assert after(lambda: explorer.set_trait("_view_count", 1)) == 0, "one page is left"
    assert after(lambda: explorer.set_trait("_view_count", 0)) == 1
    assert explorer.panels["open"] == "full", "and opens again with the next page"
    ticks = len(panel.seen)
    explorer.set_trait("_view_count", 1)
    assert explorer.wait_idle()
    assert len(panel.seen) > ticks
    assert after(explorer.close) == 1
    assert explorer.status["error"] is None and explorer.panels["error"] is None


def test_an_explorer_stops_working_before_its_panel_ends(made: Any) -> None:
    panel = Full()
    explorer = made(panel)
    say(explorer, type="panel", name="full")
    order: list[str] = []
    panel.tick = lambda view: order.append("tick") or {}  # type: ignore[method-assign]
    panel.close = lambda: order.append(f"closed, at work: {is_working()}")  # type: ignore[method-assign]
    explorer.ratio = 0.7
    explorer.close()
    explorer.handle_message({"type": "page", "page": 1})
    assert order[-1] == "closed, at work: False" and len([one for one in order if one != "tick"]) == 1


def test_a_picked_filter_opens_the_first_panel_that_takes_it(made: Any) -> None:
    panels = Plain(), Full("missing", why="there is no"), Full(), Full("second")
    explorer = made(*panels)
    assert [one["filters"] for one in explorer.panels["list"]] == [False, True, True, True]
    told = say(explorer, type="filter", group="conv2", filter=4)
    assert told["open"] == "full" and told["charts"] == dict(Full.charts) and told["data"]["chart"]["rows"]
    assert panels[2].seen[-1] == {"group": "conv2", "filter": 4, "cells": None}
    say(explorer, type="panel", name="second")
    told = say(explorer, type="filter", group="conv1", filter=0)
    assert told["open"] == "second" and panels[3].seen[-1]["group"] == "conv1", "the open one takes it, too"
    say(explorer, type="panel", name="plain")
    told = say(explorer, type="filter", group="conv1", filter=2)
    assert told["open"] == "full" and panels[2].seen[-1]["filter"] == 2, "the open one does not show filters"


def test_without_such_a_panel_a_picked_filter_opens_none(made: Any) -> None:
    panel = Plain()
    told = say(made(panel), type="filter", group="conv2", filter=4)
    assert told["open"] is None and panel.seen == [] and panel.selected is None


def test_start_again_lets_no_filter_be_picked_and_keeps_the_menus(made: Any) -> None:
    full = Full()
    explorer = made(full, Plain())
    picked = [{"group": "conv1", "filter": 0}, {"group": "conv1", "filter": 2}]
    say(explorer, type="filter", cells=picked, number=1)
    say(explorer, type="control", name="layer", value="conv2", number=2)
    assert full.seen[-1]["cells"] == [("conv1", 0), ("conv1", 2)]
    told = say(explorer, type="reset")
    assert full.seen[-1] == {"layer": "conv2"} and told["picked"] == {} and told["open"] == "full"
