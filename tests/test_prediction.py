"""Guesses: the widget, its page, its static picture."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import altair as alt
import pytest
from page_driver import PATIENCE, violations

import dgprune_lab as dg
from dgprune_lab.widgets.page.standalone import page_text
from dgprune_lab.widgets.prediction import Prediction

OPTIONS = ["left", "right"]
HOSTILE = "</script><img src=http://example.invalid/x onerror=alert(1)>"
CHART = alt.Chart(alt.InlineData(values=[{"a": 1}]), width=700).mark_point().encode(x="a:Q")


def bundle(guess: Prediction) -> dict[str, Any]:
    made = guess._repr_mimebundle_()
    return made[0] if isinstance(made, tuple) else made


def test_a_guess_locks_and_an_empty_one_blocks_nothing() -> None:
    guess = dg.predict("Which one?", OPTIONS)
    guess.lock()
    assert not guess.locked
    guess.reveal("left", because="3 < 4")
    assert guess.locked and guess.text == "No guess. Measured: left. 3 < 4"
    other = dg.predict("Which?", OPTIONS)
    other.guess = "right"
    other.lock()
    other.reveal("right")
    assert other.text == "You guessed: right. Right. Measured: right."
    other.reveal("left")
    assert other.text.startswith("You guessed: right. Measured otherwise.")
    with pytest.raises(dg.DgpruneError, match="not an option"):
        other.reveal("up")
    with pytest.raises(dg.DgpruneError, match="locked"):
        other.guess = "left"
    for options in (["only"], ["", "b"], [str(place) for place in range(100)]):
        with pytest.raises(dg.DgpruneError, match="two or more different texts, at most 99, none of them empty"):
            dg.predict("Which?", options)
    with pytest.raises(dg.DgpruneError, match="question must not be empty"):
        dg.predict(" ", OPTIONS)


def test_run_all_gives_nothing_away() -> None:
    guess = dg.predict("Which one?", OPTIONS)
    guess.reveal("left", because="3 to 4", wait=True)
    assert guess.text == "" and not guess.locked and not guess.shown
    assert "3 to 4" not in bundle(guess)["text/plain"]
    folded = bundle(guess)["text/html"]
    assert folded.index("<details>") < folded.index("3 to 4") < folded.index("</details>")
    guess.set_state({"chosen": 1, "locked": True, "shown": True})  # a page may send all that was pressed together
    assert guess.text.startswith("You guessed: right. Measured otherwise.") and guess.locked
    guess.reveal("left", because="4 to 5", wait=True)  # the cell is run again: the answer was seen already
    assert "4 to 5" in guess.text


def test_a_page_cannot_change_a_locked_guess() -> None:
    guess = dg.predict("Which one?", OPTIONS)
    guess.set_state({"chosen": 7})
    assert guess.guess is None
    guess.set_state({"chosen": 1, "locked": True})
    guess.set_state({"chosen": 0})
    guess.set_state({"chosen": 0, "locked": False})
    guess.set_state({"chosen": 0})
    assert guess.guess == "right" and guess.locked


def test_the_picture_of_a_saved_notebook_escapes_text_and_folds_the_answer() -> None:
    guess = dg.predict(HOSTILE, [HOSTILE, "right"])
    before = bundle(guess)
    assert "<img" not in before["text/html"] and "<details>" not in before["text/html"]
    assert before["text/plain"].splitlines() == [HOSTILE, f"  1. {HOSTILE}", "  2. right"]
    guess.reveal(HOSTILE, because=HOSTILE, chart=CHART, wait=True)
    after = bundle(guess)["text/html"]
    picture = re.search(r"<svg|data:image/svg", after)
    assert "<img src=http" not in after and picture is not None
    assert after.index("<details>") < picture.start() < after.index("</details>")
    assert "application/vnd.jupyter.widget-view+json" in bundle(guess)


class Page:
    """Two views of one guess, as two cells show them, without a kernel."""

    def __init__(self, browser: Any, path: Path, guess: Prediction) -> None:
        self.line = guess.static["lines"][1]
        state = {name: getattr(guess, name) for name in ("static", "chosen", "locked", "shown", "answer")}
        text = page_text([state, state], title="guess", entry="prediction")
        second = "entry.default.render({ model: explorers[0].model, el: places[1], host });\n</script>\n</body>"
        text = text.replace("</script>\n</body>", f"explorers[1].end();\n{second}")
        path.write_text(text, encoding="utf-8")
        self.wrong: list[str] = []
        self.page = browser.new_page(viewport={"width": 900, "height": 700})
        self.page.set_default_timeout(PATIENCE)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.goto(path.as_uri())
        self.views = [self.page.locator(".dgx-guess").nth(place) for place in (0, 1)]

    def words(self) -> list[str]:
        return [view.locator(".dgx-guess-words").inner_text().strip() for view in self.views]


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Generator[Page, None, None]:
    guess = dg.predict(f"Which {HOSTILE}?", ["left", HOSTILE])
    guess.reveal(HOSTILE, because="3 to 4.", chart=CHART, wait=True)
    one = Page(browser, tmp_path / "page.html", guess)
    yield one
    one.page.close()
    assert one.wrong == []


@pytest.mark.browser
def test_keys_alone_choose_lock_and_show_in_every_view(page: Page) -> None:
    main, keys = page.page.locator("main"), page.page.keyboard
    group = page.views[0].get_by_role("radiogroup", name=f"Which {HOSTILE}?")
    assert group.count() == 1 and group.get_by_role("radio").count() == 2
    assert page.words() == ["", ""] and "3 to 4" not in main.inner_html() and main.locator("svg").count() == 0
    lock, reveal = (page.views[0].get_by_role("button", name=name) for name in ("Lock my guess", "Show the answer"))
    assert lock.get_attribute("aria-disabled") == "true" and "locks your guess" in reveal.get_attribute("title")
    keys.press("Tab")
    keys.press("Space")
    keys.press("ArrowDown")
    assert [view.get_by_role("radio", name=HOSTILE).is_checked() for view in page.views] == [True, True]
    keys.press("Tab")
    keys.press("Enter")
    assert page.views[1].get_by_role("radio").first.is_disabled() and page.words() == ["", ""]
    keys.press("Tab")
    keys.press("Enter")
    assert all(words.startswith("You guessed: </script>") and "3 to 4." in words for words in page.words())
    assert page.page.evaluate("document.activeElement.innerText").startswith("You guessed")
    page.views[1].locator(".dgx-guess-charts svg.marks").wait_for()
    assert page.views[0].locator("svg.marks").count() == 0, "charts stand once, where the guess was shown last"
    assert page.page.locator("img").count() == 0 and not reveal.is_visible()
    assert page.views[1].locator("code").inner_text() == page.line
    assert violations(page.page) == []


@pytest.mark.browser
def test_the_answer_can_be_shown_without_a_guess(page: Page) -> None:
    page.views[1].get_by_role("button", name="Show the answer").click()
    assert all(words.startswith("No guess. Measured:") for words in page.words())
    assert page.views[0].get_by_role("radio").first.is_disabled()
    svg = page.views[1].locator(".dgx-guess-charts svg.marks")
    svg.wait_for()
    page.page.set_viewport_size({"width": 620, "height": 700})
    places = [page.views[1].locator(".dgx-guess-charts").bounding_box(), svg.bounding_box()]
    ends = [place["x"] + place["width"] for place in places if place]
    assert len(ends) == 2 and ends[1] <= ends[0] + 1, "a wide chart shrinks with the page"
