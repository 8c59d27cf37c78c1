"""Timings that need a browser: the slider's response, and the notebook's cold start."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from ...core import DgpruneError
from .browser_lab import LabPage, lab_page
from .timing import Row

_NOTEBOOK = "00_start.ipynb"
_FIRST = "() => (document.querySelector('.dgx-a .dgx-chart')?.vegaView?.data('dots') ?? []).length > 0"
# Moves by one key press (sent as an input event, to exclude the time of the browser driver) and watches the page:
# resolves with milliseconds to the new savings, the first accuracy of the new ratio, and all images.
_MOVE = """
([selector, value]) => new Promise((resolve) => {
  const root = document.querySelector('.dgx-explorer'), slider = root.querySelector(selector);
  const badge = root.querySelector('.dgx-badge'), left = root.querySelector('.dgx-c .dgx-chart').vegaView;
  const before = JSON.stringify(left.data('left')), times = {}, start = performance.now();
  slider.focus();
  slider.value = value;
  slider.dispatchEvent(new Event('input', { bubbles: true }));
  const look = () => {
    const now = performance.now() - start, state = badge.dataset.state;
    if (!('savings' in times) && JSON.stringify(left.data('left')) !== before) times.savings = now;
    if ('savings' in times && !('accuracy' in times) && state !== 'stale') times.accuracy = now;
    if ('accuracy' in times && state === 'exact') times.exact = now;
    if ('exact' in times || now > 20000) resolve(times); else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})
"""
# Moves the slider once a frame of the screen for some seconds; resolves with the frames drawn per second.
_GLIDE = """
(seconds) => new Promise((resolve) => {
  const slider = document.querySelector('.dgx input[type=range][aria-label^=Remove]'), start = performance.now();
  let frames = 0;
  const step = () => {
    const spent = (performance.now() - start) / 1000;
    if (spent >= seconds) return resolve(frames / spent);
    slider.value = 5 + ((2 * frames) % 85);
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    frames += 1;
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})
"""
_SLIDER, _HANDLE = "input[type=range][aria-label^=Remove]", "input[type=range].dgx-handle"
_STEPS = 20
# Makes a session of this many steps, each of which removes a little, and goes back to the full network.
_MAKE_STEPS = """
explorer.scorer = 'l1'
while len(explorer.steps) < {steps}:
    explorer.ratio = 0.06
    explorer.apply()
explorer.step = 0
explorer.wait(curves=True, timeout=300)
"""
_SAVE = """
import tempfile, time
with tempfile.TemporaryDirectory() as place:
    start = time.perf_counter()
    explorer.save(place + '/session')
    print(time.perf_counter() - start)
"""
_AIMS = {
    "savings": ("slider event to filter grid and savings, p95", "<= 100 ms"),
    "accuracy": ("slider event to accuracy (estimate or better), p95", "<= 400 ms"),
    "exact": ("slider event to accuracy on all images, p95", "<= 3,000 ms"),
}


def browser_rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Yield the times from a notebook's cold start to its first chart, and from a slider event to each response.

    The responses are the savings, the first accuracy, and the accuracy on all images. Timed on the CPU only, where the
    demo runs; skipped without Chromium or playwright.
    """
    with tempfile.TemporaryDirectory(prefix="dgprune-bench-") as folder:
        try:
            with lab_page(Path(folder)) as lab:
                yield from _rows(lab, repeats=8 if quick else 30)
        except (DgpruneError, ImportError) as error:
            print(f"browser rows skipped: {error}")


def _rows(lab: LabPage, *, repeats: int) -> Iterator[Row]:
    start = time.perf_counter()
    lab.open(_NOTEBOOK)
    lab.run_all()
    lab.page.wait_for_function(_FIRST, timeout=120_000)
    note = "opening the notebook in JupyterLab, its kernel, running every cell, until chart A has dots"
    name = "notebook cold start to first chart"
    yield Row(name=name, ours=time.perf_counter() - start, aim="<= 15 s", note=note)
    lab.kernel("explorer.scorer = 'taylor'; explorer.wait(curves=True)")
    lab.settled()
    moves = _time_moves(lab, _SLIDER, repeats)
    for key, (name, aim) in _AIMS.items():
        case = "the pause of 120 ms included; demo, to ratios not measured before"
        yield _response_row(name, moves, key=key, aim=aim, case=case)
    yield from _handle_and_session(lab, repeats)
    note = "resident, first notebook run, sliders moved"
    yield Row(name="kernel memory after use", ours=_kernel_memory(lab), unit="MB", aim="<= 1,200 MB", note=note)
    yield from _panel_rows(lab, seconds=1.0 if repeats < 30 else 5.0)


def _handle_and_session(lab: LabPage, repeats: int) -> Iterator[Row]:
    """Yield response times of a layer's handle and, with many steps, of the slider; and the time to save the steps."""
    name, aim = "handle of a layer to filter grid and savings, p95", _AIMS["savings"][1]
    yield _response_row(name, _time_moves(lab, _HANDLE, repeats), aim=aim, case="demo, first layer")
    lab.kernel(_MAKE_STEPS.format(steps=_STEPS), timeout=600)
    lab.settled()
    name = f"slider event to filter grid and savings, {_STEPS} steps in the tree, p95"
    case = "demo, full network, to ratios not measured before"
    yield _response_row(name, _time_moves(lab, _SLIDER, repeats), aim=aim, case=case)
    saved = float(lab.kernel(_SAVE, timeout=120))
    yield Row(name=f"saving a session of {_STEPS} steps", ours=saved, aim="< 2 s", note="demo, into a folder")


def _time_moves(lab: LabPage, selector: str, repeats: int) -> list[dict[str, float]]:
    """Move a slider on the page to ratios that are not on the curve; return the milliseconds until each response."""
    values = [5 + (37 * k) % 90 for k in range(repeats)]
    return [lab.page.evaluate(_MOVE, [selector, value + (value % 5 == 0)]) for value in values]


def _response_row(name: str, moves: list[dict[str, float]], *, key: str = "savings", aim: str, case: str) -> Row:
    """Return the row for a response time: its 95th percentile, with the median in the note."""
    times = sorted(move[key] for move in moves if key in move)
    count = len(times)
    note = f"p50 {times[count // 2]:.0f} ms; {case}, {count} moves"
    return Row(name=name, ours=times[min(count - 1, int(0.95 * count))], unit="ms", repeats=count, aim=aim, note=note)


def _panel_rows(lab: LabPage, *, seconds: float) -> Iterator[Row]:
    """Yield the time until each panel is open and idle, and how smoothly the slider moves the points in one of them."""
    for button in lab.page.locator(".dgx-more button:not([disabled])").all():
        button.click()
        lab.kernel("explorer.wait_idle(timeout=150)", timeout=180)
        if button.get_attribute("data-name") == "features":
            lab.page.wait_for_timeout(1500)
            rate = float(lab.page.evaluate(_GLIDE, seconds))
            points = "[...document.querySelectorAll('.dgx-panel-chart')][0].vegaView.data('points').length"
            note = f"{lab.page.evaluate(f'() => {points}')} images, a point, a hollow point and a line each"
            name = "frames per second, slider moving the map of features"
            yield Row(name=name, ours=rate, unit="1/s", aim=">= 30", note=note)
    note = "resident, as above, then each panel of the explorer opened and at rest; the map's own process has ended"
    yield Row(name="kernel memory, all panels opened", ours=_kernel_memory(lab), unit="MB", aim="< 1,500 MB", note=note)


def _kernel_memory(lab: LabPage) -> float:
    """Return the memory that the kernel uses, in megabytes."""
    return float(lab.kernel("import psutil; print(psutil.Process().memory_info().rss / 1e6)"))
