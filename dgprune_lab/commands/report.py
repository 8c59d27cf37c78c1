"""`dgprune-lab report`: an explorer as one HTML page that works offline and without Jupyter."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import date
from pathlib import Path

from ..core import BatchNorm, check_writable_file, progress_bar, written
from ..scorers import Scorer
from ..study import Study, demo, prunable_words
from ..widgets.explorer.measurements import Choices, Measurements
from ..widgets.page.standalone import write_page

_SCORERS = ("l1", "bn_scale", "fpgm", "activation_l1", "taylor", "random")


def write_report(
    path: str | Path,
    *,
    study: Study | str = "digits",
    scorers: Sequence[str | Scorer] = _SCORERS,
    progress: bool = True,
) -> Path:
    """Measure a study on a grid of ratios and scorers and write one self-contained HTML page with a slider over it.

    Args:
        path: the file to write.
        study: the study to measure, or the name of a built-in one, see `dg.demo`.
        scorers: the scorers of the page; those that cannot run on this network are left out.
        progress: whether to draw a tqdm bar.

    Returns:
        The path. The page has less than 5 MB and opens with no network and no kernel.

    Raises:
        DgpruneError: a file that cannot be written (tried before anything is measured).
    """
    path = check_writable_file(path, argument="the page")
    study = demo(study) if isinstance(study, str) else study  # type: ignore[arg-type]  # refuses other names
    measured = Measurements(study, scorers=[])
    names = [name for name in map(measured.admit, scorers) if measured.unavailable(name) is None]
    settings: list[BatchNorm] = ["recalibrate", "as_is"] if study.has_batchnorm else ["as_is"]
    views = [
        Choices(id=0, ratio=0.5, scorer=name, scope="layer", budget="filters", batchnorm=setting, by="kernel")
        for name in names
        for setting in settings
    ]

    def fill() -> Generator[tuple[int, int], None, None]:
        for k, view in enumerate(views):
            for done, total, *_ in measured.fill(view):
                yield k * total + done, len(views) * total

    progress_bar(fill(), progress=progress)
    static = measured.static()
    menu = [entry for entry in static["scorers"] if entry["name"] in names]
    menu = [{**entry, "instead": entry["instead"] if entry["instead"] in names else None} for entry in menu]
    state = {
        "static": {**static, "scorers": menu, "host": ""},
        "choice": dict(views[0]),
        "status": {"ack": 0, "progress": None, "error": None, "message": None},
        "pins": [],
        "panels": {"list": [], "open": None, "charts": {}, "data": {}, "text": None, "error": None},
        "plans": [measured.plan(view) for view in views if view["batchnorm"] == settings[0]],
        "curves": [measured.curve(view) for view in views],
    }
    lead = _lead(study, device=static["device"])
    with written(path):
        return write_page(path, state, title="What breaks first when filters are removed?", lead=lead)


def _lead(study: Study, *, device: str) -> str:
    """What was measured, when, and how to read the page."""
    refused = prunable_words(study.graph)
    filters = f"{study.graph.free} filters in {len(study.graph.groups)} layers{'; ' * bool(refused)}{refused}"
    return (
        f"Study {study.name}, {date.today():%Y-%m-%d}: {filters}. Move the slider: every number was measured on all "
        f"images of the report splits, without fine-tuning, on {device}. Accuracies have 95 % intervals over images; "
        "solid lines are source domains, dashed lines targets. B shows which filters stay, C what is left of the "
        "network, D the change from the full network. Numbers of a scorer that used a domain are marked, and a line "
        "says what it used."
    )
