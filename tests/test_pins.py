"""The table of pinned views: every text is a rounded number of `drop`, `compare` and the masks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from read_study import only_row, read_domain, read_study

import dgprune_lab as dg
from dgprune_lab.charts.theme import points_text
from dgprune_lab.core import DgpruneError, DgpruneNote, drain
from dgprune_lab.core.rounding import whole_percent
from dgprune_lab.widgets.explorer.frames import _part, measure_frame
from dgprune_lab.widgets.explorer.measurements import Measurements
from dgprune_lab.widgets.explorer.pins import (
    OUTDATED,
    PinBoard,
    Pinned,
    accuracy_cells,
    outcome_steps,
    pin_rows,
    pins_frame,
)


def pinned(study: dg.Study, scorer: str, ratio: float) -> Pinned:
    mask, options = dg.allocate(study.score(scorer), ratio=ratio), {"images": 80, "calibration": 100}
    return Pinned(
        choices={"scorer": scorer, "ratio": ratio},
        key=[scorer, ratio],
        label=f"{scorer}, {100 * ratio:.0f} %",
        table=drain(measure_frame(study, mask, batchnorm="recalibrate", images=80, calibration=100)).table,
        mask=mask,
        outcomes=drain(outcome_steps(study, mask, batchnorm="recalibrate", **options)),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def study() -> dg.Study:
    first = read_study()
    bare = read_domain(first.model, "bare", seed=4)
    unlabelled = dg.Domain.from_arrays("bare", images=bare.images, splits=bare.splits, classes=4)  # type: ignore[arg-type]
    return dg.Study(first.model, sources=first.sources, targets=[*first.targets, unlabelled])


@pytest.fixture(scope="module")
def views(study: dg.Study) -> list[Pinned]:
    return [pinned(study, "l1", 0.3), pinned(study, "dss", 0.6), pinned(study, "l2", 0.1)]


def test_differences_are_paired_over_the_images_and_never_of_rounded_numbers(views: list[Pinned]) -> None:
    *pins, now = views
    for pin, row in zip(pins, pin_rows(pins, now), strict=True):
        for cell in row["cells"][:2]:
            mine, present = (view.outcomes[cell["domain"]].correct.double() for view in (pin, now))  # type: ignore[union-attr]
            change = mine - present
            low, high = dg.stats.intervals.over_images(change.numpy())
            value, low, high = (points_text(100 * float(end)) for end in (change.mean(), low, high))
            assert cell["difference"] == f"{value} ({low} to {high})"
        table = pin.table
        accuracy = only_row(table, metric="accuracy", domain="a")
        value, low, high = (whole_percent(accuracy[name]) for name in ("value", "low", "high"))
        assert row["cells"][0]["text"] == f"{value} ({low}\N{EN DASH}{high})"
        assert row["against"] == now.key and row["choice"] == pin.choices


def test_a_pin_of_the_present_view_differs_by_nothing(views: list[Pinned]) -> None:
    row = pin_rows(views[:1], views[0])[0]
    assert row["differs"] == "0 %" and row["cells"][0]["difference"].startswith("0.0 (")


def test_size_and_filters_that_differ_are_those_of_the_masks(study: dg.Study, views: list[Pinned]) -> None:
    *pins, now = views
    rows: list[dict[str, Any]] = pin_rows(pins, now)
    compared = dg.diagnostics.compare(study, pins[1].mask, now.mask, images=80)
    differ = compared[(compared.metric == "filters_differ") & compared.group.isna()].value.item()
    assert rows[1]["differs"] == f"{whole_percent(differ / study.graph.free)} %" != "0 %"
    small = dg.prune(study.model, pins[1].mask)
    count = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in study.model.parameters())
    assert rows[1]["parameters"] == f"{whole_percent(count)} %"
    assert rows[0]["filters"] == sum(int(keep.sum()) for keep in pins[0].mask.keep.values())
    assert rows[0]["removed"] == f"{whole_percent(pins[0].mask.ratio_achieved)} %"


def test_a_domain_without_labels_shows_agreement_and_no_difference(views: list[Pinned]) -> None:
    cell = pin_rows(views[:1], views[1])[0]["cells"][2]
    assert (cell["domain"], cell["metric"], cell["difference"]) == ("bare", "agreement", "")
    agreement = only_row(views[0].table, metric="agreement")
    assert cell["text"].startswith(f"{whole_percent(agreement.value)} (")


def test_target_aware_is_said_where_a_scorer_looked_at_the_target(views: list[Pinned]) -> None:
    rows = pin_rows(views[:2], None)
    aware = [[cell["target_aware"] for cell in row["cells"]] for row in rows]
    assert aware[0] == [False, False, False] and aware[1][1]
    assert rows[1]["cells"][1]["exposure"] == "target-aware"
    assert all(row["differs"] == "" and row["against"] is None for row in rows)
    assert {cell["difference"] for row in rows for cell in row["cells"]} == {""}


def test_the_table_for_people_has_a_row_per_pin(views: list[Pinned]) -> None:
    table = pins_frame(pin_rows(views[:2], views[2]))
    assert list(table.index) == ["a", "b"] and table.loc["a", "choice"] == "l1, 30 %"
    assert [text.endswith("◇") for text in table["t, accuracy (%)"]] == [False, True]
    assert pins_frame([]).empty


def test_the_table_of_a_view_holds_no_differences_from_another_one(study: dg.Study) -> None:
    measured, board = Measurements(study, scorers=[], images=20, calibration=20), PinBoard()
    about = {"id": 0, "by": "kernel", "scorer": "l1", "scope": "layer", "budget": "filters", "batchnorm": "as_is"}
    first, second = (measured.checked({**about, "ratio": ratio}) for ratio in (0.3, 0.6))
    for view in (first, second):
        drain(measured.measure(view))
    drain(board.add(measured, first))
    drain(board.compare(measured, second))
    others: list[Any] = [first, {**second, "ratio": 0.59}, {**second, "batchnorm": "recalibrate"}]
    shown = [
        board.table(view)[["a, difference", "filters that differ"]].to_numpy().tolist() for view in (second, *others)
    ]
    assert all(shown[0][0]) and shown[1:] == [[["", ""]]] * 3


def test_half_a_percent_is_rounded_up_in_the_sentence_and_in_the_table(views: list[Pinned]) -> None:
    ends = {"value": [0.985, 0.925], "low": [0.965, 0.895], "high": [0.995, 0.945]}
    table = views[0].table.query("metric == 'accuracy'").assign(**ends)
    assert [cell["text"] for cell in accuracy_cells(table)] == ["99 (97\N{EN DASH}100)", "93 (90\N{EN DASH}95)"]
    full: Any = SimpleNamespace(accuracy=0.925)
    assert _part(table.to_dict("records")[0], full, estimate=True) == "a 93 \N{RIGHTWARDS ARROW} 99 (97 to 100) %"


def test_pin_waits_for_the_view_and_says_what_cannot_be_pinned(study: dg.Study) -> None:
    explorer = dg.Explorer(study, panels=[], images=20, calibration=20)
    try:
        for ratio in (0.3, 0.5):
            explorer.ratio = ratio
            explorer.pin()
        assert [pin["choice"]["ratio"] for pin in explorer.pins] == [0.3, 0.5]
        with pytest.warns(DgpruneNote, match="pinned already, as b"):
            explorer.pin()
        explorer.handle_message({"type": "pin"})
        assert explorer._session.worker.wait("pin", timeout=60)
        assert len(explorer.pins) == 2 and "pinned already, as b" in str(explorer.status["message"])
        explorer.ratio = 0.6
        explorer.pin()
        explorer.ratio = 0.7
        with pytest.raises(DgpruneError, match="three views are pinned already"):
            explorer.pin()
        assert len(explorer.pins) == 3
        for ratio, said in ((0.6, "pinned already, as c"), (0.7, "Three views are pinned already")):
            explorer.ratio = ratio
            explorer.wait()
            explorer.handle_message({"type": "pin"})
            assert explorer._session.worker.wait("pin", timeout=60)
            assert said in str(explorer.status["message"])
    finally:
        explorer.close()


def test_a_pin_says_that_its_scorer_has_changed_since(study: dg.Study) -> None:
    def mine(sign: float) -> Any:
        @dg.scorer("mine", needs=("weights",))
        def own(view: Any) -> Any:
            """Weights, or their negatives."""
            return sign * view.weight.abs().flatten(1).sum(1)

        return own

    explorer = dg.Explorer(study, scorer=mine(1.0), panels=[], images=20, calibration=20)
    try:
        explorer.pin()
        for sign, outdated in ((1.0, False), (-1.0, True), (1.0, False)):
            explorer.scorer = mine(sign)
            table, (row,) = explorer.pins_table, explorer.pins
            assert table.loc["a", "choice"] == row["label"] and row["label"].endswith(OUTDATED) == outdated, sign
            assert (table.loc["a", "filters that differ"] == "0 %") != outdated
            assert row["drops"] and bool(row["points"]) != outdated
        explorer.scorer = mine(-1.0)
        explorer.pin()
        assert [pin["label"].endswith(OUTDATED) for pin in explorer.pins] == [True, False]
    finally:
        explorer.close()
