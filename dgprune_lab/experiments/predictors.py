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
"""Minimum number of grid cells for an interval: over 3 cells it covers the truth in 89 % of cases."""
SCARCE = 8
"""Minimum number of cells for the interval of a partial correlation: over 4 cells it covers 0 in 80 % of cases."""
FEW = 20
"""A row over fewer cells gets a note."""
_GAP = "generalization_gap"
_NO_PARTIAL = "no value: fewer than 4 networks, or two of measure, outcome and given measure have the same order"
_TAILS = [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2]

Resamples = Annotated[int, Within("lie in 1 to 100,000", lambda value: 1 <= value <= 100_000)]
Floats = NDArray[np.float64]
Part = tuple[str, str | None, Floats, str]
"""Metric, the variable that it conditions on, the estimate followed by its resamples, and a note."""


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

    Every measure and outcome is signed so that a metric above 0 means a correct prediction. Metrics, per measure,
    outcome and domain (formulas in `stats.predictors`):

    - kendall_tau_a, kendall_tau_b: over all pairs of networks; a measure that reflects width alone can score high here.
    - tau_of_one_hyperparameter: tau-a over the pairs that differ in the hyperparameter `given` alone; granulated_tau is
      their mean (Jiang et al. 2020, arXiv:1912.02178).
    - conditional_mutual_information: information of the measure beyond any two hyperparameters (same source). It is
      never below 0, equally high for a measure that is always wrong, and raised by resampling: its interval tells how
      large it is, not whether it is above 0.
    - conditional_mutual_information_pgdl: the variant of the PGDL competition (arXiv:2012.07976), of the generalization
      gap only; the mean over the training seeds whose grid is complete. It has no interval: no resample is complete.
    - tau_difference: tau-a minus that of the measure `given`, paired by resample, over the networks that have both.
    - partial_correlation: Spearman's, given the measure `given`; it does not depend on the scale of a measure.

    The interval "cells" is a 95 % percentile bootstrap that draws cells of the grid (networks that differ only in the
    training seed form one cell); pairs of a network with its own copy are dropped. In simulated grids of 8 to 64 cells,
    two networks each, it covered 0 for uninformative measures in 92 to 96 % of cases (tau_a, tau_difference,
    partial_correlation) and in 96 to 99 % (granulated_tau, whose interval is too wide); in grids of 4 cells in 90 % or
    more. A row over fewer than 4 cells has no interval, and partial_correlation needs 8. Networks whose `converged` is
    False are left out, which is a selection: see `convergence`.

    Args:
        frame: a table of many networks, with a row per network and metric: measures, whose column `better_direction`
            says which direction is predicted to generalise better, and outcomes on the split "report".
        hyperparameters: columns in which the networks differ, except training_seed.
        outcomes: loss, error, accuracy or generalization_gap.
        domain: domain on which the outcomes were measured; None for all.
        measures: the measures to evaluate, each also compared with the others; None for all.
        resamples: number of resamples.

    Returns:
        A tidy table. Further columns: `measure`, `outcome`, `given`, `networks` and `cells` (used in this row),
        `ties` (pairs of them tied in measure or outcome, which count 0 in tau-a and not at all in conditional mutual
        information), `dropped` (networks that did not converge or lack a value), `note` (why a number or an interval is
        missing or weak; every row over fewer than 20 cells has one). The order of `hyperparameters` does not matter.

    Raises:
        DgpruneError: an unknown column, measure, outcome or domain; no converged network, or fewer than 4 cells that
            hold one; no hyperparameter with two levels.
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
    measured = [(name, place) for name in outcomes for place in _domains(table, name, domain)]
    networks = _Networks(table, names, hyperparameters=hyperparameters, resamples=resamples)
    return tidy([row for name, place in measured for row in networks.rows(name, domain=place)], extra=EXTRA)


class _Networks:
    """The networks that converged; `values` (measures, N) and outcomes (N,) are signed so that larger is better."""

    def __init__(
        self, table: NetworkTable, names: list[str], *, hyperparameters: Sequence[str], resamples: int
    ) -> None:
        self.table, self.names, self.kept = table, names, table.settings["converged"]
        settings: Any = table.settings[self.kept]
        self.varied = _select_varied(settings, [name for name in hyperparameters if name != "training_seed"])
        self.constant = [name for name in hyperparameters if name not in self.varied]
        self.levels = np.stack([pd.factorize(settings[h].map(str), sort=True)[0] for h in self.varied], axis=1)
        self.grid = statistics.Grid(self.levels)
        if (cells := len(self.grid.levels)) < LEAST:
            raise DgpruneError(
                f"ranking needs networks in at least {LEAST} cells of the grid of hyperparameters; frame holds "
                f"{cells} with a converged network. Train more networks."
            )
        self.resampled: dict[str, Any] = {"grid": self.grid, "draws": self.grid.draws(resamples)}
        self.values = np.stack([self._signed(table.measures[name], name) for name in names])
        self.seeds = settings["training_seed"].to_numpy()
        self.dropped = int((~self.kept).sum())

    def _signed(self, values: Any, name: str) -> Floats:
        return larger_is_better(values, self.table.better[name])[self.kept]

    def rows(self, of: str, *, domain: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of all measures for the outcome `of` on a domain."""
        outcome, row = self._signed(self.table.outcomes[of, domain], of), self.table.rows[of, domain]
        columns = {name: row.get(name) for name in ("domain", "role", "split", "images")} | {"outcome": of}
        taus = [statistics.kendall(values, outcome, **self.resampled) for values in self.values]
        partial = statistics.partial_correlations(self.values, outcome, **self.resampled)
        for k, (name, values) in enumerate(zip(self.names, self.values, strict=True)):
            known = np.isfinite(values) & np.isfinite(outcome)
            shared = columns | {"measure": name} | most_seen([self.table.rows[name], row])
            counts, weak = self._count(known, {name: values, of: outcome})
            parts = [("kendall_tau_a", None, taus[k][0], ""), ("kendall_tau_b", None, taus[k][1], "")]
            parts += [*self._granulated(values, outcome), *self._information(values, outcome, gap=of == _GAP)]
            for metric, condition, samples, reason in parts:
                share = metric.startswith("conditional")
                cell = {"metric": metric, "given": condition, "unit": "share" if share else "correlation"}
                yield shared | counts | cell | _estimate(samples, cells=counts["cells"], notes=[*weak, reason])
            for j, rival in enumerate(self.names):
                if j == k:
                    continue
                both = known & np.isfinite(self.values[j])
                every = {name: values, of: outcome, rival: self.values[j]}
                counts, weak = self._count(both, every)
                cell = shared | counts | {"given": rival, "unit": "correlation"}
                gain = _estimate(self._gain(k, j, outcome, taus=taus), cells=counts["cells"], notes=weak)
                yield cell | {"metric": "tau_difference"} | gain
                reason = "" if np.isfinite(partial[k, j][0]) else _NO_PARTIAL
                rest = _estimate(partial[k, j], cells=counts["cells"], notes=[*weak, reason], least=SCARCE)
                yield cell | {"metric": "partial_correlation"} | rest

    def _gain(self, k: int, j: int, outcome: Floats, *, taus: Sequence[tuple[Floats, Floats]]) -> Floats:
        """Return tau-a of measure k minus that of measure j, over the networks that have both."""
        first, second = self.values[k], self.values[j]
        unmatched = np.isfinite(first) != np.isfinite(second)
        if not unmatched.any():
            return taus[k][0] - taus[j][0]
        both = [np.where(unmatched, np.nan, values) for values in (first, second)]
        first_tau, second_tau = (statistics.kendall(each, outcome, **self.resampled)[0] for each in both)
        return first_tau - second_tau

    def _granulated(self, values: Floats, outcome: Floats) -> Iterator[Part]:
        taus = statistics.granulated(values, outcome, **self.resampled)
        missing = [name for name, tau in zip(self.varied, taus[0], strict=True) if not np.isfinite(tau)]
        reason = f"no two networks differ in {', '.join(missing)} alone" if missing else ""
        if self.constant:
            reason = "; ".join(filter(None, [reason, f"one level only of {', '.join(self.constant)}"]))
        yield "granulated_tau", None, statistics.mean_of_known(taus), reason
        for name, samples in zip(self.varied, taus.T, strict=True):
            yield "tau_of_one_hyperparameter", name, samples, reason if name in missing else ""

    def _information(self, values: Floats, outcome: Floats, *, gap: bool) -> Iterator[Part]:
        name = "conditional_mutual_information"
        info = statistics.conditional_mutual_information(values, outcome, **self.resampled)
        yield name, None, info, "" if np.isfinite(info[0]) else "no order is left that hyperparameters do not explain"
        if gap:
            yield f"{name}_pgdl", None, *self._pgdl(values, outcome)

    def _pgdl(self, values: Floats, outcome: Floats) -> tuple[Floats, str]:
        """Return the PGDL variant's mean over the training seeds whose grid is complete, and a note."""
        known, reason = [], ""
        seeds = pd.factorize(self.seeds, use_na_sentinel=False)[0]
        for seed in range(seeds.max() + 1):
            of_seed, pgdl = seeds == seed, statistics.conditional_mutual_information_pgdl
            try:
                known.append(pgdl(values[of_seed], outcome[of_seed], levels=self.levels[of_seed]))
            except DgpruneError as error:
                reason = str(error)
        if not known:
            return np.full(1, np.nan), reason
        if not np.isfinite(known).all():
            return np.full(1, np.nan), "no order is left that two hyperparameters do not explain"
        complete = f"{len(known)} of {seeds.max() + 1} training seeds have a complete grid"
        return np.array([sum(known) / len(known)]), complete

    def _count(self, known: NDArray[np.bool_], values: dict[str, Floats]) -> tuple[dict[str, int], list[str]]:
        """Count the known networks, their cells and ties, and the dropped networks; name what makes results weak.

        Ties are those of the first two of `values`, the measure and the outcome.
        """
        first, second, *_ = (np.where(known, each, np.nan) for each in values.values())
        cells = len(np.unique(self.grid.cells[known]))
        counts = {"networks": int(known.sum()), "cells": cells, "ties": statistics.ties(first, second)}
        weak = [f"only {cells} cells of the grid"] if cells < FEW else []
        for name, each in values.items():
            if known.any() and np.ptp(each[known]) == 0:
                weak.append(f"{name} is the same for all networks and orders none")
        return {**counts, "dropped": self.dropped + int((~known).sum())}, weak


def _estimate(samples: Floats, *, cells: int, notes: Sequence[str], least: int = LEAST) -> dict[str, Any]:
    """Return value, interval and note of a statistic: the first sample is the estimate, the others are resamples."""
    value, resampled = float(samples[0]), samples[1:][np.isfinite(samples[1:])]
    estimate: dict[str, Any] = {"value": value}
    reason = ""
    if np.isfinite(value) and len(samples) > 1:
        if cells < least:
            reason = f"no interval: fewer than {least} cells"
        elif len(resampled) and np.ptp(resampled) > 1e-9:
            estimate["low"], estimate["high"] = np.percentile(resampled, _TAILS)
            estimate["interval"] = "cells"
        else:
            reason = "no interval: all resamples agree"
    return {**estimate, "note": "; ".join(filter(None, [*notes, reason]))}


def _domains(table: NetworkTable, outcome: str, domain: str | None) -> list[str]:
    """Return the domains on which an outcome was measured, or only the requested one."""
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


def _select_varied(settings: Any, hyperparameters: Sequence[str]) -> list[str]:
    """Return the hyperparameters with at least two levels, by name, because cells are numbered in this order."""
    if settings.empty:
        raise DgpruneError("no network of frame converged, so there is none to order. Train them for longer.")
    varied = [name for name in sorted(set(hyperparameters)) if settings[name].nunique(dropna=False) > 1]
    if not varied:
        raise DgpruneError(
            f"hyperparameters must hold one with two levels among the converged networks; {', '.join(hyperparameters)} "
            f"have one level each in {len(settings)} networks. Train networks that differ in them."
        )
    return varied
