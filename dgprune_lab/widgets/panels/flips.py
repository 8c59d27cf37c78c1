"""The panel "Images that flip": which images turned wrong, and which turned right, as pictures to browse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ...charts.drop import CAPTION
from ...charts.pixels.thumbnails import Strip, data_url, per_strip, picture_chart, picture_rows
from ...charts.theme import WORDS
from ...core import exposure_label, exposure_of, yielding
from ...diagnostics._removal import Case, Removal, case_steps
from ...diagnostics.flips import flipped
from ...stats import intervals
from ...study import Study
from .protocol import Frames, View

KINDS = {
    "right_to_wrong": "right before, wrong now",
    "wrong_to_right": "wrong before, right now",
    "changed": "read as another class than before (no labels)",
}


class FlipsPanel:
    """Per domain the images that turned from right to wrong and from wrong to right under the explorer's mask.

    Without labels those that are read as another class than before. A page shows about 24; `selected["page"]` is the
    page, counted from 0, and goes back to the first when the mask changes.
    """

    name, label = "flips", "Images that flip"

    def __init__(self) -> None:
        self.charts: Mapping[str, dict[str, Any]] = {"flips": picture_chart().to_dict()}
        self.selected: Any = None
        self._shown: tuple[Any, ...] | None = None

    def unavailable(self, study: Study) -> str | None:
        """Where images are no pictures."""
        channels = study.domains[0].shape[0]
        if channels in (1, 3, 4):
            return None
        return f"images of {channels} channels cannot be shown as pictures; 1, 3 or 4 can."

    def tick(self, view: View) -> Iterator[Frames]:
        """The page that is asked for; nothing between the batches of a mask that is not measured yet."""
        shown = (view.study.content, view.mask.key, view.batchnorm)
        if shown != self._shown:
            self._shown, self.selected = shown, {**(self.selected or {}), "page": 0}
        asked = Removal((), (), batchnorm=view.batchnorm)
        found: list[Case] = []
        for domain in view.study.domains:
            steps = case_steps(view.study, view.mask, domain=domain, asked=asked)
            found.append((yield from yielding(steps, {})))
        yield self._frames(found)

    def background(self, view: View) -> Iterator[Frames]:
        """Nothing further."""
        return iter(())

    def _frames(self, found: list[Case]) -> Frames:
        room = per_strip(len(found))
        turned = {case.domain.name: _kinds(case) for case in found}
        most = max(int(part.sum()) for kinds in turned.values() for part in kinds.values())
        pages = max(1, -(-most // room))
        page = min(max(int((self.selected or {}).get("page") or 0), 0), pages - 1)
        strips = {
            _name(case): [
                _strip(case, kind, part, slice(page * room, (page + 1) * room))
                for kind, part in turned[case.domain.name].items()
            ]
            for case in found
        }
        text = f"Under each image: read before → read now, and its true class. {CAPTION}"
        return {"flips": picture_rows(strips), "text": text, "pages": {"at": page, "of": pages}}


def _kinds(case: Case) -> dict[str, Tensor]:
    """What is shown of a domain: both directions, or without labels what changed."""
    found = flipped(case)
    return {kind: part for kind, part in found.items() if kind != "changed"} or found


def _name(case: Case) -> str:
    """A domain's name, its role in words, and the mark of what was looked at."""
    role = case.domain.role
    words = f" ({WORDS[role]})" if role in WORDS else ""
    return f"{case.domain.name}{words}{exposure_label(exposure_of(case.columns()))}"


def _strip(case: Case, kind: str, turned: Tensor, which: slice) -> Strip:
    """The pictures of one kind on one page."""
    places = turned.nonzero().flatten()
    rows = places[which]
    count, total = len(places), len(turned)
    low, high = intervals.over_images(turned.double().cpu().numpy())
    share = f"{100 * count / total:.1f} %, {100 * float(low):.1f} to {100 * float(high):.1f}"
    return Strip(KINDS[kind], f"{count:,} of {total:,} ({share})", _pictures(case, rows), count)


def _pictures(case: Case, places: Tensor) -> list[dict[str, Any]]:
    if not len(places):
        return []
    before, index = case.before, case.before.index[places].cpu()
    pixels = (case.domain.take(index, device="cpu").images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    truth = [None] * len(places) if before.labels is None else before.labels[places].tolist()
    read = zip(
        pixels, index.tolist(), truth, before.predicted[places].tolist(), case.predicted[places].tolist(), strict=True
    )
    return [
        {"url": data_url(np.ascontiguousarray(image)), "image": number, "truth": true, "before": was, "now": now}
        for image, number, true, was, now in read
    ]
