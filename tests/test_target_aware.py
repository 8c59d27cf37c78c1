"""What looked at a target is named so wherever it shows: tables, networks on disk, the explorer, the report."""

from __future__ import annotations

import dataclasses
import functools
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from material import domain, norm_net, randomise

import dgprune_lab as dg
from dgprune_lab import charts
from dgprune_lab.core.provenance import MORE, Provenance, roles_of, set_provenance
from dgprune_lab.widgets.explorer.menu import static_state
from dgprune_lab.widgets.panels.menu_scores import label

OTHERS = "Target-aware: the scorer looked at images of t (not the reported ones)."
VERY = "Target-aware: the scorer looked at the reported images."
NOBODY = "Unknown: what the scorer looked at is not recorded."


@dg.scorer(
    "alike", needs=("moments",), reads={"source": "images", "target": "images"}, instead="l1", label="Alike on both"
)
def alike(view: Any) -> torch.Tensor:
    """How near a filter's mean outputs on all domains are."""
    means = [view.moments(name).mean for name in (*view.sources, *view.targets)]
    return -torch.stack(means).std(0)


@dg.scorer("peek", needs=("moments",), reads={"source": "images"})
def peek(view: Any) -> torch.Tensor:
    """Reads a target without having said so."""
    return view.moments("t").mean


@pytest.fixture(scope="module")
def study() -> dg.Study:
    held = [domain(name, count=90, seed=k) for k, name in enumerate("abt")]
    model = randomise(norm_net(), dtype=torch.float32)
    set_provenance(model, Provenance(training={"a/train": "labels", "b/train": "labels"}))
    return dg.Study(model, sources=held[:2], targets=held[2:])


def ready(study: dg.Study, name: str, reads: Any) -> dg.Scores:
    return dg.Scores.from_frame(study.score("l1").to_frame(), graph=study.graph, scorer=name, reads=reads)


def cells(table: pd.DataFrame) -> set[bool | None]:
    assert str(table.target_aware.dtype) == "boolean"
    return {None if pd.isna(cell) else cell for cell in table.target_aware}


def about_domains(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[table.domain.notna()]


@pytest.mark.parametrize("batchnorm", ["as_is", "recalibrate"])
def test_every_row_of_every_table_says_whether_a_target_was_looked_at(study: dg.Study, batchnorm: Any) -> None:
    chosen = ["l1", "taylor", alike, ready(study, "undeclared", None), ready(study, "said", {"t/score": "labels"})]
    wanted = {"l1": {False}, "taylor": {False}, "alike": {True}, "undeclared": {None}, "said": {True}}
    swept = dg.sweep(study, scorers=chosen, ratios=[0.5], batchnorm=batchnorm)
    dropped = dg.diagnostics.drop(study, scorers=chosen, batchnorm=batchnorm)
    for table in (swept, dropped):
        assert {name: cells(rows) for name, rows in table.groupby("scorer")} == wanted
        seen = about_domains(table.loc[table.scorer == "alike"]).seen_by_scorer
        assert set(seen) == {"none"}, "the part that is reported was not read"
    assert {"filters", "macs"} <= set(swept.metric)
    assert cells(dg.sweep(study, scorers=[ready(study, "nothing", {})], ratios=[0.5])) == {False}


@pytest.mark.parametrize("split", ["score", "report"])
def test_the_reported_split_is_distinguished_from_another(study: dg.Study, split: str) -> None:
    mask = dg.allocate(study.score(alike, split=split), ratio=0.5)
    table = dg.measure(dg.prune(study.model, mask), study.domains, latency=False)
    assert cells(table) == {True}
    assert set(about_domains(table).seen_by_scorer) == {"none" if split == "score" else "images"}
    notice = Provenance(scorer=mask.reads).notice(roles_of(study.domains), split="report")
    assert notice == ("◇", OTHERS if split == "score" else VERY)


def test_the_measured_domains_need_not_be_the_studys(study: dg.Study) -> None:
    small = dg.prune(study.model, dg.allocate(study.score(alike), ratio=0.5))
    assert cells(dg.measure(small, study.sources, images=10)) == {True}, "though the target is not measured here"
    bare = [domain(name, count=90, seed=k) for k, name in enumerate("abt")]
    table = dg.measure(small, bare, images=10, latency=False)
    assert cells(table.loc[table.domain.isna()]) == {True}, "no roles: training did not read t"
    assert {name: cells(rows) for name, rows in table.groupby("domain")} == {"a": {False}, "b": {False}, "t": {True}}
    set_provenance(small, Provenance(scorer=dg.provenance_of(small).scorer))
    assert cells(dg.measure(small, bare, images=10, latency=False)) == {None}
    assert cells(dg.measure(small, study.domains, images=10, latency=False)) == {True}
    del small.dgprune_provenance  # type: ignore[attr-defined]
    table = dg.measure(small, study.domains, images=10, latency=False)
    assert set(about_domains(table).seen_by_training) == {"unknown"} and cells(table) == {False}


def test_a_read_that_was_not_declared_raises(study: dg.Study) -> None:
    with pytest.raises(dg.DgpruneError, match=r"'peek' reads images of the target 't' but does not declare it"):
        study.score(peek)


def test_rounds_keep_what_earlier_ones_read(study: dg.Study, tmp_path: Path) -> None:
    """A target-aware round, one by weights and one that nobody knows of; whatever the order and the way there."""
    first = dg.allocate(study.score(alike), ratio=0.3)
    one = dg.prune(study.model, first)
    second = dg.Study(one, sources=study.sources, targets=study.targets)
    inner = dg.allocate(second.score("l1"), ratio=0.3)
    both = first.then(inner)
    known: dict[str, Any] = {"a/score": "images", "b/score": "images", "t/score": "images"}
    assert both.reads == known
    assert dg.Mask.from_json(json.loads(json.dumps(both.to_json())), graph=study.graph).reads == known
    third = dg.Study(dg.prune(one, inner), sources=study.sources, targets=study.targets)
    unsaid = dg.allocate(ready(third, "unsaid", None), ratio=0.3)
    assert both.then(unsaid).reads == {**known, MORE: "unknown"}
    assert dg.Mask.by_hand(study.graph, removed={"0": [1]}).reads is None
    final = dg.recalibrate(dg.prune(third.model, unsaid), study.sources)
    provenance = dg.provenance_of(final)
    assert provenance == Provenance(
        training={"a/train": "labels", "b/train": "labels"},
        scorer={**known, MORE: "unknown"},
        finetuning={"a/train": "images", "b/train": "images"},
    )
    again = dg.load(dg.save(final, tmp_path / "net"), model=randomise(norm_net(), dtype=torch.float32))
    assert dg.provenance_of(again) == provenance
    table = dg.measure(again, study.domains, latency=False)
    assert cells(table) == {True} and set(about_domains(table).seen_by_scorer) == {"unknown"}
    at_once = dg.recalibrate(dg.prune(study.model, both.then(unsaid)), study.sources)
    assert dg.provenance_of(at_once) == provenance


def test_masked_networks_carry_the_provenance_too(study: dg.Study) -> None:
    mask = dg.allocate(study.score(alike), ratio=0.3)
    soft = dg.masked(study.model, mask)
    assert dg.provenance_of(soft).scorer == mask.reads
    refreshed = dg.provenance_of(dg.recalibrate(soft, study.sources))
    assert refreshed.scorer == mask.reads and refreshed.finetuning == {"a/train": "images", "b/train": "images"}
    scores = dg.WeightScores("w", {name: p.abs() for name, p in study.model.named_parameters() if p.ndim == 4})
    assert dg.provenance_of(dg.masked(study.model, dg.allocate(scores, ratio=0.3))).scorer is None
    assert dg.provenance_of(study.network(mask, batchnorm="recalibrate")) == refreshed
    assert dg.provenance_of(study.network(None)) == study.provenance


@pytest.fixture(scope="module")
def explorer(study: dg.Study) -> Iterator[dg.Explorer]:
    opened = dg.Explorer(study, scorer=alike, scorers=[ready(study, "unsaid", None), ready(study, "said", {})])
    yield opened
    opened.close()


def entry(explorer: dg.Explorer, name: str) -> dict[str, Any]:
    return next(one for one in explorer.static["scorers"] if one["name"] == name)


def test_the_explorer_says_it_in_its_line_its_frames_its_table_and_its_menu(explorer: dg.Explorer) -> None:
    explorer.scorer = alike
    assert cells(explorer.table) == {True}
    assert explorer.plan["exposure"] == {"sign": "◇", "text": OTHERS}
    row = next(row for row in explorer.frames["rows"] if row["ratio"] == explorer.ratio)
    assert {dot["domain"]: dot["looked"] for dot in row["dots"]} == {
        "a": "no",
        "b": "no",
        "t": "yes, other images of this domain",
    }
    assert "t (target-aware) " in row["sentence"] and "a (" not in row["sentence"]
    shown = entry(explorer, "alike")
    assert shown["label"] == "Alike on both ◇ target-aware" and shown["kind"] == "target" and shown["instead"] == "l1"
    explorer.pin()
    assert explorer.pins[-1]["label"].startswith("Alike on both ◇ target-aware, ")
    assert html.unescape(explorer.still()).count("target-aware") >= 2, "the sentence, the chart"
    explorer.handle_message({"type": "instead"})
    assert explorer.scorer == "l1" and cells(explorer.table) == {False} and explorer.plan["exposure"] is None
    assert entry(explorer, "l1")["label"] == "L1 norm (weights)"


def test_the_explorer_says_where_nobody_knows(explorer: dg.Explorer) -> None:
    explorer.scorer = "unsaid"
    assert cells(explorer.table) == {None}
    assert explorer.plan["exposure"] == {"sign": "?", "text": NOBODY}
    row = next(row for row in explorer.frames["rows"] if row["ratio"] == explorer.ratio)
    assert [dot["looked"] for dot in row["dots"]] == ["unknown: not recorded"] * 3 and "t ? " in row["sentence"]
    shown = entry(explorer, "unsaid")
    assert (shown["label"], shown["kind"]) == ("unsaid ?", "given") and "not recorded" in shown["summary"]
    explorer.scorer = "said"
    assert cells(explorer.table) == {False} and explorer.plan["exposure"] is None
    assert entry(explorer, "said")["summary"] == "Ready-made scores. Data used: nothing."


def test_a_network_that_was_selected_on_a_target_says_so_whatever_chooses(study: dg.Study) -> None:
    model = randomise(norm_net(), dtype=torch.float32)
    set_provenance(model, Provenance(training={"a/train": "labels"}, selection={"t/score": "labels"}))
    chosen = dg.Study(model, sources=study.sources, targets=study.targets)
    assert cells(dg.sweep(chosen, scorers=["l1"], ratios=[0.0, 0.5])) == {True}
    words = "the selection of this network looked at labels of t (not the reported ones)"
    notice = dg.provenance_of(chosen.network(None)).notice(roles_of(chosen.domains), split="report")
    assert notice == ("◇", f"Target-aware: {words}.")
    assert label(chosen, dg.SCORERS["l1"]) == "L1 norm (weights)", "the scorer itself did not look"


@pytest.mark.slow
def test_the_report_says_it_too(study: dg.Study, tmp_path: Path) -> None:
    text = dg.report(study, tmp_path / "r.html", scorers=["l1", alike], seconds=0, progress=False).read_text("utf-8")
    found = re.search(r'<script type="application/json" class="state">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    (state,) = json.loads(found[1])
    exposures = {plan["key"][0]: plan["exposure"] for plan in state["plans"]}
    assert exposures == {"l1": None, "alike": {"sign": "◇", "text": OTHERS}}
    for curve in state["curves"]:
        aware = curve["key"][0] == "alike"
        assert {row["exposures"] for row in curve["rows"]} == {"◇ target-aware" if aware else ""}
        assert all(("t (target-aware) " in row["sentence"]) == aware for row in curve["rows"])
    shown = state["static"]["scorers"]
    assert [one["label"] for one in shown] == ["L1 norm (weights)", "Alike on both ◇ target-aware"]
    assert [one["instead"] for one in shown] == [None, "l1"]
    text = dg.report(study, tmp_path / "one.html", scorers=[alike], seconds=0, progress=False).read_text("utf-8")
    assert '"instead":null' in text and '"instead":"l1"' not in text, "what is not on the page is not offered"


def test_only_what_can_run_here_is_offered_instead(study: dg.Study) -> None:
    twins = [dataclasses.replace(alike, name=name, instead=instead) for name, instead in INSTEAD.items()]
    words = static_state(study, items=[*twins, dg.SCORERS["l1"], dg.SCORERS["bn_scale"], unable])
    offered = {one["name"]: one["instead"] for one in words["scorers"]}
    assert [offered[name] for name in INSTEAD] == ["l1", "l1", None, None, None]


INSTEAD: dict[str, Any] = {
    "there": "l1",
    "itself": dg.SCORERS["l1"],
    "elsewhere": "nowhere",
    "unable_twin": "unable",
    "none": None,
}


@dg.scorer("unable", reads={"source": "images"}, refuses=lambda views, **_: "it never can")
def unable(view: Any) -> torch.Tensor:
    """Never runs."""
    return view.weight.sum(1)


# Names are only names -------------------------------------------------------------------------------------------------


def named_study(names: tuple[str, str]) -> dg.Study:
    source, target = (domain(name, count=90, seed=k) for k, name in enumerate(names))
    model = randomise(norm_net(), dtype=torch.float32)
    set_provenance(model, Provenance(training={f"{names[0]}/train": "labels"}))
    return dg.Study(model, sources=[source], targets=[target])


@functools.cache
def named_tables(names: tuple[str, str], scorer: str) -> dict[str, pd.DataFrame]:
    """Tables with every name put back to "a", "t" and "alike"."""
    study, own = named_study(names), dataclasses.replace(alike, name=scorer)
    tables = {
        "sweep": dg.sweep(study, scorers=[own, "l1"], ratios=[0.0, 0.5]),
        "drop": dg.diagnostics.drop(study, scorers=[own, "l1"]),
        "agreement": dg.diagnostics.agreement(study, scorers=[own, "l1"]),
        "shift": dg.diagnostics.feature_shift(study, scorer=own, ratios=[0.5], embedding="linear"),
        "access": dg.diagnostics.data_access(study, [own, "l1"]),
    }
    marks = [charts.sweep(tables["sweep"]), charts.drop(tables["drop"]), charts.feature_shift(tables["shift"])]
    text = json.dumps([chart.to_dict() for chart in marks], ensure_ascii=False)
    tables["marks"] = pd.DataFrame({"aware": [text.count("target-aware")], "diamonds": [text.count("diamond")]})
    back = {"scorer": {scorer: "alike"}, "other": {scorer: "alike", names[0]: "a"}}
    back["domain"] = dict(zip(names, "at", strict=True))
    for table in tables.values():
        for column in back.keys() & set(table.columns):
            table[column] = [back[column].get(cell, cell) for cell in table[column]]
    return tables


@pytest.mark.parametrize(
    ("names", "scorer"),
    [(("a", "none"), "p|q"), (("a|t", "unknown"), "x, y"), (("a, b", "*"), "none"), (("t/score", "a"), "?")],
)
def test_a_name_of_a_domain_or_scorer_is_only_a_name(names: tuple[str, str], scorer: str) -> None:
    plain, odd = named_tables(("a", "t"), "alike"), named_tables(names, scorer)
    assert plain["marks"].aware.item() > 0
    for question, table in plain.items():
        pd.testing.assert_frame_equal(table, odd[question], check_dtype=False)
    notice = dg.Explorer(named_study(names), scorer=dataclasses.replace(alike, name=scorer))
    assert notice.wait() and f"images of {names[1]} " in notice.plan["exposure"]["text"]
    notice.close()
