"""A study that is watched: what the widget says of a folder while runs are added, and that it is quiet meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from page_driver import PATIENCE, violations

import dgprune_lab as dg
from dgprune_lab.experiments import Experiment, Finding, Scratch, Settings, averages, compare, grid, over_targets, run
from dgprune_lab.widgets.page.standalone import page_text

HOSTILE = "</pre><img src=x onerror=alert(1)>"
GAIN = {"l1": 0.0, "dss": 0.02, "random": -0.01}

pytestmark = pytest.mark.filterwarnings("ignore:.* runs failed:dgprune_lab.core.errors.DgpruneNote")


def measured(settings: Settings, scratch: Scratch) -> Finding:
    """An accuracy of a source and a target that depends on scorer and seed; random at seed 1 fails."""
    scorer, seed = str(settings["scorer"]), int(settings["training_seed"] or 0)  # type: ignore[call-overload]
    if scorer == "random" and seed == 1:
        raise dg.DgpruneError(f"the loss is not finite {HOSTILE}")
    value = 0.9 + GAIN[scorer] + 0.001 * seed * (1 + len(scorer))
    shared = {"metric": "accuracy", "unit": "share", "target_aware": scorer == "dss", "seen_by_scorer": "none"}
    rows = [{**shared, "domain": "m", "role": "source", "value": value}]
    return Finding(rows=[*rows, {**shared, "domain": "mm", "role": "target", "value": value - 0.3}], data={})


def study(*, seeds: int = 3) -> Experiment:
    runs = grid(training_seed=range(seeds), scorer=["l1", "dss", "random"], ratio_requested=[0.6])
    return Experiment(name="made_up", question="Does it gain?", run=measured, grid=runs)


class Driver:
    """A study that takes as many runs as it is told to."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder, self._steps = folder, run.steps(study(**options), folder=folder)
        next(self._steps)

    def runs(self, count: int) -> None:
        for _ in range(count):
            next(self._steps)

    def end(self) -> None:
        for _ in self._steps:
            pass


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., dg.widgets.Experiment]]:
    made: list[dg.widgets.Experiment] = []

    def open_widget(**options: Any) -> dg.widgets.Experiment:
        made.append(dg.widgets.Experiment(tmp_path / "results", **{"seconds": 0.01, **options}))
        return made[-1]

    yield open_widget
    for one in made:
        one.close()


def until(test: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not test():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def seeds(shown: dg.widgets.Experiment) -> set[str]:
    """The training seeds of what is drawn of DSS."""
    return {row["seeds"] for row in shown.data["cells"] if row["row"] == "dss ◇"}


def test_runs_arrive_and_intervals_tighten_while_a_page_looks(watch: Any, tmp_path: Path) -> None:
    shown = watch(baseline="l1")
    assert shown.status["state"] == "waiting" and "Nothing has been written" in shown.status["error"]
    shown.set_trait("_view_count", 1)
    driver, widths = Driver(tmp_path / "results"), []
    for listed in ("0", "0, 1", "0, 1, 2"):
        driver.runs(3)
        until(lambda listed=listed: seeds(shown) == {listed})
        if listed == "0":
            assert "one training seed" in shown.chart["words"], "it says why it draws no differences"
            assert shown.chart["spec"]["title"]["text"] == "Accuracy (%)"
        widths += [row["high"] - row["low"] for row in shown.data["cells"] if row["row"] == "dss ◇"][:1]
    assert widths[0] == 0 and 0 < widths[2] < widths[1], "one training seed has no interval"
    until(lambda: shown.status["state"] == "finished")
    assert shown.status["error"] is None and shown.chart["words"] == ""


def test_nothing_is_read_or_sent_when_nothing_changed_or_no_page_looks(watch: Any, tmp_path: Path) -> None:
    driver = Driver(tmp_path / "results")
    driver.runs(2)
    shown = watch()
    looks, sent = [], []
    original = shown._refresh
    shown._refresh = lambda: (looks.append(1), original())
    shown.observe(sent.append, ["chart", "data", "status", "runs"])
    driver.runs(1)
    time.sleep(0.05)
    assert not looks and not sent, "no page shows it"
    shown.set_trait("_view_count", 1)
    until(lambda: len(looks) > 3)
    assert {event["name"] for event in sent} == {"data", "status", "runs", "chart"}
    sent.clear()
    seen = len(looks)
    until(lambda: len(looks) > seen + 3)
    assert not sent
    shown.close()
    seen = len(looks)
    time.sleep(0.05)
    assert len(looks) == seen and not [one for one in threading.enumerate() if one is shown._worker._thread]


def test_a_folder_of_something_else_is_said_and_a_picture_stays(watch: Any, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "results.sqlite").write_text("no database " * 100)
    shown = watch()
    assert shown.status["state"] == "waiting" and "not an SQLite database" in shown.status["error"]
    assert "not an SQLite database" in (still := shown.still()) and "<svg" not in still
    (tmp_path / "results" / "results.sqlite").unlink()
    Driver(tmp_path / "results").end()
    shown.set_trait("_view_count", 1)
    until(lambda: shown.status["state"] == "finished")
    assert "<svg" in (still := shown.still()) and "made_up: Does it gain?" in still and HOSTILE not in still
    (failed,) = shown.runs["failed"]
    assert failed["what"] == "training seed 1, scorer random, removed 60 %"
    assert failed["error"].endswith(HOSTILE) and "in measured" in failed["traceback"]
    assert shown.runs["latest"][0]["values"] == "m 90.4 %, mm 60.4 %"


@pytest.mark.parametrize(("given", "words"), [({"of": "scorr"}, "scorr"), ({"baseline": "l2"}, "'l2'")])
def test_a_wrong_name_is_said_in_the_widget(watch: Any, tmp_path: Path, given: dict[str, str], words: str) -> None:
    Driver(tmp_path / "results").end()
    assert words in watch(**given).chart["words"]


def test_what_is_drawn_are_the_differences_or_else_the_averages(watch: Any, tmp_path: Path) -> None:
    Driver(tmp_path / "results").end()
    shown = watch(baseline="l1")
    assert shown.status["title"] == "made_up: Does it gain?" and shown.status["state"] == "finished"
    assert shown.status["progress"] == "8 of 9 runs done, 1 failed, runs per training seed: 0: 3, 1: 2, 2: 3"
    assert shown.status["share"] == 1.0 and shown.chart["words"] == ""
    points = {(row["row"], row["column"]): row for row in shown.data["cells"]}
    assert set(points) == {(name, column) for name in ("dss ◇", "random") for column in ("m (source)", "mm (target)")}
    with pytest.warns(dg.DgpruneNote, match="training seed 1"):
        frame = compare(dg.experiments.Results(tmp_path / "results").table(), baseline="l1")
    wanted = frame[(frame.scorer == "dss") & (frame.domain == "mm")].iloc[0]
    found = points["dss ◇", "mm (target)"]
    assert (found["value"], found["low"]) == pytest.approx((100 * wanted["value"], 100 * wanted["low"]))
    shown.handle_message({"type": "baseline", "value": None})
    shown.set_trait("_view_count", 1)
    until(lambda: len(shown.data["cells"]) == 6)
    assert shown.chart["baseline"] is None and shown.chart["spec"]["title"]["text"] == "Accuracy (%)"
    assert shown.chart["names"] == ["l1", "dss", "random"]


def test_averages_are_over_training_seeds_and_draws_of_one_seed_count_as_one() -> None:
    rows = [(0, 0.1), (0, 0.3), (1, 0.4)]
    about = {"scorer": "random", "domain": "m", "metric": "accuracy", "ratio_requested": 0.5, "unit": "share"}
    frame = dg.tidy({**about, "training_seed": seed, "seed": k, "value": v} for k, (seed, v) in enumerate(rows))
    (row,) = averages(frame).to_dict("records")
    half = 12.7062 * abs(0.2 - 0.4) / 2
    assert (row["value"], row["seeds"]) == (pytest.approx(0.3), "0, 1")
    assert (row["low"], row["high"]) == (pytest.approx(0.3 - half, abs=1e-4), pytest.approx(0.3 + half, abs=1e-4))
    assert len(averages(pd.concat([frame, frame.assign(batchnorm="as_is")]))) == 2
    with pytest.raises(dg.DgpruneError, match="unknown metric 'loss'"):
        averages(frame, metric="loss")


@pytest.mark.browser
def test_the_page_draws_what_arrives_and_shows_a_traceback_as_text(watch: Any, tmp_path: Path, browser: Any) -> None:
    driver = Driver(tmp_path / "results")
    driver.runs(6)
    shown = watch(baseline="l1")
    names = ("static", "chart", "data", "status", "runs")
    path, wrong = tmp_path / "page.html", []
    path.write_text(page_text([{name: getattr(shown, name) for name in names}], title="study", entry="experiment"))
    page = browser.new_page(viewport={"width": 760, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(path.as_uri())
    model = "window.explorers[0].model"
    page.wait_for_selector(".dgx-study svg .mark-symbol path")
    before = page.locator(".dgx-study svg .mark-rule line").count()
    assert page.text_content(".dgx-badge") == "running" and "5 of 9 runs done, 1 failed" in page.text_content(
        ".dgx-words"
    )
    page.evaluate("() => { document.querySelector('.dgx-study svg').dataset.same = 'yes'; }")
    driver.end()
    shown._refresh()
    for name in names[1:]:
        page.evaluate(f"(value) => {model}.set('{name}', value)", getattr(shown, name))
    page.wait_for_function("() => document.querySelector('.dgx-badge').textContent === 'finished'")
    page.wait_for_function(f"() => document.querySelectorAll('.dgx-study svg .mark-rule line').length > {before}")
    assert page.get_attribute(".dgx-study svg", "data-same") == "yes", "rows are added to the chart that stands"
    page.click("summary:has-text('Failed runs (1)')")
    page.click("summary:has-text('random')")
    assert HOSTILE in page.text_content(".dgx-study-trace") and page.locator("img").count() == 0
    page.evaluate(f"() => {{ window.sent = []; {model}.send = (message) => window.sent.push(message); }}")
    page.select_option(".dgx-study select", "dss")
    assert page.evaluate("() => window.sent") == [{"type": "baseline", "value": "dss"}]
    cut = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(cut) == 0 and wrong == [] and violations(page) == []
    page.close()


def test_the_mean_over_targets_leaves_out_training_seeds_that_lack_one() -> None:
    about = {"role": "target", "metric": "accuracy", "unit": "share", "ratio_requested": 0.5}
    rows = [
        {**about, "scorer": scorer, "training_seed": seed, "target": t, "domain": t, "value": 0.1 * (k + seed + gain)}
        for scorer, gain in (("l1", 0), ("dss", 2))
        for seed in (0, 1, 2)
        for k, t in enumerate(("usps", "uci"))
        if (scorer, seed, t) != ("dss", 2, "uci")
    ]
    rows.append({**about, "scorer": "l1", "role": "source", "training_seed": 0, "domain": "mnist", "value": 0.9})
    frame = over_targets(dg.tidy(rows, extra=["target"]))
    assert set(frame["domain"]) == {"mean of 2 targets"} and "target" not in frame
    with pytest.raises(dg.DgpruneError, match=r"unknown column 'domian'; known: .*Did you mean 'domain'"):
        over_targets(dg.tidy(rows, extra=["target"]), across=["domian"])
    found = {(row["scorer"], row["training_seed"]): row["value"] for row in frame.to_dict("records")}
    wanted = {("l1", 0): 0.05, ("l1", 1): 0.15, ("l1", 2): 0.25, ("dss", 0): 0.25, ("dss", 1): 0.35}
    assert found == {key: pytest.approx(value) for key, value in wanted.items()}
    with pytest.warns(dg.DgpruneNote, match="training seed 2"):
        (row,) = compare(frame, baseline="l1").to_dict("records")
    assert row["value"] == pytest.approx(0.2) and row["seeds"] == "0, 1"
