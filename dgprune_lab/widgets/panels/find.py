"""The panel "Find": the smallest network that keeps enough accuracy, or the most accurate one within a size."""

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
from .protocol import Frames, Panel, Row, Rows, View, button, controls_of, telling

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
_LONG = 5.0  # seconds; what takes longer is announced
_MANY = 8  # networks: the full one and seven halvings of a hundred ratios
_READS = "It reads the sources' split score (then seen by selection), never a target."


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    """A search that was asked for: the arguments of `find`, its scorer in words, and the controls of the explorer."""

    study: Study
    options: Mapping[str, Any]
    scorer: str
    choice: Mapping[str, Any]


class FindPanel(Panel):
    """A search with the scorer of the view among 99 ratios, on the sources' split `score`; see `dg.find`.

    `selected["goal"]` is "keep" or what is limited, `selected["share"]` and `selected["on"]` the share to keep and the
    source, `selected["most_parameters"]` and so on the limits.
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
        """Return why the panel cannot be shown, if no source can be searched on."""
        if _sources(study):
            return None
        return "a search needs a source with labels and a split score; it never reads a target."

    def tick(self, view: View) -> Iterator[Frames]:
        """Yield the goal and the last result; after a press of the button how far the search is, then its result."""
        pressed = (self.selected or {}).pop("pressed", None)
        if pressed is not None:
            self._task = self._asked(view) if pressed == "find" else None
        yield self._frame(view)
        if (task := self._task) is None:
            return
        try:
            # A move of the slider ends these steps; started again, they find what was measured in the study's cache.
            steps = find.steps(task.study, **task.options)
            found = yield from telling(steps, lambda done, _, what: f"Searching: {done} networks measured; {what}.")
        except Exception:
            self._task = self._result = None
            yield self._frame(view)
            raise
        self._task, self._result = None, (task, found)
        self._spec = find_chart(found.table, width=_WIDTH).to_dict()
        yield self._frame(view)

    def _asked(self, view: View) -> _Task:
        """The search that the controls describe, with what is set by hand in the view."""
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
            options["within"] = {goal: self._most(view, goal)}
        return _Task(study=view.study, options=options, scorer=label(view.study, view.scorer), choice=view.choice)

    def _goal(self) -> str:
        wanted = (self.selected or {}).get("goal")
        return wanted if wanted in _GOALS else _KEEP

    def _most(self, view: View, limit: str) -> float:
        """The limit that was chosen; by default half of what the network has."""
        chosen = (self.selected or {}).get(f"most_{limit}")
        return chosen if isinstance(chosen, int | float) else round(_full(view, limit) / 2, 3 * (limit == _LATENCY))

    def _frame(self, view: View) -> Frames:
        running, lines = self._task is not None, [] if self._task is None else ["Searching."]
        actions: Rows = [button("Stop", "stop") if running else button("Find", "find")]
        charts: Row = {}
        if self._result is not None and not running:
            task, found = self._result
            lines, charts = _result_lines(task, found), {"find": self._spec}
            if task.choice:
                goes = {**controls_of(task.choice), "ratio": found.mask.ratio_requested}
                actions.append({"label": "Go there", "message": {"type": "goto", "choice": goes}})
        if not running and (self._result is None or self._asked(view).options != self._result[0].options):
            lines.append(self._announced(view))
        shown: dict[str, Any] = {"charts": charts, "find": {}, "hidden": [] if charts else ["find"]}
        return {**shown, "text": "\n".join(lines), "controls": self._controls(view), "actions": actions}

    def _controls(self, view: View) -> Rows:
        goal, selected = self._goal(), self.selected or {}
        menus = [{"name": "goal", "label": "Find", "value": goal, "choices": [[k, v] for k, v in _GOALS.items()]}]
        if goal != _KEEP:
            field = {"kind": "number", "name": f"most_{goal}", "label": "at most", "value": self._most(view, goal)}
            return [*menus, {**field, "low": 0, "unit": UNITS[goal]}]
        shares = [[share, f"{100 * share:.0f} % of the accuracy{_from(view.choice)}"] for share in _SHARES]
        sources = [[WORST, "the worst source"], *([source.name, source.name] for source in _sources(view.study))]
        keeping = {"name": "share", "label": "keeping", "choices": shares}
        menus.append({**keeping, "value": selected.get("share", 0.95)})
        return [*menus, {"name": "on", "label": "on", "value": selected.get("on", WORST), "choices": sources}]

    def _announced(self, view: View) -> str:
        """What will be searched, on which images, and on a slow network how long that takes."""
        task, networks = self._asked(view), _MANY if self._goal() in (_KEEP, _LATENCY) else 2
        images = sum(len(source.rows(SPLIT, view.images)) for source in _sources(view.study))
        work = images
        if view.batchnorm == "recalibrate" and view.study.has_batchnorm:
            work += calibration_count(view.study.domains, view.calibration)
        seconds = view.seconds(networks * work)
        takes = f", at most {seconds:.0f} s" if seconds < 100 else f", at most {seconds / 60:.0f} min"
        return (
            f"Searches the ratio by “{task.scorer}”, from the network{_from(view.choice)} with the settings above; at "
            f"most {networks} networks on {images:,} images{takes if seconds > _LONG else ''}. {_READS}"
        )


def _sources(study: Study) -> list[Domain]:
    """The sources that a search can read."""
    return [source for source in study.sources if source.labels is not None and len(source.splits.get(SPLIT, ()))]


def _full(view: View, limit: str) -> float:
    """How much of a limited quantity the network has; for latency what was measured of the full network, or 20 ms."""
    cost = view.study.graph.full
    if limit == _LATENCY:
        timed = [each.table.query("metric == 'latency'").value for each in view.tried if each.parent is None]
        return float(next((values.iloc[0] for values in timed if len(values)), 20.0))
    return cost.bytes / 1000 if limit == "kilobytes" else float(getattr(cost, limit))


def _from(choice: Mapping[str, Any]) -> str:
    """Which network is searched from, where it is not the full one."""
    return f" of step {choice['step']}" if choice.get("step") else ""


def _result_lines(task: _Task, found: Found) -> list[str]:
    """The result as sentences: what was found, by which scorer, and what the search has read."""
    start = f" All shares are of the network{_from(task.choice)}." if _from(task.choice) else ""
    hand = " Layers and filters set by hand stayed so." if found.mask.layer_ratios or found.mask.forced else ""
    about = f"Scorer: “{task.scorer}”. {_READS} Report the accuracy on another split, as above."
    return [f"{found}{start}{hand}", about]
