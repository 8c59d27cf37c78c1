"""The first notebook in a real JupyterLab in a real browser: the slider is dragged, the chart must change."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from notebook_page import NotebookPage
from page_driver import violations

import dgprune_lab as dg
from dgprune_lab.commands.bench.browser_lab import lab_page

pytestmark = pytest.mark.browser
NOTEBOOK = "00_start.ipynb"
WORKERS = "import threading; print(sum(t.name == 'dgprune-explorer' for t in threading.enumerate()))"

OWN = """
@dg.scorer("largest_weight", label="Largest weight")
def largest_weight(view):
    'Largest absolute weight of a filter.'
    return view.weight.abs().amax(1)

explorer.scorer = largest_weight
"""

# Sent from inside the page, so that no pause of the test's own driver counts as a rest of the slider. It returns how
# often a busy machine has made the slider rest all the same.
BURST = """
async () => {
  const slider = document.querySelector('.dgx input[type=range][aria-label^=Remove]');
  let rests = 0;
  for (let k = 0; k < 200; k += 1) {
    const start = performance.now();
    slider.value = 10 + ((7 * k) % 80);
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    await new Promise((resolve) => setTimeout(resolve, 4));
    if (performance.now() - start > 100) rests += 1;
  }
  return rests;
}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookPage]:
    with lab_page(tmp_path_factory.mktemp("lab"), kind=NotebookPage) as opened:
        opened.open(NOTEBOOK)
        opened.run_all()
        opened.kernel(OWN + "explorer.scorer = 'l1'; explorer.wait()")
        opened.settled()
        yield opened


def now(lab: NotebookPage) -> float:
    """The ratio that chart A shows, in percent."""
    return lab.data("a", "now")[0]["removed"]


def shown(lab: NotebookPage) -> dict[str, float]:
    """Accuracy per domain behind chart A's dots, in percent."""
    return {row["domain"]: row["value"] for row in lab.data("a", "dots")}


def measured(lab: NotebookPage) -> dict[str, float]:
    """The same from the kernel, by the slow way."""
    code = """
import json
_mask = dg.allocate(study.score("l1"), ratio=explorer.ratio)
_frame = dg.measure(dg.prune(study.model, _mask), study.domains, batchnorm=explorer.batchnorm, latency=False)
_accuracy = _frame[_frame.metric == "accuracy"].set_index("domain").value
print(json.dumps({name: 100 * value for name, value in _accuracy.items()}))
"""
    return json.loads(lab.kernel(code))


def wait_until(test: Callable[[], bool], *, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if test():
            return True
        time.sleep(0.1)
    return False


def assert_shown(lab: NotebookPage, expected: dict[str, float]) -> None:
    """The page, which hears of a change in the kernel a moment later, comes to show these accuracies."""
    lab.settled()
    wait_until(lambda: shown(lab) == pytest.approx(expected), seconds=10)
    assert shown(lab) == pytest.approx(expected)


def assert_measured(lab: NotebookPage) -> None:
    """The page comes to show what the kernel's network gives, also where the kernel hears of a move late."""
    lab.settled()
    assert wait_until(lambda: shown(lab) == pytest.approx(measured(lab)))


def test_the_notebook_runs_without_an_error_and_asks_nobody_outside(lab: NotebookPage) -> None:
    assert lab.errors() == []
    assert lab.outside == []
    assert lab.page.locator(".dgx-explorer").count() == 1
    lab.page.locator(".dgx-explorer select option", has_text="Largest weight").first.wait_for(state="attached")


def test_the_mouse_moves_the_slider_and_every_number_follows(lab: NotebookPage) -> None:
    before = now(lab), shown(lab), lab.data("c", "left"), lab.text("sentence")
    lab.drag(0.7)
    assert wait_until(lambda: abs(now(lab) - 70) <= 2)
    lab.settled()
    assert wait_until(lambda: shown(lab) == pytest.approx(measured(lab)))
    after = now(lab), shown(lab), lab.data("c", "left"), lab.text("sentence")
    assert all(a != b for a, b in zip(before, after, strict=True))


@pytest.mark.filterwarnings("ignore:undo and redo leave out choices by largest_weight")
def test_the_session_is_downloaded_and_goes_on_in_another_process(lab: NotebookPage, tmp_path: Path) -> None:
    with lab.page.expect_download(timeout=120_000) as saved:
        lab.page.get_by_role("button", name="Download").click()
    saved.value.save_as(tmp_path / saved.value.suggested_filename)
    explorer = dg.Explorer.load(tmp_path / "digits-session.zip", dg.demo(), panels=[])
    table = explorer.table
    explorer.close()
    accuracy = table[table.metric == "accuracy"].set_index("domain").value
    assert shown(lab) == pytest.approx({name: 100 * value for name, value in accuracy.items()})


def test_keys_move_the_slider_and_do_not_reach_the_notebook(lab: NotebookPage) -> None:
    cells = lab.page.locator(".jp-Cell").count()
    lab.slider().click()
    assert wait_until(lambda: round(now(lab)) == int(lab.slider().input_value()))
    start = now(lab)
    for _ in range(3):
        lab.page.keyboard.press("ArrowLeft")
    assert wait_until(lambda: round(now(lab)) == round(start) - 3)
    for key in ("b", "a", "x", "d", "d"):
        lab.page.keyboard.press(key)
    assert lab.page.locator(".jp-Cell").count() == cells
    assert_measured(lab)


def test_layers_and_filters_set_by_hand_hold_while_the_slider_moves(lab: NotebookPage) -> None:
    def said(code: str) -> object:
        return json.loads(lab.kernel(f"import json; print(json.dumps({code}))"))

    first, second, *_ = said("list(study.graph.names)")  # type: ignore[misc]
    try:
        handle = lab.page.get_by_role("slider", name=f"{second}: share removed")
        handle.press("Home")
        for _ in range(3):
            handle.press("ArrowRight")
        assert wait_until(lambda: said("explorer.layers") == {second: 0.03})
        canvas = lab.page.locator(".dgx-canvas")
        for key in ("ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "r"):
            canvas.press(key)
        assert wait_until(lambda: said("explorer.forced.get('remove')") == {first: [0, 1, 2]})
        lab.drag(0.6)
        lab.settled()
        kept = said(f"[explorer.mask.kept(name) for name in ({first!r}, {second!r})]")
        filters = said(f"study.graph[{second!r}].filters")
        assert not {0, 1, 2} & set(kept[0]) and len(kept[1]) == filters - int(0.03 * filters)  # type: ignore
        assert said("explorer.forced.get('remove')") == {first: [0, 1, 2]} and said("explorer.layers") == {second: 0.03}
    finally:  # the tests below begin from a view in which nothing is set by hand
        lab.kernel("explorer.choose(layers={}, forced={})")
    assert_measured(lab)


def test_two_hundred_events_are_at_most_three_evaluations_and_other_cells_run(lab: NotebookPage) -> None:
    asked = "print(explorer.evaluations['requested'])"
    lab.slider().click()
    lab.settled()
    lab.kernel("explorer.wait(curves=True)")
    before = int(lab.kernel(asked))
    cell = lab.start("print(sum(range(10)))")
    rests = lab.page.evaluate(BURST)
    assert lab.collect(cell) == "45\n"
    assert wait_until(lambda: round(now(lab)) == round(100 * float(lab.kernel("print(explorer.ratio)"))) == 43)
    lab.settled()
    assert int(lab.kernel(asked)) - before <= 3 + rests
    assert shown(lab) == pytest.approx(measured(lab))


def answered_while_busy(lab: NotebookPage, fraction: float) -> None:
    """Move the slider while a cell runs, which ends when it finds that this very ratio was measured meanwhile."""
    busy = lab.begin(f"""
import time
_before, _end, _measured = explorer.evaluations["requested"], time.monotonic() + 60, False
while not _measured and time.monotonic() < _end:
    time.sleep(0.05)
    _ratio = explorer.choice["ratio"]
    _measured = abs(_ratio - {fraction}) < 0.015 and any(
        row["ratio"] == _ratio and not row["estimate"] for row in explorer.frames["rows"]
    )
print(_measured, _ratio, explorer.evaluations["requested"] - _before)
""")
    lab.drag(fraction)
    measured, ratio, evaluated = lab.collect(busy, timeout=90).split()
    assert measured == "True" and float(ratio) == pytest.approx(now(lab) / 100, abs=0.01) and int(evaluated) >= 1


@pytest.mark.parametrize(("before", "fraction"), [("pass", 0.23), ("explorer.ratio = 0.3", 0.28)])
def test_the_slider_is_answered_while_a_cell_runs(lab: NotebookPage, before: str, fraction: float) -> None:
    lab.kernel(before)
    answered_while_busy(lab, fraction)


def test_a_cell_moves_the_slider(lab: NotebookPage) -> None:
    lab.kernel("explorer.ratio = 0.6")
    assert wait_until(lambda: lab.slider().input_value() == "60")
    assert_measured(lab)


def test_an_error_shows_in_the_widget_and_can_be_tried_again(lab: NotebookPage) -> None:
    sentence = lab.text("sentence")
    lab.kernel("""
_fine = study.score_all
def _fails(*a, **k): raise RuntimeError("the disk is on fire")
study.score_all = _fails
explorer.ratio = 0.66
""")
    lab.page.locator(".dgx", has_text="the disk is on fire").wait_for()
    assert sentence in lab.text("sentence")
    lab.kernel("study.score_all = _fine")
    lab.page.get_by_role("button", name="Try again").click()
    assert_measured(lab)


def cell_text(lab: NotebookPage) -> str:
    return lab.page.locator(".jp-CodeCell .cm-content").last.text_content() or ""  # of a cell out of view too


def test_undo_is_the_explorers_in_it_and_the_cells_in_a_cell(lab: NotebookPage) -> None:
    lab.kernel("explorer.ratio = 0.2; explorer.wait()")
    lab.kernel("explorer.ratio = 0.4; explorer.wait()")
    assert wait_until(lambda: round(now(lab)) == 40)
    lab.page.locator(".jp-CodeCell .cm-content").last.click()
    lab.page.keyboard.type("# 1")
    assert "# 1" in cell_text(lab)
    lab.page.get_by_role("button", name="Fine-tune…").click()  # a text field has its own undo
    lab.page.wait_for_function("document.activeElement.tagName === 'INPUT'")
    lab.page.keyboard.type("7")
    lab.page.keyboard.press("Control+z")
    assert round(now(lab)) == 40 and "# 1" in cell_text(lab)
    lab.slider().focus()
    lab.page.keyboard.press("Control+z")
    assert wait_until(lambda: round(now(lab)) == 20)
    lab.page.keyboard.press("Control+Shift+Z")
    assert wait_until(lambda: round(now(lab)) == 40)
    assert "# 1" in cell_text(lab)
    lab.page.locator(".jp-CodeCell .cm-content").last.click()
    lab.page.keyboard.press("Control+z")
    assert wait_until(lambda: "# 1" not in cell_text(lab))
    assert round(now(lab)) == 40
    assert_measured(lab)


def test_a_step_is_made_and_left_by_the_tree(lab: NotebookPage) -> None:
    lab.kernel("explorer.choose(scorer='l1', ratio=0.4); explorer.wait()")
    lab.page.get_by_role("button", name="Apply", exact=True).click()
    step = lab.page.locator(".dgx-step[aria-current]")
    assert wait_until(lambda: step.get_attribute("data-step") == "1")
    lab.settled()
    code = """
import json
_rows = dg.measure(explorer.network, study.domains, latency=False).query("metric == 'accuracy'")
print(json.dumps(dict(zip(_rows.domain, 100 * _rows.value))))
"""
    assert_shown(lab, json.loads(lab.kernel(code)))
    lab.page.locator(".dgx-step[data-step='0']").click()
    assert wait_until(lambda: step.get_attribute("data-step") == "0")
    lab.settled()
    lab.kernel("explorer.ratio = 0.4; explorer.wait()")
    assert_measured(lab)


def test_two_views_on_one_page_move_together(lab: NotebookPage) -> None:
    lab.page.locator(".jp-Notebook .jp-CodeCell").last.click()
    lab.page.keyboard.press("Escape")
    lab.page.keyboard.press("b")
    lab.page.keyboard.press("Enter")
    lab.page.keyboard.type("explorer")
    lab.page.keyboard.press("Shift+Enter")
    lab.page.locator(".dgx-explorer").nth(1).wait_for()
    wait_until(lambda: lab.slider(1).is_visible())
    lab.drag(0.4, index=1)
    assert wait_until(lambda: lab.slider(0).input_value() == lab.slider(1).input_value())
    lab.settled(index=0)
    lab.settled(index=1)
    assert lab.data("a", "dots", index=0) == lab.data("a", "dots", index=1)


def test_running_the_cell_again_leaves_one_worker_at_the_most(lab: NotebookPage) -> None:
    cell = lab.page.locator(".jp-CodeCell", has_text="explorer = dg.Explorer(study").first
    for _ in range(2):
        cell.locator(".jp-InputArea").first.click()
        lab.page.keyboard.press("Shift+Enter")
        time.sleep(1)
    lab.kernel("explorer.wait(curves=True)")
    assert wait_until(lambda: int(lab.kernel(WORKERS)) <= 1)
    assert wait_until(lambda: int(lab.kernel(WORKERS)) == 0)


def test_a_new_explorer_is_answered_while_a_cell_runs(lab: NotebookPage) -> None:
    lab.page.locator(".jp-CodeCell", has_text="explorer = dg.Explorer(study").first.locator(
        ".jp-InputArea"
    ).first.click()
    lab.page.keyboard.press("Shift+Enter")
    assert wait_until(lambda: lab.kernel("print(explorer.evaluations['requested'])") == "1\n")
    answered_while_busy(lab, 0.33)


def test_an_interrupt_hits_the_cell_and_not_the_explorer(lab: NotebookPage) -> None:
    lab.begin("import time; time.sleep(300)")
    lab.page.locator("[data-command='notebook:interrupt-kernel'], [title*='Interrupt']").first.click()
    assert wait_until(lambda: lab.kernel("print('free')") == "free\n")  # what came too soon was aborted too
    lab.drag(0.5)
    assert_measured(lab)


def test_notebook_7_shows_the_widgets_and_they_act(lab: NotebookPage) -> None:
    ask = "ask = dg.predict('Which?', ['left', 'right']); ask.reveal('left', because='It was.', wait=True); ask"
    setting = "sources=study.sources[:1], schedule=None, images=100, options=dg.TrainingOptions(epochs=2)"
    train = f"live = dg.widgets.Training(dg.models.networks.lenet(), {setting}); live"
    seven = lab.in_notebook_7("seven.ipynb", "first = dg.Explorer(study, images=100); first", ask, train)
    seven.run_all()
    seven.settled()
    before = seven.page.locator(".dgx-canvas").evaluate("(canvas) => canvas.toDataURL()")
    seven.drag(0.7)
    assert wait_until(lambda: abs(float(lab.kernel("print(first.ratio)")) - 0.7) < 0.02)
    assert before != seven.page.locator(".dgx-canvas").evaluate("(canvas) => canvas.toDataURL()")
    seven.page.get_by_role("radio", name="right").check()
    seven.page.get_by_role("button", name="Show the answer").click()
    assert "It was." in seven.page.locator(".dgx-guess-words").inner_text()
    assert wait_until(lambda: lab.kernel("print(ask.guess, ask.locked)") == "right True\n")
    points = "() => Object.values(document.querySelector('.dgx-live .dgx-chart').vegaView.data('curves')).length > 0"
    seven.page.wait_for_function(points)
    assert seven.errors() == [] and seven.outside == [] and violations(seven.page, ".jp-Notebook .dgx") == []
    seven.page.close()
    lab.kernel("live.stop(); first.close()")


def test_after_a_reload_the_saved_notebook_shows_the_explorer_or_its_picture(lab: NotebookPage) -> None:
    lab.page.set_viewport_size({"width": 1400, "height": 2000})
    lab.slider().focus()
    before = lab.saved(NOTEBOOK)
    lab.page.keyboard.press("Control+s")  # the slider has the focus; saving is still the notebook's
    assert wait_until(lambda: lab.saved(NOTEBOOK) != before)
    lab.page.reload()
    lab.page.wait_for_selector(".jp-Notebook")
    lab.page.locator(".dgx-explorer, :text('Run this cell')").first.wait_for()
    assert lab.outside == []


def test_without_its_kernel_the_page_still_shows_what_was_computed(lab: NotebookPage) -> None:
    lab.page.set_viewport_size({"width": 1280, "height": 720})
    lab.run_all()
    lab.kernel("explorer.scorer = 'l1'; explorer.ratio = 0.5; explorer.wait(curves=True)")
    lab.settled()
    lab.delete_kernel()
    lab.page.wait_for_timeout(1000)

    def moved() -> bool:
        lab.drag(0.25)  # again, if the notebook scrolled away under the mouse
        lab.page.wait_for_timeout(300)
        return abs(now(lab) - 25) <= 2

    assert wait_until(moved)
    assert wait_until(lambda: lab.page.locator(".dgx", has_text="Run this cell again").count() >= 1)
    assert len(lab.data("a", "curves")) >= 60
