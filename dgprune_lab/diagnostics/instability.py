"""Do runs that pruning hurt more end better?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core import DgpruneError, note, tidy
from ..stats import LEVEL, RESAMPLES
from ..training import PruningRun
from ._contract import diagnostic

EXTRA = ("run", "stage", "remove", "how", "rate", "settings", "runs", "within", "of_metric", "warning")
LEAST = 8
"""Below so many runs a correlation is not worth reading; it is given with a warning."""
POOLED = "all rates"

Floats = NDArray[np.float64]


@diagnostic(
    "instability",
    extra=EXTRA,
    cite="Bartoldson et al. 2020, The Generalization-Stability Tradeoff, NeurIPS, arXiv:1906.03728, sections 3 and 4.1",
)
def instability(runs: PruningRun | Sequence[PruningRun]) -> pd.DataFrame:
    """Mean stability against what each run comes to: a row per run and number, then correlations over the runs.

    Per run (column `run`: its place in the list): `mean_stability` in percent, 100 (1 - mean over the events of the
    relative drop), over all sources where `domain` is empty; `accuracy`, `loss` and `gap` (training images minus
    reported ones) at the last epoch (stage "last") and at the one that was best on the measured part ("selected on
    ..."). `rate` is the pruning rate: the mean share of the scheduled layers' filters that one event takes.

    Over the runs, where the column `run` is empty: metrics `pearson` and `kendall` (tau-b), in [-1, 1], of the sources'
    mean stability with `of_metric` (accuracy or gap, last epoch) of each domain, `within` one rate and over all;
    negative = less stable runs end higher. The interval "runs" is a 95 % percentile bootstrap over runs, 1,000
    resamples; empty below 3 runs, or where nothing varies. Pooling several rates mixes two effects: runs that lose
    more at a time, and runs that lose something else. A correlation says nothing about causes.

    Args:
        runs: one, or several of the same domains and parts, as `dg.train_with_pruning` gives them. Runs that were
            stopped or diverged are left out, and that is said.

    Returns:
        A tidy table; `runs` is how many a correlation has, `warning` a sentence where they are fewer than 8.

    Raises:
        DgpruneError: no finished run, or runs that measured other domains or parts.
    """
    given = [runs] if isinstance(runs, PruningRun) else list(runs)
    finished = {number: run for number, run in enumerate(given, start=1) if run.finished}
    if left_out := [number for number in range(1, len(given) + 1) if number not in finished]:
        note(f"left out, as they were stopped or diverged: run {', '.join(map(str, left_out))}.")
    if not finished:
        raise DgpruneError("instability needs a finished run of dg.train_with_pruning; got none.")
    _check_alike(list(finished.values()))
    rows = [row for number, run in finished.items() for row in _run_rows(number, run)]
    found = list(_correlations(rows))
    usable = max((row["runs"] for row in found), default=len(finished))  # one without a stability does not count
    if usable < LEAST:
        note(f"{_warning(usable)} The table says so too.")
    return tidy([*rows, *found], extra=EXTRA)


def tau_b(x: Floats, y: Floats) -> float:
    """Kendall's rank correlation, ties counted as Kendall 1945 does; NaN where one of them does not vary.

    >>> round(tau_b(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])), 3)
    0.333
    """
    a, b = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size else float("nan")


def pearson(x: Floats, y: Floats) -> float:
    """Pearson's correlation; NaN where one of them does not vary."""
    a, b = x - x.mean(), y - y.mean()
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size > 1e-15 else float("nan")


def _check_alike(runs: list[PruningRun]) -> None:
    """Refuse runs that are not about the same images."""
    for key in ("sources", "targets", "split", "report"):
        if any(run.settings[key] != runs[0].settings[key] for run in runs):
            raise DgpruneError(
                f"the runs differ in their {key}, so their numbers cannot be set beside each other; compare runs of "
                "the same domains and parts."
            )


def _run_rows(number: int, run: PruningRun) -> Iterator[dict[str, Any]]:
    """What a run comes to, with the settings it had."""
    settings = run.settings
    about = {
        "run": number,
        "remove": settings["remove"],
        "how": settings["how"],
        "rate": _rate(run),
        "settings": _words(run),
    }
    for row in run.end.drop(columns=["epoch", "event"]).to_dict("records"):
        if row["split"] != "train":
            yield {**row, **about}


def _rate(run: PruningRun) -> float:
    """Mean share of the scheduled layers' filters that one event takes; 0 where nothing goes."""
    gone = {row["event"]: row["filters"] for row in run.events.to_dict("records")}
    total = sum(run.settings["filters"].values())
    return round(sum(gone.values()) / len(gone) / total, 4) if gone else 0.0


def _words(run: PruningRun) -> str:
    """The settings that reviewers ask about, in one line."""
    held, options = run.settings, run.settings["options"]
    passing = "" if held["how"] == "remove" else f", {held['how']} for {held['batches']} batches"
    what = f"{held['remove']} by {held['scorer']}" if held["remove"] != "random" else "random"
    dropout = "" if options["dropout"] is None else f", dropout {options['dropout']:g}"
    what = "nothing removed" if not held["events"] else f"{what}{passing}, {held['events']} events"
    return (
        f"{what}; {options['epochs']} epochs, {options['optimiser']} {options['lr']:g} {options['schedule']}, weight "
        f"decay {options['weight_decay']:g}, augmentation {options['augmentation']}{dropout}, seed {options['seed']}"
    )


def _correlations(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Of the sources' mean stability with every domain's accuracy and every source's gap, per rate and pooled."""
    stable = {r["run"]: r["value"] for r in rows if r["metric"] == "mean_stability" and pd.isna(r["domain"])}
    rates = {r["run"]: r["rate"] for r in rows}
    several = sorted({rate for run, rate in rates.items() if rate > 0})
    for metric in ("accuracy", "gap"):
        ends = [r for r in rows if r["metric"] == metric and r["stage"] == "last"]
        for domain in dict.fromkeys(r["domain"] for r in ends):
            mine = [r for r in ends if r["domain"] == domain and not pd.isna(stable[r["run"]])]
            shared = {"domain": domain, "of_metric": metric, "stage": "last"}
            shared |= {name: ends[0][name] for name in ("split",)} | {"role": _role(ends, domain)}
            for within in (POOLED, *(several if len(several) > 1 else ())):
                chosen = [r for r in mine if within == POOLED or r["rate"] == within]
                x = np.array([stable[r["run"]] for r in chosen], dtype=np.float64)
                y = np.array([r["value"] for r in chosen], dtype=np.float64)
                words = within if isinstance(within, str) else f"{100 * within:.3g} % an event"
                yield from ({**shared, "within": words, **row} for row in _two(x, y))


def _role(rows: list[dict[str, Any]], domain: str) -> Any:
    return next(row["role"] for row in rows if row["domain"] == domain)


def _two(x: Floats, y: Floats) -> Iterator[dict[str, Any]]:
    """Both correlations of these runs, with their bootstrap over runs."""
    generator, count = np.random.default_rng(len(x)), len(x)
    drawn = generator.integers(0, max(count, 1), size=(RESAMPLES, count))
    for name, statistic in (("pearson", pearson), ("kendall", tau_b)):
        value = low = high = float("nan")
        if count >= 3 and not np.isnan(value := statistic(x, y)):
            found = np.array([statistic(x[index], y[index]) for index in drawn])
            tail = (1 - LEVEL) / 2 * 100
            low, high = np.percentile(found[~np.isnan(found)], [tail, 100 - tail])
        yield {
            "metric": name,
            "value": value,
            "low": low,
            "high": high,
            "interval": "runs",
            "unit": "correlation",
            "runs": count,
            "warning": _warning(count) if count < LEAST else None,
        }


def _warning(count: int) -> str:
    runs = f"{count} run" + ("" if count == 1 else "s")
    return f"only {runs}: a correlation over fewer than {LEAST} says next to nothing."
