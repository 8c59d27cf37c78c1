"""Pruning schedules: exact counts, events, and an error for every schedule that makes no sense."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dgprune_lab as dg
from dgprune_lab.training.scheduled.schedules import LayerSchedule, PruneSchedule

# 512 filters as in the paper's VGG-11 and ResNet-18 (last four convolutions, an event every 4 epochs): N, start, end,
# ratio; T events, K kept; kept after events 1, 2, 3, the middle one and the last, by hand from the formula.
PAPER = [
    ((3, 150, 0.3), 37, 359, (508, 504, 500), (19, 434)),
    ((4, 150, 0.3), 37, 359, (508, 504, 500), (19, 434)),
    ((5, 150, 0.3), 37, 359, (508, 504, 500), (19, 434)),
    ((6, 275, 0.9), 68, 52, (506, 499, 492), (34, 282)),
    ((7, 150, 0.25), 36, 384, (509, 505, 502), (18, 448)),
    ((8, 150, 0.4), 36, 308, (507, 501, 495), (18, 410)),
    ((9, 170, 0.25), 41, 384, (509, 506, 503), (20, 450)),
    ((10, 275, 0.95), 67, 26, (505, 498, 491), (33, 273)),
]


@pytest.mark.parametrize(("numbers", "events", "kept", "first", "middle"), PAPER)
def test_counts_of_the_paper(numbers: Any, events: int, kept: int, first: Any, middle: Any) -> None:
    start, end, ratio = numbers
    schedule = LayerSchedule(layer="conv", start=start, end=end, every=4, ratio=ratio)
    counts = schedule.kept(512)
    assert len(schedule.epochs) == len(counts) == (end - start) // 4 + 1 == events
    assert counts[-1] == kept and tuple(counts[:3]) == first and counts[middle[0] - 1] == middle[1]


@given(st.integers(1, 600), st.integers(0, 99), st.integers(0, 40), st.integers(0, 80), st.integers(1, 9))
def test_counts_equal_the_formula_in_exact_fractions(
    filters: int, percent: int, start: int, length: int, every: int
) -> None:
    """The slow twin: exact fractions instead of floats, ceil of the whole expression."""
    schedule = LayerSchedule(layer="conv", start=start, end=start + length, every=every, ratio=percent / 100)
    count = math.floor(Fraction(length, every)) + 1
    least = filters - math.floor(Fraction(percent, 100) * filters)
    expected = [math.ceil(least + (filters - least) * Fraction(count - t, count)) for t in range(1, count + 1)]
    assert schedule.kept(filters) == expected and len(schedule.epochs) == count
    assert expected[-1] == least >= 1


def test_rounding_of_floats_has_no_influence() -> None:
    assert (
        LayerSchedule(layer="conv", start=1, end=1, every=1, ratio=0.7).kept(10) == [3] != [math.ceil((1 - 0.7) * 10)]
    )
    assert LayerSchedule(layer="conv", start=1, end=1, every=1, ratio=0.29).kept(100) == [71], ".29 * 100 is below 29"


def test_layers_due_together_share_an_event_and_an_epoch_without_removal_has_none() -> None:
    schedule = PruneSchedule({"a": (1, 5, 2, 0.5), "b": (3, 3, 1, 0.25), "c": (1, 5, 1, 0.1)})
    table = schedule.timetable({"a": 6, "b": 4, "c": 10}, epochs=5)
    assert table == {1: {"a": 5}, 3: {"a": 4, "b": 3}, 5: {"a": 3, "c": 9}}
    assert schedule.epochs == (1, 2, 3, 4, 5)


def test_star_covers_unnamed_layers_and_one_layer_may_have_several_schedules() -> None:
    both = PruneSchedule(
        [
            LayerSchedule(layer="*", start=1, end=1, every=1, ratio=0.5),
            LayerSchedule(layer="a", start=1, end=2, every=1, ratio=0.25),
            LayerSchedule(layer="a", start=4, end=4, every=1, ratio=0.5),
        ]
    )
    assert both.timetable({"a": 8, "b": 4}) == {1: {"a": 7, "b": 2}, 2: {"a": 6}, 4: {"a": 2}}
    assert both.before_training().timetable({"a": 8, "b": 4}) == {0: {"a": 2, "b": 2}}
    assert PruneSchedule.everywhere(start=2, end=2, every=1, ratio=0.5).timetable({"b": 4}) == {2: {"b": 2}}
    assert PruneSchedule({}).timetable({"a": 8}) == {} and PruneSchedule({}).epochs == ()


@pytest.mark.parametrize("filters", [5, 7, 10, 64])
def test_successive_ratios_add_up_before_rounding(filters: int) -> None:
    """The control from scratch then loses as many filters: of 5, 0.3 and 0.3 are 3, not twice 1."""
    both = PruneSchedule(
        [
            LayerSchedule(layer="a", start=1, end=2, every=1, ratio=0.3),
            LayerSchedule(layer="a", start=3, end=4, every=1, ratio=0.3),
        ]
    )
    table = both.timetable({"a": filters})
    left = {"a": filters - filters * 6 // 10}
    assert table[max(table)] == both.before_training().timetable({"a": filters})[0] == left


SIZES = {"conv1": 8, "conv2": 8}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PruneSchedule({"conv1": (5, 3, 1, 0.5)}), r"ends \(epoch 3\) before it starts \(epoch 5\)"),
        (lambda: PruneSchedule({"conv1": (5, 9, 0, 0.5)}), "every must be a whole number of epochs, at least 1; got 0"),
        (lambda: LayerSchedule(layer="conv1", start=1.5, end=9, every=1, ratio=0.5), "start must be a whole number"),  # type: ignore[arg-type]
        (lambda: PruneSchedule({"conv1": (-1, 9, 1, 0.5)}), "start must be a whole number of epochs, at least 0"),
        (lambda: PruneSchedule({"conv1": (1, 9, 1, 1.0)}), "since 1 would empty the layer; got 1.0"),
        (lambda: PruneSchedule({"conv1": (1, 9, 1, -0.1)}), "ratio must lie in 0 to below 1"),
        (
            lambda: PruneSchedule({"conv1": (1, 9, 1)}),  # type: ignore[arg-type]
            r"four numbers \(start, end, every, ratio\) .*got \(1, 9, 1\) at 'conv1'",
        ),
        (lambda: PruneSchedule([(1, 2, 3, 0.4)]), r"a list of LayerSchedules; got \(1, 2, 3, 0\.4\) at position 0"),  # type: ignore[list-item]
        (
            lambda: PruneSchedule(
                [
                    LayerSchedule(layer="conv1", start=1, end=9, every=4, ratio=0.1),
                    LayerSchedule(layer="conv1", start=9, end=12, every=1, ratio=0.1),
                ]
            ),
            "two schedules of layer 'conv1' overlap: epochs 1 to 9 and 9 to 12",
        ),
        (
            lambda: PruneSchedule(
                [
                    LayerSchedule(layer="conv1", start=1, end=1, every=1, ratio=0.6),
                    LayerSchedule(layer="conv1", start=2, end=2, every=1, ratio=0.6),
                ]
            ).timetable(SIZES),
            "would empty it at epoch 2; it has 8 filters",
        ),
        (
            lambda: PruneSchedule({"conv_1": (1, 2, 1, 0.5)}).timetable(SIZES),
            "unknown layer 'conv_1'; known: conv1, conv2. Did you mean 'conv1'?",
        ),
        (
            lambda: PruneSchedule({"conv1": (1, 9, 4, 0.5)}).timetable(SIZES, epochs=8),
            "an event at epoch 9, and the training has 8",
        ),
    ],
)
def test_invalid_schedules_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(dg.DgpruneError, match=message):
        call()


def test_a_schedule_with_events_without_end_is_refused_with_their_number() -> None:
    with pytest.raises(dg.DgpruneError, match=r"layer 'conv' would make 1,000,000,000 events, at most 10,000"):
        PruneSchedule({"conv": (1, 10**9, 1, 0.5)})
    with pytest.raises(dg.DgpruneError, match=r"would make 10,001 events"):
        PruneSchedule.everywhere(start=0, end=10_000, every=1, ratio=0.5)
    assert PruneSchedule({"conv": (1, 10**9, 10**9 - 1, 0.5)}).epochs == (1, 10**9)
