"""The rows of a training run with pruning: its last epoch, its best ones, its events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from torch import nn

from ...core import Domain, Reads, is_missing, provenance_of, roles_of, set_provenance
from ...diagnostics import flatness
from ...measurement import evaluate, measure
from ...pruning import deep_copy
from ...study import Study
from ...training import PruneEvent, PruningRun, StageEvent
from ..instability_correlations import FLATNESS
from ._common import filled, gap_row

TEST = "selected on test"


def follow_run(steps: Any, source: Domain) -> tuple[PruningRun, nn.Module]:
    """Run all epochs; return the result, and the network that was best on the reported images of the source."""
    best: tuple[float, nn.Module] | None = None
    while True:
        try:
            event = next(steps)
        except StopIteration as stop:
            run: PruningRun = stop.value
            return run, run.network if best is None else best[1]
        if isinstance(event, PruneEvent | StageEvent) and getattr(event, "stage", "") != "full":
            network = event.so_far.network
            accuracy = evaluate(network, source, "report").accuracy
            best = (accuracy, network) if best is None or accuracy > best[0] else best


def run_rows(run: PruningRun, best: nn.Module, *, domains: Sequence[Domain]) -> list[dict[str, Any]]:
    """Return the rows of a finished run; `events` is the number of events behind a mean stability or drop.

    In rows about the end of the run, and in those over all sources, `events` is the number for the source.

    Args:
        run: the run.
        best: its network of the epoch that was best on the reported images of the source.
        domains: the source, then the shifted domain.
    """
    rows = [*_end_rows(run), *_test_rows(best, domains), *_event_rows(run, domains)]
    events = {"events": len(counted_drops(run, domains[0].name))}
    return [{**events, **row} for row in rows if not is_missing(row["value"])]


def flatness_rows(run: PruningRun, source: Domain, *, images: int) -> list[dict[str, Any]]:
    """Return the flatness of the training loss around the network at the last epoch, on the first images."""
    study = Study(run.network, sources=[source], name="end")
    table: Any = flatness(study, top=2, images=images, steps=(), seed=run.settings["options"]["seed"], draws=2)
    rows = table[table["metric"].isin(FLATNESS)].to_dict("records")
    return [{**filled(row), "stage": "last", "events": len(counted_drops(run, source.name))} for row in rows]


def _end_rows(run: PruningRun) -> Iterator[dict[str, Any]]:
    """Yield accuracy, loss and gap at the last epoch, and accuracy and gap at the one that was best on `score`."""
    for row in run.end.to_dict("records"):
        metrics = ("accuracy", "generalization_gap", *(("loss",) if row["stage"] == "last" else ()))
        if row["split"] == "report" and row["metric"] in metrics:
            yield filled(row, "stage")


def _test_rows(network: nn.Module, domains: Sequence[Domain]) -> Iterator[dict[str, Any]]:
    """Yield accuracy and gap of the network that was chosen on the reported images of the source."""
    source = domains[0]
    chosen, reads = deep_copy(network).eval(), cast(Reads, {f"{source.name}/report": "labels"})
    set_provenance(chosen, provenance_of(network).adding("selection", reads))
    for row in measure(chosen, domains, split="report", latency=False).to_dict("records"):
        if row["metric"] == "accuracy":
            cells = {**filled(row), "stage": TEST}
            yield cells
            if row["domain"] == source.name:
                yield gap_row(cells, trained=evaluate(network, source, "train").accuracy)


def _event_rows(run: PruningRun, domains: Sequence[Domain]) -> Iterator[dict[str, Any]]:
    """Yield mean stability over sources and per domain, and the mean relative and absolute drop of an event."""
    provenance, roles = provenance_of(run.network), roles_of(domains)
    for name in (None, *roles):
        cells: dict[str, Any] = {"stage": "last", "split": "score"}
        drops = [] if name is None else counted_drops(run, name)
        if name is not None:
            labels = {"domain": name, "role": roles[name], "events": len(drops)}
            cells |= {**labels, **provenance.columns(name, "score", roles=roles)}
        yield {**cells, "metric": "mean_stability", "value": run.stability(name), "unit": "%"}
        for k, metric in enumerate(("mean_relative_drop", "mean_absolute_drop") if drops else ()):
            value = sum(drop[k] for drop in drops) / len(drops)
            yield {**cells, "metric": metric, "value": value, "unit": "share"}


def counted_drops(run: PruningRun, domain: str) -> list[tuple[float, float]]:
    """Return relative and absolute drops of the events that count: during training, from an accuracy above chance."""
    events: Any = run.events[(run.events["domain"] == domain) & (run.events["epoch"] > 0)]
    if events.empty:
        return []
    known = events.pivot(index="event", columns="metric", values="value").dropna(subset=["relative_drop"])
    return [(row["relative_drop"], -row["accuracy_change"]) for row in known.to_dict("records")]
