"""The explorer's page without a kernel, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from explorer_state import EXPOSURE, HOSTILE, make_state
from page_driver import SLIDER, Opened

from dgprune_lab.widgets.page.standalone import write_page


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("page") / "page.html", make_state(), title="Explorer")


@pytest.fixture
def opened(browser: Any, page_path: Path) -> Generator[Opened, None, None]:
    one = Opened(browser, page_path)
    yield one
    one.page.close()
    assert one.wrong == []
    assert [url for url in one.requests if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.browser
def test_mouse_and_keys_move_everything(opened: Opened) -> None:
    page, slider = opened.page, opened.page.locator(SLIDER)
    before = opened.text(".dgx-c svg"), opened.pixels(), opened.text(".dgx-sentence"), opened.text(".dgx-d svg")
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + box["height"] / 2)
    opened.settle()
    clicked = int(slider.input_value())
    assert clicked == 30 and slider.get_attribute("aria-valuetext") == "30 % of the filters"
    for _ in range(3):
        slider.press("ArrowRight")
    opened.settle()
    assert int(slider.input_value()) == 45
    after = opened.text(".dgx-c svg"), opened.pixels(), opened.text(".dgx-sentence"), opened.text(".dgx-d svg")
    assert all(new != old for new, old in zip(after, before, strict=True))
    assert opened.rule() == pytest.approx(45, abs=0.5)
    assert after[2].startswith("45 % of the filters removed")
    assert "55 %" in after[0]


@pytest.mark.browser
def test_the_sliders_name_begins_with_remove(opened: Opened) -> None:
    assert opened.page.get_by_role("slider", name=re.compile("^Remove")).count() == 1
    bare = opened.page.evaluate(
        """() => [...document.querySelectorAll(
          '.dgx input, .dgx select, .dgx button, .dgx textarea, .dgx canvas, .dgx [tabindex]')]
        .filter((one) => one.dataset.lmSuppressShortcuts !== 'true').map((one) => one.outerHTML)"""
    )
    assert bare == []


@pytest.mark.browser
def test_a_drag_in_the_chart_moves_the_slider_and_outside_it_does_not(opened: Opened) -> None:
    page = opened.page
    plot = page.locator(".dgx-a .dgx-chart").bounding_box()
    page.mouse.move(plot["x"] + 60, plot["y"] + 80)
    page.mouse.down()
    page.mouse.move(plot["x"] + 46 + 0.7 * (plot["width"] - 56), plot["y"] + 90, steps=5)
    page.mouse.up()
    opened.settle()
    assert page.locator(SLIDER).input_value() == "70" and opened.rule() == pytest.approx(70, abs=0.5)
    page.mouse.click(plot["x"] + plot["width"] - 5, plot["y"] + 80)
    opened.settle()
    assert page.locator(SLIDER).input_value() == "70"


@pytest.mark.browser
def test_two_hundred_events_end_in_the_last_value(opened: Opened) -> None:
    opened.page.evaluate(
        """() => { const slider = document.querySelector('input[type=range]');
        for (let k = 0; k < 200; k += 1) {
          slider.value = k === 199 ? 65 : (5 * k) % 95;
          slider.dispatchEvent(new Event('input'));
        } }"""
    )
    opened.settle()
    assert opened.rule() == pytest.approx(65, abs=0.5)
    assert opened.text(".dgx-sentence").startswith("65 %")
    assert opened.page.evaluate("() => window.explorers[0].model.get('choice').ratio") == pytest.approx(0.65)


@pytest.mark.browser
def test_the_scorer_select_works_over_the_grid(opened: Opened) -> None:
    page = opened.page
    sentence, cells = opened.text(".dgx-sentence"), opened.pixels()
    assert page.locator(".dgx-warning").is_hidden()
    page.get_by_label("Scorer", exact=True).select_option("dss")
    opened.settle()
    assert opened.text(".dgx-sentence") != sentence and opened.pixels() != cells
    page.get_by_role("button", name="Use the target-free version").click()
    opened.settle()
    assert page.get_by_label("Scorer", exact=True).input_value() == "l1" and opened.text(".dgx-sentence") == sentence
    assert page.locator(".dgx-warning").is_hidden()


@pytest.mark.browser
def test_a_target_aware_choice_is_named_wherever_it_shows(opened: Opened) -> None:
    page = opened.page
    assert "target-aware" not in opened.text(".dgx-main") and page.locator(".dgx-d .dgx-about").is_hidden()
    page.get_by_label("Scorer", exact=True).select_option("dss")
    opened.settle()
    assert opened.text(".dgx-exposure") == EXPOSURE and opened.text(".dgx-diamond") == "◇"
    assert "mnist_m (target-aware)" in opened.text(".dgx-a svg")
    assert "mnist_m ◇" in opened.text(".dgx-d svg") and opened.text(".dgx-d .dgx-about") == "◇ target-aware"
    assert "mnist_m (target-aware) 58" in opened.text(".dgx-sentence")
    page.get_by_role("button", name="Pin to compare").click()
    opened.settle()
    assert "◇target-aware" in opened.text(".dgx-pin td:nth-child(7)") and "target-aware" not in opened.text(
        ".dgx-pin td"
    )
    row = page.evaluate("() => document.querySelector('.dgx-a .dgx-chart').vegaView.data('dots').at(-1)")
    assert (row["ring"], row["shape"], row["colour"]) == ("#CC79A7", "triangle-up", "#D55E00")


@pytest.mark.browser
@pytest.mark.parametrize("seen", ["?", "seen", "target-aware, seen"])
def test_every_mark_of_a_domain_is_drawn_and_said(browser: Any, tmp_path: Path, seen: str) -> None:
    state, name = make_state(exposure=seen), "uci_digits" if seen == "seen" else "mnist_m"
    for plan in state["plans"]:
        plan["exposure"] = {"sign": "?" if seen == "?" else "◇", "text": "One sentence."}
    one = Opened(browser, write_page(tmp_path / "page.html", state, title="Marks"))
    assert one.text(".dgx-warning .dgx-diamond") == ("?" if seen == "?" else "◇")
    assert one.page.get_by_role("button", name="Use the target-free version").count() == 0, "there is none for l1"
    label = {"?": "mnist_m (target) ?", "seen": "uci_digits (seen)"}.get(seen, f"mnist_m ◇ {seen}")
    assert label in one.text(".dgx-a svg")
    mark = {"?": " ?", "seen": ""}.get(seen, " ◇")  # that a source was seen stands in the sentence and in A
    assert f"{name}{mark}" in one.text(".dgx-d svg") and ("◇" in one.text(".dgx-d svg")) == (mark == " ◇")
    about = {"?": "? data use not recorded", "seen": ""}.get(seen, f"◇ {seen}")
    assert one.text(".dgx-d .dgx-about") == about
    rows = one.page.evaluate("() => document.querySelector('.dgx-d .dgx-chart').vegaView.data('drops')")
    (row,) = [row for row in rows if row["domain"] == name]
    ring = "#CC79A7" if "aware" in seen else None
    assert row["ring"] == ring and row["colour"] == ("#009E73" if seen == "seen" else "#D55E00")
    assert one.wrong == []
    one.page.close()


@pytest.mark.browser
def test_what_needs_python_is_hidden_and_pins_work(opened: Opened) -> None:
    page = opened.page
    for name in ("Copy as code", "Save", "Download"):
        assert page.get_by_role("button", name=name, exact=True).count() == 0
    assert page.get_by_text("Recalibrate BatchNorm").is_hidden() and page.locator(".dgx-more").is_hidden()
    page.get_by_role("button", name="Pin to compare").click()
    page.locator(SLIDER).press("End")
    opened.settle()
    cells = [text.replace("\xa0", " ") for text in page.locator(".dgx-pin").locator("td, th").all_inner_texts()]
    assert cells[:4] == ["a", "L1 norm (weights), 50 %", "50 %", "27 %"] and cells[6].startswith("52 (")
    removed = opened.text(".dgx-sentence").split()[0]
    assert cells[7] == f"{int(removed) - 50} %", "pins of one order are nested"
    page.get_by_role("button", name="Go to pin a").click()
    opened.settle()
    assert page.locator(SLIDER).input_value() == "50" and page.locator(".dgx-pin td").nth(6).inner_text() == "0 %"
    assert page.locator(".dgx-a svg .mark-line.pinned_marks path").count() == 3
    page.get_by_role("button", name=re.compile("^Unpin")).click()
    opened.settle()
    assert page.locator(".dgx-pins").is_hidden()
    page.get_by_role("button", name="Start again").click()
    opened.settle()
    assert page.locator(SLIDER).input_value() == "50"


def saved_by_keys(page: Any, box: str, *, name: str, kinds: tuple[str, ...]) -> dict[str, bytes]:
    """What the menu of a box saves, its entries pressed one after the other."""
    saved = {}
    for steps, kind in enumerate(kinds):
        page.locator(box).get_by_role("button", name="Save this chart").press("Enter")
        for _ in range(steps):
            page.keyboard.press("ArrowRight")
        with page.expect_download() as download:
            page.keyboard.press("Enter")
        assert download.value.suggested_filename == f"{name}.{kind}"
        saved[kind] = Path(download.value.path()).read_bytes()
    return saved


@pytest.mark.browser
def test_a_chart_is_saved_by_keys_in_the_light_themes_colours(opened: Opened) -> None:
    page = opened.page
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "() => document.querySelector('.dgx-a .dgx-chart').vegaView.data('curves')[0]?.colour.startsWith('rgb')"
    )
    saved = saved_by_keys(page, ".dgx-a", name="accuracy", kinds=("svg", "png", "csv"))
    assert b"#0072B2" in saved["svg"] and b'fill="#ffffff"' in saved["svg"] and b"mnist_m (target)" in saved["svg"]
    for box, name in ((".dgx-c", "size-and-cost"), (".dgx-d", "accuracy-change"), (".dgx-b", "filters-kept")):
        saved[name] = saved_by_keys(page, box, name=name, kinds=("svg",))["svg"]
        assert b"L1 norm (weights)" in saved[name] and b"per layer, 50 % of the filters removed" in saved[name]
    assert b"per layer, 50 % of the filters removed" in saved["svg"]
    assert saved["png"].startswith(b"\x89PNG")
    lines = saved["csv"].decode().splitlines()
    assert lines[0].startswith("data,") and sum(line.startswith("curves,") for line in lines) == 3 * 20
    assert page.evaluate("() => document.activeElement.getAttribute('aria-label')") == "Save this chart"
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert page.get_by_role("menu").count() == 0


@pytest.mark.browser
def test_the_filter_grid_is_saved_as_a_picture_of_every_layer(opened: Opened) -> None:
    saved = saved_by_keys(opened.page, ".dgx-b", name="filters-kept", kinds=("svg", "png"))
    words = re.findall(r"<text[^>]*>([^<]*)</text>", saved["svg"].decode())
    kept = [text for text in words[1:] if " of " in text]
    assert words[0].startswith("Filters kept, L1 norm (weights), per layer, 50 % of the filters removed")
    assert len(kept) == 5 and kept[1].endswith(" of 32")
    assert saved["png"].startswith(b"\x89PNG")


@pytest.mark.browser
def test_the_strip_is_read_by_keys(opened: Opened) -> None:
    canvas = opened.page.locator(".dgx-canvas")
    canvas.focus()
    canvas.press("ArrowRight")
    canvas.press("ArrowDown")
    opened.settle()
    assert re.match(
        r"conv2 · filter 0 · rank \d+ of 32 · score [\d.]+ · (kept|removed)", opened.text(".dgx-b .dgx-about")
    )


@pytest.mark.browser
def test_two_explorers_on_a_page_are_apart_and_end_cleanly(browser: Any, tmp_path: Path) -> None:
    one = Opened(browser, write_page(tmp_path / "two.html", [make_state(), make_state()], title="Two"), height=1400)
    page = one.page
    page.wait_for_function("document.querySelectorAll('.dgx-a svg').length === 2")
    second = page.locator(SLIDER).nth(1)
    second.press("Home")
    one.settle()
    assert page.locator(SLIDER).nth(0).input_value() == "50" and one.rule(0) == pytest.approx(50, abs=0.5)
    assert one.rule(1) == pytest.approx(0, abs=0.5)
    ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))
    page.evaluate("() => window.explorers.forEach((explorer) => explorer.end())")
    assert page.locator(".dgx").count() == 0
    page.evaluate("() => window.explorers[0].model.set('status', {ack: 1})")
    page.wait_for_timeout(100)
    assert one.wrong == []
    page.close()


@pytest.mark.browser
def test_names_are_text_and_nothing_else(browser: Any, tmp_path: Path) -> None:
    one = Opened(browser, write_page(tmp_path / "names.html", make_state(target=HOSTILE), title=HOSTILE))
    assert one.page.locator("img").count() == 0
    assert HOSTILE in one.text(".dgx-sentence")
    assert [url for url in one.requests if not url.startswith(("file:", "data:", "blob:"))] == [] and one.wrong == []
    one.page.close()


@pytest.mark.browser
@pytest.mark.parametrize("scorer", ["l1", "dss"])
@pytest.mark.parametrize("width", [1180, 848, 600, 400])
def test_nothing_is_cut_at_any_width(browser: Any, page_path: Path, width: int, scorer: str) -> None:
    one = Opened(browser, page_path, width=width + 40, height=900)
    one.page.get_by_label("Scorer", exact=True).select_option(scorer)
    one.page.wait_for_timeout(150)
    measured = one.page.evaluate(
        """() => ({
          page: document.documentElement.scrollWidth - document.documentElement.clientWidth,
          root: document.querySelector('.dgx').clientWidth,
          tall: document.querySelector('.dgx-main').getBoundingClientRect().bottom
            - document.querySelector('.dgx').getBoundingClientRect().top,
          plot: (({ width }) => (width - 56) / width)(
            document.querySelector('.dgx-a .dgx-chart').getBoundingClientRect()),
          wide: [...document.querySelectorAll('.dgx-card, .dgx-row, .dgx-headline, .dgx-title')]
            .filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.className),
          cut: [...document.querySelectorAll('.dgx-chart')].flatMap((chart) => {
            const room = chart.getBoundingClientRect();
            return [...chart.querySelectorAll('svg text')].filter((text) => {
              const box = text.getBoundingClientRect();
              const out = box.left < room.left - 1 || box.right > room.right + 1 || box.bottom > room.bottom + 1;
              return text.textContent && out;
            }).map((text) => text.textContent);
          }),
        })"""
    )
    assert measured["root"] == width and measured["page"] == 0 and measured["wide"] == [] and measured["cut"] == []
    assert measured["plot"] >= 0.8 and (width < 840 or measured["tall"] <= 540)
    one.page.close()


@pytest.mark.browser
def test_a_file_from_the_kernel_goes_to_the_downloads(opened: Opened) -> None:
    with opened.page.expect_download() as saved:
        opened.page.evaluate(
            """() => window.explorers[0].model.tell(
              "msg:custom",
              { type: "file", name: "a.zip", mime: "application/zip" },
              [new DataView(new Uint8Array([80, 75]).buffer)],
            )"""
        )
    assert saved.value.suggested_filename == "a.zip" and Path(saved.value.path()).read_bytes() == b"PK"


@pytest.mark.browser
def test_the_slider_stops_where_the_scorer_was_measured(browser: Any, tmp_path: Path) -> None:
    state = make_state()
    for curve in state["curves"]:
        curve["rows"] = curve["rows"][:: 2 if curve["key"][0] == "dss" else 1]
    one = Opened(browser, write_page(tmp_path / "grids.html", state, title="Grids"))
    page, slider = one.page, one.page.locator(SLIDER)
    slider.press("ArrowLeft")
    assert slider.input_value() == "45" and one.text(".dgx-badge") == "all images, every 5 %"
    page.get_by_label("Scorer", exact=True).select_option("dss")
    one.settle()
    assert slider.input_value() == "40" and one.text(".dgx-badge") == "all images, every 10 %"
    slider.press("ArrowRight")
    one.settle()
    assert slider.input_value() == "50" and one.text(".dgx-sentence").startswith("50 %")
    page.close()
    assert one.wrong == []


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_paper_everything_is_whole_and_nothing_is_to_be_pressed(opened: Opened, theme: Any) -> None:
    page = opened.page
    page.emulate_media(color_scheme=theme)
    page.wait_for_function(
        "dark => getComputedStyle(document.body).color === (dark ? 'rgb(230, 233, 237)' : 'rgb(34, 39, 46)')",
        arg=theme == "dark",
    )
    page.locator(SLIDER).press("ArrowRight")
    opened.settle()
    page.set_viewport_size({"width": 690, "height": 900})
    page.emulate_media(media="print", color_scheme=theme)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not any(one.is_visible() for one in page.locator(".dgx :is(button, input[type=range], canvas)").all())
    assert page.locator(".dgx-amount").is_visible() and opened.text(".dgx-amount") == "55 % of the filters"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(34, 39, 46)"
    words = page.locator(".dgx-on-paper text").all_text_contents()
    assert [name for name in words if name.startswith("conv")] == [f"conv{k}" for k in range(1, 6)]
    boxes = [one.bounding_box() for one in page.locator(".dgx-chart > svg, .dgx-on-paper svg").all()]
    assert len(boxes) == 4 and all(
        box["x"] >= 0 and box["width"] > 200 and box["x"] + box["width"] <= 690 for box in boxes
    )
