"""The panel "Feature shift": a fit lives as long as its choice, a rectangle selects images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from material import domain, norm_net, plain_net, randomise

import dgprune_lab as dg
from dgprune_lab.charts.feature_shift.map_rows import boxed
from dgprune_lab.core.errors import DgpruneError
from dgprune_lab.widgets import FeatureShift, FeatureShiftPanel, LayersPanel, View
from dgprune_lab.widgets.panels import feature_run
from dgprune_lab.widgets.panels.feature_run import KNOTS

pytestmark = pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")


class FakeFit:
    """A fit that is done after a few polls; every one that was started is remembered."""

    started: ClassVar[list[FakeFit]] = []
    polls = 3
    fails = ""

    def __init__(self, rows: Any, *, seed: int = 0, neighbours: int = 15, min_dist: float = 0.1) -> None:
        self.rows, self.polled, self.closed = np.asarray(rows), 0, False
        self.started.append(self)

    @property
    def progress(self) -> tuple[str, float]:
        return "drawing", min(1.0, self.polled / self.polls)

    @property
    def places(self) -> Any:
        if self.fails:
            raise DgpruneError(self.fails)
        return np.random.default_rng(5).normal(size=(len(self.rows), 2)).astype(np.float32)

    def wait(self, seconds: float) -> bool:
        self.polled += 1
        return self.polled >= self.polls

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[FakeFit]:
    monkeypatch.setattr(feature_run, "Fit", FakeFit)
    monkeypatch.setattr(FakeFit, "started", [])
    return FakeFit.started


def study_of(net: Any = plain_net, *, count: int = 90) -> dg.Study:
    parts = [domain(name, count=count, seed=k, labelled=name != "u") for k, name in enumerate("atu")]
    return dg.Study(randomise(net(), dtype=torch.float32), sources=parts[:1], targets=parts[1:])


@pytest.fixture(scope="module")
def study() -> dg.Study:
    return study_of()


def view_of(study: dg.Study, ratio: float = 0.5, scorer: str = "l1", **options: Any) -> View:
    batchnorm = options.pop("batchnorm", "as_is")
    mask = dg.allocate(study.score(scorer), ratio=ratio, **options)
    return View(study=study, mask=mask, scorer=dg.SCORERS[scorer], batchnorm=batchnorm)


def shown(work: Iterator[Any]) -> dict[str, Any]:
    """Everything that the frames of some work show in the end."""
    found: dict[str, Any] = {}
    for frame in work:
        for name, rows in frame.items():
            found[name] = {**found.get(name, {}), **rows} if isinstance(rows, dict) else rows
    return found


def title(frames: Any) -> str:
    return frames["map"]["words"][0]["text"]


def done(panel: FeatureShiftPanel, view: View) -> dict[str, Any]:
    return {**shown(panel.tick(view)), **shown(panel.background(view))}


def test_a_linear_projection_is_there_at_once_and_stands_for_the_present_ratio(study: dg.Study, fits: Any) -> None:
    panel = FeatureShiftPanel()
    found = {ratio: shown(panel.tick(view_of(study, ratio))) for ratio in (0.5, 0.8)}
    for ratio, frames in found.items():
        assert title(frames).startswith("Linear projection") and not fits
        assert frames["map"]["words"][2]["text"].endswith(f"Filled: {100 * ratio:.0f} % removed.")
        points = frames["map"]["points"]
        assert len(points) == 90 and {row["domain"] for row in points} == set("atu")
        assert all(len(set(row["xs"])) == 1 and len(row["xs"]) == len(KNOTS) for row in points), "no way is made up"
        assert any(row["xs"][0] != row["full_x"] for row in points)
    assert found[0.5]["map"]["points"] != found[0.8]["map"]["points"]
    assert "90 images (30 of a, 30 of t, 30 of u)" in found[0.5]["text"]


def test_the_numbers_are_those_of_the_table(study: dg.Study, fits: Any) -> None:
    frames = done(FeatureShiftPanel(), view_of(study, 0.4))
    table: Any = dg.diagnostics.feature_shift(study, ratios=KNOTS[1:], images=100, embedding="none")
    for metric in ("mmd", "coral", "proxy_a_distance", "cka", "silhouette_classes", "silhouette_domains"):
        rows = table[table.metric == metric]
        held = frames["numbers"][metric]
        assert len(held) == len(rows)
        told = [(row["removed"], row["value"], row["low"], row["high"]) for row in held]
        given = list(zip(100 * rows.ratio_requested, rows.value, rows.low, rows.high, strict=True))
        same = np.array(sorted(told, key=str), dtype=float), np.array(sorted(given, key=str), dtype=float)
        assert np.allclose(same[0][:, 0].sum(), same[1][:, 0].sum())
        assert np.allclose(np.sort(same[0][:, 1:], axis=0), np.sort(same[1][:, 1:], axis=0), equal_nan=True)


def test_the_joint_map_follows_with_its_progress_and_then_the_title_changes(study: dg.Study, fits: Any) -> None:
    panel, view = FeatureShiftPanel(), view_of(study)
    assert title(shown(panel.tick(view))).startswith("Linear")
    frames: list[Any] = [frame for frame in panel.background(view) if frame]
    texts = [frame["text"].split("\n")[1] for frame in frames if "text" in frame]
    assert any(text.startswith("Fitting the map: 33 %") for text in texts)
    assert any("Numbers: 2 of 6 ratios" in text for text in texts)
    assert texts[-1] == "One map of 540 rows: the same 90 images at 0, 20, 40, 60, 80, 95 % removed."
    titles = [title(frame) for frame in frames if "map" in frame]
    assert titles[0].startswith("Linear") and titles[-1] == "UMAP of all images, full and pruned together"
    drawn = [frame for frame in frames if "map" in frame][-1]["map"]["points"]
    assert [row["domain"] for row in drawn[:6]] == list("atuatu"), "domains take turns, so that none hides another"
    last = sorted(drawn, key=lambda row: row["domain"])
    placed = boxed(fits[0].places.reshape(len(KNOTS), -1, 2).astype(float))
    assert [row["xs"] for row in last] == placed[:, :, 0].T.round(4).tolist()
    assert [row["ys"] for row in last] == placed[:, :, 1].T.round(4).tolist()


def test_the_fit_survives_the_slider(study: dg.Study, fits: Any) -> None:
    panel = FeatureShiftPanel()
    for ratio in (0.5, 0.3, 0.7):
        shown(panel.tick(view_of(study, ratio)))
        work: Any = panel.background(view_of(study, ratio))
        while not fits or fits[0].polled == 0:
            next(work)
        work.close()
        fits[0].polled = 0
    assert len(fits) == 1 and not fits[0].closed
    assert title(done(panel, view_of(study, 0.1))).startswith("UMAP")
    assert len(fits) == 1 and fits[0].closed, "reaped when it is done"


@pytest.mark.parametrize("change", ["layer", "scorer", "scope", "budget", "batchnorm"])
def test_another_choice_ends_the_fit_and_a_return_has_its_map_at_once(change: str, fits: Any) -> None:
    study = study_of(norm_net)
    panel, view = FeatureShiftPanel(), view_of(study)
    panel.selected = {"layer": study.graph.names[0]}
    options: Any = {"scorer": {"scorer": "l2"}, "scope": {"scope": "global"}, "budget": {"budget": "parameters"}}
    other = view_of(study, **options.get(change, {"batchnorm": "recalibrate"} if change == "batchnorm" else {}))
    shown(panel.tick(view))
    work: Any = panel.background(view)
    while not fits:
        next(work)
    work.close()
    panel.selected = {"layer": study.graph.names[change == "layer"]}
    assert title(shown(panel.tick(other))).startswith("Linear") and fits[0].closed
    assert title(shown(panel.background(other))).startswith("UMAP") and len(fits) == 2
    panel.selected = {"layer": study.graph.names[0]}
    done(panel, view)
    panel.selected = {"layer": study.graph.names[change == "layer"]}
    assert title(shown(panel.tick(other))).startswith("UMAP") and len(fits) == 3


def test_closing_ends_the_fit_and_work_that_was_under_way_starts_none(study: dg.Study, fits: Any) -> None:
    panel, view = FeatureShiftPanel(), view_of(study)
    shown(panel.tick(view))
    work: Any = panel.background(view)
    next(work)
    panel.close()
    shown(work)
    assert all(fit.closed for fit in fits)
    fits.clear()
    shown(panel.tick(view))
    work: Any = panel.background(view)
    while not fits:
        next(work)
    panel.close()
    assert [fit.closed for fit in fits] == [True]
    assert title(done(panel, view)).startswith("UMAP") and len(fits) == 2, "opened again, it begins anew"


def test_only_a_few_choices_are_remembered(study: dg.Study, fits: Any) -> None:
    panel = FeatureShiftPanel()
    for scorer in ("l1", "l2", "random", "fpgm"):
        for layer in study.graph.names:
            panel.selected = {"layer": layer}
            shown(panel.tick(view_of(study, scorer=scorer)))
    assert len(panel.runs) == 6 < 4 * len(study.graph.names)


def test_a_rectangle_picks_the_images_in_it(study: dg.Study, fits: Any) -> None:
    panel, view = FeatureShiftPanel(), view_of(study, 0.4)
    points = sorted(done(panel, view)["map"]["points"], key=lambda row: row["domain"])
    assert len(panel.brushed) == 0
    panel.selected = {"brush": {"x": [0.0, 0.5], "y": None}}
    frames, table = shown(panel.tick(view)), panel.brushed
    inside = [row for row in points if row["xs"][2] <= 0.5]  # 40 % is the third of the ratios
    assert 0 < len(inside) < 90
    assert list(zip(table.domain, table.image, strict=True)) == [(row["domain"], row["image"]) for row in inside]
    assert np.allclose(table.x, [row["xs"][2] for row in inside], atol=1e-4)
    for name in "atu":
        mine, found = table[table.domain == name], study.domain(name)
        rows = found.rows("report").tolist()
        at = [rows.index(image) for image in mine.image]
        for column, mask in (("class_full", None), ("class_pruned", view.mask)):
            assert mine[column].tolist() == study.outcomes(mask, domain=name).predicted[at].tolist()
        labels = [None] * len(mine) if found.labels is None else found.labels[mine.image.tolist()].tolist()
        assert [None if label is pd.NA else label for label in mine["class"]] == labels
    pictures = frames["pictures"]["pictures"]
    assert len(pictures) == min(24, len(inside)) and {row["domain"][0] for row in pictures} == set("atu")
    texts = [row["text"] for row in frames["pictures"]["words"]]
    for name in "atu":
        drawn = sum(row["domain"].startswith(name) for row in pictures)
        assert f"{drawn} of {(table.domain == name).sum()}" in texts
    assert f"{len(inside)} images lie in the rectangle; {len(pictures)} are shown." in frames["text"]
    panel.selected = {"brush": None}
    assert shown(panel.tick(view))["pictures"]["pictures"] == [] and panel.brushed.empty


def test_errors_are_sentences_and_the_linear_map_stays(
    study: dg.Study, fits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel, view = FeatureShiftPanel(), view_of(study)
    monkeypatch.setattr(FakeFit, "fails", "The child has died. Take fewer images.")
    frames = done(panel, view)
    assert "No UMAP: The child has died. Take fewer images." in frames["text"]
    assert title(frames).startswith("Linear")
    done(panel, view_of(study, 0.3))
    assert len(fits) == 1, "the slider does not try again and again"
    panel.selected = {"layer": "nothing"}
    with pytest.raises(DgpruneError, match="nothing"):
        shown(panel.tick(view))


def test_a_ratio_whose_numbers_cannot_be_had_is_left_out_and_said(
    study: dg.Study, fits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    number_rows = feature_run.number_rows

    def failing(study: dg.Study, held: Any, *, which: int, **options: Any) -> Any:
        if held.masks[which] is not None and held.masks[which].ratio_requested == 0.8:
            raise DgpruneError("All is constant. Look at another layer.")
        return number_rows(study, held, which=which, **options)

    monkeypatch.setattr(feature_run, "number_rows", failing)
    frames = done(FeatureShiftPanel(), view_of(study))
    assert "No numbers at 80 % removed: All is constant. Look at another layer." in frames["text"]
    assert {row["removed"] for row in frames["numbers"]["mmd"]} == {0, 20, 40, 50, 60, 95}
    assert title(frames).startswith("UMAP")


def test_features_that_are_constant_and_too_few_images_are_said(fits: Any) -> None:
    study = study_of()
    with torch.no_grad():
        study.model.get_submodule("3").get_parameter("weight").zero_()
    with pytest.raises(DgpruneError, match="responds to all images alike"):
        shown(FeatureShiftPanel().tick(view_of(study)))
    with pytest.raises(DgpruneError, match="images"):
        shown(FeatureShiftPanel().tick(view_of(study_of(count=15))))


def test_in_the_explorer_an_error_stays_in_the_panel_and_others_go_on(study: dg.Study, fits: Any) -> None:
    panel = FeatureShiftPanel()
    panel.selected = {"layer": "nothing"}
    explorer = dg.Explorer(study, panels=[panel, LayersPanel()])
    try:
        for name, error in (("features", True), ("layers", False)):
            explorer.handle_message({"type": "panel", "name": name})
            assert explorer.wait_idle(120)
            assert bool(explorer.panels["error"]) is error
    finally:
        explorer.close()


@pytest.mark.slow
def test_one_real_fit_from_the_first_picture_to_the_end_of_its_process() -> None:
    def children() -> list[Any]:
        return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]

    before, explorer = len(children()), FeatureShift(study_of())
    try:
        assert explorer.wait_idle(120)
        assert explorer.panels["error"] is None
        assert title(explorer.panels["data"]).startswith("UMAP") and len(children()) == before
        explorer.handle_message({"type": "brush", "x": [0.0, 1.0], "y": [0.0, 1.0]})
        assert len(explorer.brushed) == 90
        explorer.set_trait("_view_count", 1)
        explorer.handle_message(
            {"type": "control", "name": "layer", "value": explorer.study.graph.names[0], "number": 1}
        )
        late = time.monotonic() + 60
        while len(children()) == before and time.monotonic() < late:
            time.sleep(0.01)
        assert len(children()) == before + 1, "the other layer's fit runs"
    finally:
        explorer.close()
    assert len(children()) == before
