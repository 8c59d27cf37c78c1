"""The explorer's page with a kernel that the test plays."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from explorer_state import make_curve, make_frame, make_plan, make_state
from page_driver import SLIDER, Opened

from dgprune_lab.widgets.page.standalone import write_page

pytestmark = pytest.mark.browser


class Live(Opened):
    """A page that believes in a kernel: what it sends is kept, what the kernel says is said by the test."""

    def __init__(self, browser: Any, path: Path) -> None:
        super().__init__(browser, path)
        self.page.evaluate(
            """() => {
              const model = window.model = window.explorers[0].model;
              window.sent = [];
              window.saved = [];
              model.send = (message) => window.sent.push(message);
              model.save_changes = () => window.saved.push({ ...model.get('choice'), at: performance.now() });
            }"""
        )

    def tell(self, trait: str, value: Any) -> None:
        self.page.evaluate("([trait, value]) => window.model.set(trait, value)", [trait, value])
        self.settle()

    def move(self, percent: int) -> None:
        self.page.evaluate(
            """(value) => { const slider = document.querySelector('input[type=range]');
            slider.value = value; slider.dispatchEvent(new Event('input')); }""",
            percent,
        )
        self.settle()


@pytest.fixture(scope="module")
def live_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = make_state()
    state["panels"]["list"] = [
        {"name": "flips", "label": "Prediction flips", "unavailable": None},
        {"name": "umap", "label": "Feature shift", "unavailable": "needs umap-learn"},
    ]
    path = write_page(tmp_path_factory.mktemp("live") / "page.html", state, title="Live")
    path.write_text(path.read_text(encoding="utf-8").replace('"offline":true', '"offline":false'), encoding="utf-8")
    return path


@pytest.fixture
def live(browser: Any, live_path: Path) -> Generator[Live, None, None]:
    one = Live(browser, live_path)
    yield one
    one.page.close()
    assert one.wrong == []


def frames_with(ratio: float, *, estimate: bool = False) -> dict[str, Any]:
    return make_curve(make_frame("l1", 0.5), make_frame("l1", ratio, estimate=estimate))


def test_old_numbers_stay_grey_until_new_ones_come(live: Live) -> None:
    old = live.text(".dgx-sentence")
    left = live.text(".dgx-c svg")
    live.move(63)
    assert live.text(".dgx-badge") == "measuring…" and live.text(".dgx-sentence") == f"Last measured: {old}"
    assert live.page.locator(".dgx-sentence").get_attribute("data-stale") == "true"
    assert live.text(".dgx-c svg") != left, "what is left follows at once"
    live.tell("frames", frames_with(0.63, estimate=True))
    assert live.text(".dgx-badge") == "estimate, 250 images a domain"
    assert live.text(".dgx-sentence").startswith("63 %")
    live.tell("frames", frames_with(0.63))
    assert live.text(".dgx-badge") == "all images"


def test_an_estimate_is_no_part_of_a_curve(live: Live) -> None:
    points = live.page.locator(".dgx-a svg .mark-symbol.layer_8_marks path")
    live.tell("frames", frames_with(0.55))
    assert points.count() == 6
    live.tell("frames", frames_with(0.55, estimate=True))
    assert points.count() == 3


def test_choices_are_sent_at_most_every_60_ms_and_the_last_always(live: Live) -> None:
    live.page.evaluate(
        """async () => { const slider = document.querySelector('input[type=range]');
        for (let k = 0; k < 200; k += 1) {
          slider.value = k === 199 ? 42 : k % 90;
          slider.dispatchEvent(new Event('input'));
          if (k % 20 === 0) await new Promise((done) => setTimeout(done, 15));
        } }"""
    )
    live.page.wait_for_function("() => window.saved.at(-1)?.moving === false")
    saved = live.page.evaluate("() => window.saved")
    moving = [one["at"] for one in saved if one["moving"]]
    assert all(later - before >= 59 for before, later in itertools.pairwise(moving)), moving
    assert len(saved) < 40 and saved[-1]["ratio"] == pytest.approx(0.42) and saved[-1]["by"] == "page"
    assert [one["id"] for one in saved] == sorted({one["id"] for one in saved})


def test_the_kernel_moves_the_slider_but_not_out_of_a_hand(live: Live) -> None:
    slider = live.page.locator(SLIDER)
    choice = make_state()["choice"]
    live.tell("choice", {**choice, "id": 10, "ratio": 0.375, "scope": "global"})
    assert slider.input_value() == "37.5" and slider.get_attribute("aria-valuetext") == "37.5 % of the filters"
    assert live.page.get_by_label("global").is_checked()
    box = slider.bounding_box()
    live.page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2)
    live.page.mouse.down()
    held = float(slider.input_value())
    live.tell("choice", {**choice, "id": 20, "ratio": 0.1})
    assert float(slider.input_value()) == pytest.approx(held, abs=0.5), "it may snap to whole percents, not to 10 %"
    live.page.mouse.up()


def test_busy_error_and_a_stopped_kernel_are_said_in_words(live: Live) -> None:
    notice = live.page.locator(".dgx-view > .dgx-notice")
    live.move(20)
    notice.wait_for()
    assert "Python is busy with another cell" in live.text(".dgx-view > .dgx-notice")
    progress = {"done": 7, "total": 20, "words": "measuring 7 of 20"}
    answered = {"ack": 99, "progress": progress, "error": None, "message": None}
    live.tell("status", answered)
    assert notice.is_hidden() and live.text(".dgx-progress") == "measuring 7 of 20"
    live.tell("status", {**answered, "error": "the network raised <b>half-way</b>"})
    assert "the network raised <b>half-way</b>" in live.text(".dgx-view > .dgx-notice")
    live.page.get_by_role("button", name="Try again").click()
    assert live.page.evaluate("() => window.sent.at(-1)") == {"type": "retry"}
    live.page.evaluate("() => window.model.tell('comm_live_update')")
    live.move(90)
    assert "Run this cell again" in live.text(".dgx-view > .dgx-notice")
    assert live.text(".dgx-sentence").startswith("90 %"), "what was computed is still there"
    assert live.page.get_by_role("button", name="Save", exact=True).is_disabled()


def test_messages_to_and_from_the_kernel(live: Live) -> None:
    page = live.page
    for name in ("Pin to compare", "Start again", "Copy as code", "Save", "Download", "Prediction flips"):
        page.get_by_role("button", name=name, exact=True).click()
    canvas = page.locator(".dgx-canvas")
    canvas.focus()
    canvas.press("ArrowRight")
    canvas.press("Enter")
    assert page.evaluate("() => window.sent") == [
        {"type": "pin"},
        {"type": "reset"},
        {"type": "code"},
        {"type": "save"},
        {"type": "download"},
        {"type": "panel", "name": "flips"},
        {"type": "filter", "group": "features.conv1", "filter": 0},
    ]
    page.evaluate("() => window.model.tell('msg:custom', {type: 'code', text: 'a = \"</textarea>\"'})")
    assert page.get_by_label("Code of this view").input_value() == 'a = "</textarea>"'
    page.evaluate("() => window.model.tell('msg:custom', {type: 'saved', text: 'Saved as x'})")
    live.settle()
    assert "Saved as x" in live.text(".dgx-view > .dgx-notice")
    assert page.get_by_role("button", name="Feature shift").is_disabled()


def test_a_panels_chart_is_embedded_once_and_its_data_swapped(live: Live) -> None:
    panels = make_state()["panels"]
    panels |= {
        "list": [{"name": "flips", "label": "Flips", "unavailable": None}],
        "open": "flips",
        "text": "<i>words</i>",
    }
    row = {"what": "Filters", "share": 50, "text": "1 of 2", "percent": "50 %", "opacity": 1}
    panels["charts"] = {"left": make_state()["static"]["specs"]["c"]}
    live.tell("panels", {**panels, "data": {"left": {"left": [row]}}})
    live.page.wait_for_selector(".dgx-panel svg")
    live.page.evaluate("() => { document.querySelector('.dgx-panel svg').dataset.same = 'yes'; }")
    live.tell("panels", {**panels, "data": {"left": {"left": [{**row, "percent": "25 %"}]}}})
    assert "25 %" in live.text(".dgx-panel svg") and live.text(".dgx-panel-text") == "<i>words</i>"
    assert live.page.evaluate("() => document.querySelector('.dgx-panel svg').dataset.same") == "yes"
    live.tell("panels", {**panels, "open": None})
    assert live.page.locator(".dgx-panel svg").count() == 0


def test_the_options_of_a_choice_stand_under_the_i_and_reach_python(live: Live) -> None:
    live.page.click(".dgx-i")
    mode, target = live.page.locator(".dgx-info select").all()
    assert mode.input_value() == "joint" and target.input_value() == "\u2013"
    mode.select_option("additive")
    target.select_option("mnist_m")
    live.page.fill(".dgx-info input", "2.5")
    live.page.press(".dgx-info input", "Enter")
    sent = live.page.evaluate("window.sent.filter((message) => message.type === 'option')")
    assert sent == [
        {"type": "option", "name": "mode", "value": "additive"},
        {"type": "option", "name": "target", "value": "mnist_m"},
        {"type": "option", "name": "beta", "value": 2.5},
    ]
    state = live.page.evaluate("window.model.get('static')")
    live.tell("static", {**state, "device": "another"})
    assert live.page.is_visible(".dgx-info"), "a change made in it must not close it"


def test_how_far_scores_lie_apart_is_told(live: Live) -> None:
    live.tell("plan", {**make_plan("l1"), "spread": "Scores from 0.98 to 1; the middle half from 0.99 to 1."})
    live.page.click(".dgx-i")
    assert "Scores from 0.98 to 1" in live.page.inner_text(".dgx-spread")


def tree(current: int, *, job: Any = None) -> dict[str, Any]:
    """Steps 0 - 1 - 2 ... and a branch from 1, more than the strip has room for."""
    cell = {"value": 0.95, "low": 0.93, "high": 0.97, "colour": "#0072B2"}
    accuracy = [{**cell, "domain": "mnist", "role": "source", "target_aware": False}]
    accuracy.append({**cell, "value": 0.44, "domain": "mnist_m", "role": "target", "target_aware": True})
    shared = {"kind": "prune", "removed": 0.3, "accuracy": accuracy, "stored": "memory"}
    parents = [None, *range(19), 1]
    steps = [{**shared, "number": k, "parent": parent, "label": f"L1 norm {k} %"} for k, parent in enumerate(parents)]
    return {"steps": steps, "current": current, "undo": "Apply", "redo": None, "job": job}


def sent(live: Live) -> list[dict[str, Any]]:
    return live.page.evaluate("() => window.sent.splice(0)")


def test_a_step_is_gone_to_and_the_current_one_is_in_view(live: Live) -> None:
    page = live.page
    live.tell("tree", tree(19))
    inside = """() => { const room = document.querySelector('.dgx-tree-scroll').getBoundingClientRect();
      const step = document.querySelector('.dgx-step[aria-current]').getBoundingClientRect();
      return step.left >= room.left && step.right <= room.right; }"""
    assert page.locator(".dgx-step").count() == 21 and page.evaluate(inside)
    assert live.text(".dgx-step[aria-current]") == "L1 norm 19 %source 95, target 44 ◇"
    page.locator("main").evaluate("(main) => { main.style.display = 'flex'; }")  # as a notebook's output
    page.set_viewport_size({"width": 640, "height": 800})
    page.wait_for_function("() => document.querySelector('.dgx').clientWidth <= 600")
    live.settle()
    assert page.evaluate(inside), "the page is narrower now"
    page.locator(".dgx-step[aria-current]").focus()
    for key in ("ArrowLeft", "Home", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    assert sent(live) == [{"type": "goto", "choice": {"step": 20, "ratio": 0}}]
    live.tell("tree", tree(20))
    assert page.evaluate(inside) and page.evaluate("() => document.activeElement.dataset.step") == "20"
    page.locator(".dgx-step").first.click()
    assert sent(live) == [{"type": "goto", "choice": {"step": 0, "ratio": 0}}]


def test_undo_has_keys_that_a_text_field_keeps(live: Live) -> None:
    page = live.page
    live.tell("tree", tree(2))
    fixed = page.evaluate("() => window.model.get('static')")
    live.tell("static", {**fixed, "finetuning": {"epochs": 1, "lr": 0.01, "augmentations": ["none", "crop_flip"]}})
    page.locator(SLIDER).press("Control+z")
    page.locator(".dgx-canvas").press("Control+Shift+Z")  # nothing to redo
    assert sent(live) == [{"type": "undo"}]
    assert page.get_by_role("button", name="Undo").get_attribute("title") == "Undo: Apply (Ctrl+Z)"
    page.get_by_role("button", name="Fine-tune…").press("Enter")
    page.keyboard.press("Control+a")
    page.keyboard.type("3")
    page.keyboard.press("Control+z")
    assert sent(live) == [] and page.get_by_label("Epochs").input_value() != "3"
    page.keyboard.press("Control+a")
    page.keyboard.type("2")
    page.get_by_label("Augmentation").select_option("crop_flip")
    page.get_by_role("button", name="Start", exact=True).press("Enter")
    assert sent(live) == [{"type": "finetune", "epochs": 2, "lr": 0.01, "augment": "crop_flip"}]
    live.tell("tree", tree(2, job={"words": "epoch 1 of 2", "done": 1, "total": 2}))
    assert page.locator("progress").evaluate("(bar) => [bar.value, bar.max]") == [1, 2]
    assert page.get_by_label("Epochs").is_hidden() and page.get_by_role("button", name="Apply").is_disabled()
    page.locator(SLIDER).press("Control+z")
    page.get_by_role("button", name="Cancel").press("Enter")
    assert sent(live) == [{"type": "cancel"}]
    live.tell("tree", tree(3))
    page.keyboard.press("Control+z")  # the focus has stayed in the explorer
    assert sent(live) == [{"type": "undo"}]


def hand(live: Live) -> tuple[dict[str, float], dict[str, Any]]:
    """What the page says is set by hand: layers, and forced filters."""
    choice = live.page.evaluate("() => new Promise((done) => setTimeout(() => done(window.model.get('choice')), 200))")
    return choice.get("layers", {}), choice.get("forced", {})


def test_a_layers_own_handle_moves_by_mouse_and_by_keys(live: Live) -> None:
    page = live.page
    handle = page.get_by_role("slider", name="features.conv2: share removed")
    box, cells = handle.bounding_box(), live.pixels()
    page.mouse.click(box["x"] + 0.2 * box["width"], box["y"] + box["height"] / 2)
    live.settle()
    clicked = int(handle.input_value())
    assert 10 < clicked < 30 and live.pixels() != cells, "the page shows it before Python has answered"
    coming = [box.get_attribute("data-coming") for box in page.locator(".dgx-layer").all()]
    assert coming == ["true", "false", "true", "true", "true"], "the layers that follow will get other shares"
    handle.press("ArrowRight")
    assert hand(live)[0] == {"features.conv2": pytest.approx((clicked + 1) / 100)}
    row = page.get_by_role("group", name="features.conv2")
    assert row.locator("output").text_content() == f"{clicked + 1} % *"
    handle.press("l")
    assert hand(live)[0] == {"features.conv2": 0}
    assert row.locator("output").text_content() == "locked" and page.locator(SLIDER).input_value() == "50"
    handle.press("f")
    assert hand(live)[0] == {} and row.locator("output").text_content() == "50 %"
    assert page.locator(".dgx-layer[data-coming=true]").count() == 0
    row.get_by_role("button").click()
    assert hand(live)[0] == {"features.conv2": 0}


def test_filters_are_selected_forced_and_stay_forced_while_the_slider_moves(live: Live) -> None:
    page, layer = live.page, "features.conv4"

    def at(filter: int) -> tuple[float, float]:
        place = page.evaluate(f"() => document.querySelector('.dgx-canvas').place('{layer}', {filter})")
        box = page.locator(".dgx-canvas").bounding_box()
        return box["x"] + place["x"], box["y"] + place["y"]

    assert page.get_by_role("button", name="Keep", exact=True).count() == 0
    page.mouse.click(*at(0))
    page.keyboard.down("Shift")
    page.mouse.click(*at(2))
    page.keyboard.up("Shift")
    three = [{"group": layer, "filter": filter} for filter in range(3)]
    assert page.evaluate("() => window.sent.at(-1)") == {"type": "filter", "cells": three}
    page.get_by_role("button", name="Keep", exact=True).click()
    page.mouse.move(*at(5))
    page.mouse.down()
    page.mouse.move(*at(7), steps=4)
    page.mouse.up()
    page.keyboard.press("r")
    wanted = {"remove": {layer: [5, 6, 7]}, "keep": {layer: [0, 1, 2]}}
    assert hand(live)[1] == wanted
    live.move(80)
    assert hand(live)[1] == wanted
    page.mouse.move(*at(6))
    live.settle()
    assert "filter 6" in live.text(".dgx-b .dgx-about") and "removed by hand" in live.text(".dgx-b .dgx-about")
    page.keyboard.press("u")
    assert hand(live)[1] == {"remove": {}, "keep": {layer: [0, 1, 2]}}
    page.keyboard.press("Escape")
    live.settle()
    assert page.get_by_role("button", name="Keep", exact=True).count() == 0
    page.mouse.click(*at(0))
    live.settle()
    page.get_by_role("button", name="Start again").click()
    live.settle()
    assert page.get_by_role("button", name="Keep", exact=True).count() == 0, "nothing is selected any more"
    assert page.evaluate("() => window.sent.at(-1)") == {"type": "reset"}


def test_keys_act_on_the_filter_with_the_focus_unless_several_are_selected(live: Live) -> None:
    page, layer = live.page, "features.conv1"
    canvas = page.locator(".dgx-canvas")
    canvas.focus()
    for key in ("ArrowRight", "k", "ArrowRight", "r"):
        canvas.press(key)
    assert hand(live)[1] == {"keep": {layer: [0]}, "remove": {layer: [1]}}
    assert page.get_by_role("button", name="Keep", exact=True).count() == 0, "the focus selects nothing"
    for key in ("Enter", "u", "ArrowRight", "k"):  # Enter selects the one whose card it opens
        canvas.press(key)
    assert hand(live)[1] == {"keep": {layer: [0, 2]}, "remove": {}}
    for key in (" ", "ArrowRight", " ", "ArrowRight", "r"):
        canvas.press(key)
    assert hand(live)[1] == {"keep": {layer: [0]}, "remove": {layer: [2, 3]}}, "a set that was picked is kept"


def test_silent_filters_and_the_possible_range_are_said(live: Live) -> None:
    live.tell("silent", {"key": [0], "groups": {"features.conv1": [0]}})
    assert "line through: silent" in live.text(".dgx-b .dgx-about")
    canvas = live.page.locator(".dgx-canvas")
    canvas.focus()
    canvas.press("ArrowRight")
    live.settle()
    assert "silent: 0 on every source image" in live.text(".dgx-b .dgx-about")
    choice = live.page.evaluate("() => window.model.get('choice')")
    forced, empty = {"keep": {"features.conv1": [0, 1]}}, []
    plan = make_plan("l1")
    key = ["l1", "layer", "filters", 0, [empty, empty, [["features.conv1", [0, 1]]]]]
    live.tell("plan", {**plan, "key": key, "range": [0.0, 0.4]})
    live.tell("choice", {**choice, "forced": forced, "by": "kernel", "id": 99})
    assert live.text(".dgx-amount") == "50 % of the filters (40 % possible)"
