"""How strongly do consecutive layers hang together?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pandas as pd

from ..core import SEEN, DgpruneError, Seen, provenance_of, roles_of, tidy
from ..study import GCNet, Study
from ..study import gc_net as measure
from ._contract import diagnostic

EXTRA = ("group", "layer", "filter", "output")
_ROWS = 250_000


@diagnostic(
    "companion",
    extra=EXTRA,
    cite="Wisell, Yasaei Sekeh 2024, Ghost-Connect Net, arXiv:2411.09199; the channel form is our reconstruction",
)
def gc_net(
    study: Study, *, by_class: bool = True, signed: bool = False, split: str = "score", connections: bool = False
) -> pd.DataFrame:
    """The connections of every pair of consecutive layers: their mean, spread, and what chance alone would give.

    Metrics, per pair (columns `group`, the filters that are read, and `layer`, which reads them):

    rho_mean           mean over all connections, in [0, 1], or [-1, 1] when signed.
    rho_spread         standard deviation over the connections; `low` and `high` of rho_mean are their 5 and 95 %
                       quantiles (interval "connections": how they differ, not how well the mean is known).
    rho_zero           share of connections that are exactly 0: a response that does not change.
    floor              mean |rho| when the images of a class are paired at random.
    floor_spread       standard deviation of rho then; a rho_spread near it means near-random pruning.
    floor_expected     the floor by formula, about .8 / sqrt(images of a class), averaged alike.
    images_per_class   of the smallest class that counts, over all sources.
    rho                one connection (with `connections=True`), columns `filter` and `output`.

    Args:
        study: model and domains; its sources are read, never a target.
        by_class: within each true class; over all images together, which reads no label, if False.
        signed: the mean of the correlations instead of their absolute values.
        split: the part of the sources that is read; the record says so.
        connections: a row per connection too; `charts.gc_net` needs them.

    Raises:
        DgpruneError: more than 250,000 connections asked for as rows; and as `dg.gc_net`.
    """
    found = measure(study, by_class=by_class, signed=signed, split=split)
    count = sum(parameter.numel() for parameter in found.parameters())
    if connections and count > _ROWS:
        raise DgpruneError(
            f"this network has {count:,} connections, more than the {_ROWS:,} rows that a table may have; take "
            "dg.gc_net(study), whose parameters hold them and which charts.gc_net draws as well."
        )
    shared = _shared(study, found, split)
    rows = [{**shared, **row} for row in _pair_rows(found)]
    if connections:
        rows += [{**shared, **row} for row in _connection_rows(found)]
    return tidy(rows, extra=EXTRA)


def _shared(study: Study, found: GCNet, split: str) -> dict[str, Any]:
    """The cells that all rows have; of several sources, who looked at what is the most that holds for one."""
    cells = [provenance_of(found).columns(d.name, split, roles=roles_of(study.domains)) for d in study.sources]
    order = get_args(Seen)
    return {
        "scorer": "gc_net",
        "domain": ", ".join(found.images),
        "role": "source",
        "split": split,
        "training_seed": study.training_seed,
        "images": sum(map(sum, found.images.values())),
        "target_aware": cells[0]["target_aware"],
        **{column: max((held[column] for held in cells), key=order.index) for column in SEEN},
    }


def _pair_rows(found: GCNet) -> Iterator[dict[str, Any]]:
    for pair in found.pairs:
        spread, key = found.spread[pair.name], {"group": pair.group, "layer": pair.layer}
        ends = {"low": spread.low, "high": spread.high, "interval": "connections"}
        numbers: dict[str, tuple[float, str]] = {
            "rho_mean": (spread.mean, "correlation"),
            "rho_spread": (spread.std, "correlation"),
            "rho_zero": (spread.silent, "share"),
            "floor": (pair.floor, "correlation"),
            "floor_spread": (pair.floor_std, "correlation"),
            "floor_expected": (pair.expected, "correlation"),
            "images_per_class": (found.smallest, "count"),
        }
        for metric, (value, unit) in numbers.items():
            yield {**key, "metric": metric, "value": value, "unit": unit, **(ends if metric == "rho_mean" else {})}


def _connection_rows(found: GCNet) -> Iterator[dict[str, Any]]:
    for pair in found.pairs:
        key = {"group": pair.group, "layer": pair.layer, "metric": "rho", "unit": "correlation"}
        for output, row in enumerate(found.rho(pair.name).tolist()):
            for number, value in enumerate(row):
                yield {**key, "filter": number, "output": output, "value": value}
