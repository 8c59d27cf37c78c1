"""The panels about everything tried: "Trade-off", "Find" and "Compare", with a view that the test makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from read_study import read_study

import dgprune_lab as dg
from dgprune_lab.charts.compare_rows import compare_data
from dgprune_lab.charts.find import find
from dgprune_lab.diagnostics import _search
from dgprune_lab.widgets import Compare, ComparePanel, Find, FindPanel, TradeOff, TradeOffPanel, Tried, View

CHOICE = {"ratio": 0.5, "scorer": "l1", "scope": "layer", "budget": "filters", "batchnorm": "recalibrate"}
CHOICE |= {"step": 0, "layers": {}, "forced": {}}


@pytest.fixture(scope="module")
def study() -> dg.Study:
    return read_study()


@pytest.fixture(scope="module")
def tried(study: dg.Study) -> tuple[Tried, ...]:
    """The full network, a pin, that pin's ratio, another ratio, and a step that was pruned by a target-aware scorer."""
    listed = [("Full network", "step", "l1", 0.0), ("l1, 50 %", "pin", "l1", 0.5), ("l1 at 50 %", "ratio", "l1", 0.5)]
    listed += [("l1 at 25 %", "ratio", "l1", 0.25), ("DSS, 50 %", "step", "dss", 0.5)]
    networks = []
    for name, kind, scorer, ratio in listed:
        mask = dg.allocate(study.score(scorer), ratio=ratio)
        table = dg.diagnostics.trade_off(study, {name: mask if ratio else None})
        choice = {**CHOICE, "ratio": ratio, "scorer": scorer}
        if scorer == "dss":
            choice = {**CHOICE, "ratio": 0.0, "step": 1}
        network = maker(study, mask)
        made: dict[str, Any] = {"table": table.drop(columns=["network", "kind"]), "mask": mask, "network": network}
        parent = 0 if scorer == "dss" else None
        networks.append(Tried(name=name, kind=kind, choice=choice, parent=parent, **made))  # type: ignore[arg-type]
    return tuple(networks)


def maker(study: dg.Study, mask: dg.Mask) -> Callable[[], Any]:
    return lambda: dg.recalibrate(dg.prune(study.model, mask), study.sources)


@pytest.fixture
def view(study: dg.Study, tried: tuple[Tried, ...]) -> View:
    mask, present = tried[3].mask, replace(tried[3], name="l1 at 25 %")
    scorer = dg.SCORERS["l1"]
    shown: dict[str, Any] = {"choice": {**CHOICE, "ratio": 0.25}, "tried": tried, "present": present}
    return View(study=study, mask=mask, scorer=scorer, batchnorm="recalibrate", **shown)


def joined(frames: Any) -> dict[str, Any]:
    """What the page holds after these frames."""
    shown: dict[str, Any] = {}
    for frame in frames:
        shown |= frame
    return shown


def points(shown: Any, role: int) -> list[dict[str, Any]]:
    return shown["trade_off"][f"points_{role}"]


# --- trade-off ------------------------------------------------------------------------------------------------------


def test_every_network_is_a_point_with_its_table_s_numbers_and_goes_to_its_choice(view: View) -> None:
    shown: Any = TradeOffPanel().tick(view)
    drawn = {each.name: each for each in view.tried if each.name != "l1 at 50 %"}
    assert shown["hidden"] == [] and set(shown["charts"]) == {"trade_off"}
    for role, domain in enumerate("at"):
        rows = {row["network"]: row for row in points(shown, role)}
        assert set(rows) == set(drawn), "the ratio of the pin is not drawn twice"
        for name, row in rows.items():
            table = drawn[name].table
            own = table[(table.metric == "accuracy") & (table.domain == domain)].iloc[0]
            assert [row["value"], row["low"], row["high"]] == pytest.approx(
                [100 * own[k] for k in ("value", "low", "high")]
            )
            assert row["cost"] == table.loc[table.metric == "parameters", "value"].item()
            assert row["choice"] == drawn[name].choice
    assert {row["kind"] for row in points(shown, 0)} == {"step", "pin", "measured ratio"}
    aware = {row["network"] for row in points(shown, 1) if "target-aware" in row["label"]}
    assert aware == {"DSS, 50 %"}
    assert "DSS, 50 % ◇ target-aware" in shown["text"] and shown["picked"] == {"network": "l1 at 25 %"}


def test_the_menu_has_what_was_measured(view: View) -> None:
    panel = TradeOffPanel()
    control = joined([panel.tick(view)])["controls"][0]
    assert [name for name, _ in control["choices"]] == ["filters", "parameters", "macs", "bytes"]
    table = dg.diagnostics.trade_off(view.study, {"timed": view.mask}, latency=True).drop(columns=["network", "kind"])
    timed = replace(view, tried=(*view.tried, replace(view.tried[1], name="timed", kind="step", table=table)))
    panel.selected = {"cost": "latency"}
    shown: Any = panel.tick(timed)
    assert shown["controls"][0]["choices"][-1][0] == "latency" == shown["controls"][0]["value"]
    assert {row["network"] for row in points(shown, 0)} == {"timed"}, "only what was timed"
    panel.selected = {"cost": "macs"}
    assert {row["cost"] for row in points(panel.tick(view), 0)} == {
        each.table.loc[each.table.metric == "macs", "value"].item() for each in view.tried
    }


def test_without_measurements_or_a_target_it_says_so(view: View) -> None:
    assert "Nothing has been measured" in joined([TradeOffPanel().tick(replace(view, tried=()))])["text"]
    alone = dg.Study(view.study.model, sources=view.study.sources)
    table = dg.diagnostics.trade_off(alone, {"full": None}).drop(columns=["network", "kind"])
    one = replace(view.tried[0], table=table)
    assert set(joined([TradeOffPanel().tick(replace(view, study=alone, tried=(one,)))])["trade_off"]) >= {"points_0"}
    assert TradeOffPanel().unavailable(view.study) is None


# --- find -----------------------------------------------------------------------------------------------------------


def press(panel: FindPanel, view: View, name: str) -> dict[str, Any]:
    panel.selected = {**(panel.selected or {}), "pressed": name}
    return joined(panel.tick(view))


def test_a_search_is_that_of_find_and_its_button_goes_there(view: View) -> None:
    panel = FindPanel()
    before = joined(panel.tick(view))
    assert before["hidden"] == ["find"] and [one["label"] for one in before["actions"]] == ["Find"]
    assert "at most 8 networks on 100 images." in before["text"] and "never a target" in before["text"]
    panel.selected = {"share": 0.9, "on": "a"}
    shown = press(panel, view, "find")
    found = dg.find(view.study, keep=0.9, on="a", scorer="l1")
    assert str(found) in shown["text"] and "seen by selection" in shown["text"]
    assert shown["charts"]["find"] == find(found.table, width=780).to_dict()
    go = shown["actions"][1]["message"]
    assert go == {"type": "goto", "choice": {**CHOICE, "ratio": found.mask.ratio_requested}}
    again = joined(panel.tick(view))
    assert again["text"] == shown["text"] and "pressed" not in panel.selected
    panel.selected = {**panel.selected, "goal": "parameters"}
    assert "at most 2 networks" in joined(panel.tick(view))["text"], "another goal is announced"


def test_a_number_limits_the_network(view: View) -> None:
    panel = FindPanel()
    full = view.study.graph.full.parameters
    panel.selected = {"goal": "parameters"}
    field = joined(panel.tick(view))["controls"][1]
    assert field["kind"] == "number" and field["value"] == round(full / 2) and field["unit"] == "parameters"
    assert field["low"] == 0 and "high" not in field, "what is impossible is refused in words"
    panel.selected = {**panel.selected, "most_parameters": 0.7 * full}
    shown = press(panel, view, "find")
    ratio = shown["actions"][1]["message"]["choice"]["ratio"]
    assert ratio == dg.find(view.study, within={"parameters": 0.7 * full}).mask.ratio_requested
    panel.selected = {**panel.selected, "most_parameters": 1}
    with pytest.raises(dg.DgpruneError, match="leaves"):
        press(panel, view, "find")
    shown = joined(panel.tick(view))
    assert [one["label"] for one in shown["actions"]] == ["Find"] and shown["hidden"] == ["find"], (
        "it can be tried again, and no earlier result stands below the refusal"
    )


def test_a_search_from_a_step_says_what_its_shares_are_of(view: View) -> None:
    panel, later = FindPanel(), replace(view, full=view.study, choice={**CHOICE, "step": 2})
    before = joined(panel.tick(later))
    assert "from the network of step 2" in before["text"]
    assert before["controls"][1]["choices"][0] == [0.99, "99 % of the accuracy of step 2"]
    shown = press(panel, later, "find")
    assert "All shares are of the network of step 2." in shown["text"]
    assert shown["actions"][1]["message"]["choice"]["step"] == 2


def test_networks_of_one_name_are_told_apart(view: View) -> None:
    twice = (*view.tried, replace(view.tried[3], choice={**view.tried[3].choice, "scope": "global"}))
    shown: Any = TradeOffPanel().tick(replace(view, tried=twice, present=twice[-1]))
    named = {row["network"]: row["choice"]["scope"] for row in points(shown, 0)}
    assert named["l1 at 25 %"] == "layer" and named["l1 at 25 % (2)"] == "global"
    assert shown["picked"] == {"network": "l1 at 25 % (2)"}


def test_what_is_set_by_hand_holds_in_a_search(view: View) -> None:
    scores = view.study.score("l1")
    layer, other = view.study.graph.names[:2]
    least = int(scores.values[other].argmin())
    seen = {f"{view.study.domains[-1].name}/report": "labels"}
    mask = dg.allocate(scores, ratio=0.25, layers={layer: 0.0}, keep={other: [least]}, reads=seen)
    panel = FindPanel()
    panel.selected = {"goal": "parameters"}
    press(panel, replace(view, mask=mask), "find")
    assert panel.found is not None
    found = panel.found.mask
    assert bool(found.keep[layer].all()) and bool(found.keep[other][least]) and found.ratio_requested > 0
    assert found.reads == mask.reads == seen, "who set it had looked there"


def test_a_search_can_be_stopped_and_goes_on_after_a_move(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = FindPanel()
    panel.selected = {"pressed": "find"}
    measured: list[int] = []
    once = _search.Search.measure

    def counted(search: Any, place: int) -> Any:
        measured.append(place)
        return once(search, place)

    monkeypatch.setattr(_search.Search, "measure", counted)
    frames: Iterator[Any] = panel.tick(replace(view, batchnorm="as_is"))  # type: ignore[assignment]
    first, *_ = next(frames), next(frames)
    assert [one["label"] for one in first["actions"]] == ["Stop"]
    while len(measured) < 3:
        assert next(frames)["text"].startswith("Searching: ")
    frames.close()  # type: ignore[attr-defined]
    shown = joined(panel.tick(view))
    assert "Go there" in [one["label"] for one in shown["actions"]], "the search was resumed"
    panel.selected = {"pressed": "find", "share": 0.8}
    next(iter(panel.tick(view)))
    assert next(one["label"] for one in press(panel, view, "stop")["actions"]) == "Find"


def test_a_slow_search_says_how_long_it_takes(view: View) -> None:
    slow = replace(view, seconds=lambda images: images / 100)
    assert "at most 8 networks on 100 images, at most" in joined(FindPanel().tick(slow))["text"]
    assert FindPanel().unavailable(view.study) is None


# --- compare --------------------------------------------------------------------------------------------------------


def test_the_view_is_compared_with_the_first_pin_and_the_numbers_are_the_tables(view: View) -> None:
    panel = ComparePanel()
    frames: Any = list(panel.tick(view))
    first, last = joined(frames[:1]), joined(frames)
    assert [control["value"] for control in first["controls"]] == ["The present view", "l1, 50 %"]
    offered = [name for name, _ in first["controls"][0]["choices"]]
    assert offered == ["The present view", "Full network", "l1, 50 %", "DSS, 50 %"], "no single ratios"
    assert any("measured 1 of 4" in frame["text"] for frame in frames[1:])
    wanted = dg.diagnostics.compare(view.study, view.tried[3].mask, view.tried[1].mask)
    assert last["compare"] == compare_data(wanted, names=("The present view", "l1, 50 %")) and last["hidden"] == []
    assert len(list(panel.tick(view))) == 2, "a comparison is kept"


def test_a_step_is_compared_as_its_network_and_the_chart_is_made_anew_only_if_it_must(
    view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SimpleNamespace(to_dict=dict)
    monkeypatch.setattr("dgprune_lab.widgets.panels.compare.compare_chart", lambda data, **_: spec)
    panel = ComparePanel()
    panel.selected = {"a": "DSS, 50 %", "b": "Full network"}
    last = joined(panel.tick(view))
    wanted = dg.diagnostics.compare(view.study, view.tried[4].network(), None)
    assert last["compare"]["differences"] == compare_data(wanted)["differences"]
    assert last["compare"]["layers"] == compare_data(wanted)["layers"]
    made = last["charts"]["compare"]
    panel.selected = {"a": "DSS, 50 %", "b": "l1, 50 %"}
    assert joined(panel.tick(view))["charts"]["compare"] is made
    panel.selected = {"a": "l1, 50 %", "b": "l1, 50 %"}
    same = joined(panel.tick(view))
    assert same["hidden"] == ["compare"] and "two networks" in same["text"]


@pytest.mark.parametrize(("place", "calibration"), [(4, 500), (1, 20)])
def test_what_its_mask_alone_does_not_make_again_is_compared_as_its_network(
    view: View, place: int, calibration: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SimpleNamespace(to_dict=dict)
    monkeypatch.setattr("dgprune_lab.widgets.panels.compare.compare_chart", lambda data, **_: spec)
    network, tried = view.tried[place].network(), list(view.tried)
    with torch.no_grad():
        list(network.parameters())[-2].neg_()
    tried[place] = replace(tried[place], network=lambda: network)
    panel = ComparePanel()
    panel.selected = {"a": tried[place].name, "b": "Full network"}
    last = joined(panel.tick(replace(view, tried=tuple(tried), calibration=calibration)))
    wanted = dg.diagnostics.compare(view.study, network, None)
    assert last["compare"]["differences"] == compare_data(wanted)["differences"]


def test_without_pins_the_view_is_compared_with_what_it_was_pruned_from(view: View) -> None:
    steps = tuple(each for each in view.tried if each.kind == "step")
    frame: Any = next(iter(ComparePanel().tick(replace(view, tried=steps))))
    assert frame["controls"][1]["value"] == "Full network"
    later = replace(view, tried=steps, choice={**view.choice, "step": 1})
    frame = next(iter(ComparePanel().tick(later)))
    assert frame["controls"][1]["value"] == "DSS, 50 %"
    frame = next(iter(ComparePanel().tick(replace(view, tried=()))))
    assert [control["value"] for control in frame["controls"]] == ["The present view", "The full network"]


def test_they_are_panels_of_an_explorer_and_widgets_alone() -> None:
    explorer = Find(read_study(), ratio=0.3)
    try:
        assert explorer.wait_idle(120) and explorer.panels["error"] is None
        assert explorer.panels["open"] == "find" and "Searches the ratio" in explorer.panels["text"]
        explorer.handle_message({"type": "press", "name": "find", "number": 1})
        assert explorer.wait_idle(120) and explorer.panels["error"] is None
        assert str(explorer.panel.found) in explorer.panels["text"]
    finally:
        explorer.close()
    labels = [panel["label"] for panel in explorer.panels["list"]]
    assert labels == ["Find"] and [kind._built_in[0] for kind in (TradeOff, Compare)] == [TradeOffPanel, ComparePanel]
