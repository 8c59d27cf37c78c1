"""The panel "Domain-sensitive filters": the map is the table's, the card the picked filter's, the slider only marks."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explorer_state import make_state
from material import domain, plain_net, randomise
from page_driver import Opened
from read_study import lively, read_domain

import dgprune_lab as dg
from dgprune_lab.charts.sensitivity.card import PAIRS
from dgprune_lab.charts.sensitivity.map import WAITING, map_data, removed_rows
from dgprune_lab.core.steps import drain
from dgprune_lab.diagnostics._attributions import attribution_steps, attributor
from dgprune_lab.stats import intervals
from dgprune_lab.widgets import Sensitivity, SensitivityPanel, View
from dgprune_lab.widgets.page.standalone import write_page
from dgprune_lab.widgets.panels import sensitivity_state
from dgprune_lab.widgets.panels.filter_card import full_colour, picture_rows, rank_row

pytestmark = pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")
CHARTS = ("sensitivity", "pictures", "facts", "ranks", "changes")


def fresh() -> dg.Study:
    model = lively(plain_net, seed=3)
    domains = [read_domain(model, name, seed=k, count=600, wrong=60 * k) for k, name in enumerate("abt")]
    return dg.Study(model, sources=domains[:2], targets=domains[2:])


@pytest.fixture(scope="module")
def study() -> dg.Study:
    return fresh()


def view_of(study: dg.Study, *, ratio: float = 0.5, menu: Any = None) -> View:
    menu = menu or {name: dg.SCORERS[name] for name in ("l1", "taylor", "dss", "bn_scale")}
    mask = dg.allocate(study.score("l1"), ratio=ratio)
    scorers = tuple(menu.values())
    return View(study=study, mask=mask, scorer=dg.SCORERS["l1"], batchnorm="as_is", scorers=scorers)


def joined(frames: Any, before: Any = None) -> dict[str, Any]:
    """What the page holds after these frames."""
    shown: dict[str, Any] = before or {}
    for frame in frames:
        for name, part in frame.items():
            shown[name] = {**shown.get(name, {}), **part} if name in CHARTS else part
    return shown


def whole(panel: SensitivityPanel, view: View) -> dict[str, Any]:
    return joined(panel.background(view), joined(panel.tick(view)))


def heading(shown: Any) -> str:
    return next(row["text"] for row in shown["pictures"]["words"] if row["style"] == "name")


def test_the_first_card_is_of_a_layer_whose_maps_show_where(study: dg.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    effects: Any = dg.diagnostics.sensitivity(study).query("metric == 'cohens_d' and (low > 0 or high < 0)")
    most = effects.loc[effects.value.abs().idxmax()]
    first = effects[effects.group != most.group].iloc[0].group
    positions = {name: study.graph.uses[f"{name}.weight"] for name in (first, most.group)}
    assert positions[first] != positions[most.group]
    monkeypatch.setattr(sensitivity_state, "_LEGIBLE", max(positions.values()))
    large = max(positions, key=lambda name: positions[name])
    assert joined(SensitivityPanel().tick(view_of(study)))["picked"]["group"] == large
    monkeypatch.setattr(sensitivity_state, "_LEGIBLE", 1 + max(positions.values()))
    assert joined(SensitivityPanel().tick(view_of(study)))["picked"]["group"] == most.group, "no layer has such maps"


def test_the_map_is_the_tables_and_the_most_sensitive_filter_is_picked_first(study: dg.Study) -> None:
    frame = dg.diagnostics.sensitivity(study)
    view = view_of(study)
    frames: Any = list(SensitivityPanel().tick(view))
    assert frames[0]["text"].startswith("Computing how much each filter contributes.") and frames[0]["picked"] == {}
    shown = joined(frames)
    wanted = map_data(frame, mask=view.mask)
    assert {name: shown["sensitivity"][name] for name in wanted} == wanted
    effects: Any = frame.query("metric == 'cohens_d' and (low > 0 or high < 0)")
    most = effects.loc[effects.value.abs().idxmax()]
    assert shown["picked"] == {"group": most.group, "filter": most["filter"]}
    assert heading(shown).startswith(f"{most.group}, filter {most['filter']}: contributes more on ")
    assert f"(d = {most.value:.2f}, {most.low:.2f} to {most.high:.2f})".replace("-", "−") in heading(shown)
    assert "a against t ◇ target-aware, seen" in shown["text"] and "need not do harm" in shown["text"]


def test_the_slider_only_marks_what_it_removes(study: dg.Study, monkeypatch: Any) -> None:
    panel = SensitivityPanel()
    before = joined(panel.tick(view_of(study)))
    monkeypatch.setattr(sensitivity_state, "attribution_steps", None)
    monkeypatch.setattr(sensitivity_state.filter_card, "picture_rows", None)
    for ratio in (0.2, 0.8):
        view = view_of(study, ratio=ratio)
        after = joined(panel.tick(view))
        assert after["sensitivity"]["removed"] == removed_rows(after["sensitivity"]["cells"], view.mask)
        assert len(after["sensitivity"]["removed"]) == study.graph.free - view.mask.cost.filters
        assert after["sensitivity"]["cells"] == before["sensitivity"]["cells"] and after["facts"] == before["facts"]


def test_a_picked_filter_has_its_card(study: dg.Study) -> None:
    panel, view = SensitivityPanel(), view_of(study)
    panel.selected = {"group": "3", "filter": 5}
    shown = whole(panel, view)
    assert heading(shown).startswith("3, filter 5: ")
    histogram = shown["facts"]["histogram"]
    for name in "at":
        assert sum(row["share"] for row in histogram if row["domain"] == name) == pytest.approx(100, abs=0.1)
    pictures = shown["pictures"]["pictures"]
    assert len(pictures) == 2 * PAIRS * 2 + 2, "images in pairs on two domains, and two mean maps"
    assert all(one["url"].startswith("data:image/png;base64,") for one in pictures)
    assert shown["facts"]["weights"] == [] and "other" in shown["facts"]["weight_words"][0]["text"]
    panel.selected = {"group": "0", "filter": 1}
    first = whole(panel, view)
    assert len(first["facts"]["weights"]) == 3 and heading(first).startswith("0, filter 1: ")


def test_its_images_are_those_of_the_largest_contributions(study: dg.Study) -> None:
    by = attributor(study)
    held = drain(
        attribution_steps(
            study, method="gradient_x_activation", between=("a", "t"), layers=None, images=60, split="score"
        )
    )
    words = picture_rows(study, by, held, layer="0", filter=2)["words"]
    told = [row["text"].replace("−", "-") for row in words if row["text"].startswith("true ")]
    for side in (0, 1):
        values = held.values["0"][side][:, 2]
        order = values.abs().argsort(descending=True, stable=True)[:PAIRS]
        wanted = [f"true {held.labels[side][k]}: {float(values[k]):+.3g}" for k in order]
        assert told[PAIRS * side : PAIRS * (side + 1)] == wanted
    assert words[-1]["text"] == "Full colour: the strongest 2 % of the positions in these pictures"


def test_few_strong_positions_do_not_make_all_others_pale() -> None:
    sizes = torch.full((1000,), 0.1)
    sizes[:5], sizes[5:30] = 9.0, 1.0
    assert full_colour(sizes) == 1.0 and full_colour(torch.zeros(4)) == 0.0
    assert full_colour(torch.tensor([0.0] * 99 + [3.0])) == 3.0, "a single position that contributes"


def test_without_the_filter_accuracy_changes_as_measured_by_hand(study: dg.Study) -> None:
    panel, view = SensitivityPanel(), view_of(study)
    panel.selected = {"group": "0", "filter": 1}
    waits = joined(panel.tick(view))["facts"]["changes"]
    assert [row["text"] for row in waits] == ["…"] * 3 and {row["change"] for row in waits} == {None}
    changes = whole(panel, view)["facts"]["changes"]
    mask = dg.Mask.by_hand(study.graph, removed={"0": [1]})
    for row, name in zip(changes, "abt", strict=True):
        before, after = (
            study.outcomes(one, domain=name).correct.double().numpy()  # type: ignore[union-attr]
            for one in (None, mask)
        )
        low, high = intervals.difference(after, before)
        assert row["change"] == pytest.approx(100 * (after.mean() - before.mean()))
        assert (row["low"], row["high"]) == pytest.approx((100 * low, 100 * high))
        assert row["label"] == (name if name != "t" else "t ◇ target-aware"), "labels of t guided the choice"


def test_each_choice_tells_when_it_would_remove_the_filter(study: dg.Study) -> None:
    panel, view = SensitivityPanel(), view_of(study)
    panel.selected = {"group": "3", "filter": 5}
    first = {row["label"]: row["text"] for row in joined(panel.tick(view))["ranks"]["ranks"]}
    assert first[dg.SCORERS["taylor"].label] == "…" and first[dg.SCORERS["l1"].label] != "…"
    rows = {row["label"]: row for row in whole(panel, view)["ranks"]["ranks"]}
    assert rows[dg.SCORERS["bn_scale"].label]["text"] == "cannot run"
    assert f"{dg.SCORERS['dss'].label} ◇" in rows
    for name in ("l1", "taylor"):
        order = np.argsort(study.score(name).values["3"].numpy(), kind="stable").tolist()
        place = order.index(5)
        assert rows[dg.SCORERS[name].label]["text"].startswith(f"{place + 1}") and place < 8
        assert rows[dg.SCORERS[name].label]["at"] == pytest.approx(100 * place / 7)
    ties = dg.Scores("ties", {"0": torch.zeros(6), "3": torch.zeros(8)}, study.graph)
    assert [rank_row(ties, layer="0", filter=k)["text"] for k in (0, 2, 5)] == ["1st of 6", "3rd of 6", "6th of 6"]


def said(shown: Any) -> str:
    return shown["actions"][0]["label"]


def test_the_card_says_what_the_mask_does_with_its_filter_and_forces_it(study: dg.Study) -> None:
    view = view_of(study)
    order = study.score("l1").values["3"].argsort().tolist()
    panel = SensitivityPanel()
    for number, forced, wanted, pressed in (
        (order[0], {}, "removed by score", "score"),
        (order[-1], {}, "kept by score", "score"),
        (order[0], {"keep": {"3": [order[0]]}}, "kept by hand", "keep"),
        (order[-1], {"remove": {"3": [order[-1], order[0]]}}, "removed by hand", "remove"),
    ):
        panel.selected = {"group": "3", "filter": number}
        shown = joined(panel.tick(replace(view, choice={"forced": forced, "layers": {}, "step": 0})))
        assert said(shown) == f"3, filter {number}: {wanted}."
        buttons = shown["actions"][1:]
        assert [one["message"]["to"] for one in buttons] == ["remove", "keep", "score"]
        assert [one["message"]["to"] for one in buttons if one["pressed"]] == [pressed]
        assert all(one["message"]["cells"] == [{"group": "3", "filter": number}] for one in buttons)
    locked = dg.allocate(study.score("l1"), ratio=0.2, layers={"3": 0.0})
    assert said(joined(panel.tick(replace(view, mask=locked)))).endswith("kept with its layer.")


def test_filters_are_named_as_in_the_full_network(study: dg.Study) -> None:
    """A step that has lost filters 0 and 1 of the first layer: its own numbers are two less."""
    panel, view = SensitivityPanel(), replace(view_of(study), original={"0": range(2, 8), "3": range(8)}, silent={})
    panel.selected = {"group": "0", "filter": 4}
    shown = joined(panel.tick(view))
    assert heading(shown).startswith("0, filter 4: ") and said(shown).startswith("0, filter 4: ")
    assert shown["picked"] == {"group": "0", "filter": 4}
    own = SensitivityPanel()
    own.selected = {"group": "0", "filter": 2}
    plain = joined(own.tick(view_of(study)))
    assert shown["facts"] == plain["facts"] and shown["ranks"] == plain["ranks"]
    cells, theirs = shown["sensitivity"]["cells"], plain["sensitivity"]["cells"]
    assert [c["filter"] for c in cells] == [c["filter"] + 2 * (c["group"] == "0") for c in theirs]
    assert shown["sensitivity"]["removed"] == plain["sensitivity"]["removed"]
    panel.selected = {"group": "0", "filter": 1}
    assert joined(panel.tick(view))["picked"] != {"group": "0", "filter": 1}, "the step no longer has it"


def test_a_silent_filter_is_called_so_and_shows_no_arbitrary_images() -> None:
    model = lively(plain_net, seed=3)
    with torch.no_grad():
        model.get_parameter("3.weight")[5] = 0
        model.get_parameter("3.bias")[5] = -1
    domains = [read_domain(model, name, seed=k, count=240) for k, name in enumerate("at")]
    study = dg.Study(model, sources=domains[:1], targets=domains[1:])
    panel, view = SensitivityPanel(), replace(view_of(study), silent={"3": [5]})
    panel.selected = {"group": "3", "filter": 5}
    shown = whole(panel, view)
    assert said(shown).endswith(". Silent: 0 on all 40 source images of split score.")
    texts = [row["text"] for row in shown["pictures"]["words"]]
    assert sum("its contribution is 0 on all 40 images" in text for text in texts) == 2
    assert not any("true " in text and "+0" in text for text in texts) and len(shown["pictures"]["pictures"]) == 2
    panel.selected = {"group": "3", "filter": 4}
    assert "Silent" not in said(joined(panel.tick(view)))


def test_a_set_shows_what_the_removal_of_all_of_it_costs(study: dg.Study) -> None:
    panel, view = SensitivityPanel(), view_of(study)
    cells = [("0", 1), ("3", 2), ("3", 6)]
    panel.selected = {"cells": [*cells, ("3", 99), ("9", 0)]}
    first = joined(panel.tick(view))
    assert first["hidden"] == ("pictures", "facts", "ranks") and first["picked"] == {}
    assert said(first).startswith("3 filters (0: 1; 3: 2, 6): ") and {
        r["text"] for r in first["changes"]["changes"]
    } == {"…"}
    rows = whole(panel, view)["changes"]["changes"]
    mask = dg.Mask.by_hand(study.graph, removed={"0": [1], "3": [2, 6]}, reads={})
    for row, name in zip(rows, "abt", strict=True):
        before, after = (
            study.outcomes(one, domain=name).correct.double().numpy()  # type: ignore[union-attr]
            for one in (None, mask)
        )
        wanted = (after.mean() - before.mean(), *intervals.difference(after, before))
        assert [row["change"], row["low"], row["high"]] == pytest.approx([100 * value for value in wanted])
    panel.selected = {"cells": [("0", k) for k in range(6)]}
    assert "all of a layer" in whole(panel, view)["changes"]["changes"][0]["label"]
    panel.selected = {"group": "3", "filter": 2, "cells": None}
    assert joined(panel.tick(view))["hidden"] == ["changes"]


def test_methods_of_one_layer_read_the_picked_one_alone(study: dg.Study) -> None:
    panel = SensitivityPanel()
    panel.selected = {"group": "3", "filter": 2, "method": "ablation"}
    shown = joined(panel.tick(view_of(study)))
    fills = {name: {c["fill"] for c in shown["sensitivity"]["cells"] if c["group"] == name} for name in ("0", "3")}
    assert fills["0"] == {WAITING} and WAITING not in fills["3"] and "Pale: not computed" in shown["text"]
    frame = dg.diagnostics.sensitivity(study, method="ablation", layers=["3"])
    wanted = map_data(frame, layers={"0": 6, "3": 8})
    assert shown["sensitivity"]["cells"] == wanted["cells"]
    panel.selected = {"group": "0", "filter": 1, "method": "ablation"}
    both = joined(panel.tick(view_of(study)))
    assert WAITING not in {c["fill"] for c in both["sensitivity"]["cells"]} and "Pale" not in both["text"]


def test_other_domains_are_offered_and_compared(study: dg.Study) -> None:
    panel = SensitivityPanel()
    menus = {one["name"]: one for one in joined(panel.tick(view_of(study)))["controls"]}
    assert [value for value, _ in menus["between"]["choices"]] == [["a", "t"], ["a", "b"], ["b", "t"]]
    assert menus["between"]["value"] == ["a", "t"] and menus["method"]["value"] == "gradient_x_activation"
    assert all(
        words.endswith("one layer at a time")
        for value, words in menus["method"]["choices"]
        if value not in ("gradient_x_activation", "activation")
    )
    panel.selected = {"between": ["a", "b"]}
    shown = joined(panel.tick(view_of(study)))
    assert "a against b" in shown["text"] and "target-aware" not in shown["text"]
    assert shown["sensitivity"]["cells"] == map_data(dg.diagnostics.sensitivity(study, between=("a", "b")))["cells"]


def test_work_that_was_interrupted_goes_on_where_it_stood(study: dg.Study) -> None:
    panel = SensitivityPanel()
    work = iter(panel.tick(view_of(study)))
    assert "text" in next(work) and "1 of " in next(work)["text"]  # type: ignore[operator]
    work.close()  # type: ignore[attr-defined]
    frames: Any = panel.tick(view_of(study, ratio=0.3))
    texts = [frame["text"] for frame in frames if "text" in frame]
    assert texts[1].startswith("Computing how much each filter contributes: 2 of ")


def test_a_network_changed_in_place_is_read_anew() -> None:
    study, panel = fresh(), SensitivityPanel()
    before = joined(panel.tick(view_of(study)))["sensitivity"]["cells"]
    with torch.no_grad():
        study.model.get_parameter("0.weight").mul_(-1)
    after = joined(panel.tick(view_of(study)))["sensitivity"]["cells"]
    assert after != before and after == joined(SensitivityPanel().tick(view_of(study)))["sensitivity"]["cells"]


def test_it_says_why_it_has_nothing_to_show() -> None:
    model, panel = randomise(plain_net(), dtype=torch.float32), SensitivityPanel()
    alone = dg.Study(model, sources=[domain("a")])
    assert "compares two domains and the study has one" in str(panel.unavailable(alone))
    unlabelled = dg.Study(model, sources=[domain("a")], targets=[domain("t", seed=1, labelled=False)])
    assert "domain 't' has no labels" in str(panel.unavailable(unlabelled))
    high = domain("t", seed=1)
    splits = {key: rows.tolist() for key, rows in high.splits.items()}
    kinds = [
        dg.Domain.from_arrays(name, images=high.images, labels=labels, splits=splits, classes=4)
        for name, labels in (("low", high.labels % 2), ("high", 2 + high.labels % 2))  # type: ignore[operator]
    ]
    apart = dg.Study(model, sources=kinds[:1], targets=kinds[1:])
    assert "'low' and 'high' have no class in common" in str(panel.unavailable(apart))
    explorer = dg.Explorer(apart, panels=[panel])
    try:
        assert "no class in common" in explorer.panels["list"][0]["unavailable"]
    finally:
        explorer.close()


def finished(explorer: dg.Explorer) -> Any:
    assert explorer.wait_idle(120)
    return explorer.panels


def test_alone_it_is_open_takes_a_picked_filter_and_lets_go_when_closed() -> None:
    explorer = Sensitivity(fresh(), ratio=0.3)
    try:
        state = explorer.panel.state
        assert finished(explorer)["open"] == "sensitivity" and explorer.panels["error"] is None
        assert explorer.panels["list"][0]["filters"] is True and state.network is not None
        explorer.handle_message({"type": "filter", "group": "3", "filter": 4, "number": 1})
        assert heading(finished(explorer)["data"]).startswith("3, filter 4: ")
        explorer.handle_message({"type": "control", "name": "method", "value": "activation", "number": 2})
        assert "whatever its effect" in finished(explorer)["text"]
        explorer.handle_message({"type": "panel", "name": None})
        assert state.network is None and explorer.panels["data"] == {}
    finally:
        explorer.close()


def test_a_network_that_gives_nan_is_a_sentence_in_the_panel() -> None:
    model: Any = randomise(plain_net(), dtype=torch.float32)
    study = dg.Study(model, sources=[domain("a", count=120)], targets=[domain("t", count=120, seed=1)])
    with torch.no_grad():
        model[9].weight[0, 0] = float("nan")
    explorer = Sensitivity(study)
    try:
        explorer.wait_idle()
        assert "NaN" in explorer.panels["error"] and explorer.panels["open"] == "sensitivity"
    finally:
        explorer.close()


# --- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(browser: Any, tmp_path: Path, study: dg.Study) -> Generator[tuple[Opened, Any], None, None]:
    """A page with the open panel: what a kernel would have sent."""
    panel = SensitivityPanel()
    shown = whole(panel, view_of(study))
    state = make_state()
    listed = [{"name": panel.name, "label": panel.label, "unavailable": None, "filters": True}]
    state["panels"] |= {
        "list": listed,
        "open": panel.name,
        "charts": dict(panel.charts),
        "data": {k: shown[k] for k in CHARTS if k in shown},
        "hidden": shown["hidden"],
        "actions": shown["actions"],
        "text": shown["text"],
        "controls": shown["controls"],
        "picked": shown["picked"],
        "ack": 0,
    }
    path = write_page(tmp_path / "page.html", state, title="Sensitivity")
    path.write_text(path.read_text(encoding="utf-8").replace('"offline":true', '"offline":false'), encoding="utf-8")
    one = Opened(browser, path, width=1112, height=1900)
    yield one, shown
    one.page.close()
    assert one.wrong == []


@pytest.mark.browser
def test_the_page_fits_draws_every_cell_and_cuts_no_words(opened: tuple[Opened, Any], study: dg.Study) -> None:
    one, shown = opened
    page = one.page
    page.wait_for_function("() => document.querySelectorAll('.dgx-panel-chart svg').length === 5")
    one.settle()
    room, wide = page.evaluate(
        "() => { const e = document.querySelector('.dgx-panel-charts'); return [e.clientWidth, e.scrollWidth]; }"
    )
    assert wide <= room <= 1080, "it fits a laptop"
    texts = page.evaluate("() => [...document.querySelectorAll('.dgx-panel-chart svg text')].map((t) => t.textContent)")
    assert heading(shown) in texts and all(row["count"] in texts for row in shown["sensitivity"]["lines"])
    cut = page.evaluate(
        """() => [...document.querySelectorAll('.dgx-panel-chart svg')].flatMap((svg) => {
          const room = svg.getBoundingClientRect();
          return [...svg.querySelectorAll('text')].filter((text) => {
            const box = text.getBoundingClientRect();
            return text.textContent && (box.left < room.left - 1 || box.right > room.right + 1
              || box.top < room.top - 1 || box.bottom > room.bottom + 1);
          }).map((text) => text.textContent); })"""
    )
    assert cut == []
    page.evaluate(
        "() => { window.sent = []; window.explorers[0].model.send = (message) => window.sent.push(message); }"
    )
    page.locator(".dgx-panel-chart").first.locator("svg .mark-rect path").nth(2).click()
    cell = shown["sensitivity"]["cells"][2]
    sent = page.evaluate("window.sent")[-1]
    assert (sent["type"], sent["group"], sent["filter"]) == ("filter", cell["group"], cell["filter"])

    page.set_viewport_size({"width": 620, "height": 1900})
    one.settle()
    room, sizes = page.evaluate(
        """() => [document.querySelector('.dgx-panel-charts').clientWidth,
        [...document.querySelectorAll('.dgx-panel-chart svg')].map((svg) => {
          const { width, height } = svg.getBoundingClientRect(), { width: w, height: h } = svg.viewBox.baseVal;
          return [width, height / width, h / w]; })]"""
    )
    sizes = [size for size in sizes if size[0]]  # that of a picked set is hidden
    assert len(sizes) == 4 and all(width <= max(room, 450) + 1 for width, *_ in sizes)
    assert all(drawn == pytest.approx(own, rel=0.02) for _, drawn, own in sizes), "nothing is squeezed"
    page.locator(".dgx-panel-chart").first.locator("svg .mark-rect path").nth(5).click()
    cell = shown["sensitivity"]["cells"][5]
    sent = page.evaluate("window.sent")[-1]
    assert (sent["type"], sent["group"], sent["filter"]) == ("filter", cell["group"], cell["filter"]), "drawn smaller"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "charts do not widen the page"
