"""The projector's mode: charts and widgets with larger type, and the page's button for it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import altair as alt
import pytest
from explorer_state import make_state
from page_driver import SLIDER, Opened

import dgprune_lab as dg
from dgprune_lab.charts import present_theme
from dgprune_lab.charts.projector import FACTOR
from dgprune_lab.widgets.page import static as assets
from dgprune_lab.widgets.page.standalone import write_page

SMALLEST = 16 / FACTOR  # pixels of type that become 16


@pytest.fixture(autouse=True)
def back_on_a_screen() -> Iterator[None]:
    yield
    dg.theme("screen")


def test_a_picture_is_larger_and_otherwise_the_same() -> None:
    themes, config = alt.theme.get(), alt.theme.active
    chart = dg.charts.drop(dg.tidy([]))
    small = dg.charts.svg(chart)
    dg.theme("projector")
    shown = cast(Any, chart)._repr_mimebundle_()["text/html"]
    large = base64.b64decode(shown.split("base64,")[1].split('"')[0]).decode()
    assert present_theme() == "projector" and (alt.theme.get(), alt.theme.active) == (themes, config)
    head, rest = (text.split(">", 1) for text in (small, large))
    assert head[1] == rest[1], "what is drawn stays"
    sizes = [[float(n) for n in re.findall(r'\b(?:width|height)="([\d.]+)"', text)] for text in (head[0], rest[0])]
    assert re.match(r'<rect width="\d+" height="\d+" fill="#FFFFFF"/>', rest[1]), "on white, for dark pages"
    assert len(sizes[0]) == 2 and sizes[1] == [FACTOR * size for size in sizes[0]]
    dg.theme("screen")
    assert dg.charts.svg(chart) == small
    with pytest.raises(dg.DgpruneError, match="'projector'"):
        dg.theme("beamer")  # pyright: ignore[reportArgumentType]


def test_the_smallest_type_has_sixteen_pixels() -> None:
    """Sizes of type that the sources name; the pictures were looked at."""
    package, folder = Path(dg.charts.__file__).parent, assets.FOLDER
    sheets = "".join(path.read_text() for path in folder.glob("*.css"))
    sizes = [float(n) for n in re.findall(r"font(?:-size)?:[^;}]*?([\d.]+)px", sheets)]
    charts = "".join(path.read_text() for path in package.rglob("*.py"))
    sizes += [float(n) for n in re.findall(r"""[fF]ontSize["']?[=:] ?([\d.]+)""", charts)]
    assert len(sizes) > 40 and min(sizes) >= SMALLEST
    assert f"zoom: {FACTOR};" in assets.style()


@pytest.mark.browser
def test_its_button_puts_the_sentence_and_chart_a_first_and_the_mouse_still_meets(browser: Any, tmp_path: Path) -> None:
    state = make_state()
    state["static"]["theme"] = "projector"
    path = write_page(tmp_path / "page.html", state, title="P")
    path.write_text(path.read_text(encoding="utf-8").replace('"offline":true', '"offline":false'), encoding="utf-8")
    one = Opened(browser, path, width=1080, height=1300)
    page = one.page
    places = """() => Object.fromEntries(['headline', 'main', 'a', 'b', 'further'].map((name) => {
      const e = document.querySelector('.dgx-' + name).getBoundingClientRect();
      return [name, [Math.round(e.top), Math.round(e.bottom), Math.round(e.width)]];
    }))"""
    large = page.evaluate(places)
    assert large["headline"][1] <= large["a"][0] and large["a"][1] <= large["b"][0] < large["further"][0]
    assert large["a"][2] > 0.95 * large["main"][2] and large["a"][1] - large["headline"][0] < 560
    small = page.evaluate(
        """() => [...document.querySelectorAll('.dgx *')].filter((e) => e.offsetParent && e.childNodes.length
          && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
          .map((e) => [parseFloat(getComputedStyle(e).fontSize) * e.currentCSSZoom, e.className, e.textContent])
          .filter(([size]) => size < 16)"""
    )
    assert small == [] and page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    plot = page.locator(".dgx-a svg .mark-group .background").first.bounding_box()
    page.mouse.click(plot["x"] + 0.3 * plot["width"], plot["y"] + plot["height"] / 2)
    one.settle()
    assert page.locator(SLIDER).input_value() == "30" and one.rule() == pytest.approx(30, abs=0.5)
    canvas = page.locator(".dgx-canvas")
    box = canvas.bounding_box()
    x, y = page.evaluate("() => Object.values(document.querySelector('.dgx-canvas').place('features.conv2', 3))")
    page.mouse.click(box["x"] + FACTOR * x, box["y"] + FACTOR * y)
    one.settle()
    assert "conv2 \u00b7 filter 3 " in one.text(".dgx-b > .dgx-about")
    toggle = page.get_by_role("button", name="Aa, for a projector")
    toggle.focus()
    page.keyboard.press("Enter")
    one.settle()
    after = page.evaluate(places)
    assert after["further"][1] <= after["main"][0] and toggle.get_attribute("aria-pressed") == "false"
    assert page.evaluate("document.activeElement.textContent") == "Aa", "the keyboard is not lost"
    assert one.wrong == []
    page.close()
