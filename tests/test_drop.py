"""The drop of accuracy right after removal: absolute, relative, per class, and of one layer alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from material import domain, plain_net, randomise
from read_study import only_row, read_domain, read_study

import dgprune_lab as dg
from dgprune_lab.core.tables import COLUMNS
from dgprune_lab.diagnostics.drop import EXTRA
from dgprune_lab.stats import intervals

pytestmark = pytest.mark.filterwarnings("ignore::dgprune_lab.core.errors.DgpruneNote")


@pytest.fixture(scope="module")
def study() -> dg.Study:
    return read_study()


def right(study: dg.Study, mask: dg.Mask | None, name: str, batchnorm: Any = "recalibrate") -> Any:
    correct = study.outcomes(mask, domain=name, batchnorm=batchnorm if mask else "as_is").correct
    assert correct is not None
    return correct.double().numpy()


def test_relative_and_absolute_drop_against_a_slow_paired_bootstrap(study: dg.Study) -> None:
    frame = dg.diagnostics.drop(study, scorers=["l1", "random"], ratios=[0.3, 0.6], batchnorm="recalibrate")
    assert tuple(frame.columns) == (*COLUMNS, *EXTRA) and len(frame) == 2 * 2 * 2 * 2
    generator = np.random.default_rng(0)
    for scorer in ("l1", "random"):
        for ratio in (0.3, 0.6):
            mask = dg.allocate(study.score(scorer), ratio=ratio)
            for name in ("a", "t"):
                after, before = right(study, mask, name, "recalibrate"), right(study, None, name)
                cells = {"scorer": scorer, "ratio_requested": ratio, "domain": name}
                change, relative = (only_row(frame, metric=m, **cells) for m in ("accuracy_change", "relative_drop"))
                assert change.value == pytest.approx(after.mean() - before.mean())
                assert relative.value == pytest.approx((before.mean() - after.mean()) / before.mean())
                draws = generator.integers(0, len(after), (4000, len(after)))
                ratios = 1 - after[draws].mean(1) / before[draws].mean(1)
                slow = np.percentile(ratios, [2.5, 97.5])
                assert [relative.low, relative.high] == pytest.approx(slow.tolist(), abs=0.015)
                assert set(frame.interval) == {"images"} and set(frame.unit) == {"share"}
                assert relative.low < relative.value < relative.high and relative.images == len(after)


def test_relative_intervals_are_paired_and_exact_where_all_resamples_agree() -> None:
    before = np.array([1.0] * 60 + [0.0] * 40)
    same, nothing = before.copy(), np.zeros(100)
    less = np.array([1.0] * 30 + [0.0] * 70)
    low, high = intervals.relative_drops(np.stack([same, nothing, less], 1), before)
    room = (1 - 0.025 ** (1 / 100)) / 0.6
    assert (low[0], high[0]) == pytest.approx((-room, room)) and (low[1], high[1]) == pytest.approx((1 - room, 1.0))
    # Of the 60 that were right each stays right or not by itself: a proportion of 60, narrower than unpaired means.
    assert high[2] - low[2] == pytest.approx(2 * 1.96 * (0.25 / 60) ** 0.5, rel=0.12)
    assert np.isnan(intervals.relative_drops(less[:, None], nothing)).all()
    gaps = intervals.differences(np.stack([same, less], 1), before)
    for k, after in enumerate((same, less)):
        assert (gaps[0][k], gaps[1][k]) == pytest.approx(intervals.difference(after, before))


def test_a_resample_without_a_right_image_is_left_out() -> None:
    before, after = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0, 0.0])
    low, high = intervals.relative_drops(after[:, None], before)
    assert np.isfinite([low[0], high[0]]).all() and low[0] < 1 == high[0]


@pytest.mark.parametrize(
    ("share", "classes", "chance"),
    [(0.10, 10, True), (0.13, 10, True), (0.30, 10, False), (0.30, 3, True), (1.0, 1, True)],
)
def test_at_chance_depends_on_the_interval_and_the_number_of_classes(share: float, classes: int, chance: bool) -> None:
    flags = np.zeros(100)
    flags[: round(100 * share)] = 1
    assert intervals.at_chance(flags, classes=classes) is chance


@pytest.mark.parametrize(("right", "count", "classes"), [(35, 250, 10), (115, 300, 3), (8, 20, 5)])
def test_an_interval_that_ends_exactly_at_chance_is_at_chance(right: int, count: int, classes: int) -> None:
    flags = np.zeros(count)
    flags[:right] = 1
    assert float(intervals.over_images(flags)[0]) == pytest.approx(1 / classes, abs=1e-7)
    assert intervals.at_chance(flags, classes=classes)


def test_the_relative_drop_is_empty_where_the_full_network_is_at_chance() -> None:
    model = randomise(plain_net(), dtype=torch.float32)
    guessed = domain("guessed", count=900)  # random labels
    study = dg.Study(model, sources=[guessed], targets=[read_domain(model, "read", seed=5)])
    frame = dg.diagnostics.drop(study, ratios=[0.5])
    relative = frame.loc[frame.metric == "relative_drop"]
    empty = only_row(relative, domain="guessed")
    assert np.isnan([empty.value, empty.low, empty.high]).all()
    assert np.isfinite(only_row(frame, domain="guessed", metric="accuracy_change").value)
    read = only_row(relative, domain="read")
    assert read.value == pytest.approx(-only_row(frame, domain="read", metric="accuracy_change").value), (
        "all was right before"
    )


def test_a_class_row_is_the_drop_on_the_images_of_that_class(study: dg.Study) -> None:
    frame = dg.diagnostics.drop(study, ratios=[0.5], by="class")
    mask, seen = dg.allocate(study.score("l1"), ratio=0.5), 0
    for name in ("a", "t"):
        labels = study.outcomes(None, domain=name).labels
        assert labels is not None
        after, before = right(study, mask, name), right(study, None, name)
        overall = frame.loc[(frame.domain == name) & frame["class"].isna() & (frame.metric == "accuracy_change")]
        assert overall.value.item() == pytest.approx(after.mean() - before.mean())
        by_class = frame.loc[(frame.domain == name) & frame["class"].notna() & (frame.metric == "accuracy_change")]
        assert by_class["class"].tolist() == [0, 1, 2, 3] and by_class.images.sum() == len(labels)
        for _, row in by_class.iterrows():
            own = (labels == row["class"]).numpy()
            assert row.images == own.sum()
            if own.sum() < 5:
                assert np.isnan([row.value, row.low, row.high]).all()
                continue
            seen += 1
            assert row.value == pytest.approx(after[own].mean() - before[own].mean())
            assert (row.low, row.high) == pytest.approx(intervals.difference(after[own], before[own]))
    assert seen >= 3


def test_a_class_of_fewer_than_five_images_is_empty() -> None:
    model = randomise(plain_net(), dtype=torch.float32)
    rare = domain("rare", count=90)
    labels = rare.labels.clone() if rare.labels is not None else torch.empty(0)
    labels[rare.rows("report")] = torch.tensor([0] * 22 + [1] * 4 + [2] * 4)
    few = dg.Domain.from_arrays("rare", images=rare.images, labels=labels, splits=dict(rare.splits), classes=4)
    frame = dg.diagnostics.drop(dg.Study(model, sources=[few]), by="class")
    rows = frame.loc[frame.metric == "accuracy_change"].set_index(frame.loc[frame.metric == "accuracy_change", "class"])
    assert np.isfinite(rows.value.iloc[:2]).all() and rows.value.iloc[2:].isna().all()
    assert rows.images.tolist() == [30, 22, 4, 4, 0]


def test_by_layer_prunes_one_layer_and_no_other(study: dg.Study) -> None:
    frame = dg.diagnostics.drop(study, scorers=["l2"], ratios=[0.5], by="layer")
    changes = frame.loc[frame.metric == "accuracy_change"]
    assert changes.group.drop_duplicates().tolist() == study.graph.names == ["0", "4"]
    assert changes["class"].isna().all() and len(changes) == 4
    scores = study.score("l2").values
    for _, row in changes.iterrows():
        removed = scores[row.group].argsort(stable=True)[: len(scores[row.group]) // 2].tolist()
        by_hand = dg.Mask.by_hand(study.graph, removed={row.group: removed})
        small = dg.recalibrate(dg.prune(study.model, by_hand), study.sources)
        outcomes = dg.evaluate(small, study.domain(row.domain), "report")
        assert row.value == pytest.approx(outcomes.accuracy - right(study, None, row.domain).mean())
        assert row.ratio_achieved == 0.5 and row.ratio_requested == 0.5, "of that layer's own filters"
    assert changes.value.nunique() > 1


def test_several_networks_are_distinguished_and_equal_each_alone() -> None:
    first, second = read_study("one"), read_study("two", seed=4)
    both = dg.diagnostics.drop([first, second], ratios=[0.5], scorers=["l1"])
    assert both.network.drop_duplicates().tolist() == ["one", "two"]
    for study in (first, second):
        alone = dg.diagnostics.drop(study, ratios=[0.5], scorers=["l1"])
        own = both.loc[both.network == study.name].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, alone)


def test_steps_report_progress_and_return_the_same_table(study: dg.Study) -> None:
    steps = dg.diagnostics.drop.steps(study, scorers=["l1", "l2"], ratios=[0.2, 0.4], by="layer")
    progress = []
    while True:
        try:
            progress.append(next(steps))
        except StopIteration as end:
            frame = end.value
            break
    assert progress[-1] == (16, 16) and [done for done, _ in progress] == sorted(done for done, _ in progress)
    same = dg.diagnostics.drop(study, scorers=["l1", "l2"], ratios=[0.2, 0.4], by="layer")
    pd.testing.assert_frame_equal(frame, same)


def test_column_images_shows_an_estimate_and_unlabelled_domains_are_left_out() -> None:
    model = randomise(plain_net(), dtype=torch.float32)
    study = dg.Study(model, sources=[domain("a", count=300)], targets=[domain("t", seed=1, labelled=False)])
    frame = dg.diagnostics.drop(study, images=40)
    assert set(frame.images) == {40} and set(frame.domain) == {"a"}
    bare = dg.Study(model, sources=[domain("b", labelled=False)])
    assert dg.diagnostics.drop(bare).empty


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "image"}, "by must be one of 'domain', 'class', 'layer'; got 'image'"),
        ({"by": "layer", "scope": "global"}, "got scope='global' and budget='filters'"),
        ({"by": "layer", "budget": "macs"}, "got scope='layer' and budget='macs'"),
        ({"scorers": []}, "at least one scorer and one ratio"),
        ({"ratios": []}, "at least one scorer and one ratio"),
        ({"ratios": [1.0]}, r"ratios must lie in \[0, 1\)"),
    ],
)
def test_invalid_options_are_refused(study: dg.Study, options: dict[str, Any], message: str) -> None:
    with pytest.raises(dg.DgpruneError, match=message):
        dg.diagnostics.drop(study, **options)


def test_studies_that_cannot_be_compared_are_refused(study: dg.Study) -> None:
    with pytest.raises(dg.DgpruneError, match=r"two studies are called 'study'.*name="):
        dg.diagnostics.drop([study, read_study()])
    with pytest.raises(dg.DgpruneError, match="ready Scores belong to one network"):
        dg.diagnostics.drop([study, read_study("other")], scorers=[study.score("l1")])
    cases: list[tuple[Any, str]] = [([], "an empty list"), ([study.model], "Sequential")]
    for wrong, kind in cases:
        with pytest.raises(dg.DgpruneError, match=f"(?i)a study or a list of studies; got (a )?{kind}"):
            dg.diagnostics.drop(wrong)
