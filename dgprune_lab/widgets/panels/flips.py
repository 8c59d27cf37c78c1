"""The panel "Prediction flips": images that turned wrong or right, as pictures to browse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ...charts.drop import CAPTION
from ...charts.pixels.thumbnails import Strip, per_strip, picture_chart, picture_rows
from ...charts.theme import role_label
from ...core import exposure_label, exposure_of, rounded
from ...diagnostics._removal import Case
from ...diagnostics.flips import flipped
from ...stats import intervals
from ...study import Study
from .domains import case_frames, class_of, thumbnails, why_no_pictures
from .protocol import Frames, Panel, Rows, Specs, View

KINDS = {
    "right_to_wrong": "right before, wrong now",
    "wrong_to_right": "wrong before, right now",
    "changed": "another class than before (no labels)",
}


class FlipsPanel(Panel):
    """The images of each domain that turned from right to wrong, and from wrong to right, under the explorer's mask.

    Without labels: the images that are classified differently than before. A page shows about 24 images;
    `selected["page"]` is the page, counted from 0, and returns to 0 when the mask changes.
    """

    name, label = "flips", "Prediction flips"
    charts: Any = Specs({"flips": picture_chart})

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None

    def unavailable(self, study: Study) -> str | None:
        """Return why the panel cannot be shown (images cannot be shown as pictures), or None."""
        return why_no_pictures(study.domains[0])

    def tick(self, view: View) -> Iterator[Frames]:
        """Yield the selected page, after empty frames between batches if the mask is not measured yet."""
        key = (view.study.content, view.mask.key, view.batchnorm, view.images, view.calibration)
        if key != self._key:
            self._key, self.selected = key, {**(self.selected or {}), "page": 0}
        cases = yield from case_frames(view, view.mask, view.study.domains)
        yield self._frame(cases, images=view.measured)

    def _frame(self, cases: list[Case], *, images: str) -> Frames:
        room = per_strip(len(cases))
        flips = [_flip_flags(case) for case in cases]
        largest = max(int(flags.sum()) for kinds in flips for flags in kinds.values())
        pages = max(1, -(-largest // room))
        page = min(max(int((self.selected or {}).get("page") or 0), 0), pages - 1)
        window = slice(page * room, (page + 1) * room)
        strips = {
            _label_domain(case): [_make_strip(case, kind, flags=flags, window=window) for kind, flags in kinds.items()]
            for case, kinds in zip(cases, flips, strict=True)
        }
        truth = "" if any(case.domain.class_names for case in cases) else ", and its true class"
        text = f"Of {images}. Under each image: predicted before → predicted now{truth}. {CAPTION}"
        return {"flips": picture_rows(strips), "text": text, "pages": {"at": page, "of": pages}}


def _flip_flags(case: Case) -> dict[str, Tensor]:
    """Return metric -> (N,) bool for both directions of flips or, without labels, for changed predictions."""
    kinds = flipped(case.before, case.predicted)
    return {kind: flags for kind, flags in kinds.items() if kind != "changed"} or kinds


def _label_domain(case: Case) -> str:
    """Return a domain's name with its role and the mark of its exposure."""
    return case.domain.name + role_label(case.domain.role) + exposure_label(exposure_of(case.columns()))


def _make_strip(case: Case, kind: str, *, flags: Tensor, window: slice) -> Strip:
    places = flags.nonzero().flatten()
    count, total = len(places), len(flags)
    low, high = intervals.over_images(flags.double().cpu().numpy())
    share, *ends = (f"{rounded(100 * each, 1):.1f}" for each in (count / total, float(low), float(high)))
    text = f"{count:,} of {total:,} ({share} %, {' to '.join(ends)})"
    return Strip(kind=KINDS[kind], count=text, pictures=_list_pictures(case, places[window]), total=count)


def _class_names(case: Case, indices: Tensor) -> list[Any]:
    return [class_of(case.domain, index) for index in indices.tolist()]


def _list_pictures(case: Case, places: Tensor) -> Rows:
    if not len(places):
        return []
    before, index = case.before, case.before.index[places].cpu()
    columns = {
        "url": thumbnails(case.domain, index),
        "image": index.tolist(),
        "truth": [None] * len(places) if before.labels is None else _class_names(case, before.labels[places]),
        "before": _class_names(case, before.predicted[places]),
        "now": _class_names(case, case.predicted[places]),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
