"""Do less stable runs, which lose more accuracy when filters are removed, end with a better network?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from ..core import DgpruneError, most_seen, note, tidy
from ..measurement import has_batchnorm
from ..stats import CORRELATIONS, POOLED, Floats, correlation_over_runs, rate_words
from ..training import PruningRun
from ._contract import Row, Rows, diagnostic

EXTRA = ("run", "treatment", "stage", "remove", "how", "rate", "settings", "runs", "within", "of_metric", "warning")
CONTROLS = ("nothing removed", "removed before training")
LEAST = 8
"""A correlation over fewer runs than this gets a warning."""


@diagnostic(
    "instability",
    extra=EXTRA,
    cite="Bartoldson et al. 2020, The Generalization-Stability Tradeoff, NeurIPS, arXiv:1906.03728, sections 3 and 4.1",
)
def instability(runs: PruningRun | Sequence[PruningRun]) -> pd.DataFrame:
    """Correlate the mean stability of runs with their accuracy at the end.

    Rows about one run (column `run`: its number in the list, from 1). `mean_stability`: 100 (1 - mean relative drop
    over the events), in percent; where `domain` is empty, over all sources. `accuracy`, `loss` and
    `generalization_gap` (accuracy on training images minus accuracy on reported images): at the last epoch (stage
    "last"), and at the epoch that was best on the measured split ("selected on ..."). `rate` is the pruning rate: the
    share of the scheduled layers' filters that an event removes on average. `treatment` says in words what was done to
    the filters; "nothing removed" and "removed before training" are controls.

    Rows about all runs (column `run` is empty). `pearson` and `kendall` (tau-b), in [-1, 1]: the correlation between
    the mean stability on the sources and `of_metric` (accuracy or generalization_gap at the last epoch) on each domain,
    over the runs of one rate, and over all runs (column `within`), without the controls, which are 100 % stable by
    definition. Negative: less stable runs end higher. The interval "runs" is a 95 % percentile bootstrap over runs,
    1,000 resamples; empty for fewer than 3 runs, or where nothing varies. Pooling several
    rates mixes two effects: how much an event removes, and what it removes. A correlation is not a cause.

    Args:
        runs: one run, or several with the same domains and splits, from `dg.train_with_pruning`. Runs that were stopped
            or diverged are left out, with a note.

    Returns:
        A tidy table; `runs` is the number of runs in a correlation, `warning` a caveat if there are fewer than 8: the
        chart shows it instead of the correlation.

    Raises:
        DgpruneError: no finished run, or runs with different domains or splits.
    """
    run_list = [runs] if isinstance(runs, PruningRun) else list(runs)
    finished = {number: run for number, run in enumerate(run_list, start=1) if run.finished}
    if left_out := [number for number in range(1, len(run_list) + 1) if number not in finished]:
        note(f"left out, as they were stopped or diverged: run {', '.join(map(str, left_out))}.")
    if not finished:
        raise DgpruneError("instability needs a finished run of dg.train_with_pruning; got none.")
    _check_alike(list(finished.values()))
    rows = [row for number, run in finished.items() for row in _run_rows(number, run)]
    return tidy([*rows, *_correlations(rows)], extra=EXTRA)


def _check_alike(runs: list[PruningRun]) -> None:
    """Refuse runs with different domains or splits."""
    for key in ("sources", "targets", "split", "report"):
        if any(run.settings[key] != runs[0].settings[key] for run in runs):
            raise DgpruneError(
                f"the runs differ in their {key}, so their numbers are not comparable; compare runs of the same "
                "domains and splits."
            )


def _run_rows(number: int, run: PruningRun) -> Iterator[Row]:
    """Yield the rows about one run, with its settings."""
    cells = {"run": number, "remove": run.settings["remove"], "how": run.settings["how"]}
    cells |= {"rate": run.rate, "settings": _describe_settings(run), "treatment": _name_treatment(run)}
    cells |= {"batchnorm": "as_is"} if has_batchnorm(run.network) else {}
    for row in run.end.drop(columns=["epoch", "event"]).to_dict("records"):
        if row["split"] != "train":
            yield {**row, **cells}


def _name_treatment(run: PruningRun) -> str:
    """Return what was done to the filters, in words."""
    if not any(run.events["epoch"] > 0):
        return "removed before training" if run.settings["events"] else "nothing removed"
    named = {"zero": "zeroed for a while", "noise": "noise", "restore": "restored"}
    return named.get(run.settings["how"], f"{run.settings['remove']} removed")


def _describe_settings(run: PruningRun) -> str:
    """Return the most important settings of a run, in one line."""
    settings, options = run.settings, run.settings["options"]
    passing = "" if settings["how"] == "remove" else f", {settings['how']} for {settings['batches']} batches"
    order = f"{settings['remove']} by {settings['scorer']}" if settings["remove"] != "random" else "random"
    dropout = "" if options["dropout"] is None else f", dropout {options['dropout']:g}"
    removal = f"{order}{passing}, {settings['events']} events" if settings["events"] else "nothing removed"
    return (
        f"{removal}; {options['epochs']} epochs, {options['optimiser']} {options['lr']:g} {options['schedule']}, "
        f"weight decay {options['weight_decay']:g}, augmentation {options['augmentation']}{dropout}, "
        f"seed {options['seed']}"
    )


def _correlations(rows: Rows) -> Iterator[Row]:
    """Yield correlations of the sources' mean stability with each domain's accuracy and each source's gap.

    Over the runs of each rate, and over all runs.
    """
    stable = {r["run"]: r["value"] for r in rows if r["metric"] == "mean_stability" and pd.isna(r["domain"])}
    rows = [row for row in rows if row["treatment"] not in CONTROLS]
    rates = sorted({row["rate"] for row in rows})
    for metric in ("accuracy", "generalization_gap"):
        ends = [r for r in rows if r["metric"] == metric and r["stage"] == "last"]
        for domain in dict.fromkeys(r["domain"] for r in ends):
            of_domain = [r for r in ends if r["domain"] == domain]
            shared = {"domain": domain, "of_metric": metric, "stage": "last"}
            shared |= {name: of_domain[0][name] for name in ("split", "role")}
            shared["target_aware"] = most_seen(of_domain)["target_aware"]
            known = [r for r in of_domain if not pd.isna(stable[r["run"]])]
            for within in (POOLED, *(rates if len(rates) > 1 else ())):
                chosen = [r for r in known if within in (POOLED, r["rate"])]
                x = np.array([stable[r["run"]] for r in chosen], dtype=np.float64)
                y = np.array([r["value"] for r in chosen], dtype=np.float64)
                name = within if isinstance(within, str) else rate_words(within)
                yield from ({**shared, "within": name, **row} for row in _correlation_rows(x, y))


def _correlation_rows(x: Floats, y: Floats) -> Iterator[Row]:
    """Yield Pearson's and Kendall's correlation over these runs, with bootstrap intervals over runs."""
    count = len(x)
    shared: Row = {"interval": "runs", "unit": "correlation", "runs": count}
    if count < LEAST:
        number = f"{count} run" if count == 1 else f"{count} runs"
        shared["warning"] = f"only {number}: a correlation over fewer than {LEAST} says next to nothing."
    for name in CORRELATIONS:
        value, low, high = correlation_over_runs(name, x, y)
        yield {**shared, "metric": name, "value": value, "low": low, "high": high}
