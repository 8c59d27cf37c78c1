"""Explorer, panels and report for everyone: axe-core's rules, the keyboard alone, colours that all eyes tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorer_state import make_state
from page_driver import Opened, violations
from read_study import read_study
from skimage.color import deltaE_ciede2000, rgb2lab
from test_page import few_ratios  # noqa: F401

import dgprune_lab as dg
from dgprune_lab.charts import domain_styles
from dgprune_lab.widgets.page.standalone import write_page

FOCUSABLE = ":is(button, input, select, textarea, a[href], summary, [tabindex])"
# What Tab reaches is numbered; a radio group is one stop, and items of an open menu follow the arrows.
STOPS = f"""() => [...document.querySelectorAll('.dgx {FOCUSABLE}')].filter((one) => one.tabIndex >= 0 && !one.disabled
  && one.checkVisibility() && (one.type !== 'radio' || one.checked)).map((one, k) => (one.dataset.stop = k))"""
FOCUSED = """() => {
  const one = document.activeElement, style = getComputedStyle(one);
  const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1.5 && style.opacity === '1';
  return one.closest('.dgx') ? [Number(one.dataset.stop), seen, one.outerHTML.slice(0, 120)] : null;
}"""


@pytest.fixture(scope="module")
def opened_panels() -> Iterator[dict[str, Any]]:
    """What the page is told when each panel of an explorer is opened, before its long work."""
    explorer = dg.Explorer(read_study())
    told = {}
    for panel in explorer.panels["list"]:
        explorer.handle_message({"type": "panel", "name": panel["name"]})
        explorer._session.worker.wait("panel", timeout=60)
        told[panel["label"]] = explorer.panels
    yield told
    explorer.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Opened]:
    path = write_page(tmp_path / "page.html", make_state(exposure="target-aware"), title="Explorer")
    path.write_text(path.read_text(encoding="utf-8").replace('"offline":true', '"offline":false'), encoding="utf-8")
    one = Opened(browser, path)
    yield one
    one.page.close()
    assert one.wrong == []


@pytest.mark.browser
def test_axe_finds_nothing_in_the_explorer_and_any_panel(opened: Opened, opened_panels: dict[str, Any]) -> None:
    page = opened.page
    page.get_by_role("button", name="Pin to compare").click()
    page.get_by_role("button", name="About this scorer").click()
    found = {"light": violations(page)}
    page.emulate_media(color_scheme="dark")
    opened.settle()
    found["dark"] = violations(page)
    for label, panels in opened_panels.items():
        page.evaluate("(panels) => explorers[0].model.set('panels', panels)", panels)
        page.wait_for_function("() => [...document.querySelectorAll('.dgx-panel-chart')].every((one) => one.vegaView)")
        found[label] = violations(page, ".dgx-panel")
    assert len(found) == 12 and {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.browser
def test_the_keyboard_reaches_every_control_and_shows_where_it_is(
    opened: Opened, opened_panels: dict[str, Any]
) -> None:
    page = opened.page
    page.evaluate("() => document.querySelector('.dgx-buttons button').click()")  # a pin; the focus stays at the top
    page.evaluate("(panels) => explorers[0].model.set('panels', panels)", opened_panels["Trade-off"])
    page.wait_for_function("() => document.querySelector('.dgx-panel-chart')?.vegaView")
    stops = page.evaluate(STOPS)
    reached, unseen = [], []
    for _ in range(len(stops) + 3):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused is None:
            break
        reached.append(focused[0])
        unseen += [] if focused[1] else [focused[2]]
    assert len(stops) > 25 and reached == stops, "in the order of the page"
    assert unseen == []


@pytest.mark.browser
@pytest.mark.usefixtures("few_ratios")
def test_axe_finds_nothing_in_a_report(browser: Any, tmp_path: Path) -> None:
    path = dg.report(read_study(), tmp_path / "report.html", scorers=["l1"], seconds=0, progress=False)
    one = Opened(browser, path)
    assert violations(one.page) == [] and one.wrong == []
    one.page.close()


# Linear RGB as dichromats see it: Machado, Oliveira and Fernandes 2009, severity 1; achromatopsia: luminance alone.
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "achromatopsia": [[0.2126, 0.7152, 0.0722]] * 3,
}


def seen(colour: str, deficiency: str) -> np.ndarray:
    """A colour as CIELAB, as seen with a deficiency."""
    given = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(given <= 0.04045, given / 12.92, ((given + 0.055) / 1.055) ** 2.4)
    mixed = np.clip(np.array(DEFICIENCIES[deficiency]) @ linear, 0, 1)
    return rgb2lab(np.where(mixed <= 0.0031308, 12.92 * mixed, 1.055 * mixed ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_domains_differ_in_colour_for_every_eye_or_else_in_mark_and_dash(deficiency: str) -> None:
    pairs = [("a", "source"), ("t", "target"), ("b", "source"), ("c", "source"), ("d", "source"), ("u", "target")]
    styles = list(domain_styles(pairs).values())
    assert len({style.shape for style in styles}) == len(styles), "a mark for each"
    source, target = styles[:2]
    first = deltaE_ciede2000(seen(source.colour, deficiency), seen(target.colour, deficiency))
    assert first > (6 if deficiency == "achromatopsia" else 20) and source.dash != target.dash
