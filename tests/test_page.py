"""The explorer's page without a kernel: what is written, and what a real browser does with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from explorer_state import HOSTILE, make_row, make_state

from dgprune_lab.types.errors import DgpruneError
from dgprune_lab.widgets import host, static
from dgprune_lab.widgets.page import inlined, write_page

# --- what is written ----------------------------------------------------------------------------------------------


def test_the_page_is_one_small_file(tmp_path: Path) -> None:
    text = write_page(tmp_path / "deep" / "page.html", make_state(), title="A <title> & more").read_text(
        encoding="utf-8"
    )
    assert len(text.encode()) < 5e6
    assert "<title>A &lt;title&gt; &amp; more</title>" in text
    ours = text.replace(host.vega_bundle(kind="script").replace("</script", "<\\/script").replace("<!--", "<\\!--"), "")
    assert len(ours) < len(text) - 500_000, "the bundle stands in the page as it is"
    assert not re.search(
        r"<(script|link|img)[^>]+(src|href)\s*=|https?://(?!vega\.github\.io/schema|www\.w3\.org/)", ours
    )
    assert "default-src &#x27;none&#x27;" in text
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["page.html"]


def test_no_text_ends_a_script(tmp_path: Path) -> None:
    state = make_state(target=HOSTILE)
    text = write_page(tmp_path / "page.html", state, title=HOSTILE).read_text(encoding="utf-8")
    assert text.count("</script>") == 3 and "<img src=http" not in text
    match = re.search(r'<script type="application/json" class="state">(.*?)</script>', text, re.DOTALL)
    assert match and json.loads(match[1])[0]["static"]["domains"][2]["name"] == HOSTILE
    assert json.loads(inlined({"a": "</script><!--\u2028"})) == {"a": "</script><!--\u2028"}


def test_a_state_that_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DgpruneError, match="needs 'choice'"):
        write_page(tmp_path / "page.html", {"static": {}}, title="x")
    with pytest.raises(DgpruneError, match="no part 'sttic'"):
        write_page(tmp_path / "page.html", {"sttic": {}}, title="x")


def test_the_joined_module_has_one_default_export_and_no_import() -> None:
    text = static.module()
    assert text.rstrip().endswith("export default explorer.default;")
    assert len(re.findall(r"^(?:import|export)\b", text, re.MULTILINE)) == 1
    assert "innerHTML" not in text and "insertAdjacentHTML" not in text


def test_every_focusable_element_keeps_its_keys() -> None:
    created = re.findall(r"createElement\((.*?)\)", static.module())
    assert created == ["tag"], "elements are made in one place, which marks the focusable ones"


def test_the_bundle_is_kept_and_a_broken_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vl_convert

    made: list[str] = []

    def bundle(snippet: str, *, vl_version: str) -> str:
        made.append(vl_version)
        return f"/* vega {vl_version} */ {snippet}"

    monkeypatch.setattr(vl_convert, "javascript_bundle", bundle)
    monkeypatch.setattr(host, "_memory", {})
    monkeypatch.setattr(host.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    first = host.vega_bundle()
    path = host.cache_path(kind="module")
    assert path.read_text(encoding="utf-8") == first and "initialize" in first and len(made) == 1
    host._memory.clear()
    assert host.vega_bundle() == first and len(made) == 1
    host._memory.clear()
    path.write_text(first[:20], encoding="utf-8")
    assert host.vega_bundle() == first and len(made) == 2
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vl_convert

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda snippet, vl_version: snippet)
    monkeypatch.setattr(host, "_memory", {})
    monkeypatch.setattr(host.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "file" / name))
    assert "window.vegaEmbed" in host.vega_bundle(kind="script")


def test_one_host_per_kernel() -> None:
    code = (
        "from dgprune_lab.widgets.host import vega_host as h; a = h(); assert a is h() and a.ref[:10] == 'anywidget:'"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


# --- in a browser -------------------------------------------------------------------------------------------------

SLIDER = "input[type=range]"


@pytest.fixture(scope="module")
def browser(chromium: str) -> Generator[Any, None, None]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


class Opened:
    """A page over a state, with everything it asked for and complained about."""

    def __init__(self, browser: Any, path: Path, *, width: int = 1240, height: int = 800) -> None:
        self.asked: list[str] = []
        self.wrong: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(".dgx-a svg .mark-line path")
        self.page.wait_for_selector(".dgx-c svg")

    def settle(self) -> None:
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def rule(self, index: int = 0) -> float:
        """The current ratio in % as chart A draws it: the place of its rule in the plot."""
        return self.page.evaluate(
            """(index) => {
              const svg = document.querySelectorAll('.dgx-a .dgx-chart')[index].querySelector('svg');
              const line = svg.querySelector('.layer_8_marks line');
              const plot = svg.querySelector('.mark-group .background').getBoundingClientRect();
              return 100 * (line.getBoundingClientRect().left - plot.left) / plot.width;
            }""",
            index,
        )

    def pixels(self, index: int = 0) -> str:
        return self.page.evaluate("(index) => document.querySelectorAll('.dgx-canvas')[index].toDataURL()", index)

    def text(self, selector: str) -> str:
        return " ".join(self.page.locator(selector).first.text_content().split())


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("page") / "page.html", make_state(), title="Explorer")


@pytest.fixture
def opened(browser: Any, page_path: Path) -> Generator[Opened, None, None]:
    one = Opened(browser, page_path)
    yield one
    one.page.close()
    assert one.wrong == []
    assert [url for url in one.asked if not url.startswith(("file:", "data:", "blob:"))] == []


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
    assert after[2].startswith("45 % of the filters are gone")
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
    page.mouse.move(plot["x"] + 52 + 0.7 * (plot["width"] - 192), plot["y"] + 90, steps=5)
    page.mouse.up()
    opened.settle()
    assert page.locator(SLIDER).input_value() == "70" and opened.rule() == pytest.approx(70, abs=0.5)
    page.mouse.click(plot["x"] + plot["width"] - 10, plot["y"] + 80)
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
    opened.page.wait_for_timeout(150)
    assert opened.rule() == pytest.approx(65, abs=0.5)
    assert opened.text(".dgx-sentence").startswith("65 %")
    assert opened.page.evaluate("() => window.explorers[0].model.get('choice').ratio") == pytest.approx(0.65)


@pytest.mark.browser
def test_the_scorer_select_works_over_the_grid(opened: Opened) -> None:
    page = opened.page
    sentence, cells = opened.text(".dgx-sentence"), opened.pixels()
    assert page.locator(".dgx-warning").is_hidden()
    page.get_by_label("Choose by").select_option("dss")
    opened.settle()
    assert opened.text(".dgx-sentence") != sentence and opened.pixels() != cells
    assert "mnist_m (target-aware)" in opened.text(".dgx-a svg")
    page.get_by_role("button", name="Use the version that did not").click()
    opened.settle()
    assert page.get_by_label("Choose by").input_value() == "l1" and opened.text(".dgx-sentence") == sentence


@pytest.mark.browser
def test_what_needs_python_is_hidden_and_pins_work(opened: Opened) -> None:
    page = opened.page
    for name in ("Copy as code", "Save"):
        assert page.get_by_role("button", name=name).count() == 0
    assert page.get_by_text("refresh BatchNorm").is_hidden() and page.locator(".dgx-more").is_hidden()
    page.get_by_role("button", name="Pin to compare").click()
    page.locator(SLIDER).press("End")
    opened.settle()
    assert "Smallest weights · 50 % · shares 100 % of the kept filters" in opened.text(".dgx-chip")
    assert page.locator(".dgx-a svg .mark-line.layer_3_marks path").count() == 3
    page.get_by_role("button", name=re.compile("^Unpin")).click()
    opened.settle()
    assert page.locator(".dgx-chip").count() == 0
    page.get_by_role("button", name="Start again").click()
    opened.settle()
    assert page.locator(SLIDER).input_value() == "50"


@pytest.mark.browser
def test_the_strip_is_read_by_keys(opened: Opened) -> None:
    canvas = opened.page.locator(".dgx-canvas")
    canvas.focus()
    canvas.press("ArrowRight")
    canvas.press("ArrowDown")
    opened.settle()
    assert re.match(
        r"conv2 · filter 0 · rank \d+ of 32 · score [\d.]+ · (stays|gone)", opened.text(".dgx-b .dgx-about")
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
    assert [url for url in one.asked if not url.startswith(("file:", "data:", "blob:"))] == [] and one.wrong == []
    one.page.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1180, 1080, 760, 400])
def test_nothing_is_cut_at_any_width(browser: Any, page_path: Path, width: int) -> None:
    one = Opened(browser, page_path, width=width + 40, height=900)
    one.page.wait_for_timeout(150)
    measured = one.page.evaluate(
        """() => ({
          page: document.documentElement.scrollWidth - document.documentElement.clientWidth,
          root: document.querySelector('.dgx').clientWidth,
          tall: document.querySelector('.dgx-view').getBoundingClientRect().height,
          inside: document.querySelector('.dgx-view').getBoundingClientRect().bottom
            - document.querySelector('.dgx-main').getBoundingClientRect().bottom,
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
    assert measured["inside"] >= 0 and (width < 1080 or measured["tall"] <= 540)
    one.page.close()


# --- with a kernel that the test plays ------------------------------------------------------------------------------


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
              model.save_changes = () => window.saved.push(model.get('choice'));
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
        {"name": "flips", "label": "Images that flip", "unavailable": None},
        {"name": "umap", "label": "Where features go", "unavailable": "needs umap-learn"},
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


def frames_with(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"key": "l1|layer|filters|recalibrate", "rows": [make_row("l1", 0.5), *rows]}


@pytest.mark.browser
def test_old_numbers_stay_grey_until_new_ones_come(live: Live) -> None:
    old = live.text(".dgx-sentence")
    left = live.text(".dgx-c svg")
    live.move(63)
    assert live.text(".dgx-badge") == "measuring…" and live.text(".dgx-sentence") == f"50 %: {old}"
    assert live.page.locator(".dgx-sentence").get_attribute("data-stale") == "true"
    assert live.text(".dgx-c svg") != left, "what is left follows at once"
    live.tell("frames", frames_with(make_row("l1", 0.63, estimate=True)))
    assert live.text(".dgx-badge") == "estimate, 250 images a domain"
    assert live.text(".dgx-sentence").startswith("63 %")
    live.tell("frames", frames_with(make_row("l1", 0.63)))
    assert live.text(".dgx-badge") == "all images"


@pytest.mark.browser
def test_an_estimate_is_no_part_of_a_curve(live: Live) -> None:
    points = live.page.locator(".dgx-a svg .mark-symbol.layer_7_marks path")
    live.tell("frames", frames_with(make_row("l1", 0.55)))
    assert points.count() == 6
    live.tell("frames", frames_with(make_row("l1", 0.55, estimate=True)))
    assert points.count() == 3


@pytest.mark.browser
def test_choices_are_sent_at_most_every_60_ms_and_the_last_always(live: Live) -> None:
    live.page.evaluate(
        """async () => { const slider = document.querySelector('input[type=range]');
        for (let k = 0; k < 200; k += 1) {
          slider.value = k === 199 ? 42 : k % 90;
          slider.dispatchEvent(new Event('input'));
          if (k % 20 === 0) await new Promise((done) => setTimeout(done, 15));
        } }"""
    )
    live.page.wait_for_timeout(150)
    saved = live.page.evaluate("() => window.saved")
    assert len(saved) <= 10 and saved[-1]["ratio"] == pytest.approx(0.42) and saved[-1]["by"] == "page"
    assert [one["id"] for one in saved] == sorted({one["id"] for one in saved})


@pytest.mark.browser
def test_the_kernel_moves_the_slider_but_not_out_of_a_hand(live: Live) -> None:
    slider = live.page.locator(SLIDER)
    choice = make_state()["choice"]
    live.tell("choice", {**choice, "id": 10, "ratio": 0.375, "scope": "global"})
    assert slider.input_value() == "37.5" and slider.get_attribute("aria-valuetext") == "37.5 % of the filters"
    assert live.page.get_by_label("weakest anywhere").is_checked()
    box = slider.bounding_box()
    live.page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2)
    live.page.mouse.down()
    held = float(slider.input_value())
    live.tell("choice", {**choice, "id": 20, "ratio": 0.1})
    assert float(slider.input_value()) == pytest.approx(held, abs=0.5), "it may snap to whole percents, not to 10 %"
    live.page.mouse.up()


@pytest.mark.browser
def test_busy_error_and_a_kernel_that_is_gone_are_said_in_words(live: Live) -> None:
    notice = live.page.locator(".dgx-view > .dgx-notice")
    live.move(20)
    live.page.wait_for_timeout(2300)
    assert notice.is_visible() and "Python is busy with another cell" in live.text(".dgx-view > .dgx-notice")
    answered = {"ack": 99, "progress": {"done": 7, "total": 20}, "error": None, "message": None}
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


@pytest.mark.browser
def test_messages_to_and_from_the_kernel(live: Live) -> None:
    page = live.page
    for name in ("Pin to compare", "Start again", "Copy as code", "Save", "Images that flip"):
        page.get_by_role("button", name=name).click()
    canvas = page.locator(".dgx-canvas")
    canvas.focus()
    canvas.press("ArrowRight")
    canvas.press("Enter")
    assert page.evaluate("() => window.sent") == [
        {"type": "pin"},
        {"type": "reset"},
        {"type": "code"},
        {"type": "save"},
        {"type": "panel", "name": "flips"},
        {"type": "filter", "group": "features.conv1", "filter": 0},
    ]
    page.evaluate("() => window.model.tell('msg:custom', {type: 'code', text: 'a = \"</textarea>\"'})")
    assert page.get_by_label("Code of this view").input_value() == 'a = "</textarea>"'
    page.evaluate("() => window.model.tell('msg:custom', {type: 'saved', text: 'Saved as x'})")
    live.settle()
    assert "Saved as x" in live.text(".dgx-view > .dgx-notice")
    assert page.get_by_role("button", name="Where features go").is_disabled()


@pytest.mark.browser
def test_a_panels_chart_is_embedded_once_and_its_data_swapped(live: Live) -> None:
    panels = make_state()["panels"]
    panels |= {
        "list": [{"name": "flips", "label": "Flips", "unavailable": None}],
        "open": "flips",
        "text": "<i>words</i>",
    }
    row = {"what": "Filters", "share": 50, "text": "1 of 2", "percent": "50 %", "opacity": 1}
    panels["charts"] = {"left": static.specs()["c"]}
    live.tell("panels", {**panels, "data": {"left": {"left": [row]}}})
    live.page.wait_for_selector(".dgx-panel svg")
    live.page.evaluate("() => { document.querySelector('.dgx-panel svg').dataset.same = 'yes'; }")
    live.tell("panels", {**panels, "data": {"left": {"left": [{**row, "percent": "25 %"}]}}})
    assert "25 %" in live.text(".dgx-panel svg") and live.text(".dgx-panel-text") == "<i>words</i>"
    assert live.page.evaluate("() => document.querySelector('.dgx-panel svg').dataset.same") == "yes"
    live.tell("panels", {**panels, "open": None})
    assert live.page.locator(".dgx-panel svg").count() == 0
