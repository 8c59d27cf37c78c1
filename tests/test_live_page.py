"""The page of a run that one watches, in a real browser, bridged to a real run in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_driver import PATIENCE, violations
from test_live import Gate
from tuned_study import QUICK, study

from dgprune_lab.training.events import PruneEvent
from dgprune_lab.widgets import Live, Tuning
from dgprune_lab.widgets.page.standalone import page_text

pytestmark = pytest.mark.browser
HOSTILE = "</script><img src=http://example.invalid/x onerror=alert(1)>"


def write(path: Path, live: Live) -> Path:
    """The page's module with a model that a test speaks for, in place of the kernel."""
    state = {"static": {**live.static}, "data": live.data, "status": live.status}
    text = page_text([state], title="run", entry="live").replace("send: () => {}", "send: (m) => sent.push(m)")
    text = text.replace('<script type="module">', '<script>const sent = [];</script><script type="module">')
    path.write_text(text)
    return path


class Watched:
    """A run and its page; `pump` carries traits and messages between them, as a kernel does."""

    def __init__(self, browser: Any, folder: Path, live: Live, *, width: int = 900, dark: bool = False) -> None:
        self.live, self.wrong, self.sent = live, [], {}
        self.page = browser.new_page(viewport={"width": width, "height": 700}, color_scheme="dark" if dark else "light")
        self.page.set_default_timeout(PATIENCE)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        self.page.goto(write(folder / "live.html", live).as_uri())
        self.page.wait_for_selector(".dgx-live svg")

    def pump(self) -> None:
        for name in ("data", "status"):
            value = getattr(self.live, name)
            if self.sent.get(name) is not value:
                self.sent[name] = value
                self.page.evaluate("([name, value]) => window.explorers[0].model.set(name, value)", [name, value])
        for message in self.page.evaluate("() => sent.splice(0)"):
            self.live.handle_message(message)
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def until(self, test: Callable[[], bool], *, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not test():
            assert time.monotonic() < end, "it did not happen"
            self.pump()

    def drawn(self) -> int:
        """Points in the chart, as drawn."""
        return self.page.locator(".dgx-live svg .mark-symbol.layer_5_marks path").count()

    def text(self, selector: str) -> str:
        return " ".join(self.page.locator(selector).first.text_content().split())

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)


@pytest.fixture
def watch(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def open_page(live: Live, **options: Any) -> Watched:
        made.append(Watched(browser, tmp_path, live, **options))
        return made[-1]

    yield open_page
    for one in made:
        one.page.close()
        one.live.close()
        assert one.wrong == []


def test_the_chart_grows_and_stop_and_resume_work(watch: Callable[..., Watched]) -> None:
    one = watch(Tuning(study(), "l1", ratio=0.5, epochs=400))
    one.until(lambda: one.drawn() >= 12)
    assert one.text(".dgx-badge") == "running" and one.button("Resume").is_hidden()
    first = one.drawn()
    one.until(lambda: one.drawn() > first)
    assert one.text(".dgx-words").startswith("round 1 of 2")
    one.button("Stop").click()
    one.until(lambda: one.text(".dgx-badge") == "stopped")
    assert one.live.state == "stopped" and one.button("Stop").is_hidden()
    rows = one.live.result.table.shape[0]
    one.pump()
    resting = one.drawn()
    one.page.wait_for_timeout(400)
    one.pump()
    assert one.drawn() == resting and one.live.result.table.shape[0] == rows
    one.button("Resume").click()
    one.until(lambda: one.drawn() > resting)
    assert one.text(".dgx-badge") == "running" and one.live.state == "running"


def test_a_run_that_is_over_shows_its_lines_named_and_its_cuts(watch: Callable[..., Watched]) -> None:
    one = watch(Tuning(study(), "l1", ratio=0.5, epochs=2, options=QUICK))
    one.until(lambda: one.text(".dgx-badge") == "finished")
    assert one.button("Stop").is_hidden() and one.button("Resume").is_hidden()
    drawn, cuts = one.text(".dgx-live svg"), [row["label"] for row in one.live.data["cuts"]]
    assert len(cuts) == 2
    for words in ("a (source)", "b (source)", "t (target)", *cuts):
        assert words in drawn
    assert one.page.locator(".dgx-live svg .mark-rule.layer_1_marks line").count() == 2
    assert one.page.locator(".dgx-live svg .mark-line.layer_4_marks path").count() == 3
    assert one.drawn() == len(one.live.data["curves"])
    assert one.text(".dgx-title-words").endswith("50 % of the filters, in 2 rounds of 2 epochs")


def test_a_button_waits_for_its_answer_and_a_busy_kernel_is_named(watch: Callable[..., Watched]) -> None:
    gate = Gate()
    one = watch(Live(gate, title="a run"))
    one.button("Stop").click()
    one.page.wait_for_selector("button:disabled:has-text('Stop')")
    one.page.wait_for_selector(".dgx-notice")
    assert one.text(".dgx-notice") == "Python is busy with another cell"
    one.pump()
    one.until(lambda: one.button("Resume").is_visible())
    assert one.page.locator(".dgx-notice").is_hidden() and one.button("Resume").is_enabled()


def test_errors_notes_and_a_stopped_kernel_are_shown_as_text(watch: Callable[..., Watched]) -> None:
    gate = Gate(fails_at=2)
    one = watch(Live(gate, title=HOSTILE))
    assert one.text(".dgx-title-words") == HOSTILE
    gate.open.release(2)
    one.until(lambda: one.text(".dgx-badge") == "failed")
    assert one.text(".dgx-notice") == "RuntimeError: <b>half-way</b>" and one.page.locator("img").count() == 0
    one.page.evaluate("() => window.explorers[0].model.tell('comm_live_update')")
    one.pump()
    assert "Run this cell again: the kernel has stopped" in one.text(".dgx-notice") and one.drawn() == 1


def test_a_kernel_that_stopped_silently_is_noticed(watch: Callable[..., Watched]) -> None:
    one = watch(Live(Gate(), title="a run"))
    one.page.evaluate(
        "() => { window.explorers[0].model.widget_manager = { kernel: { connectionStatus: 'connecting' } }; }"
    )
    one.page.wait_for_selector(".dgx-notice")
    one.page.wait_for_selector("button:disabled:has-text('Stop')")
    assert "the kernel has stopped" in one.text(".dgx-notice")


def test_every_button_keeps_its_keys_and_ending_leaves_nothing(watch: Callable[..., Watched]) -> None:
    one = watch(Live(Gate(), title="a run"))
    marked = "() => [...document.querySelectorAll('.dgx button')].map((one) => one.dataset.lmSuppressShortcuts)"
    assert set(one.page.evaluate(marked)) == {"true"} and violations(one.page) == []
    one.page.evaluate("() => window.explorers[0].end()")
    assert one.page.locator(".dgx").count() == 0
    one.page.evaluate(
        "() => window.explorers[0].model.set('status', {...window.explorers[0].model.get('status'), progress: 'late'})"
    )
    one.page.wait_for_timeout(100)


@pytest.mark.parametrize(("width", "dark"), [(1180, False), (760, True), (420, False)])
def test_nothing_is_cut_at_any_width(watch: Callable[..., Watched], width: int, dark: bool) -> None:
    rows = [
        {
            "scorer": "l1",
            "metric": "accuracy",
            "domain": name,
            "role": role,
            "value": 0.98 - 0.01 * k,
            "unit": "share",
            "ratio_achieved": 0.9,
            "budget": "macs",
            "round": k,
            "epoch": 10 * k,
            "stage": stage,
            "seen_by_scorer": seen,
        }
        for name, role, seen in (("photographs_of_digits", "source", "none"), ("mnist_m", "target", "images"))
        for k, stage in enumerate(("full", "cut", "tuned"))
    ]

    def run() -> Generator[Any, None, str]:
        yield PruneEvent(round=1, rounds=1, removed={}, rows=rows, so_far="all")
        return "all"

    one = watch(Live(run, title="A long title " * 8, epochs=40), width=width, dark=dark)
    one.until(lambda: one.drawn() == 6)
    measured = one.page.evaluate(
        """() => {
          const room = document.querySelector('.dgx-chart').getBoundingClientRect();
          const out = (box) => box.left < room.left - 1 || box.right > room.right + 1 || box.bottom > room.bottom + 1;
          return {
            page: document.documentElement.scrollWidth - document.documentElement.clientWidth,
            cut: [...document.querySelectorAll('.dgx-chart svg text')]
              .filter((text) => text.textContent && out(text.getBoundingClientRect())).map((text) => text.textContent),
          };
        }"""
    )
    assert measured == {"page": 0, "cut": []}
    ink = one.page.evaluate("() => document.querySelector('.mark-line.layer_4_marks path').getAttribute('stroke')")
    assert ink.startswith("rgb") == dark, "on a dark page the colours are mixed with white"
