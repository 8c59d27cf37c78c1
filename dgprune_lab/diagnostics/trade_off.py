"""What does each network cost, and how accurate is it on each domain?"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ..core import BatchNorm, Count, DgpruneError, Mask, Outcomes, tidy, yielding
from ..measurement import outcome_rows, worst_rows
from ..study import Study
from ._choices import Choice, choice_of
from ._contract import Rows, Steps, diagnostic

EXTRA = ("network", "kind")


@diagnostic("trade_off", extra=EXTRA, cite="Efron, Tibshirani 1993, chapter 13")
def trade_off(
    study: Study,
    networks: Mapping[str, Mask | nn.Module | None],
    *,
    batchnorm: BatchNorm = "recalibrate",
    split: str = "report",
    images: Count | None = None,
    latency: bool = False,
    progress: bool = False,
) -> Steps:
    """Measure the accuracy and the cost of several networks of one study, which `charts.trade_off` draws.

    For each network (column `network`): accuracy and loss (nats) per domain with labels, with intervals over images;
    worst_domain_accuracy of the sources and of the targets; filters, parameters, macs (per image) and bytes; with
    `latency` also the median milliseconds that 32 images take, with their range.

    Args:
        study: the network and its domains.
        networks: name -> a mask of the study's network; a network pruned from it, such as one that was fine-tuned; None
            for the full network as given.
        batchnorm: for masks, see `diagnostics.drop`; networks and the full network are measured as they are.
        split, images: report on the first `images` images of this split; None for all.
        latency: whether to measure latency, about a second or more per network.
        progress: whether to show a progress bar.

    Returns:
        A tidy table with the columns `network` and `kind` ("network"). For a network that `dg.prune` did not make there
        are no rows of filters.

    Raises:
        DgpruneError: no network; a mask or network of another study; no domain with labels; no image in the split.
    """
    if not networks:
        raise DgpruneError("trade_off needs at least one network: networks={'full': None, 'half': mask}.")
    if all(domain.labels is None for domain in study.domains):
        raise DgpruneError("trade_off needs a domain with labels; this study has none.")
    choices = [choice_of(study, name, chosen, batchnorm=batchnorm) for name, chosen in networks.items()]
    return _steps(choices, split=split, images=images, latency=latency)


def _steps(choices: list[Choice], *, split: str, images: int | None, latency: bool) -> Steps:
    """Measure every network on every domain; yields (done, total)."""
    study, rows = choices[0].study, Rows()
    domains = [domain for domain in study.domains if domain.labels is not None]
    done, total = 0, len(choices) * (len(domains) + latency)
    with study.assume_unchanged():
        for choice in choices:
            outcomes: dict[str, Outcomes] = {}
            for domain in domains:
                steps = choice.outcomes(domain, split=split, images=images)
                outcomes[domain.name] = yield from yielding(steps, (done, total))
                done += 1
                yield done, total
            rows += network_rows(choice, outcomes, split=split)
            if latency:
                rows.append({**choice.latency_row(split), "network": choice.name, "kind": "network"})
                done += 1
                yield done, total
    return tidy(rows, extra=EXTRA)


def network_rows(choice: Choice, outcomes: Mapping[str, Outcomes], *, split: str, kind: str = "network") -> Rows:
    """Return the rows of one network from its outcomes on each domain, without the row of latency."""
    rows = []
    for name, outcome in outcomes.items():
        cells = choice.cells(domain=choice.study.domain(name), split=split)
        rows += [{**cells, "images": len(outcome), **row} for row in outcome_rows(outcome)]
    rows += [*worst_rows(rows), *choice.size_rows()]
    return [{**row, "network": choice.name, "kind": kind} for row in rows]
