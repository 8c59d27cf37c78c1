"""Prediction flips: the counts, the pictures, the pages."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from material import domain, images, norm_net, plain_net, randomise
from PIL import Image
from read_study import lively, only_row, read_domain, read_study

import dgprune_lab as dg
from dgprune_lab.charts.pixels.thumbnails import COLUMNS, Strip, data_url, picture_rows
from dgprune_lab.diagnostics.flips import flip_rows, flipped
from dgprune_lab.widgets import Flips, FlipsPanel, View

pytestmark = pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")


def view_of(study: dg.Study, *, ratio: float = 0.5, batchnorm: Any = "recalibrate") -> View:
    mask = dg.allocate(study.score("l1"), ratio=ratio)
    return View(study=study, mask=mask, scorer=dg.SCORERS["l1"], batchnorm=batchnorm)


def last(panel: FlipsPanel, view: View) -> Any:
    return [frames for frames in panel.tick(view) if frames][-1]


def pixels(url: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


@pytest.fixture(scope="module")
def study() -> dg.Study:
    return read_study()


def test_shares_and_counts_equal_those_counted_by_hand(study: dg.Study) -> None:
    frame = dg.diagnostics.flips(study, ratios=[0.5])
    drop = dg.diagnostics.drop(study, ratios=[0.5])
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    for name in ("a", "t"):
        full, after = (study.outcomes(m, domain=name) for m in (None, mask))
        assert full.correct is not None and after.correct is not None
        counted = {
            "right_to_wrong": sum(a and not b for a, b in zip(full.correct, after.correct, strict=True)),
            "wrong_to_right": sum(b and not a for a, b in zip(full.correct, after.correct, strict=True)),
            "changed": int((full.predicted != after.predicted).sum()),
        }
        for metric, count in counted.items():
            share, number = (
                only_row(frame, domain=name, metric=metric),
                only_row(frame, domain=name, metric=f"{metric}_count"),
            )
            assert number.value == int(count) and share.value == pytest.approx(int(count) / len(full))
            assert (share.unit, number.unit) == ("share", "count") and share.interval == number.interval == "images"
            assert (number.low, number.high) == pytest.approx((share.low * len(full), share.high * len(full)))
            assert share.low <= share.value <= share.high
        lost = only_row(frame, domain=name, metric="right_to_wrong").value
        won = only_row(frame, domain=name, metric="wrong_to_right").value
        assert won - lost == pytest.approx(only_row(drop, domain=name, metric="accuracy_change").value)


def test_a_count_is_a_whole_number_whatever_its_share_is_in_binary() -> None:
    labels, after = torch.zeros(120, dtype=torch.int64), torch.zeros(120, dtype=torch.int64)
    after[:31] = 1  # 120 * (31 / 120) is a hair above 31
    before: Any = SimpleNamespace(predicted=labels, labels=labels, correct=labels == labels)
    rows_by_domain = {row["metric"]: row["value"] for row in flip_rows(flipped(before, after), {})}
    assert (
        rows_by_domain["right_to_wrong_count"] == rows_by_domain["changed_count"] == 31
        and rows_by_domain["wrong_to_right_count"] == 0
    )


def test_without_flips_the_bound_is_exact_and_without_labels_only_changes_are_reported() -> None:
    model = randomise(plain_net(), dtype=torch.float32)
    study = dg.Study(model, sources=[domain("a")], targets=[domain("t", seed=1, labelled=False)])
    frame = dg.diagnostics.flips(study, ratios=[0.0])
    assert (frame.value == 0).all() and frame.low.eq(0).all()
    row = only_row(frame, domain="a", metric="right_to_wrong")
    assert row.high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert set(frame.loc[frame.domain == "t", "metric"]) == {"changed", "changed_count"}
    assert set(frame.network) == {"study"} and frame.group.isna().all()


def test_several_networks_and_their_names(study: dg.Study) -> None:
    both = dg.diagnostics.flips([study, read_study("other", seed=4)])
    assert both.network.drop_duplicates().tolist() == ["study", "other"]
    with pytest.raises(dg.DgpruneError, match="two studies are called"):
        dg.diagnostics.flips([study, study])


def test_the_pictures_are_the_images_that_flipped(study: dg.Study) -> None:
    panel, view = FlipsPanel(), view_of(study)
    frames = last(panel, view)
    pages = frames["pages"]["of"]
    assert pages > 1
    rows_by_domain: dict[str, list[dict[str, Any]]] = {"a (source)": [], "t (target)": []}
    for page in range(pages):
        panel.selected = {"page": page}
        shown = last(panel, view)
        assert shown["pages"] == {"at": page, "of": pages}
        assert len(shown["flips"]["pictures"]) <= 24
        for row in shown["flips"]["pictures"]:
            rows_by_domain[row["domain"]].append(row)
    for label, name in (("a (source)", "a"), ("t (target)", "t")):
        full, after = (study.outcomes(m, domain=name) for m in (None, view.mask))
        assert full.correct is not None and after.correct is not None and full.labels is not None
        turned = (full.correct != after.correct).nonzero().flatten().tolist()
        assert sorted(row["image"] for row in rows_by_domain[label]) == sorted(full.index[turned].tolist()), "each once"
        by_image = {int(full.index[place]): place for place in turned}
        for row in rows_by_domain[label]:
            place = by_image[row["image"]]
            truth, before, now = (int(t[place]) for t in (full.labels, full.predicted, after.predicted))
            assert (row["truth"], row["before"], row["now"]) == (truth, before, now)
            assert row["top"] == f"{before} → {now}" and row["bottom"] == f"true {truth}"
            left = row["x"] < COLUMNS * 62
            assert left == (before == truth), "those that turned wrong stand on the left"
            image = (study.domain(name).images[row["image"]] * 255).round().byte().permute(1, 2, 0).numpy()
            assert (pixels(row["url"]) == image).all()


def test_the_text_has_the_number_of_flips_and_the_last_page_says_so(study: dg.Study) -> None:
    panel, view = FlipsPanel(), view_of(study)
    texts = [row["text"] for row in last(panel, view)["flips"]["words"]]
    frame = dg.diagnostics.flips(study)
    row = only_row(frame, domain="t", metric="right_to_wrong")
    count = int(row.value * row.images + 0.5)
    line = f"{count} of 300 ({100 * row.value:.1f} %, {100 * row.low:.1f} to {100 * row.high:.1f})"
    assert line in texts and "t (target)" in texts
    assert "none" in texts, "all of a was right before, so nothing turned right"
    panel.selected = {"page": 10_000}
    late = last(panel, view)
    assert late["pages"]["at"] == late["pages"]["of"] - 1 and "no more of them" in [
        row["text"] for row in late["flips"]["words"]
    ]
    assert "before any fine-tuning" in late["text"]


def test_a_new_mask_begins_at_the_first_page(study: dg.Study) -> None:
    panel = FlipsPanel()
    last(panel, view_of(study))
    panel.selected = {"page": 1}
    assert last(panel, view_of(study))["pages"]["at"] == 1
    assert last(panel, view_of(study, ratio=0.7))["pages"]["at"] == 0


def test_without_labels_changed_predictions_are_shown() -> None:
    model = lively(norm_net, seed=3)
    study = dg.Study(model, sources=[read_domain(model, "a", seed=1)], targets=[domain("t", count=300, labelled=False)])
    rows = last(FlipsPanel(), view_of(study))["flips"]
    unlabelled = [row for row in rows["pictures"] if row["domain"].startswith("t")]
    assert unlabelled and all(
        row["truth"] is None and row["bottom"] == "" and row["before"] != row["now"] for row in unlabelled
    )
    assert any(row["text"] == "another class than before (no labels)" for row in rows["words"])


def test_a_target_that_the_scorer_read_is_marked(study: dg.Study) -> None:
    scores = study.score("l1")
    seen = dg.Scores.from_frame(scores.to_frame(), graph=study.graph, scorer="peeked", reads={"t/report": "labels"})
    view = View(study=study, mask=dg.allocate(seen, ratio=0.5), scorer=seen, batchnorm="as_is")
    texts = [row["text"] for row in last(FlipsPanel(), view)["flips"]["words"]]
    assert "t (target) ◇ target-aware, seen" in texts and "a (source)" in texts


def test_the_panel_yields_between_batches_and_measures_once() -> None:
    model = randomise(plain_net(), dtype=torch.float32)
    study = dg.Study(model, sources=[read_domain(model, "a", seed=1, count=1800)])
    frames = list(FlipsPanel().tick(view_of(study)))
    assert (
        len([only_row for only_row in frames if not only_row]) >= 4
        and len([only_row for only_row in frames if only_row]) == 1
    )
    assert len(list(FlipsPanel().tick(view_of(study)))) == 1, "and is not measured twice"


def test_large_images_are_sent_small_and_grey_ones_stay_grey() -> None:
    large = np.random.default_rng(0).integers(0, 255, (500, 300, 3), dtype=np.uint8)
    assert pixels(data_url(large)).shape == (83, 50, 3)
    grey = np.full((200, 200, 1), 7, dtype=np.uint8)
    assert pixels(data_url(grey)).shape == (66, 66) and (pixels(data_url(grey)) == 7).all()


def test_strips_fill_lines_of_four() -> None:
    pictures = [{"url": "", "image": k, "truth": 1, "before": 1, "now": 2} for k in range(6)]
    strips = {
        name: [Strip(kind="k", count="c", pictures=pictures[:total], total=total) for total in totals]
        for name, totals in (("a", (6, 0)), ("b", (1,)))
    }
    rows = picture_rows(strips)
    assert [row["line"] for row in rows["pictures"]] == [0, 0, 0, 0, 1, 1, 2]
    assert [row["line"] for row in rows["words"] if row["size"] == "name"] == [0, 2]


def test_images_that_cannot_be_shown_are_refused_with_the_reason() -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(5, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 4)
    )
    x, labels = images(60, 5, 12, 12), torch.arange(60) % 4
    parts = {"train": range(20), "score": range(20, 40), "report": range(40, 60)}
    study = dg.Study(net, sources=[dg.Domain.from_arrays("a", images=x, labels=labels, splits=parts)])
    assert FlipsPanel().unavailable(study) == "images of 5 channels cannot be shown as pictures; 1, 3 or 4 can."
    assert FlipsPanel().unavailable(read_study()) is None


def finished(explorer: dg.Explorer) -> Any:
    assert explorer.wait_idle(120)
    assert explorer.panels["error"] is None and explorer.status["error"] is None
    return explorer.panels


def test_the_page_turns_pages_and_a_closed_panel_does_nothing(study: dg.Study) -> None:
    explorer = Flips(study, batchnorm="as_is")
    try:
        first = finished(explorer)
        assert first["open"] == "flips" and first["pages"]["at"] == 0 and first["pages"]["of"] > 1
        explorer.handle_message({"type": "page", "page": 1})
        second = finished(explorer)
        assert second["pages"]["at"] == 1 and second["data"]["flips"]["pictures"] != first["data"]["flips"]["pictures"]
        explorer.handle_message({"type": "filter", "group": "0", "filter": 1})
        assert finished(explorer)["pages"]["at"] == 1, "another pick leaves the page"
        explorer.ratio = 0.2
        assert finished(explorer)["pages"]["at"] == 0
        explorer.handle_message({"type": "panel", "name": None})
        closed = explorer.panels
        assert closed["pages"] is None and closed["data"] == {}
        explorer.ratio = 0.6
        explorer.wait()
        explorer.handle_message({"type": "page", "page": 1})
        assert explorer.panels == closed
    finally:
        explorer.close()


def test_both_panels_are_offered_by_default(study: dg.Study) -> None:
    explorer = dg.Explorer(study)
    try:
        listed = {panel["label"]: panel["unavailable"] for panel in explorer.panels["list"]}
        assert listed["Prediction flips"] is None and listed["Layer sensitivity"] is None
    finally:
        explorer.close()
