"""The panel "Prunability": quick search first, then every share; dropped work is resumed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from material import domain, plain_net, randomise

import dgprune_lab as dg
from dgprune_lab.widgets import Prunability, PrunabilityPanel, View

pytestmark = pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")


def study_of(*, labelled: bool = True, seed: int = 0) -> dg.Study:
    model = randomise(plain_net(), seed=seed, dtype=torch.float32)
    return dg.Study(model, sources=[domain("a", labelled=labelled), domain("b", seed=1)], name="net")


def view_of(study: dg.Study, ratio: float = 0.5) -> View:
    mask = dg.allocate(study.score("l1"), ratio=ratio)
    return View(study=study, mask=mask, scorer=dg.SCORERS["l1"], batchnorm="as_is")


def rows(frames: Any, name: str = "curve") -> list[dict[str, Any]]:
    return frames["prunability"][name]


def test_the_quick_search_comes_first_and_then_the_whole_grid() -> None:
    study = study_of()
    panel, view = PrunabilityPanel(), view_of(study)
    first: Any = panel.tick(view)
    assert rows(first) == [] and "measured 0 of 100 shares" in first["text"]
    steps = [frames for frames in panel.background(view) if frames]
    whole = [frames for frames in steps if "prunability" in frames]
    assert len(whole) == 2, "one picture of each search; between them only words"
    quick, grid = whole
    for frames, search in ((quick, "fast"), (grid, "grid")):
        table: Any = dg.diagnostics.prunability(study, search=search, tolerance=0.1)  # type: ignore[arg-type]
        points = table[table.metric == "loss"]
        drawn = {round(row["kept"] / 100, 6): row["loss"] for row in rows(frames)}
        assert drawn == pytest.approx(dict(zip(points.fraction_kept, points.value, strict=True)))
        read = table[table.metric == "prunability"].iloc[0]
        ends = next(row for row in rows(frames, "ends") if row["tolerance"] == pytest.approx(10))
        assert (ends["low"], ends["high"]) == pytest.approx((100 * read.low, 100 * read.high))
        assert len(rows(frames, "ends")) == (100 if search == "grid" else 1), "for every place of the slider at last"
    assert "isolated shares not searched yet" in str(quick["text"]) and "Every share is measured" in str(grid["text"])
    assert rows(panel.tick(view_of(study, 0.2))) == rows(grid), "the slider above changes nothing"
    assert [frames for frames in panel.background(view) if frames] == []


def test_dropped_work_is_resumed_where_it_stood() -> None:
    study = study_of()
    panel, view = PrunabilityPanel(), view_of(study)
    panel.tick(view)
    work = panel.background(view)
    for _ in range(60):
        next(work)
    work.close()  # type: ignore[attr-defined]
    assert panel.curve is not None
    measured = dict(panel.curve.losses)
    assert measured
    last: Any = [panel.tick(view), *(frames for frames in panel.background(view) if frames)][-1]
    assert all(panel.curve.losses[share] is losses for share, losses in measured.items())
    assert len(rows(last)) == 100


def test_a_network_changed_in_place_is_measured_anew() -> None:
    study = study_of()
    panel = PrunabilityPanel()
    done = [[panel.tick(view_of(study)), *panel.background(view_of(study))][-1]]
    with torch.no_grad():
        study.model.get_parameter("0.weight").mul_(2)
    assert rows(panel.tick(view_of(study))) == []
    done.append([f for f in panel.background(view_of(study)) if f][-1])
    assert rows(done[0]) != rows(done[1])


def test_without_labels_it_says_why() -> None:
    assert "no labels" in (PrunabilityPanel().unavailable(study_of(labelled=False)) or "")
    assert PrunabilityPanel().unavailable(study_of()) is None


def test_it_is_on_the_explorers_row_and_alone() -> None:
    explorer = dg.Explorer(study_of())
    explorer.close()
    assert "Prunability" in [panel["label"] for panel in explorer.panels["list"]]
    alone = Prunability(study_of())
    try:
        assert alone.wait_idle(120)
        assert alone.panels["open"] == "prunability" and alone.panels["error"] is None
        assert len(alone.panels["data"]["prunability"]["curve"]) == 100
        spec: Any = alone.panels["charts"]["prunability"]
        assert spec["params"][0]["name"] == "tolerance" and spec["params"][0]["bind"]["input"] == "range"
    finally:
        alone.close()
