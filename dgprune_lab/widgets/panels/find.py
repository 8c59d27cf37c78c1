"""The panel "Find": the smallest network that keeps enough accuracy, or the most accurate within a size limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...charts import find as find_chart
from ...core import Domain
from ...diagnostics import Found, find
from ...diagnostics._search import SPLIT, UNITS, WORST
from ...measurement import calibration_count
from ...study import Study
from .menu_scores import label
from .protocol import Frames, Panel, Row, Rows, View, button, controls_of, frames_of

_WIDTH = 780
_SHARES = (0.99, 0.97, 0.95, 0.9, 0.8)
_KEEP, _LATENCY = "keep", "milliseconds"
_GOALS = {
    _KEEP: "the smallest network",
    "parameters": "the best within parameters",
    "macs": "the best within MACs",
    "kilobytes": "the best within kilobytes",
    _LATENCY: "the best within milliseconds",
}
_LONG_SECONDS = 5.0  # seconds; the duration of longer searches is announced
_MAX_NETWORKS = 8  # the full one and seven halvings of a hundred ratios
_READS = "It reads the sources' split score (recorded as seen by selection), never a target."


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    """A requested search: the arguments of `find`, the label of its scorer, and the controls of the explorer."""

    study: Study
    options: Mapping[str, Any]
    scorer: str
    choice: Mapping[str, Any]


class FindPanel(Panel):
    """A search over 99 ratios with the scorer of the view, on the sources' split `score`; see `dg.find`.

    `selected["goal"]` is "keep" or the quantity to limit; `selected["share"]` is the share of accuracy to keep, and
    `selected["on"]` the source; `selected["most_parameters"]` and so on are the limits.
    """

    name, label = "find", "Find"
    charts: Mapping[str, Row] = {}  # made for each result

    def __init__(self) -> None:
        self._task: _Task | None = None
        self._result: tuple[_Task, Found] | None = None
        self._spec: Row = {}

    @property
    def found(self) -> Found | None:
        """The last result; None before the first."""
        return None if self._result is None else self._result[1]

    def unavailable(self, study: Study) -> str | None:
        """Return why the panel cannot be shown (no source has both labels and a split `score`), or None."""
        if _searchable(study):
            return None
        return "a search needs a source with labels and a split score; it never reads a target."

    def tick(self, view: View) -> Iterator[Frames]:
        """Yield the goal and the last result; once the button is pressed, the progress of a search and its result."""
        pressed = (self.selected or {}).pop("pressed", None)
        if pressed is not None:
            self._task = self._make_task(view) if pressed == "find" else None
        yield self._frame(view)
        if (task := self._task) is None:
            return
        try:
            # Moving the slider ends these steps; a new start finds what was measured in the study's cache.
            steps = find.steps(task.study, **task.options)
            result = yield from frames_of(steps, lambda done, _, what: f"Searching: {done} networks measured; {what}.")
        except Exception:
            self._task = self._result = None
            yield self._frame(view)
            raise
        self._task, self._result = None, (task, result)
        self._spec = find_chart(result.table, width=_WIDTH).to_dict()
        yield self._frame(view)

    def _make_task(self, view: View) -> _Task:
        """Return the search that the controls describe, including layers and filters set by hand in the view."""
        goal, mask = self._goal(), view.mask
        options: dict[str, Any] = {"scorer": view.scorer, "scope": mask.scope, "budget": mask.budget}
        options |= {"layers": dict(mask.layer_ratios) or None, "forced": dict(mask.forced) or None}
        if mask.layer_ratios or mask.forced:
            options["reads"] = mask.reads
        options |= {"batchnorm": view.batchnorm, "images": view.images, "calibration": view.calibration}
        selected = self.selected or {}
        if goal == _KEEP:
            options |= {"keep": selected.get("share", 0.95), "on": selected.get("on", WORST)}
        else:
            options["within"] = {goal: self._limit(view, goal)}
        return _Task(study=view.study, options=options, scorer=label(view.study, view.scorer), choice=view.choice)

    def _goal(self) -> str:
        goal = (self.selected or {}).get("goal")
        return goal if goal in _GOALS else _KEEP

    def _limit(self, view: View, goal: str) -> float:
        """Return the chosen limit; by default half of the network's own value."""
        chosen = (self.selected or {}).get(f"most_{goal}")
        return chosen if isinstance(chosen, int | float) else round(_amount(view, goal) / 2, 3 * (goal == _LATENCY))

    def _frame(self, view: View) -> Frames:
        running, lines = self._task is not None, [] if self._task is None else ["Searching."]
        actions: Rows = [button("Stop", "stop") if running else button("Find", "find")]
        charts: Row = {}
        if self._result is not None and not running:
            task, result = self._result
            lines, charts = _result_lines(task, result), {"find": self._spec}
            if task.choice:
                choice = {**controls_of(task.choice), "ratio": result.mask.ratio_requested}
                actions.append({"label": "Go there", "message": {"type": "goto", "choice": choice}})
        if not running and (self._result is None or self._make_task(view).options != self._result[0].options):
            lines.append(self._announce(view))
        frame: dict[str, Any] = {"charts": charts, "find": {}, "hidden": [] if charts else ["find"]}
        return {**frame, "text": "\n".join(lines), "controls": self._controls(view), "actions": actions}

    def _controls(self, view: View) -> Rows:
        goal, selected = self._goal(), self.selected or {}
        menus = [{"name": "goal", "label": "Find", "value": goal, "choices": [[k, v] for k, v in _GOALS.items()]}]
        if goal != _KEEP:
            field = {"kind": "number", "name": f"most_{goal}", "label": "at most", "value": self._limit(view, goal)}
            return [*menus, {**field, "low": 0, "unit": UNITS[goal]}]
        shares = [[share, f"{100 * share:.0f} % of the accuracy{_from_step(view.choice)}"] for share in _SHARES]
        sources = [[WORST, "the worst source"], *([source.name, source.name] for source in _searchable(view.study))]
        keeping = {"name": "share", "label": "keeping", "choices": shares}
        menus.append({**keeping, "value": selected.get("share", 0.95)})
        return [*menus, {"name": "on", "label": "on", "value": selected.get("on", WORST), "choices": sources}]

    def _announce(self, view: View) -> str:
        """Return what will be searched, on which images, and, if it takes long, how long."""
        task, networks = self._make_task(view), _MAX_NETWORKS if self._goal() in (_KEEP, _LATENCY) else 2
        images = sum(len(source.rows(SPLIT, view.images)) for source in _searchable(view.study))
        work = images
        if view.batchnorm == "recalibrate" and view.study.has_batchnorm:
            work += calibration_count(view.study.domains, view.calibration)
        seconds = view.seconds(networks * work)
        duration = f", at most {seconds:.0f} s" if seconds < 100 else f", at most {seconds / 60:.0f} min"
        return (
            f"Searches the ratio by “{task.scorer}”, from the network{_from_step(view.choice)} with the settings above;"
            f" at most {networks} networks on {images:,} images{duration if seconds > _LONG_SECONDS else ''}. {_READS}"
        )


def _searchable(study: Study) -> list[Domain]:
    """Return the sources that a search can read."""
    return [source for source in study.sources if source.labels is not None and len(source.splits.get(SPLIT, ()))]


def _amount(view: View, quantity: str) -> float:
    """Return the network's value of a quantity; for latency, the full network's if measured, otherwise 20 ms."""
    cost = view.study.graph.full
    if quantity == _LATENCY:
        timed = [each.table.query("metric == 'latency'").value for each in view.tried if each.parent is None]
        return float(next((values.iloc[0] for values in timed if len(values)), 20.0))
    return cost.bytes / 1000 if quantity == "kilobytes" else float(getattr(cost, quantity))


def _from_step(choice: Mapping[str, Any]) -> str:
    """Return from which step a search starts, as text; "" for the full network."""
    return f" of step {choice['step']}" if choice.get("step") else ""


def _result_lines(task: _Task, result: Found) -> list[str]:
    """Return the result as sentences: the network, the scorer, and what the search has read."""
    start = f" All shares are of the network{_from_step(task.choice)}." if _from_step(task.choice) else ""
    hand = " Layers and filters set by hand were unchanged." if result.mask.layer_ratios or result.mask.forced else ""
    scorer = f"Scorer: “{task.scorer}”. {_READS} Report the accuracy on another split, as above."
    return [f"{result}{start}{hand}", scorer]
