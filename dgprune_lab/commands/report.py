"""The first look as one page that needs neither Jupyter nor a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core import BatchNorm
from ..scorers import Scorer
from ..study import Study, demo
from ..widgets.explorer.measurements import Choices, Measurements, frame_key
from ..widgets.explorer.payloads import CURVE_RATIOS
from ..widgets.page import static
from ..widgets.page.standalone import write_page

_SCORERS = ("l1", "bn_scale", "fpgm", "activation_l1", "taylor", "random")


def write_report(
    path: str | Path, *, study: Study | None = None, scorers: Sequence[str | Scorer] = _SCORERS, progress: bool = True
) -> Path:
    """Measure a study on a grid of ratios and scorers and write one self-contained HTML page with a slider over it.

    Args:
        path: the file to write.
        study: what to look at; the demo where None.
        scorers: which scorers; those that cannot run on this network are left out.
        progress: draw a tqdm bar.

    Returns:
        The path. Under 5 MB; opens with no network and no kernel.
    """
    study = study or demo()
    measured = Measurements(study, scorers=[])
    chosen = [name for name in map(measured.admit, scorers) if measured.unavailable(name) is None]
    settings: list[BatchNorm] = ["recalibrate", "as_is"] if study.has_batchnorm else ["as_is"]
    views = [_view(name, setting) for name in chosen for setting in settings]
    _fill(measured, views, progress=progress)
    words = measured.words()
    shown = [
        {**entry, "instead": entry["instead"] if entry["instead"] in chosen else None}
        for entry in words["scorers"]
        if entry["name"] in chosen
    ]
    state = {
        "static": {**words, "scorers": shown, "specs": static.specs(), "host": ""},
        "choice": dict(views[0]),
        "status": {"ack": 0, "progress": None, "error": None, "message": None},
        "pins": [],
        "panels": {"list": [], "open": None, "charts": {}, "data": {}, "text": None, "error": None},
        "plans_by_key": [measured.plan(view) for view in views if view["batchnorm"] == settings[0]],
        "frames_by_key": [{"key": frame_key(view), "rows": measured.rows(view)} for view in views],
    }
    lead = (
        f"{study.graph.free} filters in {len(study.graph.groups)} layers. Move the slider: every number was measured "
        f"on all images of the report parts, with no training after removal, on {words['device']}. Where a choice of "
        "filters looked at a domain, its numbers are marked and a line says what it looked at."
    )
    return write_page(path, state, title="What breaks first when filters go?", lead=lead)


def _view(scorer: str, batchnorm: BatchNorm) -> Choices:
    return Choices(id=0, ratio=0.5, scorer=scorer, scope="layer", budget="filters", batchnorm=batchnorm, by="kernel")


def _fill(measured: Measurements, views: Sequence[Choices], *, progress: bool) -> None:
    from tqdm.auto import tqdm

    with tqdm(total=len(views) * len(CURVE_RATIOS), unit="network", disable=not progress) as bar:
        for k, view in enumerate(views):
            for done, _ in measured.fill(view):
                bar.update(k * len(CURVE_RATIOS) + done - bar.n)
