"""What Python draws for a made-up state: the fixture that the page's own code must reproduce.

`python tests/js_fixture.py` writes `tests/js/fixture.json`; `test_page_code.py` fails where that file is out of date.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from explorer_state import make_curve, make_frame, make_plan, make_static
from read_study import read_study

import dgprune_lab as dg
from dgprune_lab.charts.curve_names import letter_rows, pinned_rows, place_names
from dgprune_lab.charts.marks import LABEL_HEIGHT
from dgprune_lab.charts.sweep import sweep_data
from dgprune_lab.widgets.explorer.frames import STEP
from dgprune_lab.widgets.explorer.plans import plan

PATH = Path(__file__).parent / "js" / "fixture.json"
HEIGHT, WIDTH = 300, 240


def fixture() -> dict[str, Any]:
    """Input of the page's functions beside what they must return."""
    frames = [make_frame("dss", ratio) for ratio in (0.0, 0.05, 0.1, 0.3, 0.35, 0.4)]  # with a gap
    now = frames[4]
    points = [point for frame in frames for point in frame.points]
    chart_a = sweep_data(points, now=now.payload["ratio"], chance=0.1, step=STEP, height=HEIGHT, width=WIDTH)
    labels = [
        {"value": value, "label": "n" * k} for k, value in enumerate((97.0, 98.5, 50.0, 51.0, 52.0, 99.9, 0.5, 1.0), 3)
    ]
    steep = [(8.0 + height / 100, float(height)) for height in range(26, 78, 2)]  # nothing is free near 50 %
    points_near = [(5.0, 97.0), (20.0, 90.0), (50.0, 85.0), (10.0, 50.0), (10.0, 46.0), *steep]
    around = {"width": 300, "lines": [98.5, 50.0, 10.0], "texts": [12.0], "points": points_near}
    pinned_curves = make_curve(*(make_frame("l1", ratio) for ratio in (0.5, 0.65, 0.75, 0.9)))["lines"]["curves"]
    pinned = pinned_rows(pinned_curves, letter="b")
    study, made_up = read_study(), make_plan("l1")
    scores = study.score("l2")
    masks = {ratio: dg.allocate(scores, ratio=ratio, scope="global") for ratio in (0.0, 0.25, 0.5, 0.9)}
    return {
        "names": {"rows": labels, "gap": 4.0, **around, "placed": place_names(labels, gap=4.0, **around)},
        "a": {
            "fixed": {"label_height": LABEL_HEIGHT, "chance": make_static()["chance"]},
            "curve": make_curve(*frames, scorer="dss"),
            "ratio": now.payload["ratio"],
            "height": HEIGHT,
            "width": WIDTH,
            "data": {name: chart_a[name] for name in ("curves", "gaps", "names", "dots", "now", "chance")},
            "points": pinned_curves,
            "pinned": pinned,
            "letters": letter_rows(pinned, letter="b"),
        },
        "masks": {
            "plan": plan(scores, scope="global", budget="filters", ratios=list(masks)),
            "keep": [[keep.int().tolist() for keep in mask.keep.values()] for mask in masks.values()],
        },
        "plan": {**made_up, "steps": made_up["steps"][:2]},
    }


def text() -> str:
    """The fixture as the file holds it."""
    return json.dumps(fixture(), ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
