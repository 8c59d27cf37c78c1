"""Which measure of trained networks predicts how they generalise? Judged over a grid of hyperparameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core import (
    OUTCOMES,
    DgpruneError,
    NetworkTable,
    Tidy,
    Within,
    larger_is_better,
    most_seen,
    network_table,
    public,
    tidy,
    unknown,
)
from ..stats import LEVEL, RESAMPLES
from ..stats import predictors as statistics

EXTRA = ("measure", "outcome", "given", "networks", "cells", "ties", "dropped", "note")
LEAST = 4
"""Fewer cells of the grid have no order worth resampling: over 3 an interval covers the truth in 89 %."""
SCARCE = 8
"""Over fewer cells than this the interval of a partial correlation would be too narrow: at 4 it covers 0 in 80 %."""
FEW = 20
"""Over fewer cells than this a row gets a note."""
_GAP = "generalization_gap"
_NO_PARTIAL = "no value: fewer than 4 networks, or two of measure, outcome and given measure have one order"
_TAILS = [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2]

Resamples = Annotated[int, Within("lie in 1 to 100,000", lambda value: 1 <= value <= 100_000)]
Floats = NDArray[np.float64]
Part = tuple[str, str | None, Floats, str]
"""A metric, what it is given, the estimate followed by its resamples, and a note."""


@public
def predictors(
    frame: Tidy,
    *,
    hyperparameters: Sequence[str],
    outcomes: Sequence[str] = ("loss", "error", _GAP),
    domain: str | None = None,
    measures: Sequence[str] | None = None,
    resamples: Resamples = RESAMPLES,
) -> pd.DataFrame:
    """Return how well each measure orders trained networks by how they generalise.

    Every measure and outcome is signed so that above 0 means: predicts correctly. Metrics, per measure, outcome and
    domain (formulas in `stats.predictors`):

    - kendall_tau_a, kendall_tau_b: over all pairs of networks; a measure of the width alone can be high here.
    - tau_of_one_hyperparameter: tau-a over the pairs that differ in the hyperparameter `given` alone; granulated_tau is
      their mean (Jiang et al. 2020, arXiv:1912.02178).
    - conditional_mutual_information: what the measure tells beyond any two hyperparameters (same source). It is as high
      for a measure that is always wrong, never below 0, and raised by resampling: its interval says how large it is,
      not whether it is above 0.
    - conditional_mutual_information_pgdl: the variant of the PGDL competition (arXiv:2012.07976), of the generalization
      gap only; the mean over the training seeds whose grid is complete. It has no interval: no resample is complete.
    - tau_difference: tau-a minus that of the measure `given`, paired by resample, over the networks that have both.
    - partial_correlation: Spearman's, given the measure `given`; it does not depend on the scale of a measure.

    The interval "cells" is a 95 % percentile bootstrap that draws cells of the grid (networks that differ in the
    training seed only belong together); pairs of a network with its own copy are dropped. In simulated grids of 8 to 64
    cells, two networks each, it covered 0 for measures that tell nothing in 92 to 96 % of cases (tau_a, tau_difference,
    partial_correlation) and in 96 to 99 % (granulated_tau, whose interval is too wide); in grids of 4 cells in 90 % or
    more. A row over fewer than 4 cells has no interval, and partial_correlation needs 8. Networks whose `converged` is
    False are left out, which is a selection: see `convergence`.

    Args:
        frame: a table of many networks, with a row per network and metric: measures, whose column `better_direction`
            says which direction is predicted to generalise better, and outcomes on the split "report".
        hyperparameters: columns in which the networks differ, without training_seed.
        outcomes: loss, error, accuracy or generalization_gap.
        domain: domain on which the outcomes were measured; None for all.
        measures: which measures are judged; None for all. Each is a rival of the others.
        resamples: number of resamples.

    Returns:
        A tidy table. Further columns: `measure`, `outcome`, `given`, `networks` and `cells` (that count in this row),
        `ties` (their pairs tied in measure or outcome: 0 in tau-a, dropped in conditional mutual information),
        `dropped` (networks that did not converge or lack a value), `note` (why a number or an interval is missing or
        weak; every row over fewer than 20 cells has one). The order of `hyperparameters` changes nothing.

    Raises:
        DgpruneError: an unknown column, measure, outcome or domain; no converged network, or fewer than 4 cells with
            one; no hyperparameter with two levels.
    """
    table = network_table(frame, hyperparameters=hyperparameters)
    names = list(table.measures) if measures is None else list(dict.fromkeys(measures))
    for name in names:
        if name not in table.measures:
            raise unknown("measure", name, table.measures)
    if not (names and outcomes):
        raise DgpruneError(
            f"{'outcomes' if names else 'measures'} must name at least one metric of the table; got none."
        )
    places = [(name, where) for name in outcomes for where in _domains(table, name, domain)]
    networks = _Networks(table, names, hyperparameters=hyperparameters, resamples=resamples)
    return tidy([row for name, where in places for row in networks.rows(name, where)], extra=EXTRA)


class _Networks:
    """The networks that converged; `values` (measures, N) and outcomes (N,) are signed so that larger is better."""

    def __init__(
        self, table: NetworkTable, names: list[str], *, hyperparameters: Sequence[str], resamples: int
    ) -> None:
        self.table, self.names, self.kept = table, names, table.settings["converged"]
        settings: Any = table.settings[self.kept]
        self.varied = _varied(settings, [name for name in hyperparameters if name != "training_seed"])
        self.constant = [name for name in hyperparameters if name not in self.varied]
        self.levels = np.stack([pd.factorize(settings[h].map(str), sort=True)[0] for h in self.varied], axis=1)
        self.grid = statistics.Grid(self.levels)
        if (cells := len(self.grid.levels)) < LEAST:
            raise DgpruneError(
                f"an order needs networks in at least {LEAST} cells of the grid of hyperparameters; frame holds "
                f"{cells} with a converged network. Train more networks."
            )
        self.resampled: dict[str, Any] = {"grid": self.grid, "draws": self.grid.draws(resamples)}
        self.values = np.stack([self._signed(table.measures[name], name) for name in names])
        self.seeds = settings["training_seed"].to_numpy()
        self.lost = int((~self.kept).sum())

    def _signed(self, values: Any, name: str) -> Floats:
        return larger_is_better(values, self.table.better[name])[self.kept]

    def rows(self, of: str, where: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of all measures about the outcome `of` on the domain `where`."""
        outcome, row = self._signed(self.table.outcomes[of, where], of), self.table.rows[of, where]
        about = {name: row.get(name) for name in ("domain", "role", "split", "images")} | {"outcome": of}
        taus = [statistics.kendall(values, outcome, **self.resampled) for values in self.values]
        partial = statistics.partial_correlations(self.values, outcome, **self.resampled)
        for k, (name, values) in enumerate(zip(self.names, self.values, strict=True)):
            known = np.isfinite(values) & np.isfinite(outcome)
            shared = about | {"measure": name} | most_seen([self.table.rows[name], row])
            counts, weak = self._over(known, {name: values, of: outcome})
            parts = [("kendall_tau_a", None, taus[k][0], ""), ("kendall_tau_b", None, taus[k][1], "")]
            parts += [*self._granulated(values, outcome), *self._information(values, outcome, gap=of == _GAP)]
            for metric, given, drawn, why in parts:
                share = metric.startswith("conditional")
                cell = {"metric": metric, "given": given, "unit": "share" if share else "correlation"}
                yield shared | counts | cell | _estimate(drawn, cells=counts["cells"], notes=[*weak, why])
            for j, rival in enumerate(self.names):
                if j == k:
                    continue
                both = known & np.isfinite(self.values[j])
                every = {name: values, of: outcome, rival: self.values[j]}
                counts, weak = self._over(both, every)
                cell = shared | counts | {"given": rival, "unit": "correlation"}
                gain = _estimate(self._gain(k, j, outcome, taus=taus), cells=counts["cells"], notes=weak)
                yield cell | {"metric": "tau_difference"} | gain
                why = "" if np.isfinite(partial[k, j][0]) else _NO_PARTIAL
                rest = _estimate(partial[k, j], cells=counts["cells"], notes=[*weak, why], least=SCARCE)
                yield cell | {"metric": "partial_correlation"} | rest

    def _gain(self, k: int, j: int, outcome: Floats, *, taus: Sequence[tuple[Floats, Floats]]) -> Floats:
        """Tau-a of measure k minus that of measure j, over the networks of which both are known."""
        first, second = self.values[k], self.values[j]
        apart = np.isfinite(first) != np.isfinite(second)
        if not apart.any():
            return taus[k][0] - taus[j][0]
        both = [np.where(apart, np.nan, values) for values in (first, second)]
        own, other = (statistics.kendall(each, outcome, **self.resampled)[0] for each in both)
        return own - other

    def _granulated(self, values: Floats, outcome: Floats) -> Iterator[Part]:
        each = statistics.granulated(values, outcome, **self.resampled)
        lacks = [name for name, tau in zip(self.varied, each[0], strict=True) if not np.isfinite(tau)]
        why = f"no two networks differ in {', '.join(lacks)} alone" if lacks else ""
        if self.constant:
            why = "; ".join(filter(None, [why, f"one level only of {', '.join(self.constant)}"]))
        yield "granulated_tau", None, statistics.mean_of_known(each), why
        for name, taus in zip(self.varied, each.T, strict=True):
            yield "tau_of_one_hyperparameter", name, taus, why if name in lacks else ""

    def _information(self, values: Floats, outcome: Floats, *, gap: bool) -> Iterator[Part]:
        name = "conditional_mutual_information"
        found = statistics.conditional_mutual_information(values, outcome, **self.resampled)
        yield name, None, found, "" if np.isfinite(found[0]) else "no order is left that hyperparameters do not tell"
        if gap:
            yield f"{name}_pgdl", None, *self._pgdl(values, outcome)

    def _pgdl(self, values: Floats, outcome: Floats) -> tuple[Floats, str]:
        """The mean over the training seeds whose grid is complete."""
        found, why = [], ""
        seeds = pd.factorize(self.seeds, use_na_sentinel=False)[0]
        for seed in range(seeds.max() + 1):
            own = seeds == seed
            try:
                one = statistics.conditional_mutual_information_pgdl(values[own], outcome[own], levels=self.levels[own])
                found.append(one)
            except DgpruneError as error:
                why = str(error)
        if not found:
            return np.full(1, np.nan), why
        if not np.isfinite(found).all():
            return np.full(1, np.nan), "no order is left that two hyperparameters do not tell"
        complete = f"{len(found)} of {seeds.max() + 1} training seeds have a complete grid"
        return np.array([sum(found) / len(found)]), complete

    def _over(self, known: NDArray[np.bool_], values: dict[str, Floats]) -> tuple[dict[str, int], list[str]]:
        """Count the known networks and their cells, ties and lost ones; say what makes numbers over them weak.

        Ties are those of the first two of `values`, the measure and the outcome.
        """
        first, second, *_ = (np.where(known, each, np.nan) for each in values.values())
        cells = len(np.unique(self.grid.cells[known]))
        counts = {"networks": int(known.sum()), "cells": cells, "ties": statistics.ties(first, second)}
        weak = [f"only {cells} cells of the grid"] if cells < FEW else []
        for name, each in values.items():
            if known.any() and np.ptp(each[known]) == 0:
                weak.append(f"{name} is the same for all networks and orders none")
        return {**counts, "dropped": self.lost + int((~known).sum())}, weak


def _estimate(drawn: Floats, *, cells: int, notes: Sequence[str], least: int = LEAST) -> dict[str, Any]:
    """Value, interval and note of a statistic: the first number is the estimate, the others are resamples."""
    value, resampled = float(drawn[0]), drawn[1:][np.isfinite(drawn[1:])]
    found: dict[str, Any] = {"value": value}
    why = ""
    if np.isfinite(value) and len(drawn) > 1:
        if cells < least:
            why = f"no interval: fewer than {least} cells"
        elif len(resampled) and np.ptp(resampled) > 1e-9:
            found["low"], found["high"] = np.percentile(resampled, _TAILS)
            found["interval"] = "cells"
        else:
            why = "no interval: all resamples agree"
    return {**found, "note": "; ".join(filter(None, [*notes, why]))}


def _domains(table: NetworkTable, outcome: str, domain: str | None) -> list[str]:
    """The domains on which an outcome was measured, or the one that was asked for."""
    if outcome not in OUTCOMES:
        raise unknown("outcome", outcome, OUTCOMES)
    measured = [where for name, where in table.outcomes if name == outcome]
    if not measured:
        raise DgpruneError(
            f"outcomes must be metrics of the table; it holds no {outcome!r} on the split 'report', only "
            f"{', '.join(sorted({name for name, _ in table.outcomes}))}."
        )
    if domain is not None and domain not in measured:
        raise unknown("domain", domain, measured)
    return measured if domain is None else [domain]


def _varied(settings: Any, hyperparameters: Sequence[str]) -> list[str]:
    """The hyperparameters with two levels or more among these networks, by name: their order numbers the cells."""
    if settings.empty:
        raise DgpruneError("no network of frame converged, so there is none to order. Train them for longer.")
    found = [name for name in sorted(set(hyperparameters)) if settings[name].nunique(dropna=False) > 1]
    if not found:
        raise DgpruneError(
            f"hyperparameters must hold one with two levels among the converged networks; {', '.join(hyperparameters)} "
            f"have one level each in {len(settings)} networks. Train networks that differ in them."
        )
    return found
