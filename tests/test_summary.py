"""Tables to read: the short view, predicted orders, events and ends of runs, agreement of maps, halves."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from experiment_runs import experiment
from material import domain, norm_net, randomise
from pruning_runs import trained

import dgprune_lab as dg
from dgprune_lab.charts.theme import points_text


def test_the_short_view_keeps_what_varies() -> None:
    study = dg.demo()
    frame = dg.sweep(study, scorers=["l1", "l2"], ratios=[0.5], images=60)
    short = dg.summary(frame, metric="accuracy", domain=["mnist", "mnist_m"])
    assert list(short.columns) == ["scorer", "domain", "role", "metric", "value"]
    row = frame[(frame.metric == "accuracy") & (frame.domain == "mnist") & (frame.scorer == "l2")].iloc[0]
    shown = short[(short.domain == "mnist") & (short.scorer == "l2")].value.item()
    assert shown == f"{100 * row.value:.1f} % ({100 * row.low:.1f} to {100 * row.high:.1f})"
    for column, name in (("metric", "acuracy"), ("domain", "mnist_n")):
        with pytest.raises(dg.DgpruneError, match=f"unknown {column} '{name}'"):
            dg.summary(frame, **{column: name})  # type: ignore[arg-type]


def test_a_target_aware_table_says_so_even_where_every_row_is_one() -> None:
    row = {"domain": "a", "metric": "accuracy", "value": 0.5, "unit": "share"}
    shown = [dg.summary(dg.tidy([{**row, "target_aware": mark}])) for mark in (True, False, None)]
    assert ["target_aware" in table.columns for table in shown] == [True, False, False]
    assert shown[0]["target_aware"].tolist() == [True]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [((0.1, 0.3), "better"), ((-0.3, -0.1), "worse"), ((-0.1, 0.1), "not significant"),
     ((0.0, 0.2), "not significant"), ((np.nan, np.nan), "no interval")],
)  # fmt: skip
def test_a_verdict_follows_the_interval(ends: tuple[float, float], expected: str) -> None:
    frame = dg.tidy([{"metric": "difference", "value": 0.2, "low": ends[0], "high": ends[1], "unit": "share"}])
    assert dg.summary(frame, verdict=("better", "worse")).verdict.item() == expected


def test_half_a_tenth_of_a_point_is_rounded_away_from_zero_as_in_the_charts_and_on_the_page() -> None:
    ends = {"value": -0.1225, "low": -0.2225, "high": -0.0225}  # a format of Python makes -12.2 of the first
    frame = dg.tidy([{"metric": "difference", "domain": "a", **ends, "unit": "share"}])
    (text,) = dg.summary(frame, verdict=("better", "worse")).value
    assert text == "-12.3 points (-22.3 to -2.3)"
    assert points_text(100 * ends["value"]) == "\N{MINUS SIGN}12.3"


@pytest.mark.parametrize(
    ("ends", "unit", "expected"),
    [
        ((-0.00049, -0.00098, -0.00002), "share", "-0.049 points (-0.098 to -0.002)"),
        ((-0.0004, -0.0012, 0.0004), "share", "-0.04 points (-0.12 to +0.04)"),
        ((0.0, -0.001, 0.001), "share", "0.0 points (-0.1 to +0.1)"),
        ((-12.25, -12.35, 0.0), None, "-12.3 (-12.4 to 0)"),
        ((-1e-320, 0.0, 1.0), None, "0 (0 to +1)"),
        ((0.0, -0.4, 0.4), "count", "0 (0 to 0)"),
    ],
)
def test_a_number_that_is_not_0_does_not_read_as_0_and_0_has_no_sign(ends: Any, unit: Any, expected: str) -> None:
    cells = dict(zip(("value", "low", "high"), ends, strict=True))
    frame = dg.tidy([{"metric": "difference", "domain": "a", **cells, "unit": unit}])
    assert dg.summary(frame, verdict=("better", "worse")).value.item() == expected


def scored(**values: tuple[float, float, float]) -> pd.DataFrame:
    """Accuracies of scorers, as (value, low, high)."""
    cells = {"metric": "accuracy", "unit": "share", "interval": "images", "batchnorm": "recalibrate"}
    about = ("value", "low", "high")
    return dg.tidy([{"scorer": n, **cells, **dict(zip(about, v, strict=True))} for n, v in values.items()])


def test_the_answer_is_the_highest_and_says_where_intervals_leave_the_order_open() -> None:
    frame = scored(l1=(0.5, 0.45, 0.55), taylor=(0.6, 0.56, 0.64), random=(0.2, 0.1, 0.3))
    choice, sentence = dg.answer(frame, of="scorer")
    assert (choice, dg.answer(frame, of="scorer", lowest=True).choice) == ("taylor", "random")
    assert sentence.startswith("taylor 60.0 % (56.0 to 64.0), l1 50.0 % (45.0 to 55.0), random 20.0 %")
    assert sentence.endswith("(95 % intervals over images; BatchNorm re-estimated).")
    close = dg.answer(scored(l1=(0.5, 0.45, 0.55), taylor=(0.6, 0.54, 0.64), dss=(0.6, 0.54, 0.64)), of="scorer")
    assert close.sentence.endswith("The interval of taylor overlaps with that of dss and l1: their order is open.")


def test_the_answer_marks_what_looked_at_a_target_and_refuses_several_rows_of_one_name() -> None:
    frame = scored(l1=(0.5, 0.45, 0.55), dss=(0.6, 0.56, 0.64)).assign(target_aware=[False, True])
    assert dg.answer(frame, of="scorer").sentence.startswith("dss ◇ 60.0 %")
    with pytest.raises(dg.DgpruneError, match="got 4 rows of 2"):
        dg.answer(pd.concat([frame, frame]), of="scorer")
    for name, values in {"metric": ["accuracy", "loss"], "domain": ["a", "b"], "batchnorm": ["as_is", "fold"]}.items():
        with pytest.raises(dg.DgpruneError, match=f"several values of '{name}'"):
            dg.answer(frame.assign(**{name: values}), of="scorer")
    with pytest.raises(dg.DgpruneError, match="got 1 rows of 1"):
        dg.answer(frame.head(1), of="scorer")


def test_the_answer_refuses_what_names_no_choice_and_what_has_no_order() -> None:
    frame = scored(l1=(0.5, 0.45, 0.55), dss=(0.6, 0.56, 0.64)).assign(domain="a")
    for given, words in (
        ({"domain": ""}, "unknown domain ''"),
        ({"metric": []}, "metric must name what to keep; got an empty list"),
        ({"of": "value"}, "unknown column of choices 'value'"),
    ):
        with pytest.raises(dg.DgpruneError, match=words):
            dg.answer(frame, **{"of": "scorer", **given})  # type: ignore[arg-type]
    for column in ("value", "high"):
        with pytest.raises(dg.DgpruneError, match="infinite number for 'dss'"):
            dg.answer(frame.assign(**{column: [0.6, np.inf]}), of="scorer")


def measures(a: float, b: float, *, better: str, metric: str = "margin") -> pd.DataFrame:
    rows = [{"metric": metric, "network": n, "value": v, "better_direction": better} for n, v in (("A", a), ("B", b))]
    return dg.tidy(rows, extra=("network", "better_direction"))


@pytest.mark.parametrize(
    ("a", "b", "better", "predicts", "verdict"),
    [(2.0, 1.0, "higher", "A", "right"), (2.0, 1.0, "lower", "B", "wrong"), (1.0, 1.0, "higher", "neither", "none")],
)
def test_a_measure_predicts_the_network_with_the_better_value(
    a: float, b: float, better: str, predicts: str, verdict: str
) -> None:
    line = dg.diagnostics.predicted_order(measures(a, b, better=better), measured="A").iloc[0]
    assert (line.predicts, line.verdict, line.A, line.B) == (predicts, verdict, a, b)


def test_training_losses_that_are_equal_within_three_percent_predict_neither() -> None:
    for second, predicts in ((0.0202, "neither"), (0.022, "A")):
        table = measures(0.02, second, better="lower", metric="training_loss")
        assert dg.diagnostics.predicted_order(table).predicts.tolist() == [predicts]
        layers = dg.charts.generalization_measures(table).to_dict()["layer"]
        (names,) = (
            layer["data"]["values"]
            for layer in layers
            if layer["data"].get("name") == "names" and layer["data"].get("values")
        )
        assert [row["verdict"] for row in names] == [f"predicts {predicts}"]


def test_prunability_predicts_the_lower_at_every_tolerance_and_says_where_intervals_overlap() -> None:
    rows = [
        {"metric": "prunability", "network": name, "tolerance": tolerance, "value": value, "low": value - 0.05,
         "high": value + 0.05, "interval": "images"}
        for tolerance, values in ((0.1, (0.3, 0.5)), (0.2, (0.25, 0.22)))
        for name, value in zip("AB", values, strict=True)
    ]  # fmt: skip
    frame = dg.tidy(rows, extra=("network", "tolerance"))
    table = dg.diagnostics.predicted_order(frame)
    assert table[["tolerance", "predicts", "intervals"]].values.tolist() == [[0.1, "A", "apart"], [0.2, "B", "overlap"]]
    with pytest.raises(dg.DgpruneError, match="holds 1"):
        dg.diagnostics.predicted_order(frame.query("network == 'A'"))
    with pytest.raises(dg.DgpruneError, match="'C'"):
        dg.diagnostics.predicted_order(frame, measured="C")


def test_events_and_ends_are_the_rows_of_the_run() -> None:
    run, control = trained(), trained(schedule=None)
    table = dg.diagnostics.pruning_events(run)
    rows = run.events[(run.events.metric == "relative_drop") & (run.events.domain == "a")]
    assert len(table) == rows.event.nunique() and {"event", "epoch", "layers", "a", "t"} == set(table.columns)
    assert table["a"].tolist() == pytest.approx([round(100 * value, 1) for value in rows.value], nan_ok=True)
    ends = dg.diagnostics.run_ends({"pruned": run, "nothing removed": control})
    assert ends.loc["nothing removed", "mean stability"] == 100
    last = run.end.query(
        "stage == 'last' and metric == 'accuracy' and split == 'report' and domain == 't'"
    ).value.item()
    assert ends.loc["pruned", "t"] == round(100 * last, 1)
    with pytest.raises(dg.DgpruneError, match="at least one run"):
        dg.diagnostics.run_ends({})
    assert dg.diagnostics.pruning_events(control).empty


def map_table(points: np.ndarray, *, ratio: float = 0.0) -> pd.DataFrame:
    rows = [
        {
            "metric": f"map_{axis + 1}",
            "domain": "a",
            "image": k,
            "class": k % 3,
            "ratio_requested": ratio,
            "value": value,
        }
        for k, point in enumerate(points)
        for axis, value in enumerate(point)
    ]
    return dg.tidy(rows, extra=("image", "class"))


def test_a_map_agrees_with_itself_and_not_with_noise() -> None:
    points = np.random.default_rng(0).standard_normal((60, 2)) + 4 * np.eye(3, 2)[np.arange(60) % 3]
    same = dg.diagnostics.map_agreement(map_table(points), map_table(points))
    assert same.value.tolist() == [1.0] * 5
    mirrored = dg.diagnostics.map_agreement(map_table(points), map_table(points * [-1, 1])).set_index("question").value
    assert mirrored["horizontal place of an image"] == -1 and mirrored["shared 15 nearest neighbours"] == 1
    noise = np.random.default_rng(1).standard_normal((60, 2))
    other = dg.diagnostics.map_agreement(map_table(points), map_table(noise)).set_index("question")
    last = other.loc["shared 15 nearest neighbours"]
    assert last.chance == round(15 / 59, 2) and abs(last.value - last.chance) < 0.15
    few = map_table(points[:9])
    assert dg.diagnostics.map_agreement(few, few, neighbours=4).chance.iloc[-1] == 0.5, "4 of 8 others"
    with pytest.raises(dg.DgpruneError, match="60 and 59"):
        dg.diagnostics.map_agreement(map_table(points), map_table(points[:-1]))
    with pytest.raises(dg.DgpruneError, match=r"no map at ratio 0\.5"):
        dg.diagnostics.map_agreement(map_table(points), map_table(points), ratio=0.5)


def test_halves_share_no_image_and_hold_them_all() -> None:
    whole = domain("a", count=63)
    first, second = dg.data.halves(whole)
    rows = whole.rows("report")
    assert [half.name for half in (first, second)] == ["a, half 1", "a, half 2"]
    for half, part in ((first, rows[::2]), (second, rows[1::2])):
        batch, expected = half.take(half.rows("report")), whole.take(part)
        assert batch.images.equal(expected.images) and batch.labels.equal(expected.labels)  # type: ignore[union-attr]
    with pytest.raises(dg.DgpruneError, match="1 images"):
        dg.data.halves(domain("b", splits={"report": [0], "train": [1]}))


def test_attribution_maps_add_up_to_the_contribution_they_name() -> None:
    study = dg.demo()
    result = dg.diagnostics.attribution_maps(study, domain="mnist", layer="conv3", filters=4)
    assert result.images.shape == (4, 3, 28, 28) and len(result.maps) == len(result.labels) == 4
    sums = result.maps.sum((1, 2))
    assert result.labels == [
        f"{label.split(':')[0]}: {value:+.2f}" for label, value in zip(result.labels, sums, strict=True)
    ]
    assert sums.abs().tolist() == sorted(sums.abs().tolist(), reverse=True)
    with pytest.raises(dg.DgpruneError, match="got 10000"):
        dg.diagnostics.attribution_maps(study, domain="mnist", layer="conv3", image=10_000)


def test_an_accuracy_gets_no_verdict() -> None:
    rows = [
        {"domain": "a", "metric": metric, "value": 0.5, "low": 0.4, "high": 0.6, "unit": "share"}
        for metric in ("accuracy", "difference")
    ]
    table = dg.summary(dg.tidy(rows), verdict=("better", "worse"))
    assert table.verdict.tolist() == ["", "better"]
    assert table.value.tolist() == ["50.0 % (40.0 to 60.0)", "+50.0 points (+40.0 to +60.0)"]


def test_what_cannot_be_below_0_gets_no_verdict() -> None:
    """A flip of predictions is no gain because its interval lies above 0."""
    study = dg.Study(randomise(norm_net(), dtype=torch.float32), sources=[domain("a", count=90)])
    frame: Any = dg.diagnostics.compare(study, dg.allocate(study.score("l1"), ratio=0.5), None)
    table = dg.summary(frame, verdict=("a is better", "b is better"))
    judged = set(table[table.verdict != ""].metric)
    assert judged == {"difference", "class_difference", "calibration_difference"}
    changed = table[table.metric == "changed"].value.item()
    assert changed.endswith(")") and " % (" in changed and "+" not in changed


@pytest.mark.parametrize("values", [(np.nan, 1.0), (1.0, np.nan), (np.nan, np.nan)])
def test_a_missing_value_predicts_nothing(values: tuple[float, float]) -> None:
    rows = [
        {"network": name, "metric": "m", "value": value, "better_direction": "lower"}
        for name, value in zip("AB", values, strict=True)
    ]
    frame = dg.tidy(rows, extra=("network", "better_direction"))
    line = dg.diagnostics.predicted_order(frame, measured="A").iloc[0]
    assert (line.predicts, line.verdict) == ("neither", "none")


def test_an_order_needs_one_row_per_network() -> None:
    rows = [
        {"network": name, "metric": "m", "value": 1.0 + k, "better_direction": "lower"} for k, name in enumerate("AB")
    ]
    extra = ("network", "better_direction")
    with pytest.raises(dg.DgpruneError, match="'m' has 2 of 'A' and 1 of 'B'"):
        dg.diagnostics.predicted_order(dg.tidy([*rows, rows[0]], extra=extra))
    with pytest.raises(dg.DgpruneError, match="'n' has 1 of 'A' and 0 of 'B'"):
        dg.diagnostics.predicted_order(dg.tidy([*rows, {**rows[0], "metric": "n"}], extra=extra))
    with pytest.raises(dg.DgpruneError, match="no column network"):
        dg.diagnostics.predicted_order(dg.tidy(rows[:0]))


def test_the_spread_of_a_class_does_not_depend_on_where_it_lies() -> None:
    noise, classes = np.random.default_rng(0).standard_normal((60, 2)), np.arange(60) % 3
    clouds = np.array([0.1, 1.0, 3.0])[classes, None] * noise
    moved = clouds + np.array([[50.0, 0.0], [9.0, 0.0], [0.0, 0.0]])[classes]
    table = dg.diagnostics.map_agreement(map_table(clouds), map_table(moved)).set_index("question")
    assert table.value["spread of a class"] == 1


def test_maps_of_other_images_of_the_same_classes_do_not_compare() -> None:
    table = map_table(np.random.default_rng(0).standard_normal((60, 2)))
    with pytest.raises(dg.DgpruneError, match="same images"):
        dg.diagnostics.map_agreement(table, table.assign(domain="b"))
    with pytest.raises(dg.DgpruneError, match="1 to 59"):
        dg.diagnostics.map_agreement(table, table, neighbours=60)
    with pytest.raises(dg.DgpruneError, match="several maps"):
        dg.diagnostics.map_agreement(pd.concat([table, table]), table)


def test_images_without_labels_have_places_and_neighbours_and_no_class() -> None:
    table = map_table(np.random.default_rng(0).standard_normal((60, 2))).assign(**{"class": None})
    values = dg.diagnostics.map_agreement(table, table).set_index("question").value
    assert values[["spread of a class", "distance between two classes"]].isna().all()
    assert values["horizontal place of an image"] == values["shared 15 nearest neighbours"] == 1


def test_images_on_one_point_are_not_their_own_neighbours() -> None:
    table = map_table(np.repeat(np.random.default_rng(0).standard_normal((20, 2)), 3, axis=0))
    assert dg.diagnostics.map_agreement(table, table, neighbours=2).value.tolist()[-1] == 1
    moved = map_table(np.random.default_rng(1).standard_normal((60, 2)))
    last = dg.diagnostics.map_agreement(table, moved, neighbours=59).iloc[-1]
    assert last.value == last.chance == 1, "all others are neighbours on both"


def test_attribution_maps_need_labels_and_a_filter() -> None:
    network = randomise(norm_net(), dtype=torch.float32)
    study = dg.Study(network, sources=[domain("a")], targets=[domain("t", labelled=False)])
    with pytest.raises(dg.DgpruneError, match="'t' has no labels"):
        dg.diagnostics.attribution_maps(study, domain="t", layer="0")
    with pytest.raises(dg.DgpruneError, match="at least 1; got 0"):
        dg.diagnostics.attribution_maps(study, domain="a", layer="0", filters=0)


def test_runs_end_at_the_last_or_at_the_best_epoch() -> None:
    network = randomise(norm_net(), dtype=torch.float32)
    options = dg.TrainingOptions(epochs=2)
    run = dg.train_with_pruning(network, sources=[domain("a")], targets=[domain("t")], schedule=None, options=options)
    rows = run.end[(run.end.stage == "selected on score") & (run.end.metric == "accuracy")]
    best = dg.diagnostics.run_ends({"run": run}, epoch="best").loc["run"]
    expected = rows[rows.split == "report"].set_index("domain").value
    assert best["a"] == round(100 * expected["a"], 1) and best["t"] == round(100 * expected["t"], 1)
    with pytest.raises(dg.DgpruneError, match="'last', 'best'"):
        dg.diagnostics.run_ends({"run": run}, epoch="final")  # type: ignore[arg-type]


def test_percents_are_not_multiplied_again() -> None:
    rows = [{"domain": "a", "metric": "m", "value": 12.0, "low": 10.0, "high": 14.0, "unit": "%"}]
    assert dg.summary(dg.tidy(rows)).value.item() == "12.0 % (10.0 to 14.0)"


def test_intervals_are_apart_on_either_side() -> None:
    low = {"network": "A", "metric": "m", "value": 1.0, "low": 0.5, "high": 1.5, "better_direction": "lower"}
    high = {**low, "network": "B", "value": 3.0, "low": 2.5, "high": 3.5}
    for rows in ([low, high], [high, low]):
        line = dg.diagnostics.predicted_order(dg.tidy(rows, extra=("network", "better_direction"))).iloc[0]
        assert (line.predicts, line.intervals) == ("A", "apart")


def accuracies(**columns: Any) -> pd.DataFrame:
    shared = {"metric": "accuracy", "unit": "share", "interval": "images", "batchnorm": "recalibrate", "scorer": "l1"}
    shared |= dict.fromkeys(("seen_by_scorer", "seen_by_finetuning", "seen_by_selection"), "none")
    rows = [
        {"domain": "a_1", "role": "source", "value": 0.9, "low": 0.85, "high": 0.94, "target_aware": False},
        {"domain": "50 % & more", "role": "target", "value": 0.5, "low": 0.4, "high": 0.6, "target_aware": False},
    ]
    return dg.tidy([{**shared, **row, **columns} for row in rows])


def test_latex_holds_every_value_with_its_interval_and_compiles_in_form() -> None:
    text = dg.latex(accuracies(), caption="Half of conv_1 & 5 % of $x$ {~^\\}", label="tab:a b")
    lines = text.splitlines()
    assert lines[0] == r"\begin{table}" and lines[-1] == r"\end{table}"
    assert r"a\_1 & 90.0 \% (85.0 to 94.0) \\" in lines and r"50 \% \& more & 50.0 \% (40.0 to 60.0) \\" in lines
    assert r"conv\_1 \& 5 \% of \$x\$ \{\textasciitilde{}\textasciicircum{}\textbackslash{}\}" in text
    assert r"\label{tab:a-b}" in text and "diamond" not in text and "dagger" not in text
    assert r"{\footnotesize Value: accuracy.\par}" in lines and r"{\footnotesize BatchNorm re-estimated.\par}" in lines
    assert r"{\footnotesize In brackets: 95 \% intervals over images (bootstrap).\par}" in lines
    counts = {rule: text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin", r"\end")}
    assert counts == {r"\toprule": 1, r"\midrule": 1, r"\bottomrule": 1, r"\begin": 2, r"\end": 2}
    bare = dg.latex(accuracies())
    assert bare.startswith(r"\begin{tabular}{ll}") and "table}" not in bare.replace("tabular}", "")
    body = [line for line in lines if line.endswith(r"\\")]
    assert {len(line.replace(r"\&", "").split("&")) for line in body} == {2}


@pytest.mark.parametrize(
    ("columns", "marked", "note"),
    [
        ({"seen_by_scorer": "images", "target_aware": True}, [True, True], "Target-aware"),
        ({"target_aware": True}, [True, True], "Target-aware"),
        ({"seen_by_selection": "labels"}, [True, True], "looked at the reported images"),
        ({"seen_by_scorer": "unknown", "target_aware": None}, [True, True], "not recorded"),
        ({}, [False, False], ""),
    ],
)
def test_latex_marks_what_was_looked_at(columns: dict[str, Any], marked: list[bool], note: str) -> None:
    """One scorer has no column that could bear its mark: the values bear it."""
    lines = dg.latex(accuracies(**columns)).splitlines()
    rows = [line for line in lines if "(85.0" in line or "(40.0" in line]
    assert ["$^" in row for row in rows] == marked
    assert not note or sum(note in line for line in lines) >= 1


def test_latex_marks_a_scorer_once_by_its_name() -> None:
    frame = pd.concat([accuracies(), accuracies(scorer="dss", seen_by_scorer="images", target_aware=True)])
    lines = dg.latex(frame).splitlines()
    first = {line.split("&")[0].strip() for line in lines if "(85.0" in line or "(40.0" in line}
    assert first == {"l1", r"dss$^{\diamond}$"}
    row = {"metric": "difference", "domain": "a", "value": -0.1, "low": -0.2, "high": 0.1, "unit": "share"}
    negative = dg.tidy([{**row, "target_aware": False}])
    assert r"a & $-$10.0 points ($-$20.0 to +10.0) & not significant \\" in dg.latex(negative, verdict=("+", "-"))


def test_every_source_of_a_scorer_and_a_diagnostic_has_an_entry() -> None:
    from dgprune_lab.scorers.citing import _cited, _entries

    diagnostics = [getattr(dg.diagnostics, name) for name in dg.diagnostics.__all__]
    sources = {one.name: one.cite for one in dg.SCORERS.values() if one.name != "random"}
    sources |= {f"{one.name} ": one.cite for one in diagnostics if getattr(one, "cite", "")}
    sources |= {f"study {name}": study(quick=False).cite for name, study in dg.experiments.STUDIES.items()}
    assert [name for name, source in sources.items() if not _cited(source)] == []
    for source in sources.values():
        years = re.findall(r"[A-Z]\w+[^;:]*? (\d{4})\b", source)
        arxiv = {
            entry.split("eprint = {")[1].split("}")[0]
            for entry in map(_entries().get, _cited(source))
            if entry and "eprint" in entry
        }
        assert years and set(re.findall(r"arXiv:(\d+\.\d+)", source)) <= arxiv, source
    for key, entry in _entries().items():
        assert entry.startswith("@") and entry.count("{") == entry.count("}") and entry.endswith("\n}"), key
        assert {"author", "title", "year"} <= set(re.findall(r"^  (\w+) = {", entry, re.MULTILINE)), key


def test_every_data_set_of_the_package_and_every_entry_of_its_menu_is_cited() -> None:
    from dgprune_lab.data import BUILTIN, external

    for name in (*BUILTIN, *external.NAMES):
        keys = set(re.findall(r"^@\w+{(\w+),", dg.cite(accuracies(domain=name)), re.MULTILINE))
        assert keys - set(re.findall(r"^@\w+{(\w+),", dg.cite(accuracies()), re.MULTILINE)), name
    assert "@misc{xiao2017" in dg.cite(accuracies(domain="mine, fashion_photo"))
    for name in [*dg.SCORERS, "GroupTaylorImportance"]:
        comments = [line for line in dg.cite(accuracies(scorer=name)).splitlines() if line.startswith("%")]
        assert comments == (["% scorer 'random': the control that every comparison needs"] if name == "random" else [])


def test_the_references_of_a_table() -> None:
    text = dg.cite(accuracies())
    keys = re.findall(r"^@\w+{(\w+),", text, re.MULTILINE)
    assert keys == ["dgprune_lab", "efron1993", "harris2020", "li2017", "mckinney2010", "paszke2019"]
    mixed = dg.cite(accuracies(scorer="hybrid(taylor, dss, by rank), by hand"))
    assert {"molchanov2019", "sun2023"} <= set(re.findall(r"^@\w+{(\w+),", mixed, re.MULTILINE))
    assert "% scorer 'mine': no source is known here" in dg.cite(accuracies(scorer="mine"))
    study = dg.Study(randomise(norm_net(), dtype=torch.float32), sources=[domain("a")])
    flips: Any = dg.diagnostics.flips(study)
    assert "@article{mcnemar1947" in dg.cite(flips) and "mcnemar" in dg.cite(flips[flips.metric == "changed"])

    @dg.diagnostic("own", cite="Nobody 2031, nowhere")
    def own(study: dg.Study) -> pd.DataFrame:
        """One row."""
        return dg.tidy([{"metric": "own", "domain": "a", "value": 1.0}])

    assert "% diagnostic: Nobody 2031, nowhere" in dg.cite(own(study))


def claims(**columns: Any) -> pd.DataFrame:
    numbers = {"estimate": 0.02, "low": -0.01, "high": 0.05, "minimum_detectable_effect": 0.03, "unit": "share"}
    row = {"claim": "◇ Gains 5 %", "paper": "Cha et al. 2022, arXiv:2203.10789", "published": "", "verdict": "yes"}
    other = {**row, "claim": "Keeps", "note": "3_4", "verdict": "no", "ours": True, "unit": "nats", "seeds": "0, 1"}
    return pd.DataFrame([{**row, **numbers}, {**numbers, **other}]).assign(**columns)


def test_claims_as_latex_hold_each_estimate_and_what_a_reader_must_know(tmp_path: Path) -> None:
    lines = dg.latex(claims(), label="tab:c").splitlines()
    assert lines[3] == r"\begin{tabular}{p{.3\linewidth}lllll}"
    assert lines[5] == r"claim & paper & seeds & estimate & detectable & verdict \\"
    first = r"Gains 5 \%$^{\diamond}$ & Cha et al. 2022 &  & +2.0 points ($-$1.0 to +5.0) & 3.0 points & yes \\"
    ours = r"Keeps$^{1}$ & ours, after Cha et al. 2022 & 2 & +0.02 nats ($-$0.01 to +0.05) & 0.03 nats & no \\"
    assert lines[7:9] == [first, ours]
    notes = "\n".join(lines[10:])
    assert r"$^{\diamond}$ Target-aware" in notes and r"$^{1}$ 3\_4\par" in notes and r"95 \% intervals" in notes
    claims().to_csv(tmp_path / "claims.csv", index=False)
    assert dg.latex(pd.read_csv(tmp_path / "claims.csv"), label="tab:c").splitlines() == lines, "empty cells stay empty"
    with pytest.raises(dg.DgpruneError, match="claims has neither metrics nor domains"):
        dg.latex(claims(), metric="accuracy")
    with pytest.raises(dg.DgpruneError, match="frame has no rows"):
        dg.latex(claims().head(0))


def test_a_study_and_claims_cite_their_papers_and_two_of_one_author_and_year_are_told_apart(tmp_path: Path) -> None:
    assert {"cha2022", "sun2023", "li2017", "li2017pacs"} <= cited(dg.experiments.shipped("pacs"))
    assert not cited(dg.experiments.shipped("pacs_quick")) & {"li2017pacs"}, "it has other data"
    assert not cited(accuracies()) & {"li2017pacs"} and "cha2022" in cited(claims())
    assert "% claim: Nobody 2031" in dg.cite(claims(paper="Nobody 2031"))
    own = dataclasses.replace(experiment(count=1), cite="Holm 1979")
    assert "holm1979" in cited(dg.experiments.run(own, folder=tmp_path).table())


def cited(frame: pd.DataFrame) -> set[str]:
    return set(re.findall(r"^@\w+{(\w+),", dg.cite(frame), re.MULTILINE))


def test_latex_keeps_a_name_from_being_read_as_an_argument_of_the_line_break() -> None:
    r"""After `\\` LaTeX takes "[a]" for a length, and never ends, and "*" for a part of the command."""
    rows = [
        {"domain": name, "metric": "accuracy", "value": 0.5, "unit": "share", "target_aware": False}
        for name in ("[a]", "*b", "--c", "`d`")
    ]
    first = [line.split(" & ")[0] for line in dg.latex(dg.tidy(rows)).splitlines() if " & 50.0" in line]
    assert first == ["{[}a{]}", "{*}b", "{-}{-}c", r"\textasciigrave{}d\textasciigrave{}"]


def test_counts_are_written_out_and_what_only_sometimes_applies_takes_no_column() -> None:
    shared = {"scorer": "l1", "scope": "layer", "budget": "filters", "ratio_requested": 0.5, "ratio_achieved": 0.496}
    rows = [
        {**shared, "metric": "accuracy", "domain": "a", "split": "report", "value": 0.9, "unit": "share"},
        {**shared, "metric": "parameters", "value": 1_234_567, "unit": "count"},
        {
            "scorer": "l2",
            "ratio_requested": 0.0,
            "ratio_achieved": 0.0,
            "metric": "bytes",
            "value": 99.0,
            "unit": "bytes",
        },
        {"metric": "images", "value": 41.5, "unit": "count"},
    ]
    table = dg.summary(dg.tidy(rows))
    assert list(table.columns) == ["scorer", "removed", "achieved", "domain", "metric", "value"]
    assert table.value.tolist() == ["90.0 %", "1,234,567", "99", "41.5"]
    assert table.removed.tolist() == ["50 %", "50 %", "0 %", ""] and table.achieved.tolist() == [
        "49.6 %",
        "49.6 %",
        "0 %",
        "",
    ]


def test_the_index_that_a_csv_file_holds_is_no_column(tmp_path: Path) -> None:
    rows = [
        {"domain": "a", "metric": "accuracy", "value": 0.5 + seed / 10, "unit": "share", "training_seed": seed}
        for seed in range(3)
    ]
    frame = dg.tidy(rows)
    frame.to_csv(tmp_path / "table.csv")
    read = pd.read_csv(tmp_path / "table.csv")
    assert "Unnamed: 0" in read and "Unnamed: 0" not in dg.summary(read)
    assert dg.experiments.averages(read).value.tolist() == pytest.approx([0.6])
    assert dg.latex(read) == dg.latex(frame)


def test_a_table_without_rows_is_not_printed() -> None:
    frame = dg.tidy([{"domain": "a", "metric": "accuracy", "value": 0.5, "unit": "share"}])
    with pytest.raises(dg.DgpruneError, match="frame has no rows"):
        dg.latex(frame.query("metric == 'acc'"))
