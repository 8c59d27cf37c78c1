"""Panels in the page, with a kernel that the test plays: menus, what follows the slider, cells, brushes."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from explorer_state import make_state
from test_page_live import Live

from dgprune_lab.widgets.page.standalone import write_page

pytestmark = pytest.mark.browser

BOX = ".dgx-panel-chart"
LAYER = {"name": "layer", "label": "Layer", "value": "conv1", "choices": [["conv1", "first"], ["conv2", "second"]]}
SIZE = {"name": "size", "label": "Size", "value": 0.5, "choices": [[None, "any"], [0.5, "half"], [1, "whole"]]}


def chart(mark: Any, data: str, **more: Any) -> dict[str, Any]:
    """A chart that is nothing but its plot."""
    size = {"width": 300, "height": 200, "padding": 0, "config": {"view": {"stroke": None}}}
    schema = "https://vega.github.io/schema/vega-lite/v6.json"
    return {"$schema": schema, **size, "data": {"name": data}, "mark": mark, **more}


def axis(field: str, most: float) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "scale": {"domain": [0, most]}, "axis": None}


# Points that lie between the places of a grid, on canvas.
MOVING = chart(
    {"type": "point", "clip": True},
    "points",
    params=[
        {"name": "at", "value": 0},
        {"name": "grid", "value": [0, 0.5, 1]},
        {"name": "by", "value": ""},
        {"name": "k", "expr": "min(floor(at / 0.5), length(grid) - 2)"},
        {"name": "f", "expr": "(at - grid[k]) / (grid[k + 1] - grid[k])"},
        {"name": "brush", "select": "interval"},
    ],
    transform=[{"calculate": f"datum.{c}s[k] + f * (datum.{c}s[k + 1] - datum.{c}s[k])", "as": c} for c in "xy"],
    encoding={"x": axis("x", 10), "y": axis("y", 10)},
    usermeta={
        "embedOptions": {"renderer": "canvas"},
        "brushes": "brush",
        "follows": {"ratio": "at", "scorer": "by", "of": "nowhere"},
    },
)
POINTS = [{"xs": [0, 5, 6], "ys": [0, 10, 4]}, {"xs": [9, 3, 3], "ys": [1, 1, 2]}]

# Three lines of cells: five, two and three of them.
CELLS = [
    {"group": group, "filter": number, "line": line, "place": place}
    for line, (group, places) in enumerate({"conv1": [0, 1, 2, 3, 4], "conv2": [1, 3.4], "conv3": [0, 2, 4]}.items())
    for number, place in enumerate(places)
]
# The rows of the points, with where they are drawn.
ROWS = """Object.keys(view.getState({data: () => true, signals: () => false}).data).map((name) => view.data(name))
  .find(([row]) => row?.xs && row.x !== undefined)"""
GRID = chart(
    {"type": "rect", "width": 20, "height": 20, "strokeWidth": 2},
    "cells",
    params=[{"name": "picked", "value": {}}],
    encoding={
        "x": axis("place", 5),
        "y": {**axis("line", 3), "sort": "descending"},
        "stroke": {
            "condition": {"test": "datum.group === picked.group && datum.filter === picked.filter", "value": "#ff0000"},
            "value": None,
        },
    },
    usermeta={"picks": "cells", "label": "Filters by layer"},
)


def panels(**more: Any) -> dict[str, Any]:
    listed = [{"name": "mine", "label": "Mine", "unavailable": None, "filters": True}]
    fresh = {"list": listed, "open": "mine", "ack": 0, "controls": [], "picked": None}
    return {**make_state()["panels"], **fresh, **more}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with an open panel that has no chart yet."""
    found = write_page(tmp_path_factory.mktemp("panel") / "page.html", make_state() | {"panels": panels()}, title="P")
    found.write_text(found.read_text(encoding="utf-8").replace('"offline":true', '"offline":false'), encoding="utf-8")
    return found


@pytest.fixture
def live(browser: Any, path: Path) -> Generator[Live, None, None]:
    one = Live(browser, path)
    one.page.set_viewport_size({"width": 1240, "height": 1100})
    yield one
    one.page.close()
    assert one.wrong == []


def sent(live: Live, kind: str) -> list[dict[str, Any]]:
    """What the page told of one kind, without its running number."""
    found = live.page.evaluate("(kind) => window.sent.filter((message) => message.type === kind)", kind)
    return [{name: value for name, value in one.items() if name not in ("type", "number")} for one in found]


def drawn(live: Live, script: str) -> Any:
    return live.page.evaluate(f"() => {{ const view = document.querySelector('{BOX}').vegaView; return {script}; }}")


def draw(live: Live, spec: dict[str, Any], **more: Any) -> None:
    """Open the panel with one chart, and wait until it is there."""
    live.tell("panels", panels(charts={"chart": spec}, **more))
    live.page.wait_for_function(f"document.querySelector('{BOX}')?.vegaView")
    live.settle()


def test_a_choice_of_a_menu_is_sent_as_its_value(live: Live) -> None:
    live.tell("panels", panels(controls=[LAYER, SIZE]))
    page = live.page
    layer, size = page.get_by_label("Layer", exact=True), page.get_by_label("Size", exact=True)
    assert layer.locator("option").all_text_contents() == ["first", "second"]
    for menu, index in ((layer, 0), (size, 1)):
        assert menu.evaluate("(list) => [list.selectedIndex, list.dataset.lmSuppressShortcuts]") == [index, "true"]
    layer.select_option("second")
    size.select_option("any")
    size.select_option("whole")
    assert sent(live, "control") == [
        {"name": "layer", "value": "conv2"},
        {"name": "size", "value": None},
        {"name": "size", "value": 1},
    ]
    live.tell("panels", panels())
    assert page.locator(".dgx-panel-menus").is_hidden() and page.locator(".dgx-panel select").count() == 0


def test_frames_leave_the_focus_and_what_was_chosen_since(live: Live) -> None:
    live.tell("panels", panels(controls=[LAYER]))
    layer = live.page.get_by_label("Layer", exact=True)
    layer.select_option("second")
    layer.focus()
    live.page.evaluate("() => { document.activeElement.dataset.same = 'yes'; }")
    index = "() => [document.activeElement.dataset.same, document.activeElement.selectedIndex]"
    live.tell("panels", panels(controls=[{**LAYER}], text="found before"))
    assert live.page.evaluate(index) == ["yes", 1], "Python has not acknowledged it"
    more = {**LAYER, "choices": [["conv0", "zeroth"], *LAYER["choices"]]}
    live.tell("panels", panels(controls=[SIZE, more]))
    assert live.page.evaluate(index) == ["yes", 2], "another menu before it and another choice"
    number = live.page.evaluate("() => window.sent.at(-1).number")
    live.tell("panels", panels(controls=[SIZE, more], ack=number))
    assert live.page.evaluate(index) == ["yes", 1], "Python has acknowledged it, and answers otherwise"


def test_a_number_a_button_and_a_network_say_what_they_are_for(live: Live) -> None:
    field = {"kind": "number", "name": "most", "label": "At most", "value": 5, "low": 1, "high": 9, "unit": "ms"}
    press, force = {"type": "press", "name": "find"}, {"type": "force", "to": "keep", "cells": [CELLS[0]]}
    actions = [{"label": "conv1: kept"}, {"label": "Find", "message": press}, {"label": "Keep", "message": force}]
    rows = [{"network": name, "line": 0, "place": k, "choice": {"ratio": k / 4}} for k, name in enumerate("ab")]
    told = {"controls": [field], "actions": actions, "data": {"chart": {"cells": rows}}}
    draw(live, GRID, **told)
    page = live.page
    most = page.get_by_label("At most", exact=True)
    for typed, wanted in (("7", [7]), ("70", [7]), ("2.5", [7, 2.5])):
        most.fill(typed)
        most.press("Tab")
        assert [one["value"] for one in sent(live, "control")] == wanted, typed
    page.get_by_role("button", name="Find", exact=True).click()
    assert sent(live, "press") == [{"name": "find"}]
    page.get_by_role("button", name="Keep", exact=True).click()
    assert sent(live, "force") == [] and live.text(".dgx-panel-actions span") == "conv1: kept"
    page.locator(BOX).focus()
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert sent(live, "goto") == [{"choice": {"ratio": 0.25}}] and sent(live, "filter") == []
    live.tell("panels", panels(charts={"chart": GRID}, **told, hidden=["chart"]))
    assert page.locator(BOX).is_hidden()


def test_points_follow_the_slider_before_python_answers(live: Live) -> None:
    draw(live, MOVING, data={"chart": {"points": POINTS}})
    assert live.page.locator(f"{BOX} canvas").count() == 1
    for percent, places in ((50, [[5, 10], [3, 1]]), (25, [[2.5, 5], [6, 1]]), (75, [[5.5, 7], [3, 1.5]])):
        live.move(percent)
        assert drawn(live, "[view.signal('at'), view.signal('by')]") == [percent / 100, "l1"]
        found = drawn(live, f"{ROWS}.map(({{x, y}}) => [x, y])")
        assert found == [pytest.approx(place) for place in places]
    live.page.get_by_label("Scorer", exact=True).select_option("dss")
    live.settle()
    assert drawn(live, "view.signal('by')") == "dss", "so for every choice of the page"


def test_a_chart_in_which_nothing_is_drawn_is_not_saved(live: Live) -> None:
    draw(live, MOVING, data={"chart": {"points": []}})
    page = live.page
    menu = page.locator(".dgx-panel").get_by_role("button", name="Save this chart")
    for kind in ("SVG", "CSV"):
        menu.click()
        page.locator(".dgx-panel").get_by_role("menuitem", name=kind).click()
        page.locator(".dgx-panel").get_by_text("Not saved: nothing is drawn yet.").wait_for()
        live.tell("panels", panels(charts={"chart": MOVING}, data={"chart": {"points": POINTS}}))
        menu.click()
        with page.expect_download():
            page.locator(".dgx-panel").get_by_role("menuitem", name=kind).click()
        live.tell("panels", panels(charts={"chart": MOVING}, data={"chart": {"points": []}}))


def test_a_calm_chart_ends_where_the_slider_rests(live: Live) -> None:
    """It is drawn seldom while it follows, and the last of many moves at once is seen."""
    draw(live, {**MOVING, "usermeta": {**MOVING["usermeta"], "calm": 400}}, data={"chart": {"points": POINTS}})
    seen = live.page.evaluate(f"""async () => {{
      const view = document.querySelector('{BOX}').vegaView, seen = [];
      const slider = document.querySelector('.dgx input[type=range][aria-label^=Remove]');
      view.addSignalListener('at', (name, value) => seen.push([value, performance.now()]));
      for (const value of [10, 20, 30, 40, 60]) {{
        slider.value = value;
        slider.dispatchEvent(new Event('input', {{ bubbles: true }}));
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
      }}
      while (seen.at(-1)?.[0] !== 0.6) await new Promise((done) => setTimeout(done, 20));
      return seen;
    }}""")
    assert all(later - before > 395 for (_, before), (_, later) in itertools.pairwise(seen)), seen


def test_unchanged_rows_are_not_compared_again(live: Live) -> None:
    draw(live, MOVING, data={"chart": {"points": POINTS}})
    live.page.evaluate(
        """() => {
          const rows = window.model.get('panels').data.chart.points, spec = window.model.get('panels').charts.chart;
          const view = document.querySelector('.dgx-panel-chart').vegaView, { stringify } = JSON, { run, data } = view;
          window.counts = { text: 0, run: 0, data: 0 };
          JSON.stringify = (value, ...rest) => {
            if (value === rows || value === spec || value?.includes?.(spec)) window.counts.text += 1;
            return stringify(value, ...rest);
          };
          view.run = (...given) => { window.counts.run += 1; return run.apply(view, given); };
          view.data = (...given) => { if (given.length > 1) window.counts.data += 1; return data.apply(view, given); };
        }"""
    )
    live.move(30)
    live.move(40)
    assert live.page.evaluate("window.counts") == {"text": 0, "run": 2, "data": 0}
    live.page.evaluate("() => window.explorers[0].model.set('pins', [])")
    live.settle()
    assert live.page.evaluate("window.counts.run") == 2, "and nothing runs where nothing moved"
    live.tell("panels", panels(charts={"chart": MOVING}, data={"chart": {"points": POINTS[:1]}}))
    assert live.page.evaluate("[window.counts.run, window.counts.data]") == [3, 1]


def cell(live: Live, index: int) -> Any:
    return live.page.locator(f"{BOX} svg .mark-rect path").nth(index)


def picked(live: Live) -> tuple[str, int]:
    cell = drawn(live, "view.signal('picked')")
    return cell["group"], cell["filter"]


def outlined(live: Live) -> list[int]:
    marks = live.page.locator(f"{BOX} svg .mark-rect path").evaluate_all(
        "(all) => all.map((one) => one.getAttribute('stroke') ?? one.style.stroke)"
    )
    return [index for index, ink in enumerate(marks) if ink in ("#ff0000", "rgb(255, 0, 0)")]


def test_a_click_picks_a_cell_and_arrows_its_neighbours(live: Live) -> None:
    draw(live, GRID, data={"chart": {"cells": CELLS}})
    box = live.page.locator(BOX)
    kept = box.evaluate(
        "(box) => [box.tabIndex, box.getAttribute('role'), box.dataset.lmSuppressShortcuts, box.ariaLabel]"
    )
    assert kept == [0, "application", "true", "Filters by layer. Arrow keys move from one to the next."]
    cell(live, 2).click()
    assert outlined(live) == [2] and picked(live) == ("conv1", 2)
    assert live.page.evaluate("() => document.activeElement.className").startswith("dgx-panel-chart")
    wanted = {"Right": ("conv1", 3), "Down": ("conv2", 1), "Left": ("conv2", 0), "Up": ("conv1", 1)}
    for key, (group, number) in wanted.items():
        live.page.keyboard.press(f"Arrow{key}")
        assert picked(live) == (group, number), key
    told = [{"group": group, "filter": number} for group, number in [("conv1", 2), *wanted.values()]]
    assert sent(live, "filter") == told and live.text(".dgx-said") == "conv1, filter 1"
    live.page.keyboard.press("ArrowUp")
    live.page.keyboard.press("Control+ArrowLeft")
    assert sent(live, "filter") == told, "nothing lies above, and other keys are the notebook's"
    for _ in range(4):
        live.page.keyboard.press("ArrowDown")
    assert picked(live) == ("conv3", 0) and outlined(live) == [7], "a tie goes to the left"


def test_keys_begin_at_the_first_cell_and_a_gap_is_stepped_over(live: Live) -> None:
    shuffled = [one for one in CELLS[::-1] if (one["line"], one["filter"]) != (0, 1) and one["line"] != 1]
    draw(live, GRID, data={"chart": {"cells": shuffled}})
    live.page.locator(BOX).focus()
    cells = []
    for key in ("ArrowLeft", "ArrowLeft", "ArrowRight", "ArrowDown", "ArrowDown"):
        live.page.keyboard.press(key)
        cells.append(picked(live))
    assert cells == [("conv1", 0), ("conv1", 0), ("conv1", 2), ("conv3", 1), ("conv3", 1)]
    assert len(sent(live, "filter")) == 3, "a cell that is picked already is not told again"


def test_a_pick_of_python_is_followed_unless_the_user_has_moved_since(live: Live) -> None:
    told = {"charts": {"chart": GRID}, "data": {"chart": {"cells": CELLS}}}
    draw(live, GRID, data=told["data"], picked={"group": "conv2", "filter": 1})
    assert outlined(live) == [6]
    live.page.locator(BOX).focus()
    live.page.keyboard.press("ArrowLeft")
    live.page.keyboard.press("ArrowUp")
    assert live.page.evaluate("() => window.sent.map((one) => one.number)") == [1, 2]
    for ack, picked, wanted in ((0, ("conv2", 1), 1), (1, ("conv2", 0), 1), (2, ("conv3", 2), 9)):
        cell_of = dict(zip(("group", "filter"), picked, strict=True))
        live.tell("panels", panels(**told, picked=cell_of, ack=ack))
        assert outlined(live) == [wanted], ack
    live.tell("panels", panels(**told, ack=2))
    assert outlined(live) == [9], "a frame without a pick leaves it"
    live.tell("panels", panels(**told, picked={}, ack=2))
    assert outlined(live) == []


def test_a_chart_without_the_parameter_can_be_picked_in(live: Live) -> None:
    draw(
        live,
        {name: part for name, part in GRID.items() if name != "params"}
        | {"encoding": {name: GRID["encoding"][name] for name in "xy"}},
        data={"chart": {"cells": CELLS}},
    )
    cell(live, 8).click()
    assert sent(live, "filter") == [{"group": "conv3", "filter": 1}]


def sweep(live: Live, ends: tuple[tuple[float, float], tuple[float, float]], *, let_go: bool = True) -> None:
    """Draw a brush between two points, in shares of the plot."""
    box = live.page.locator(f"{BOX} canvas").bounding_box()
    left, top, width, height = (box[name] for name in ("x", "y", "width", "height"))
    (x, y), (end, low) = ends
    mouse = live.page.mouse
    mouse.move(left + x * width, top + y * height)
    mouse.down()
    mouse.move(left + end * width, top + low * height)  # at once: a brush that rests on its way is told too
    if let_go:
        mouse.up()
    live.settle()


def test_a_brush_is_told_when_it_rests_and_when_it_is_let_go(live: Live) -> None:
    draw(live, MOVING, data={"chart": {"points": POINTS}})
    sweep(live, ((0.8, 0.1), (0.2, 0.6)), let_go=False)
    live.page.wait_for_function("window.sent.length === 1")
    live.page.mouse.up()
    live.page.wait_for_timeout(250)
    (told,) = sent(live, "brush")
    assert told == {"x": pytest.approx([2, 8], abs=0.1), "y": pytest.approx([4, 9], abs=0.1)}
    sweep(live, ((0.9, 0.9), (0.9, 0.9)))
    live.page.wait_for_function("window.sent.length === 2")
    assert sent(live, "brush")[-1] == {"x": None, "y": None}
    live.page.evaluate("() => { window.setTimeout = () => 0; }")
    sweep(live, ((0.1, 0.1), (0.3, 0.3)))
    live.page.wait_for_function("window.sent.length === 3")


def test_a_brush_along_one_axis_tells_one_span(live: Live) -> None:
    params = [*MOVING["params"][:-1], {"name": "brush", "select": {"type": "interval", "encodings": ["x"]}}]
    draw(live, {**MOVING, "params": params}, data={"chart": {"points": POINTS}})
    sweep(live, ((0.5, 0.5), (0.9, 0.6)))
    live.page.wait_for_function("window.sent.length === 1")
    assert sent(live, "brush") == [{"x": pytest.approx([5, 9], abs=0.1), "y": None}]


def test_keys_draw_move_and_remove_a_brush(live: Live) -> None:
    draw(live, MOVING, data={"chart": {"points": POINTS}})
    live.page.locator(BOX).focus()
    steps = {"ArrowRight": "[3,6][4,7]", "ArrowLeft": "[2.5,5.5][4,7]", "Shift+ArrowUp": "[2.5,5.5][4.5,7]"}
    for key, wanted in {**steps, "Escape": "nullnull"}.items():
        live.page.keyboard.press(key)
        live.page.wait_for_function(
            """(wanted) => {
              const told = window.sent.filter(({ type }) => type === 'brush').at(-1) ?? {};
              const tenths = (ends) => ends && ends.map((end) => Math.round(10 * end) / 10);
              return JSON.stringify(tenths(told.x)) + JSON.stringify(tenths(told.y)) === wanted;
            }""",
            arg=wanted,
        )


def test_data_and_the_slider_leave_a_brush(live: Live) -> None:
    free = {name: {"field": name, "type": "quantitative", "axis": None} for name in "xy"}
    draw(live, {**MOVING, "encoding": free}, data={"chart": {"points": POINTS}})
    live.move(50)
    sweep(live, ((0.2, 0.2), (0.6, 0.6)))
    live.page.wait_for_function("window.sent.length === 1")
    before = drawn(live, "view.signal('brush')")
    more = [*POINTS, {"xs": [20, 20, 20], "ys": [30, 30, 30]}]
    live.tell("panels", panels(charts={"chart": MOVING | {"encoding": free}}, data={"chart": {"points": more}}))
    live.move(60)
    live.page.wait_for_timeout(250)
    after = drawn(live, "view.signal('brush')")
    assert set(before) == {"x", "y"} and all(after[name] == pytest.approx(before[name]) for name in "xy")
    assert len(sent(live, "brush")) == 1, "nor is it told again"


def test_another_theme_draws_again_and_the_brush_is_removed_for_python_too(live: Live) -> None:
    draw(live, MOVING, data={"chart": {"points": POINTS}})
    sweep(live, ((0.2, 0.2), (0.6, 0.6)))
    live.page.wait_for_function("window.sent.length === 1")
    live.page.evaluate("() => { document.querySelector('.dgx-panel-chart').dataset.old = 'yes'; }")
    live.page.emulate_media(color_scheme="dark")
    live.page.wait_for_function("document.querySelector('.dgx-panel-chart:not([data-old])')?.vegaView")
    assert sent(live, "brush")[-1] == {"x": None, "y": None} and len(sent(live, "brush")) == 2
    assert drawn(live, "view.signal('at')") == 0.5
    assert live.page.locator(BOX).count() == 1


def test_a_chart_takes_the_room_of_the_page_and_a_narrow_page_shows_the_narrow_one(live: Live) -> None:
    grows = {"parameter": "side", "from": 300, "to": 600, "beside": 100, "above": 50}
    narrow = {"below": 700, "spec": chart("point", "points")}
    draw(live, chart("point", "points", params=[{"name": "side", "value": 300}], usermeta={"grows": grows}))
    assert drawn(live, "[view.signal('side'), view.width(), view.height()]") == [600, 700, 650]
    live.page.set_viewport_size({"width": 560, "height": 1100})
    live.page.wait_for_function(f"document.querySelector('{BOX}').vegaView.width() < 560")
    room = live.page.evaluate("document.querySelector('.dgx-panel-charts').clientWidth")
    assert drawn(live, "[view.signal('side'), view.width()]") == [room - 100, room]
    draw(live, chart("point", "points", width=650, usermeta={"narrow": narrow}))
    assert drawn(live, "view.width()") == 300
    live.page.set_viewport_size({"width": 1240, "height": 1100})
    live.page.wait_for_function(f"document.querySelector('{BOX}')?.vegaView?.width() === 650")
