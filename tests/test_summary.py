"""Tables to read: the short view, predicted orders, events and ends of runs, agreement of maps, halves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from material import domain
from pruning_runs import trained

import dgprune_lab as dg


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


@pytest.mark.parametrize(
    ("ends", "expected"),
    [((0.1, 0.3), "better"), ((-0.3, -0.1), "worse"), ((-0.1, 0.1), "not significant"),
     ((0.0, 0.2), "not significant"), ((np.nan, np.nan), "no interval")],
)  # fmt: skip
def test_a_verdict_follows_the_interval(ends: tuple[float, float], expected: str) -> None:
    frame = dg.tidy([{"metric": "difference", "value": 0.2, "low": ends[0], "high": ends[1], "unit": "share"}])
    assert dg.summary(frame, verdict=("better", "worse")).verdict.item() == expected


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
    with pytest.raises(dg.DgpruneError, match="60 and 59"):
        dg.diagnostics.map_agreement(map_table(points), map_table(points[:-1]))
    with pytest.raises(dg.DgpruneError, match=r"no map at ratio 0\.5"):
        dg.diagnostics.map_agreement(map_table(points), map_table(points), ratio=0.5)


def test_halves_share_no_image_and_hold_them_all() -> None:
    whole = domain("a", count=63)
    first, second = dg.data.halves(whole)
    rows = whole.rows("report")
    assert [half.name for half in (first, second)] == ["a, first half", "a, second half"]
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
