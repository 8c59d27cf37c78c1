"""The referee of measures: hand-worked grids, planted truth, coverage of intervals, bad input; its two charts."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from itertools import combinations, permutations, product
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import dgprune_lab as dg
from dgprune_lab.charts.theme import vegalite_to_svg
from dgprune_lab.experiments import convergence, predictors
from dgprune_lab.stats import predictors as stats
from dgprune_lab.widgets import LiveChart
from dgprune_lab.widgets.page.standalone import page_text

KNOBS = ("width", "depth", "dropout", "lr")
CMI = "conditional_mutual_information"


def levels_of(counts: tuple[int, ...], *, seeds: int = 1) -> Any:
    return np.array([levels for levels in product(*map(range, counts)) for _ in range(seeds)])


def zoo(
    measures: dict[str, Callable[[Any, Any, Any], Any]],
    *,
    knobs: tuple[str, ...] = KNOBS,
    seeds: int = 2,
    seed: int = 0,
    failed: tuple[int, ...] = (),
) -> pd.DataFrame:
    """The table of a made-up study: test loss = effect of the hyperparameters + what a training adds."""
    random, levels = np.random.default_rng(seed), levels_of((2,) * len(knobs), seeds=seeds)
    own = random.normal(size=len(levels))  # what the training adds, the same on both domains
    loss = 2 * levels[:, 0] + 0.5 * levels[:, 1:].sum(1) + own
    values = {name: make(levels, own, random) for name, make in measures.items()}
    rows: list[dict[str, Any]] = []
    for k, cell in enumerate(levels):
        about = {**dict(zip(knobs, cell.tolist(), strict=True)), "training_seed": k % seeds}
        about |= {"converged": k not in failed, "run": k}
        for name, numbers in values.items():
            rows.append({**about, "metric": name, "value": numbers[k], "better_direction": "lower"})
        for domain, role, shift in (("fashion", "source", 0.0), ("shifted", "target", 1.0)):
            told = {"domain": domain, "role": role, "split": "report", "images": 100, "target_aware": False}
            rows.append({**about, **told, "metric": "loss", "value": loss[k] + shift})
            rows.append({**about, **told, "metric": "generalization_gap", "value": loss[k] / 10})
    return dg.tidy(rows, extra=[*knobs, "converged", "run", "better_direction"])


HONEST = {
    "knows_the_training": lambda levels, own, random: own,
    "knows_the_width": lambda levels, own, random: levels[:, 0] + 1e-6 * random.normal(size=len(own)),
    "knows_nothing": lambda levels, own, random: random.normal(size=len(own)),
    "is_wrong": lambda levels, own, random: -own,
}


def judged(frame: Any, **options: Any) -> pd.DataFrame:
    return predictors(frame, **{"hyperparameters": KNOBS, "outcomes": ["loss"], "domain": "fashion", **options})


def value(table: Any, measure: str, metric: str, *, given: str | None = None) -> dict[str, Any]:
    rows: Any = table[(table["measure"] == measure) & (table["metric"] == metric)]
    rows = rows[rows["given"].isna() if given is None else rows["given"] == given]
    (row,) = rows.to_dict("records")
    return row


# --- by hand ------------------------------------------------------------------------------------------------------

# Two hyperparameters A and B of two levels, one network per cell, numbers signed so that larger is better:
#   network  A B  measure  outcome
#   1        0 0     1        1
#   2        0 1     2        3
#   3        1 0     3        2
#   4        1 1     4        4
HAND = levels_of((2, 2)), np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])


def test_the_taus_of_a_hand_worked_grid() -> None:
    # Pairs 12, 13, 14, 24, 34 agree, 23 does not: tau = (5 - 1) / 6.
    # Differing in A alone: 13 and 24 agree, tau 1. In B alone: 12 and 34 agree, tau 1.
    levels, measure, outcome = HAND
    grid = stats.Grid(levels)
    tau_a, tau_b = stats.kendall(measure, outcome, grid=grid, draws=grid.unit)
    assert tau_a[0] == pytest.approx(4 / 6) and tau_b[0] == pytest.approx(4 / 6)
    assert stats.granulated(measure, outcome, grid=grid, draws=grid.unit).tolist() == [[1, 1]]


def test_conditional_mutual_information_of_a_hand_worked_grid() -> None:
    # S = {}: 12 ordered pairs; (V_m, V_o) is (+, +) 5 times, (-, -) 5, (+, -) 1, (-, +) 1. Margins are 1/2.
    #   H(V_o) = 1, I = 2 (5/12) log2((5/12) / (1/4)) + 2 (1/12) log2((1/12) / (1/4)) = 0.350.
    # S = {A}: U = (0, 0) holds 12 and 21: H = 1 and I = 1; the same for (1, 1) with 34 and 43.
    #   (0, 1) holds 13, 14, 23, 24: V_m is always -, so I = 0; V_o is -, -, +, -: H = .811. The same for (1, 0).
    #   p(U) = 2/12, 2/12, 4/12, 4/12: ratio = (4/12) / (4/12 + 8/12 * .811) = 0.381.
    # S = {B}: (0, 0) holds 13 and 31, (1, 1) holds 24 and 42: H = I = 1. (0, 1) holds 12, 14, 32, 34:
    #   V_m -, -, +, -; V_o -, -, -, -: H = 0, I = 0. Ratio (4/12) / (4/12) = 1.
    # S = {A, B}: each U holds one pair, so H = 0: left out. The minimum is that of S = {}.
    levels, measure, outcome = HAND
    grid = stats.Grid(levels)
    (found,) = stats.conditional_mutual_information(measure, outcome, grid=grid, draws=grid.unit)
    assert found == pytest.approx(2 * (5 / 12) * log2(5 / 3) + 2 * (1 / 12) * log2(1 / 3))
    # With outcomes 1, 4, 2, 3 the pairs 23 and 24 disagree: for S = {} that leaves 1 - H(1/3) = .082.
    # S = {A}: U = (0, 0) agrees and (1, 1) too; (0, 1) holds 13, 14, 23, 24 with V_o -, -, +, + (H = 1) and V_m
    #   always -: ratio (4/12) / (4/12 + 8/12) = .333. S = {B}: (0, 0) and (1, 1) hold 13, 31, 24, 42, of which the
    #   measure tells all; (0, 1) holds 12, 14, 32, 34 with V_o all -: ratio 1. The minimum is .082.
    (found,) = stats.conditional_mutual_information(measure, np.array([1.0, 4, 2, 3]), grid=grid, draws=grid.unit)
    assert found == pytest.approx(1 + (1 / 3) * log2(1 / 3) + (2 / 3) * log2(2 / 3))


def test_the_pgdl_variant_of_a_hand_worked_grid() -> None:
    # Networks 0 to 7 = 4 A + 2 B + C; the measure orders them 0 < 1 < ... < 7, the gap too but for 1 < 0.
    # V is + where the first of a pair is worse (smaller), so (x, x) is -. h = H(1/4) = .811; joint 2-1-1 has H = 1.5.
    # S = {A, B}: the four U of a cell with itself hold (x, x), (x, y), (y, x), (y, y). For 2, 3 and 4, 5 and 6, 7:
    #   V_m = V_g = -, +, -, -: H = I = h. For 0, 1: V_m -, +, -, -; V_g -, -, +, -: I = 2 h - 1.5. The other twelve U
    #   have H = 0. Ratio (3 h + 2 h - 1.5) / 4 h = .788.
    # S = {A, C}: A differs: H = 0. A and C equal (4 U): H = I = h. A = 0, C differs (2 U), such as 0, 2 with 1, 3:
    #   V_m +, +, -, +; V_g -, +, -, +: H = 1, I = h + 1 - 1.5. A = 1, C differs (2 U): H = I = h.
    #   Ratio (6 h + 2 (h - .5)) / (6 h + 2) = .799.
    # S = {B, C}: 14 U have H = I = h; 0, 4 with 1, 5 and 1, 5 with 0, 4 have H = 1, I = h - .5.
    #   Ratio (14 h + 2 (h - .5)) / (14 h + 2) = .897. The minimum is the first.
    h = -(0.25 * log2(0.25) + 0.75 * log2(0.75))
    measure, gap, levels = np.arange(8.0), np.array([1.0, 0, 2, 3, 4, 5, 6, 7]), levels_of((2, 2, 2))
    found = stats.conditional_mutual_information_pgdl(measure, gap, levels=levels)
    assert found == pytest.approx((5 * h - 1.5) / (4 * h))
    by_loops = [pgdl_slowly(measure, gap, levels, sets=[chosen]) for chosen in combinations(range(3), 2)]
    assert by_loops == pytest.approx([(5 * h - 1.5) / (4 * h), (8 * h - 1) / (6 * h + 2), (16 * h - 1) / (14 * h + 2)])


def test_the_pgdl_variant_counts_ties_and_needs_one_network_in_every_cell() -> None:
    random, levels = np.random.default_rng(3), levels_of((2, 3, 2, 2))
    measure, gap = random.integers(0, 5, len(levels)).astype(float), random.integers(0, 5, len(levels)).astype(float)
    slowly = pgdl_slowly(measure, gap, levels, sets=combinations(range(4), 2))
    assert stats.conditional_mutual_information_pgdl(measure, gap, levels=levels) == pytest.approx(slowly)
    for wrong in (levels[1:], np.concatenate([levels, levels[:1]])):
        with pytest.raises(dg.DgpruneError, match="one network per cell"):
            stats.conditional_mutual_information_pgdl(np.ones(len(wrong)), np.ones(len(wrong)), levels=wrong)


def pgdl_slowly(measure: Any, gap: Any, levels: Any, *, sets: Any) -> float:
    """Loops over all pairs of networks, as the definition reads."""
    ratios = []
    for chosen in sets:
        tables: dict[Any, Any] = {}
        for i, j in product(range(len(gap)), repeat=2):
            cell = tuple(levels[i, list(chosen)]), tuple(levels[j, list(chosen)])
            table = tables.setdefault(cell, np.zeros((2, 2)))
            table[int(measure[i] < measure[j]), int(gap[i] < gap[j])] += 1
        shared, entropy = zip(*(information(table) for table in tables.values()), strict=True)
        ratios.append(np.mean(shared) / np.mean(entropy))
    return min(ratios)


def information(table: Any) -> tuple[float, float]:
    """I(V_m; V_o) and H(V_o) of a (2, 2) table of counts, in bits."""
    joint = table / table.sum()
    both = [(p, joint[i].sum() * joint[:, j].sum()) for (i, j), p in np.ndenumerate(joint) if p > 0]
    return sum(p * log2(p / q) for p, q in both), -sum(p * log2(p) for p in joint.sum(0) if p > 0)


# --- against loops ------------------------------------------------------------------------------------------------


def slowly(measure: Any, outcome: Any, levels: Any, counts: Any) -> dict[str, float]:
    """All statistics by loops over the pairs of the networks and their copies, without pairs of copies of one."""
    cells = {cell: k for k, cell in enumerate(sorted(set(map(tuple, levels))))}
    whole = [(i, j) for i, j in permutations(np.flatnonzero(np.isfinite(measure + outcome)), 2)]
    drawn = [k for k in range(len(levels)) for _ in range(int(counts[cells[tuple(levels[k])]]))]
    drawn = [k for k in drawn if np.isfinite(measure[k] + outcome[k])]
    pairs = [(i, j) for i, j in permutations(drawn, 2) if i != j]

    def tau(some: list[tuple[int, int]]) -> float:
        return float(np.mean([np.sign(measure[i] - measure[j]) * np.sign(outcome[i] - outcome[j]) for i, j in some]))

    def alone(i: int, j: int, h: int) -> bool:
        return set(np.flatnonzero(levels[i] != levels[j])) == {h}

    def groups(some: Any, h: int) -> dict[Any, list[tuple[int, int]]]:
        found: dict[Any, list[tuple[int, int]]] = {}
        for i, j in some:
            if alone(i, j, h):
                found.setdefault(tuple(np.delete(levels[i], h)), []).append((i, j))
        return found

    by_one = []
    for h in range(levels.shape[1]):
        sizes, own = {key: len(some) for key, some in groups(whole, h).items()}, groups(pairs, h)
        by_one.append(np.average([tau(own[k]) for k in own], weights=[len(own[k]) / sizes[k] for k in own]))
    ratios = []
    untied = [(i, j) for i, j in pairs if measure[i] != measure[j] and outcome[i] != outcome[j]]
    for chosen in (c for size in range(3) for c in combinations(range(levels.shape[1]), size)):
        tables: dict[Any, Any] = {}
        for i, j in untied:
            table = tables.setdefault(
                (tuple(levels[i, list(chosen)]), tuple(levels[j, list(chosen)])), np.zeros((2, 2))
            )
            table[int(measure[i] > measure[j]), int(outcome[i] > outcome[j])] += 1
        weights = [table.sum() for table in tables.values()]
        shared, entropy = zip(*map(information, tables.values()), strict=True)
        if np.dot(weights, entropy) > 0:
            ratios.append(np.dot(weights, shared) / np.dot(weights, entropy))
    return {"tau": tau(pairs), "granulated": float(np.mean(by_one)), "information": min(ratios)}


@pytest.mark.parametrize("tied", [False, True])
def test_estimates_and_resamples_equal_loops_over_copies(tied: bool) -> None:
    random, levels = np.random.default_rng(5), levels_of((2, 3, 2), seeds=2)[:-3]  # an incomplete grid
    outcome = random.normal(size=len(levels))
    measure = outcome + random.normal(size=len(levels))
    if tied:
        measure, outcome = measure.round(), (2 * outcome).round()
        measure[4] = np.nan
    grid = stats.Grid(levels)
    draws = grid.draws(6)
    assert draws[0].tolist() == [1] * 11 and (draws.sum(1) == 11).all()
    pair = {"grid": grid, "draws": draws}
    taus = stats.kendall(measure, outcome, **pair)[0]
    granulated = stats.mean_of_known(stats.granulated(measure, outcome, **pair))
    information = stats.conditional_mutual_information(measure, outcome, **pair)
    for r, counts in enumerate(draws):
        expected = slowly(measure, outcome, levels, counts)
        found = {"tau": taus[r], "granulated": granulated[r], "information": information[r]}
        assert found == pytest.approx(expected, abs=1e-12)


def test_tau_b_and_partial_correlations_equal_those_of_scipy() -> None:
    random = np.random.default_rng(6)
    grid = stats.Grid(levels_of((2, 2, 2), seeds=3))
    outcome = random.normal(size=24).round(1)
    measures = np.stack([outcome + random.normal(size=24), random.normal(size=24).round(), -outcome + 0.1])
    measures[1, 3] = np.nan
    known = np.isfinite(measures[1])
    tau_b = stats.kendall(measures[1], outcome, grid=grid, draws=grid.unit)[1]
    assert tau_b[0] == pytest.approx(scipy.stats.kendalltau(measures[1, known], outcome[known])[0])
    found = stats.partial_correlations(measures, outcome, grid=grid, draws=grid.unit)[:, :, 0]
    assert np.isnan(found[0, 2]), "given the outcome itself nothing is left to correlate"
    three = measures[0, known], outcome[known], measures[1, known]
    mo, mg, og = (float(np.asarray(scipy.stats.spearmanr(*two))[0]) for two in combinations(three, 2))
    assert found[0, 1] == pytest.approx((mo - mg * og) / ((1 - mg**2) * (1 - og**2)) ** 0.5)


# --- planted truth ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return judged(zoo(HONEST, knobs=(*KNOBS, "batch_size")), hyperparameters=(*KNOBS, "batch_size"), resamples=200)


def test_a_measure_of_the_training_itself_predicts_within_the_hyperparameters(table: pd.DataFrame) -> None:
    for metric, least in (("kendall_tau_a", 0.3), ("granulated_tau", 0.5), (CMI, 0.1), ("partial_correlation", 0.5)):
        row = value(table, "knows_the_training", metric, given="knows_the_width" if "partial" in metric else None)
        assert row["value"] > least and row["low"] > (0 if metric != CMI else 0.05), row
        assert row["interval"] == "cells" and row["low"] < row["value"] < row["high"]


def test_a_measure_of_one_hyperparameter_has_a_high_pooled_tau_and_tells_nothing_beyond_it(table: pd.DataFrame) -> None:
    pooled, granulated, told = (
        value(table, "knows_the_width", metric) for metric in ("kendall_tau_a", "granulated_tau", CMI)
    )
    assert pooled["low"] > 0.2
    assert told["value"] < 0.03, "nothing is left once the width is known"
    assert granulated["value"] < 0.35, "one hyperparameter of five"
    widths = value(table, "knows_the_width", "tau_of_one_hyperparameter", given="width")
    assert widths["value"] > 0.8
    assert value(table, "knows_the_training", CMI)["value"] > 5 * told["value"]


def test_what_two_hyperparameters_tell_together_is_nothing_beyond_them() -> None:
    levels, random = levels_of((2, 2, 2), seeds=5), np.random.default_rng(2)
    known = 3 * levels[:, 0] + 2 * levels[:, 1]
    outcome, measure = known + random.normal(size=40), known + 1e-6 * random.normal(size=40)
    pair: dict[str, Any] = {"grid": (grid := stats.Grid(levels)), "draws": grid.unit}
    beyond_one, beyond_two = (stats.conditional_mutual_information(measure, outcome, **pair, most=k)[0] for k in (1, 2))
    assert beyond_one > 0.1 and beyond_two < 0.05
    assert stats.conditional_mutual_information(measure, outcome, **pair)[0] == beyond_two


def test_chance_and_the_wrong_direction_are_seen_as_such(table: pd.DataFrame) -> None:
    chance = value(table, "knows_nothing", "kendall_tau_a")
    assert chance["low"] < 0 < chance["high"]
    assert value(table, "is_wrong", "kendall_tau_a")["high"] < 0
    better = value(table, "knows_the_training", "tau_difference", given="is_wrong")
    right, wrong = (value(table, name, "kendall_tau_a")["value"] for name in ("knows_the_training", "is_wrong"))
    assert better["low"] > 0 and better["value"] == pytest.approx(right - wrong)


def test_a_short_view_gives_no_verdict_on_what_cannot_be_below_zero(table: pd.DataFrame) -> None:
    rows: Any = table[table["measure"] == "is_wrong"]
    short: Any = dg.summary(rows, metric=["kendall_tau_a", CMI], verdict=("right", "wrong")).set_index("metric")
    assert short["verdict"]["kendall_tau_a"] == "wrong" and short["verdict"][CMI] not in ("right", "wrong")
    assert "points" not in short["value"][CMI]


def test_the_order_of_the_rows_changes_nothing() -> None:
    frame = zoo(HONEST)
    tables = [judged(each, resamples=20) for each in (frame, frame.iloc[::-1])]
    keys, ends = ["measure", "metric", "given"], ["value", "low", "high"]
    first, second = (table.sort_values(keys).set_index(keys)[ends].to_numpy() for table in tables)
    assert np.allclose(first, second, equal_nan=True)


def test_the_direction_of_a_measure_is_signed(table: pd.DataFrame) -> None:
    frame = zoo({"a": HONEST["knows_the_training"]}).assign(
        better_direction=lambda f: f["better_direction"].where(f["metric"] != "a", "higher")
    )
    assert value(judged(frame, resamples=2), "a", "kendall_tau_a")["value"] < 0


@pytest.mark.slow
def test_the_interval_of_a_measure_that_tells_nothing_covers_zero() -> None:
    covered = {"kendall_tau_a": 0, "granulated_tau": 0, "partial_correlation": 0}
    rounds, levels = 300, levels_of((2,) * 6, seeds=2)
    grid = stats.Grid(levels)
    draws = grid.draws(300)
    for seed in range(rounds):
        random = np.random.default_rng(seed)
        cells = random.normal(size=(3, 64))[:, grid.cells]  # what the networks of a cell share
        measure, rival, outcome = cells + random.normal(size=(3, 128)) + np.stack([levels[:, 0]] * 3) * [[0], [1], [1]]
        pair = {"grid": grid, "draws": draws}
        found = {
            "kendall_tau_a": stats.kendall(measure, outcome, **pair)[0],
            "granulated_tau": stats.mean_of_known(stats.granulated(measure, outcome, **pair)),
            "partial_correlation": stats.partial_correlations(np.stack([measure, rival]), outcome, **pair)[0, 1],
        }
        for metric, values in found.items():
            low, high = np.percentile(values[1:], [2.5, 97.5])
            covered[metric] += int(low <= 0 <= high)
    shares = {metric: count / rounds for metric, count in covered.items()}
    assert all(share > 0.92 for share in shares.values()), shares


# --- ties, gaps and bad input -------------------------------------------------------------------------------------


def test_networks_without_convergence_are_left_out_and_tabled_by_level() -> None:
    frame = zoo(HONEST, failed=(0, 1, 5))
    table = predictors(frame, hyperparameters=KNOBS, outcomes=["loss"], resamples=2)
    row = value(table[table["domain"] == "shifted"], "knows_nothing", "kendall_tau_a")
    assert (row["networks"], row["dropped"], row["cells"], row["role"]) == (29, 3, 15, "target")
    assert "only 15 cells" in row["note"]
    counts = convergence(frame, hyperparameters=KNOBS)
    low = counts[(counts["hyperparameter"] == "width") & (counts["level"] == 0)].iloc[0]
    assert (low["networks"], low["converged"], low["dropped"]) == (16, 13, 3)
    assert counts.iloc[-1]["hyperparameter"] == "all" and counts.iloc[-1]["share_converged"] == 29 / 32


def test_the_pgdl_variant_says_why_it_has_no_number() -> None:
    whole, part = (
        value(
            judged(zoo(HONEST, failed=failed), outcomes=["generalization_gap"], resamples=2), "is_wrong", f"{CMI}_pgdl"
        )
        for failed in ((), (0, 1))
    )
    small = judged(
        zoo(HONEST, knobs=KNOBS[:2]), hyperparameters=KNOBS[:2], outcomes=["generalization_gap"], resamples=2
    )
    row = value(small, "is_wrong", f"{CMI}_pgdl")
    assert np.isnan(row["value"]) and "no order is left" in row["note"], "two hyperparameters tell all"
    assert np.isfinite(whole["value"]) and np.isnan(whole["low"]) and "2 of 2 training seeds" in whole["note"]
    assert np.isnan(part["value"]) and "15 of 16 cells" in part["note"]


def test_the_pgdl_variant_is_the_mean_over_training_seeds() -> None:
    frame: Any = zoo(HONEST)
    parts = (frame, *(frame[frame["training_seed"] == seed] for seed in range(2)))
    both, first, second = (
        value(judged(part, outcomes=["generalization_gap"], resamples=2), "knows_nothing", f"{CMI}_pgdl")["value"]
        for part in parts
    )
    assert first != second and both == pytest.approx((first + second) / 2)


def test_an_empty_level_has_its_line_in_the_table_of_convergence() -> None:
    frame = zoo(HONEST, failed=(0,)).assign(lr=lambda f: f["lr"].where(f["lr"] > 0))
    counts = convergence(frame, hyperparameters=["lr", "width", "depth", "dropout"])
    levels: Any = counts[counts["hyperparameter"] == "lr"]
    assert next(zip(levels["level"], levels["networks"], strict=True)) == (1, 16)
    empty = levels[levels["level"].isna()].iloc[0]
    assert (empty["networks"], empty["converged"]) == (16, 15)


def test_a_partial_correlation_needs_four_networks() -> None:
    outcome, rival = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])
    grid = stats.Grid(levels_of((2, 2)))
    for missing, known in ((None, True), (3, False)):
        measures = np.stack([np.array([2.0, 1, 3, 4]), rival])
        if missing is not None:
            measures = np.stack([[1.0, 3, 2, np.nan], [2.0, 1, 3, np.nan]])
        found = stats.partial_correlations(measures, outcome, grid=grid, draws=grid.unit)
        assert np.isfinite(found[0, 1, 0]) == known


def test_ties_constants_and_missing_values_are_said() -> None:
    made = {
        "never_there": lambda levels, own, random: np.full(len(own), np.nan),
        "constant": lambda levels, own, random: np.ones(len(own)),
        "in_two_levels": lambda levels, own, random: (own > 0) * 1.0,
        "with_a_gap": lambda levels, own, random: np.where(np.arange(len(own)) < 2, np.nan, own),
    }
    table = judged(zoo(made), resamples=20)
    constant = value(table, "constant", "kendall_tau_b")
    assert np.isnan(constant["value"]) and "constant is the same for all networks" in constant["note"]
    assert constant["ties"] == 32 * 31 // 2
    assert np.isnan(value(table, "constant", CMI)["value"])
    flat = value(table, "constant", "kendall_tau_a")
    assert flat["value"] == 0 and np.isnan(flat["low"]) and "all resamples agree" in flat["note"]
    tied = value(table, "in_two_levels", "kendall_tau_b")
    assert tied["value"] > value(table, "in_two_levels", "kendall_tau_a")["value"] > 0 and tied["ties"] > 200
    count = stats.ties(np.array([0.0, 1.0, 2.0, 2.0]), np.array([1.0, 1.0, 3.0, np.inf]))
    assert count == 1, "tied in the outcome; and a number that is not finite is unknown"
    rows: Any = table[table["measure"] == "never_there"]
    assert rows["value"].isna().all() and (rows["networks"] == 0).all() and (rows["dropped"] == 32).all()
    gap = value(table, "with_a_gap", "kendall_tau_a")
    assert (gap["networks"], gap["dropped"], gap["cells"]) == (30, 2, 15)
    frame: Any = zoo(made)
    common = judged(frame[frame["run"] > 1], resamples=20)
    for metric in ("tau_difference", "partial_correlation"):
        pair = [value(each, "in_two_levels", metric, given="with_a_gap") for each in (table, common)]
        assert pair[0]["value"] == pair[1]["value"] and pair[0]["networks"] == 30, "over networks that have both"


def known_in(networks: int, *, of: Any = None) -> Any:
    """A measure that only the first networks have: the training's own effect, or the given numbers."""
    return lambda levels, own, random: np.where(np.arange(len(own)) < networks, own if of is None else of, np.nan)


def test_a_row_against_a_rival_that_few_networks_have_is_about_those_alone() -> None:
    measures = {"steps": known_in(32, of=np.arange(32) // 16), "few": known_in(8), "one": known_in(8, of=1.0)}
    table = judged(zoo(measures), resamples=50)
    gain, partial = (value(table, "steps", name, given="few") for name in ("tau_difference", "partial_correlation"))
    for row in (gain, partial):
        assert (row["networks"], row["cells"], row["dropped"], row["ties"]) == (8, 4, 24, 8 * 7 // 2)
        assert "only 4 cells of the grid; steps is the same for all networks" in row["note"]
    assert gain["low"] < gain["high"] and np.isnan(partial["value"]) and "no value: " in partial["note"]
    assert "one is the same for all networks" in value(table, "few", "partial_correlation", given="one")["note"]
    alone = value(table, "steps", "kendall_tau_a")
    assert (alone["networks"], alone["ties"], alone["dropped"]) == (32, 2 * 16 * 15 // 2, 0)


@pytest.mark.parametrize("cells", [3, 4, 7, 8])
def test_a_row_over_few_cells_has_no_interval_and_says_so(cells: int) -> None:
    chance = np.random.default_rng(1).normal(size=32)
    table = judged(zoo({"all": known_in(32, of=chance), "few": known_in(2 * cells)}), resamples=50)
    for metric, given, least in (
        *((name, None, 4) for name in ("kendall_tau_a", "kendall_tau_b", "granulated_tau", CMI)),
        ("tau_difference", "all", 4),
        ("partial_correlation", "all", 8),
    ):
        row = value(table, "few", metric, given=given)
        without = f"no interval: fewer than {least} cells" in row["note"]
        assert row["cells"] == cells and f"only {cells} cells" in row["note"]
        assert np.isfinite(row["value"]) and np.isnan(row["low"]) == without == (cells < least), row
    assert np.isfinite(value(table, "all", "kendall_tau_a")["low"])


def test_the_order_of_the_hyperparameters_changes_nothing() -> None:
    first, second = (judged(zoo(HONEST), hyperparameters=names, resamples=50) for names in (KNOBS, KNOBS[::-1]))
    pd.testing.assert_frame_equal(first, second)


def test_a_hyperparameter_that_never_differs_alone_is_named() -> None:
    frame = zoo(HONEST)
    frame = frame[(frame["width"] == frame["depth"]) & (frame["lr"] == 0)]
    table = judged(frame, resamples=20)
    row = value(table, "is_wrong", "granulated_tau")
    partial = value(table, "is_wrong", "partial_correlation", given="knows_nothing")
    assert partial["cells"] == 4 and np.isfinite(partial["value"]) and np.isnan(partial["low"])
    assert "no interval: fewer than 8 cells" in partial["note"]
    assert "no two networks differ in depth, width alone; one level only of lr" in row["note"]
    assert np.isfinite(row["value"])


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (lambda f: f, {"hyperparameters": ["height"]}, "height"),
        (lambda f: f, {"outcomes": ["beauty"]}, "beauty"),
        (lambda f: f, {"outcomes": ["error"]}, "holds no 'error'"),
        (lambda f: f, {"domain": "mars"}, "mars"),
        (lambda f: f, {"measures": ["sharpness"]}, "sharpness"),
        (lambda f: f, {"measures": []}, "measures must name at least one"),
        (lambda f: f, {"outcomes": []}, "outcomes must name at least one"),
        (lambda f: f, {"hyperparameters": ["training_seed"]}, "several values"),
        (lambda f: f.replace({"better_direction": {"lower": "down"}}), {}, "down"),
        (lambda f: f.assign(converged=False), {}, "no network of frame converged"),
        (lambda f: f.assign(converged=f["converged"].map(str)), {}, "converged must hold True or False; got 'True'"),
        (lambda f: pd.concat([f[f["run"] < 9].replace({"lower": "higher"}), f[f["run"] > 8]]), {}, "one word for all"),
        (lambda f: f, {"resamples": 10**9}, "lie in 1 to 100,000"),
        (lambda f: f[f["width"] + f["depth"] == 0], {"hyperparameters": KNOBS[:2]}, "several values"),
        (lambda f: f[f["run"] < 4], {}, "at least 4 cells"),
        (lambda f: f[f["run"] < 2], {}, "one level each"),
        (lambda f: f[f["metric"] != "loss"], {}, "holds no 'loss'"),
        (lambda f: f[f["metric"] == "loss"], {}, "no measure"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_a_sentence(change: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(dg.DgpruneError, match=says):
        judged(change(zoo(HONEST)), **options)


# --- charts -------------------------------------------------------------------------------------------------------

HOSTILE = "<img src=x onerror=alert(1)> \"'\\"


def words(chart: Any, **parameters: Any) -> list[str]:
    """The texts of a picture, with other values of its parameters."""
    spec = chart.to_dict()
    names = {parameter["name"] for parameter in spec["params"]}
    assert set(parameters) <= names
    for parameter in spec["params"]:
        if parameter["name"] in parameters:
            parameter["value"] = parameters[parameter["name"]]
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", vegalite_to_svg(spec))]


@pytest.fixture(scope="module")
def networks() -> pd.DataFrame:
    levels = lambda levels, own, random: (own > 0) * 1.0  # noqa: E731
    frame = zoo({**HONEST, "in_two_levels": levels, HOSTILE: HONEST["knows_nothing"]}, failed=(3,))
    higher = frame["metric"] == "is_wrong"
    return frame.assign(better_direction=frame["better_direction"].mask(higher, "higher"))


def tau_of(frame: pd.DataFrame, measure: str, *, within: tuple[Any, Any] | None = None) -> tuple[int, float]:
    """Number of networks and tau-a of the measure with the loss, by loops."""
    kept: Any = frame[frame["converged"] & ((frame["domain"] == "fashion") | frame["domain"].isna())]
    x, y = (kept[kept["metric"] == name].set_index("run")["value"] for name in (measure, "loss"))
    runs = [
        run
        for run in y.index
        if within is None or all(a <= v <= b for (a, b), v in zip(within, (x[run], y[run]), strict=True))
    ]
    sign = -1 if measure == "is_wrong" else 1
    taus = [sign * np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in combinations(runs, 2)]
    return len(runs), float(np.mean(taus))


@pytest.mark.parametrize("measure", ["in_two_levels", "is_wrong", HOSTILE])
def test_the_scatter_computes_tau_of_all_and_of_the_selected_networks(networks: pd.DataFrame, measure: str) -> None:
    chart = dg.charts.predictor_scatter(networks, hyperparameters=KNOBS, measure=measure)
    count, tau = tau_of(networks, measure)
    shown = words(chart)
    assert count == 31 and f"All 31 networks, tau-a {tau:+.3f}".replace("-0", "\N{MINUS SIGN}0") in shown
    assert sum("networks, tau-a" in text for text in shown) == 1 and "Drag over points to select some." in shown
    direction = "higher" if measure == "is_wrong" else "lower"
    assert f"{measure.replace('_', ' ')}: {direction} is predicted to be better" in shown
    within = ((-0.5, 1.2), (0.5, 3.5))
    count, tau = tau_of(networks, measure, within=within)
    assert 5 < count < 31
    selected = words(chart, brush=dict(zip("xy", map(list, within), strict=True)))
    assert f"Selected: {count} networks, tau-a {tau:+.3f}".replace("-0", "\N{MINUS SIGN}0") in selected


def test_the_scatter_says_its_axes_and_levels(networks: pd.DataFrame) -> None:
    chart = dg.charts.predictor_scatter(networks, hyperparameters=KNOBS)
    assert {"width 0", "width 1", "loss on fashion (source)"} <= set(words(chart))
    shown = set(words(chart, colour="lr", outcome="generalization gap on shifted (target)", measure="is_wrong"))
    assert {"lr 0", "lr 1", "generalization gap on shifted (target)"} <= shown and "width 0" not in shown


def test_what_the_charts_cannot_draw_is_a_sentence(networks: pd.DataFrame, table: pd.DataFrame) -> None:
    scatter: Any = dg.charts.predictor_scatter
    referee: Any = dg.charts.predictors
    for options in ({"measure": "beauty"}, {"outcome": "beauty"}):
        with pytest.raises(dg.DgpruneError, match="beauty"):
            scatter(networks, hyperparameters=KNOBS, **options)
    with pytest.raises(dg.DgpruneError, match="1 to 400 converged networks"):
        scatter(networks.assign(converged=False), hyperparameters=KNOBS)
    for options in ({"statistic": "beauty"}, {"outcome": "beauty"}):
        with pytest.raises(dg.DgpruneError, match="beauty"):
            referee(table, **options)
    with pytest.raises(dg.DgpruneError, match="table of another kind"):
        dg.charts.predictors(networks)


def test_the_chart_of_the_referee_shows_the_table(table: pd.DataFrame) -> None:
    chart = dg.charts.predictors(table)
    for metric, statistic, sign in (
        ("kendall_tau_a", "Kendall's tau-a", "+"),
        (CMI, "Conditional mutual information", ""),
    ):
        shown = words(chart, statistic=statistic)
        for measure in HONEST:
            row = value(table, measure, metric)
            text = f"{row['value']:{sign}.2f} ({row['low']:.2f} to {row['high']:.2f})".replace("-", "\N{MINUS SIGN}")
            assert text in shown and measure.replace("_", " ") in shown
        assert ("no direction" in " ".join(shown)) == (metric == CMI), "it says nothing about being right"
    assert "#CC79A7" not in vegalite_to_svg(chart.to_dict())
    looked = table.assign(target_aware=True, role="target")
    assert "#CC79A7" in vegalite_to_svg(dg.charts.predictors(looked).to_dict()), "a diamond"
    empty = judged(zoo({"constant": lambda levels, own, random: np.ones(len(own)), **HONEST}), resamples=2)
    assert "no value" in words(dg.charts.predictors(empty, statistic="kendall_tau_b"))


@pytest.mark.browser
def test_tau_follows_the_pointer_in_a_page_without_a_kernel(
    networks: pd.DataFrame, browser: Any, tmp_path: Path
) -> None:
    shown = LiveChart(dg.charts.predictor_scatter(networks, hyperparameters=KNOBS, measure=HOSTILE))
    (tmp_path / "shown.html").write_text(page_text([{"static": shown.static}], title="chart", entry="live_chart"))
    shown.close()
    wrong: list[str] = []
    view = browser.new_page(viewport={"width": 800, "height": 700})
    view.on("pageerror", lambda error: wrong.append(str(error)))
    view.goto((tmp_path / "shown.html").as_uri())
    drawn = view.locator(".dgx-live-chart svg.marks").first
    drawn.wait_for()
    assert "Drag over points" in drawn.text_content() and HOSTILE in drawn.text_content()
    box = drawn.bounding_box()
    view.mouse.move(box["x"] + 150, box["y"] + 180)
    view.mouse.down()
    view.mouse.move(box["x"] + 420, box["y"] + 330, steps=6)
    view.mouse.up()
    view.wait_for_function("() => document.querySelector('svg.marks').textContent.includes('Selected: ')")
    view.get_by_role("combobox", name="measure").select_option("knows_the_training")
    view.wait_for_function(
        "() => document.querySelector('svg.marks').textContent.includes('knows the training: lower')"
    )
    _, tau = tau_of(networks, "knows_the_training")
    assert f"All 31 networks, tau-a {tau:+.3f}" in drawn.text_content()
    view.close()
    assert wrong == []
