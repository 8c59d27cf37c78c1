"""A page of the explorer in a browser, for tests."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

SLIDER = ".dgx-remove input"
PATIENCE = 120_000  # ms; a busy machine takes long, and nobody waits for what is there


@cache
def axe() -> str:
    """The script of axe-core, which a package for Playwright brings along."""
    pytest.importorskip("axe_playwright_python")
    found = find_spec("axe_playwright_python")
    assert found is not None and found.origin is not None
    return Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8")


def violations(page: Any, root: str = "html") -> list[str]:
    """What axe-core finds wrong in an element of a page, by all of its rules."""
    page.evaluate(axe())
    found = page.evaluate("async (root) => (await axe.run(root)).violations", root)
    return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


class Opened:
    """A page over a state, with everything it asked for and complained about."""

    def __init__(self, browser: Any, path: Path, *, width: int = 1240, height: int = 800) -> None:
        self.requests: list[str] = []
        self.wrong: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(PATIENCE)
        self.page.on("request", lambda request: self.requests.append(request.url))
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
              const line = svg.querySelector('.now_marks line');
              const plot = svg.querySelector('.mark-group .background').getBoundingClientRect();
              return 100 * (line.getBoundingClientRect().left - plot.left) / plot.width;
            }""",
            index,
        )

    def pixels(self, index: int = 0) -> str:
        return self.page.evaluate("(index) => document.querySelectorAll('.dgx-canvas')[index].toDataURL()", index)

    def text(self, selector: str) -> str:
        return " ".join(self.page.locator(selector).first.text_content().split())
