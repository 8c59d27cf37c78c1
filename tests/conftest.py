"""What every test may rely on: one thread, and skips that give their reason."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

# Read when torch is first imported; on shared cores two threads are slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

REQUIRE_BROWSER = "DGPRUNE_REQUIRE_BROWSER"


def browser_missing() -> str | None:
    """Why tests in a browser cannot run here; None if they can."""
    from dgprune_lab.commands.doctor import chromium

    if chromium() is None:
        return "Chromium is not installed: apt-get install -y chromium"
    if importlib.util.find_spec("playwright") is None:
        return 'playwright is not installed: pip install -e ".[test]"'
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run."""
    if item.get_closest_marker("browser") and (reason := browser_missing()):
        pytest.skip(reason)
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where browser tests are required, one that was skipped, for whatever reason, has failed."""
    report = yield
    required = os.environ.get(REQUIRE_BROWSER) == "1" and item.get_closest_marker("browser") is not None
    if required and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{REQUIRE_BROWSER}=1, but this test was skipped: {reason}"
    return report


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the system's Chromium; use it with the marker `browser`, which skips where there is none."""
    from dgprune_lab.commands.doctor import chromium as find

    path = find()
    assert path is not None
    return path


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data that DGPRUNE_DATA names."""
    named = os.environ.get("DGPRUNE_DATA")
    if not named:
        pytest.skip("DGPRUNE_DATA does not name a folder of data")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"DGPRUNE_DATA names {folder}, which is not there")
    return folder


@pytest.fixture(scope="module")
def browser(chromium: str) -> Generator[Any, None, None]:
    """Headless Chromium, started once per file."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()
