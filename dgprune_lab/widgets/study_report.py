"""A study as one HTML page that works offline and without Jupyter: an explorer over a grid measured in advance."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from ..core import BatchNorm, DgpruneError, NotNegative, check_writable_file, progress_bar, public, unknown, written
from ..scorers import Scorer
from ..study import DEMO_DOMAINS, Study, demo
from .explorer.choices import Choices
from .explorer.measurements import CURVE_RATIOS, Measurements
from .page.standalone import write_page
from .report_sections import html_above, html_below

_SCORERS = ("l1", "bn_scale", "activation_l1", "taylor", "dss", "random")
_COARSE, _FINE = CURVE_RATIOS, [round(k / 100, 2) for k in range(1 + round(100 * CURVE_RATIOS[-1]))]
_MAX_BYTES = 3_500_000  # of all measurements, besides 1.2 MB of Vega and the page itself


@public
def report(
    study: Study | str = "digits",
    path: str | Path = "report.html",
    *,
    scorers: Sequence[str | Scorer] = _SCORERS,
    seconds: NotNegative = 60.0,
    progress: bool = True,
) -> Path:
    """Measure a study on a grid of ratios and scorers and write one self-contained HTML page with a slider over it.

    The page also shows images of each domain, a table of the accuracies, which data training, scorers and selection
    have read, and how to read the page. Ratios are 5 % apart; then, one scorer after another, steps of 1 % are added as
    long as time and the size of the page permit.

    Args:
        study: the study to measure, or the name of a built-in one, see `dg.demo`.
        path: the file to write.
        scorers: scorers offered on the page; those that cannot run on this network are left out.
        seconds: steps of 1 % are added while the expected time of all measurements is within this limit; 0 for none.
        progress: whether to draw a tqdm bar.

    Returns:
        The path. With up to three domains, the page is smaller than 5 MB; every page opens offline.

    Raises:
        DgpruneError: a file that cannot be written (tested before any measurement); an unknown scorer or study; no
            scorer that can run on the study.
    """
    path = check_writable_file(path, argument="path")
    if isinstance(study, str) and study not in DEMO_DOMAINS:
        raise unknown("study", study, DEMO_DOMAINS)
    study = demo(study) if isinstance(study, str) else study  # type: ignore[arg-type]  # one of these names
    measured = Measurements(study, scorers=[])
    refusals = {name: measured.unavailable(name) for name in map(measured.admit, scorers)}
    names = [name for name, reason in refusals.items() if reason is None]
    if not names:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refusals.items()) or "got none"
        raise DgpruneError(f"scorers must hold one that can run on this study ({reasons}); name others, such as 'l1'.")
    settings: list[BatchNorm] = ["recalibrate", "as_is"] if study.has_batchnorm else ["as_is"]
    views = [
        Choices(id=0, ratio=0.5, scorer=name, scope="layer", budget="filters", batchnorm=setting, by="kernel")
        for setting in settings
        for name in names
    ]
    progress_bar(_measure_grid(measured, views, seconds=seconds), progress=progress)
    static = measured.static()
    menu = [entry for entry in static["scorers"] if entry["name"] in names]
    menu = [{**entry, "instead": entry["instead"] if entry["instead"] in names else None} for entry in menu]
    first_views = views[: len(names)]
    state = {
        "static": {**static, "scorers": menu, "host": ""},
        "choice": dict(views[0]),
        "status": {"ack": 0, "progress": None, "error": None, "message": None},
        "pins": [],
        "panels": {"list": [], "open": None, "charts": {}, "data": {}, "text": None, "error": None},
        "plans": [measured.plan(view) for view in first_views],
        "curves": [measured.curve(view) for view in views],
    }
    title = f"{study.name}: what breaks first when filters are removed?"
    with written(path):
        return write_page(path, state, title=title, above=html_above(study), below=html_below(measured, first_views))


def _measure_grid(
    measured: Measurements, views: Sequence[Choices], *, seconds: float
) -> Generator[tuple[int, int, str], None, None]:
    """Measure the curve of each view in steps of 5 %, then, one view after the other, in steps of 1 %.

    Yields (evaluations done, total, stage in words), counted per stage, as time decides how many stages follow.
    """
    start, done, total = time.monotonic(), 0, len(views) * len(_COARSE)
    for view in views:
        for number, *_ in measured.fill(view, _COARSE):
            yield done + number, total, "steps of 5 %"
        done += len(_COARSE)
    sizes = {k: len(json.dumps(measured.curve(view))) for k, view in enumerate(views)}
    extra = len(_FINE) - len(_COARSE)
    for k, view in enumerate(views):
        sizes[k] = round(sizes[k] * len(_FINE) / len(_COARSE))
        expected = (time.monotonic() - start) * (1 + extra / max(1, done))
        if expected > seconds or sum(sizes.values()) > _MAX_BYTES:
            return
        for number, *_ in measured.fill(view, _FINE):
            yield max(0, number - len(_COARSE)), extra, f"steps of 1 %, curve {k + 1} of up to {len(views)}"
        done += extra
