"""The panel "Layer sensitivity": estimates first, then all images; its numbers are the table's."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from explorer_state import make_state
from material import domain, plain_net, randomise
from page_driver import Opened
from read_study import lively, read_domain, read_study

import dgprune_lab as dg
from dgprune_lab.widgets import FlipsPanel, Layers, LayersPanel, View
from dgprune_lab.widgets.page.standalone import write_page

pytestmark = pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")


def view_of(study: dg.Study, *, scorer: str = "l1", ratio: float = 0.5, batchnorm: Any = "recalibrate") -> View:
    mask = dg.allocate(study.score(scorer), ratio=ratio)
    return View(study=study, mask=mask, scorer=dg.SCORERS[scorer], batchnorm=batchnorm)


def shown(work: Any) -> list[Any]:
    """The frames that show something."""
    return [frames for frames in work if frames]


def rows_of(frames: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["layer"], row["domain"]): row for row in frames["layers"]["layers"]}


@pytest.fixture(scope="module")
def study() -> dg.Study:
    return fresh()


def fresh() -> dg.Study:
    """600 images are reported of each domain: more than an estimate takes."""
    model = lively(plain_net, seed=3)
    domains = [read_domain(model, name, seed=k, count=1200, wrong=60 * k) for k, name in enumerate("abt")]
    return dg.Study(model, sources=domains[:2], targets=domains[2:])


@pytest.mark.parametrize("scorer", ["l1", "taylor"])
def test_estimates_come_first_and_in_the_end_the_numbers_are_the_tables(study: dg.Study, scorer: str) -> None:
    panel, view = LayersPanel(), view_of(study, scorer=scorer)
    ticks = shown(panel.tick(view))
    assert all(row["text"] == "…" and row["change"] is None for row in rows_of(ticks[0]).values())
    assert "Measuring 0 of 2 layers" in ticks[0]["text"] and "Measuring 1 of 2 layers" in ticks[1]["text"]
    for images, frames in ((250, ticks[-1]), (None, shown(panel.background(view))[-1])):
        frame = dg.diagnostics.drop(study, scorers=[scorer], by="layer", batchnorm="recalibrate", images=images)
        changes = frame.loc[frame.metric == "accuracy_change"]
        rows = rows_of(frames)
        assert list(rows) == [(layer, name) for layer in study.graph.names for name in "abt"], "order of execution"
        for _, row in changes.iterrows():
            drawn = rows[row.group, row.domain]
            assert (drawn["change"], drawn["low"], drawn["high"]) == pytest.approx(
                (100 * row.value, 100 * row.low, 100 * row.high)
            )
            assert drawn["text"].startswith("~ ") == (images is not None) and (drawn["opacity"] < 1) == bool(images)
    assert "estimate from 250 images" in ticks[-1]["text"] and "estimate" not in frames["text"]
    assert "All images." in frames["text"] and "before any fine-tuning" in frames["text"]


def test_it_names_the_most_sensitive_layer(study: dg.Study) -> None:
    panel, view = LayersPanel(), view_of(study, ratio=0.6)
    list(panel.tick(view))
    frames = shown(panel.background(view))[-1]
    line = next(line for line in frames["text"].split("\n") if line.startswith("Most sensitive"))
    for name in "abt":
        own = [row for (_, domain), row in rows_of(frames).items() if domain == name]
        worst = min(own, key=lambda row: row["change"])
        assert worst["high"] < 0 and f"{name}: {worst['layer']} ({worst['text']} points" in line
    nothing = view_of(study, ratio=0.0)
    assert "t: no layer significantly" in shown(panel.tick(nothing))[-1]["text"]


def test_it_gives_way_between_batches_and_measures_nothing_twice() -> None:
    panel, view = LayersPanel(), view_of(fresh())
    assert sum(not frames for frames in panel.tick(view)) > 0
    assert len(list(panel.tick(view))) == 1, "a second look has its estimates"
    work = list(panel.background(view))
    assert sum(not frames for frames in work) >= 2 * 3 * 2, "two layers, three domains, batches of 250 of 600"
    assert all(list(again) == shown(again) for again in (list(panel.tick(view)), list(panel.background(view))))


def test_few_images_need_no_estimate() -> None:
    small = read_study()
    model = small.model
    few = dg.Study(model, sources=[read_domain(model, "a", seed=1, count=300)])
    last = shown(LayersPanel().tick(view_of(few)))[-1]
    assert "All images." in last["text"] and all(row["opacity"] == 1 for row in rows_of(last).values())


def test_the_share_is_of_one_layer_whatever_the_explorer_counts(study: dg.Study) -> None:
    mask = dg.allocate(study.score("l2"), ratio=0.4, scope="global", budget="macs")
    odd = shown(LayersPanel().tick(View(study=study, mask=mask, scorer=dg.SCORERS["l2"], batchnorm="as_is")))[-1]
    plain = shown(LayersPanel().tick(view_of(study, scorer="l2", ratio=0.4, batchnorm="as_is")))[-1]
    assert rows_of(odd) == rows_of(plain) and "40 % of the filters of one layer alone" in odd["text"]


def test_domains_without_labels_are_left_out_and_without_any_it_is_not_offered() -> None:
    model = randomise(plain_net(), dtype=torch.float32)
    some = dg.Study(model, sources=[domain("a")], targets=[domain("t", seed=1, labelled=False)])
    assert LayersPanel().unavailable(some) is None
    assert {name for _, name in rows_of(shown(LayersPanel().tick(view_of(some)))[-1])} == {"a"}
    none = dg.Study(model, sources=[domain("a", labelled=False)])
    assert LayersPanel().unavailable(none) == "no domain has labels, so the accuracy cannot be measured."


def test_a_looked_at_target_keeps_its_mark_and_the_others_their_colours(study: dg.Study) -> None:
    item = dg.Scores.from_frame(
        study.score("l1").to_frame(), graph=study.graph, scorer="peeked", reads={"t/score": "images"}
    )
    view = View(study=study, mask=dg.allocate(item, ratio=0.5), scorer=item, batchnorm="as_is")
    rows = rows_of(shown(LayersPanel().tick(view))[-1])
    assert {row["label"] for row in rows.values()} == {"a", "b", "t ◇ target-aware"}
    styles = dg.charts.domain_styles([("a", "source"), ("b", "source"), ("t", "target")])
    assert all(row["colour"] == styles[name].colour for (_, name), row in rows.items())
    assert {(name, bool(row["ring"])) for (_, name), row in rows.items()} == {("a", False), ("b", False), ("t", True)}


def test_alone_it_is_open_follows_the_slider_and_keeps_its_errors() -> None:
    explorer = Layers(read_study(), ratio=0.3)
    try:
        assert explorer.wait_idle(120)
        first = explorer.panels
        assert first["open"] == "layers" and first["error"] is None and "30 % of the filters" in first["text"]
        explorer.ratio = 0.6
        assert explorer.wait_idle(120)
        assert explorer.panels["data"]["layers"]["layers"] != first["data"]["layers"]["layers"]
        explorer.panel.tick = lambda view: iter([{"text": "begun"}, *_fails()])
        explorer.ratio = 0.5
        assert explorer.wait_idle()
        assert explorer.panels["error"] == "too <b>much</b>" and explorer.status["error"] is None
    finally:
        explorer.close()


def _fails() -> Generator[Any, None, None]:
    raise dg.DgpruneError("too <b>much</b>")
    yield {}


# --- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["flips", "layers"])
def opened(browser: Any, tmp_path: Path, request: Any) -> Generator[tuple[Opened, Any, str], None, None]:
    """A page with one of the panels open: what a kernel would have sent."""
    panel: Any = FlipsPanel() if request.param == "flips" else LayersPanel()
    frames = shown(panel.tick(view_of(read_study(), ratio=0.7)))[-1]
    state = make_state()
    state["panels"] |= {
        "list": [{"name": panel.name, "label": panel.label, "unavailable": None}],
        "open": panel.name,
        "charts": dict(panel.charts),
        "data": {panel.name: frames[panel.name]},
        "text": frames["text"],
        "pages": frames.get("pages"),
    }
    path = write_page(tmp_path / "page.html", state, title="Panel")
    path.write_text(path.read_text(encoding="utf-8").replace('"offline":true', '"offline":false'), encoding="utf-8")
    one = Opened(browser, path, width=640, height=1500)
    yield one, frames, panel.name
    one.page.close()
    assert one.wrong == []


@pytest.mark.browser
def test_the_page_draws_the_panel_and_turns_its_pages(opened: tuple[Opened, Any, str]) -> None:
    one, frames, name = opened
    page = one.page
    page.wait_for_selector(".dgx-panel svg")
    room, wide = page.evaluate(
        "() => { const e = document.querySelector('.dgx-panel-charts'); return [e.clientWidth, e.scrollWidth]; }"
    )
    assert wide <= room, "it fits a narrow window"
    if name == "layers":
        text = one.text(".dgx-panel svg")
        assert all(row["label"] in text and row["text"] in text for row in rows_of(frames).values())
        assert page.locator(".dgx-pager").is_hidden(), "one page needs no buttons"
        return
    pages = frames["pages"]["of"]
    assert page.locator(".dgx-panel svg image").count() == len(frames["flips"]["pictures"])
    assert one.text(".dgx-panel-page") == f"page 1 of {pages}"
    page.evaluate(
        "() => { window.sent = []; window.explorers[0].model.send = (message) => window.sent.push(message); }"
    )
    before, after = page.get_by_label("Previous page"), page.get_by_label("Next page")
    assert before.get_attribute("aria-disabled") == "true" and after.get_attribute("aria-disabled") == "false"
    after.click()
    after.click()
    before.click()
    assert page.evaluate("window.sent") == [{"type": "page", "page": number} for number in (1, 2, 1)]
    assert one.text(".dgx-panel-page") == f"page 2 of {pages}"
    told = page.evaluate("() => window.explorers[0].model.get('panels')")
    told = {**told, "pages": {"at": pages - 1, "of": pages}}
    page.evaluate("(panels) => window.explorers[0].model.set('panels', panels)", told)
    one.settle()
    assert one.text(".dgx-panel-page") == f"page {pages} of {pages}"
    assert after.get_attribute("aria-disabled") == "true"
