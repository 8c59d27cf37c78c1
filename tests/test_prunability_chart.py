"""The chart of prunability: its read-off is Python's at every tolerance, and its slider works in a page."""

from __future__ import annotations

import copy
import html
import re
from pathlib import Path
from typing import Any

import pytest

import dgprune_lab as dg
from dgprune_lab.charts.prunability import prunability_data
from dgprune_lab.diagnostics._loss_curve import read_off
from dgprune_lab.diagnostics.prunability import EXTRA
from dgprune_lab.widgets import LiveChart
from dgprune_lab.widgets.page.standalone import page_text

SHARES = [round(1 - k / 20, 2) for k in range(20)]
SMOOTH = {share: 0.1 / share for share in SHARES}
ISLAND = {**{share: 0.1 * (2 - share) for share in SHARES}, 0.3: 0.11, 0.25: 0.115}
HOSTILE = "<img src=x onerror=alert(1)>"


def table(curves: dict[str, dict[float, float]], *, search: str = "grid", tolerances: Any = (0.1,)) -> Any:
    rows: list[dict[str, Any]] = []
    for name, curve in curves.items():
        shared = {"network": name, "granularity": "weight", "search": search, "training_loss": curve[1.0]}
        rows += [{**shared, "metric": "loss", "fraction_kept": share, "value": loss} for share, loss in curve.items()]
        for tolerance in tolerances:
            found = read_off(list(curve), list(curve.values()), limit=(1 + tolerance) * curve[1.0])
            value = found.smallest if search == "grid" else found.contiguous_end
            ends = {"low": value - 0.02, "high": value + 0.03}
            rows.append({**shared, "metric": "prunability", "tolerance": tolerance, "value": value, **ends})
    return dg.tidy(rows, extra=EXTRA)


def words(chart: Any) -> list[str]:
    """The texts of a picture."""
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", dg.charts.svg(chart))]


@pytest.mark.parametrize("tolerance", [0.01, 0.05, 0.1, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("search", ["grid", "fast"])
def test_the_read_off_is_pythons(tolerance: float, search: str) -> None:
    curves = {"smooth": SMOOTH, "with an island": ISLAND}
    shown = words(dg.charts.prunability(table(curves, search=search), tolerance=tolerance))
    for name, curve in curves.items():
        found = read_off(list(curve), list(curve.values()), limit=(1 + tolerance) * curve[1.0])
        value = found.smallest if search == "grid" else found.contiguous_end
        bound = "" if search == "grid" or tolerance == 0.1 else "at most "
        assert f"{name}: {bound}{100 * value:.3g} %" in shown, "of a fast search for another tolerance it is a bound"


def test_islands_are_rings_of_a_whole_grid_only() -> None:
    def rings(search: str, tolerance: float) -> int:
        picture = dg.charts.svg(dg.charts.prunability(table({"n": ISLAND}, search=search), tolerance=tolerance))
        group = re.search(r'class="mark-symbol role-mark layer_6_marks".*?</g>', picture, re.DOTALL)
        return 0 if group is None else group.group().count("<path")

    assert rings("grid", 0.16) == 2 and rings("grid", 0.12) == 1 and rings("grid", 0.9) == 0
    assert rings("fast", 0.16) == 0


def test_one_unbroken_line_is_the_limit_of_all_networks() -> None:
    picture = dg.charts.svg(dg.charts.prunability(table({"one": SMOOTH, "two": SMOOTH})))
    group = re.search(r'class="mark-rule role-mark layer_1_marks".*?</g>', picture, re.DOTALL)
    assert group is not None and group.group().count("<line") == 1 and "dasharray" not in group.group()


def test_the_interval_stands_where_the_table_has_one() -> None:
    frame = table({"n": SMOOTH}, tolerances=(0.1, 0.5))
    assert "95 % interval over images: 93 to 98" in words(dg.charts.prunability(frame))
    assert "95 % interval over images: 68 to 73" in words(dg.charts.prunability(frame, tolerance=0.5))
    assert not any("interval over" in text for text in words(dg.charts.prunability(frame, tolerance=0.2)))


def test_a_warning_in_words_where_training_losses_differ() -> None:
    alike = {"one": SMOOTH, "two": {share: 1.02 * loss for share, loss in SMOOTH.items()}}
    unlike = {"one": SMOOTH, "two": {share: 1.2 * loss for share, loss in SMOOTH.items()}}
    assert prunability_data(table(alike))["words"] == []
    said = words(dg.charts.prunability(table(unlike)))
    assert "The training losses differ: 0.1 (one) to 0.12 (two)." in said
    picture = dg.charts.svg(dg.charts.prunability(table(unlike)))
    title = re.search(r'class="mark-group role-title">.*?translate\([-\d.]+,([-\d.]+)\)', picture, re.DOTALL)
    assert title is not None and -64 < float(title[1]) < -35, "above the warning, within the picture"
    assert any(text.startswith("Prunability compares only networks of equal training loss") for text in said)


def test_what_cannot_be_drawn_is_a_sentence() -> None:
    with pytest.raises(dg.DgpruneError, match="the table has no losses to draw"):
        dg.charts.prunability(dg.tidy([], extra=EXTRA))
    for tolerance in (0, 1.5):
        with pytest.raises(dg.DgpruneError, match="the chart's tolerance must be above 0 and at most 1"):
            dg.charts.prunability(table({"n": SMOOTH}), tolerance=tolerance)


def test_a_shown_chart_is_a_picture_where_no_kernel_runs() -> None:
    chart = dg.charts.prunability(table({HOSTILE: SMOOTH}))
    shown = LiveChart(chart)
    try:
        before = copy.deepcopy(shown.static)
        assert shown.static["spec"] == chart.to_dict()
        picture = shown._repr_mimebundle_()
        text = (picture[0] if isinstance(picture, tuple) else picture)["text/html"]
        assert "<svg" in (drawn := shown.still()) and "<img" not in drawn and HOSTILE not in drawn
        assert "data:image/svg+xml;base64," in text and "Run this cell for the live chart" in text
        assert shown.static == before
    finally:
        shown.close()


@pytest.mark.browser
def test_the_slider_moves_the_read_off_in_a_page_without_a_kernel(browser: Any, tmp_path: Path) -> None:
    frame = table({HOSTILE: SMOOTH, "b": ISLAND}, tolerances=(0.1, 0.3))
    shown = LiveChart(dg.charts.prunability(frame))
    text = page_text([{"static": shown.static}], title="chart", entry="live_chart")
    shown.close()
    (tmp_path / "shown.html").write_text(text)
    wrong: list[str] = []
    view = browser.new_page(viewport={"width": 800, "height": 600}, color_scheme="light")
    view.on("pageerror", lambda error: wrong.append(str(error)))
    view.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    view.goto((tmp_path / "shown.html").as_uri())
    slider = view.get_by_role("slider", name="The loss may grow by (%)")
    slider.wait_for()
    assert slider.get_attribute("data-lm-suppress-shortcuts") == "true" and slider.input_value() == "10"
    assert (slider.get_attribute("aria-label") or "").startswith("The loss may grow by (%)")
    drawn = view.locator(".dgx-live-chart svg").first
    assert "b: 30 %" in drawn.text_content() and HOSTILE in drawn.text_content()
    slider.focus()
    for _ in range(20):
        view.keyboard.press("ArrowRight")
    view.wait_for_function("() => document.querySelector('.dgx-live-chart svg').textContent.includes('b: 25 %')")
    assert "95 % interval over images: 23 to 28" in drawn.text_content()
    light = drawn.evaluate("(svg) => svg.innerHTML.includes('#4C5B6B')")
    view.emulate_media(color_scheme="dark")
    view.wait_for_function("() => !document.querySelector('.dgx-live-chart svg').innerHTML.includes('#4C5B6B')")
    slider = view.get_by_role("slider", name="The loss may grow by (%)")
    view.wait_for_function("() => document.querySelector('.dgx-live-chart svg').textContent.includes('b: 25 %')")
    assert light and slider.input_value() == "30", "another theme keeps what was set"
    view.close()
    assert wrong == []
