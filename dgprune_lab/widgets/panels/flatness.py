"""The panel "Flatness": how the training loss curves around the network, with the pruned network marked."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from functools import partial
from typing import Any

from ...charts.flatness import flatness_chart, flatness_data
from ...charts.theme import records
from ...core import batchnorm_words, duration, tidy, yielding
from ...diagnostics.flatness import EXTRA, Setting, Surroundings, pruned_rows, surroundings
from ...measurement import lanczos_vectors
from ...study import Study, why_no_loss
from .protocol import Frames, Panel, Specs, View, button

_EMPTY: Mapping[str, Any] = {"curves": [], "names": [], "pruned": [], "words": []}
_PRODUCT, _GRADIENTS = 8, 25  # cost of a Hessian product and of the per-image gradients, in forward passes
_IMAGES = 250
_SCALE = (
    "These numbers depend on the scale of the weights: compare networks of one architecture and equal training loss."
)


class FlatnessPanel(Panel):
    """The curvature of the training loss around the present step's network, with the view's pruned network marked.

    Nothing is measured before the button is pressed, as it takes a minute or more; the text says how long. Moving the
    slider interrupts the measurement, which resumes afterwards.

    Attributes:
        around: the results; None before they are measured.
    """

    name, label = "flatness", "Flatness"
    charts: Any = Specs({"flatness": partial(flatness_chart, _EMPTY, width=620)})

    def __init__(self) -> None:
        self.around: Surroundings | None = None
        self._setting = Setting()
        self._cache_key: tuple[str, Setting] | None = None
        self._work: Generator[tuple[int, int, str], None, Surroundings] | None = None

    def unavailable(self, study: Study) -> str | None:
        """Return why the panel cannot be shown (no training loss can be measured), or None."""
        return why_no_loss(study, self._setting.split)

    def tick(self, view: View) -> Iterator[Frames]:
        """Yield the expected duration and a button, or else the results, and then the view's pruned network marked."""
        key = view.study.content, Setting(images=min(view.images or _IMAGES, _IMAGES))
        if key != self._cache_key:
            self._cache_key, self._setting, self.around, self._work = key, key[1], None, None
        pressed = (self.selected or {}).pop("pressed", None)
        if pressed == "measure":
            self._work = surroundings(view.study, self._setting, name=view.study.name)
        elif pressed == "stop":
            self._work = None
        yield self._text_frame(view)
        if self.around is not None:
            yield from self._mark_pruned(view, self.around)

    def background(self, view: View) -> Iterator[Frames]:
        """Yield the progress of a measurement, if one was requested; then its results."""
        while (work := self._work) is not None:
            try:
                done, total, quantity = next(work)
            except StopIteration as end:
                self.around, self._work = end.value, None
                yield self._text_frame(view)
                yield from self._mark_pruned(view, end.value)
                return
            except Exception:
                self._work = None
                yield self._text_frame(view)
                raise
            yield {"text": f"Measuring, {done / total:.0%}: {quantity}."}

    def close(self) -> None:
        """Drop an unfinished measurement."""
        self._work = None

    def _mark_pruned(self, view: View, around: Surroundings) -> Iterator[Frames]:
        pruned = yield from yielding(pruned_rows(view.study, around, view.mask), {})
        yield {"flatness": flatness_data(tidy([*around.rows, *pruned], extra=EXTRA))}

    def _text_frame(self, view: View) -> Frames:
        if self._work is not None:
            return {"text": "Measuring.", "actions": [button("Stop", "stop")], "hidden": ["flatness"]}
        if self.around is None:
            return {"text": self._announce(view), "actions": [button("Measure", "measure")], "hidden": ["flatness"]}
        return {"text": _describe_result(self.around), "actions": [], "hidden": []}

    def _announce(self, view: View) -> str:
        """Return what will be measured, on which images, and how long that takes."""
        setting, sources = self._setting, view.study.sources
        images = sum(len(source.rows(setting.split, setting.images)) for source in sources)
        products = lanczos_vectors(setting.top) + 2 + setting.draws
        seconds = view.seconds(images * (1 + setting.top * len(setting.steps) + _PRODUCT * products + _GRADIENTS))
        wait = f", about {duration(seconds)}" if seconds else ""
        return (
            f"Measures the {setting.top} largest eigenvalues of the Hessian of the training loss, its trace, the "
            f"gradient covariance, and the loss along the eigenvectors, on {images:,} training images (the first "
            f"{setting.images:,} of each source). In the background: about {products} products with the "
            f"Hessian{wait}.\n{_SCALE}"
        )


def _describe_result(around: Surroundings) -> str:
    """Return the numbers that the chart does not show, as sentences."""
    frame = tidy(around.rows, extra=EXTRA)
    by_metric = {row["metric"]: row for row in records(frame)}
    values = ", ".join(f"{row['value']:.4g}" for row in records(frame, metric="hessian_eigenvalue"))
    trace, covariance = (
        f"{row['value']:.3g} ({row['low']:.3g} to {row['high']:.3g})"
        for row in (by_metric["hessian_trace"], by_metric["gradient_covariance_trace"])
    )
    top, shared = by_metric["hessian_top_sum"], around.shared
    setting = batchnorm_words([shared["batchnorm"]])
    setting = f"; {setting}, of the pruned network too" if setting else ""
    return (
        f"On {shared['images']:,} training images{setting}. Hessian of the loss: largest "
        f"eigenvalues {values}, their sum {top['value']:.4g}; trace {trace}. Gradient covariance: trace {covariance}. "
        f"Training loss {shared['training_loss']:.3g}.\n{_SCALE}"
    )
