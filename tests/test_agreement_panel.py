"""The panel "Scorer agreement": its numbers are the table's, it follows the slider, its errors stay in it."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from explorer_state import make_state
from material import domain, plain_net, randomise
from page_driver import Opened
from torch import Tensor

import dgprune_lab as dg
from dgprune_lab.core import note
from dgprune_lab.diagnostics.stability import halves
from dgprune_lab.stats.rank_agreement import correlations
from dgprune_lab.widgets import Agreement, AgreementPanel, View
from dgprune_lab.widgets.page.standalone import write_page

pytestmark = pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")


def study_of() -> dg.Study:
    model = randomise(plain_net(), dtype=torch.float32)
    return dg.Study(model, sources=[domain("a"), domain("b", seed=1)], targets=[domain("t", seed=2, labelled=False)])


def view_of(study: dg.Study, scorer: str = "l1", *, menu: Any = dg.SCORERS, ratio: float = 0.5, **options: Any) -> View:
    mask = dg.allocate(study.score(menu[scorer]), ratio=ratio, **options)
    return View(study=study, mask=mask, scorer=menu[scorer], batchnorm="as_is", scorers=tuple(menu.values()))


def shown(frames: Any, kind: str = "overlaps") -> dict[str, dict[str, Any]]:
    return {row["label"]: row for row in frames["agreement"][kind]}


def last(panel: AgreementPanel, view: View) -> Any:
    return [panel.tick(view), *panel.background(view)][-1]


def finished(explorer: dg.Explorer) -> Any:
    assert explorer.wait_idle(120)
    return {"agreement": explorer.panels["data"]["agreement"], "text": explorer.panels["text"]}


@pytest.fixture(scope="module")
def study() -> dg.Study:
    return study_of()


@pytest.mark.parametrize(("scope", "budget", "ratio"), [("layer", "filters", 0.5), ("global", "parameters", 0.7)])
def test_its_numbers_are_those_of_the_table(study: dg.Study, scope: Any, budget: Any, ratio: float) -> None:
    frames = last(AgreementPanel(), view_of(study, "taylor", ratio=ratio, scope=scope, budget=budget))
    frame: Any = dg.diagnostics.agreement(
        study, scorers=["taylor", "l2", "dss"], ratio=ratio, scope=scope, budget=budget
    )
    for kind, metric, unit in (("overlaps", "overlap", 100), ("ranks", "rank_correlation", 1)):
        for name, label in (("l2", dg.SCORERS["l2"].label), ("dss", f"{dg.SCORERS['dss'].label} ◇")):
            rows = frame[(frame.scorer == "taylor") & (frame.other == name) & (frame.group == "all")]
            row = shown(frames, kind)[label]
            assert row["value"] == pytest.approx(unit * rows[rows.metric == metric].value.item())
            chance = rows[rows.metric == f"{metric}_by_chance"].iloc[0]
            assert (row["chance_low"], row["chance_high"]) == pytest.approx((unit * chance.low, unit * chance.high))
    assert f"“{dg.SCORERS['taylor'].label}”, {100 * ratio:.0f} % of" in frames["text"]


def test_a_scorer_that_reads_images_is_compared_with_itself_on_halves_of_them(study: dg.Study) -> None:
    panel, view = AgreementPanel(), view_of(study, "taylor")
    frames: Any = [panel.tick(view), *panel.background(view)][-1]
    first, second = halves(study, seed=0)
    values = correlations(first.score("taylor").values, second.score("taylor").values, scope="layer")
    line = next(line for line in frames["text"].split("\n") if line.startswith("With itself"))
    assert f"rank correlation {values['all']:.2f} and ".replace("-", "\N{MINUS SIGN}") in line
    assert line in panel.tick(view_of(study, "taylor", ratio=0.3))["text"]
    assert "With itself" not in panel.tick(view_of(study, "l1"))["text"]


def test_scorers_of_weights_come_first_and_the_others_one_by_one(study: dg.Study) -> None:
    panel, view = AgreementPanel(), view_of(study)
    first = panel.tick(view)
    waits = [row["label"] for row in shown(first).values() if row["text"] == "…"]
    assert dg.SCORERS["l2"].label not in waits and dg.SCORERS["taylor"].label in waits
    assert f"{dg.SCORERS['dss'].label} ◇" in waits, "marked before its numbers are there"
    missing = [len(waits)]
    frames: Any
    for frames in panel.background(view):
        missing.append(sum(row["text"] == "…" for row in shown(frames).values()))
        assert [row["place"] for row in frames["agreement"]["ranks"]] == list(range(len(shown(frames))))
    assert missing[-1] == 0 and all(0 <= before - now <= 1 for before, now in pairwise(missing))
    assert "With itself" not in frames["text"], "it reads no images"
    later = panel.tick(view_of(study, ratio=0.25))
    assert not any(row["text"] == "…" for row in shown(later).values()), "a slider that moves on waits for nothing"
    assert list(panel.background(view)) == []


def test_what_cannot_run_is_left_out_and_the_reason_is_said(study: dg.Study) -> None:
    @dg.scorer("broken", label="My broken one")
    def broken(view: Any) -> Tensor:
        """Raises."""
        raise RuntimeError("no such layer <b>here</b>")

    frames = last(AgreementPanel(), view_of(study, menu={**dg.SCORERS, "broken": broken}))
    assert dg.SCORERS["bn_scale"].label not in shown(frames) and "My broken one" not in shown(frames)
    line = next(line for line in frames["text"].split("\n") if line.startswith("Left out"))
    assert dg.SCORERS["bn_scale"].label in line and "BatchNorm" in line
    assert "My broken one: the function of scorer 'broken' stopped" in line and "layer <b>here</b>" in line
    assert dg.SCORERS["random"].label in shown(frames)


def test_notes_of_scorers_stand_in_the_panel_and_not_above_the_explorer() -> None:
    @dg.scorer("talking", label="Says something")
    def talking(view: Any) -> Tensor:
        """Notes."""
        note(f"{view.name} is scored")
        return torch.arange(view.filters, dtype=torch.float64)

    explorer = dg.Explorer(study_of(), scorers=[talking])
    try:
        explorer.handle_message({"type": "panel", "name": "agreement"})
        assert "Says something: 0 is scored" in finished(explorer)["text"]
        assert "is scored" not in (explorer.status["message"] or "")
    finally:
        explorer.close()


def test_it_is_offered_by_default_and_works_only_while_open() -> None:
    explorer = dg.Explorer(study_of())
    try:
        offered = {panel["label"]: panel["unavailable"] for panel in explorer.panels["list"]}
        assert offered["Scorer agreement"] is None
        explorer.wait(curves=True)
        assert explorer.panels["data"] == {}
        explorer.handle_message({"type": "panel", "name": "agreement"})
        half = shown(finished(explorer))
        explorer.ratio = 0.2
        less = shown(finished(explorer))
        assert half.keys() == less.keys() and half != less
        explorer.scorer = "random"
        assert dg.SCORERS["l1"].label in shown(finished(explorer)) and "“Random”" in explorer.panels["text"]
        assert explorer.panels["error"] is None and explorer.status["error"] is None
    finally:
        explorer.close()
    bare = dg.Explorer(study_of(), panels=[])
    bare.close()
    assert bare.panels["list"] == []


def test_alone_it_is_open_from_the_start_and_takes_scores_of_ones_own() -> None:
    study = study_of()
    own = replace(study.score("l1"), scorer="mine", reads=None)
    explorer = Agreement(study, scorer=own, ratio=0.3, scope="global")
    try:
        frames = finished(explorer)
        assert explorer.panels["open"] == "agreement" and explorer.ratio == 0.3 and explorer.scope == "global"
        assert shown(frames)[dg.SCORERS["l1"].label]["value"] == pytest.approx(100.0)
        assert shown(frames, "ranks")[dg.SCORERS["l1"].label]["text"] == "1.00"
        assert "“mine" in frames["text"] and "global" in frames["text"]
        explorer.scorer = "l1"
        assert shown(finished(explorer))["mine ?"]["value"] == pytest.approx(100.0)
    finally:
        explorer.close()


def test_a_network_changed_in_place_is_scored_anew() -> None:
    study = study_of()
    panel = AgreementPanel()
    before = shown(last(panel, view_of(study)), "ranks")
    with torch.no_grad():
        for name in ("0.weight", "3.weight"):
            weight = study.model.get_parameter(name)
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)))
    after = shown(last(panel, view_of(study)), "ranks")
    fresh = shown(last(AgreementPanel(), view_of(study)), "ranks")
    assert after == fresh != before


def test_work_that_ends_after_the_panel_was_closed_shows_nothing() -> None:
    explorer = Agreement(study_of())
    try:
        finished(explorer)
        begun, go = threading.Event(), threading.Event()

        def slow(view: View) -> Any:
            begun.set()
            assert go.wait(30)
            return {"text": "late"}

        explorer.panel.tick = slow
        explorer.ratio = 0.3
        assert begun.wait(30)
        explorer.handle_message({"type": "panel", "name": None})
        go.set()
        assert explorer.wait_idle()
        assert explorer.panels["text"] is None and explorer.panels["data"] == {}
    finally:
        explorer.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path, study: dg.Study) -> Generator[tuple[Opened, Any], None, None]:
    """A page with the open panel: what a kernel would have sent."""
    panel = AgreementPanel()
    frames = last(panel, view_of(study))
    state = make_state()
    data, listed = {"agreement": frames["agreement"]}, [{"name": panel.name, "label": panel.label, "unavailable": None}]
    state["panels"] |= {
        "list": listed,
        "open": panel.name,
        "charts": dict(panel.charts),
        "data": data,
        "text": frames["text"],
    }
    path = write_page(tmp_path / "page.html", state, title="Agreement")
    path.write_text(path.read_text(encoding="utf-8").replace('"offline":true', '"offline":false'), encoding="utf-8")
    one = Opened(browser, path, width=1120, height=1500)
    yield one, frames
    one.page.close()
    assert one.wrong == []


@pytest.mark.browser
def test_the_page_draws_every_scorer_and_cuts_nothing(opened: tuple[Opened, Any], study: dg.Study) -> None:
    one, frames = opened
    one.page.wait_for_selector(".dgx-panel svg")
    text = one.text(".dgx-panel svg")
    assert all(label in text for label in shown(frames))
    assert one.text(".dgx-panel-text").startswith("Compared with “L1 norm (weights)”")
    cut = one.page.evaluate(
        """() => { const room = document.querySelector('.dgx-panel-chart svg').getBoundingClientRect();
        return [...document.querySelectorAll('.dgx-panel-chart svg text')].filter((text) => {
          const box = text.getBoundingClientRect();
          return text.textContent && (box.left < room.left - 1 || box.right > room.right + 1
            || box.top < room.top - 1 || box.bottom > room.bottom + 1);
        }).map((text) => text.textContent); }"""
    )
    assert cut == []
    other = last(AgreementPanel(), view_of(study, ratio=0.8))
    panels = one.page.evaluate("() => window.explorers[0].model.get('panels')")
    one.page.evaluate(
        "(panels) => window.explorers[0].model.set('panels', panels)",
        {**panels, "data": {"agreement": other["agreement"]}, "text": other["text"]},
    )
    one.settle()
    assert one.text(".dgx-panel svg") != text and "80 % of the filters" in one.text(".dgx-panel-text")
