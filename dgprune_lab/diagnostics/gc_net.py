"""How strongly are consecutive layers connected?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ..core import DgpruneError, provenance_of, tidy
from ..study import GCNet, Study, batchnorm_cell, pooled
from ..study import gc_net as measure
from ._contract import Row, diagnostic

EXTRA = ("group", "layer", "filter", "output")
_ROWS = 250_000


@diagnostic(
    "gc_net",
    extra=EXTRA,
    cite="Wisell, Yasaei Sekeh 2024, Ghost-Connect Net, arXiv:2411.09199; the channel form is our reconstruction",
)
def gc_net(
    study: Study, *, by_class: bool = True, signed: bool = False, split: str = "score", connections: bool = False
) -> pd.DataFrame:
    """Return mean and spread of the connections between every two consecutive layers, with their null level.

    Metrics, for each pair (columns `group`, the filters, and `layer`, their consumer):

    rho_mean               mean of rho over all connections, in [0, 1], or [-1, 1] if signed.
    rho_spread             standard deviation over the connections; `low` and `high` of rho_mean are their 5 and 95 %
                           quantiles (interval "connections": how they differ, not how well the mean is known).
    rho_zero               share of the connections that are exactly 0, because one of the two responses is constant.
    rho_null               mean |rho| when the images of a class are paired at random.
    rho_null_spread        standard deviation of rho under this pairing; a rho_spread near it means near-random pruning.
    rho_null_expected      the analytical expectation of rho_null, about .8 / sqrt(images per class).
    images_per_class       number of images in the smallest class that is used, in any source.
    rho                    one connection (with `connections=True`), columns `filter` and `output`.

    Args:
        study: the network and its domains; only the sources are read.
        by_class: correlate within each true class; if False, over all images together, which reads no label.
        signed: average the correlations themselves instead of their absolute values.
        split: the split of the sources that is read.
        connections: add a row per connection; `charts.gc_net` needs them.

    Raises:
        DgpruneError: more than 250,000 connections requested as rows; and what `dg.gc_net` refuses.
    """
    network = measure(study, by_class=by_class, signed=signed, split=split)
    count = sum(parameter.numel() for parameter in network.parameters())
    if connections and count > _ROWS:
        raise DgpruneError(
            f"this network has {count:,} connections, more than the {_ROWS:,} rows that a table may have; take "
            "dg.gc_net(study), whose parameters hold them and which charts.gc_net draws as well."
        )
    shared = {
        **pooled(study, split, images=None, provenance=provenance_of(network)),
        "scorer": "gc_net",
        "domain": ", ".join(network.images),
        "images": sum(map(sum, network.images.values())),
        "training_seed": study.training_seed,
        "batchnorm": batchnorm_cell(study, "as_is"),
    }
    rows = [*_pair_rows(network), *(_connection_rows(network) if connections else ())]
    return tidy(({**shared, **row} for row in rows), extra=EXTRA)


def _pair_rows(network: GCNet) -> Iterator[Row]:
    for pair in network.pairs:
        spread, key = network.spread[pair.name], {"group": pair.group, "layer": pair.layer}
        ends = {"low": spread.low, "high": spread.high, "interval": "connections"}
        numbers: dict[str, tuple[float, str]] = {
            "rho_mean": (spread.mean, "correlation"),
            "rho_spread": (spread.std, "correlation"),
            "rho_zero": (spread.silent, "share"),
            "rho_null": (pair.null, "correlation"),
            "rho_null_spread": (pair.null_spread, "correlation"),
            "rho_null_expected": (pair.null_expected, "correlation"),
            "images_per_class": (network.smallest, "count"),
        }
        for metric, (value, unit) in numbers.items():
            yield {**key, "metric": metric, "value": value, "unit": unit, **(ends if metric == "rho_mean" else {})}


def _connection_rows(network: GCNet) -> Iterator[Row]:
    for pair in network.pairs:
        key = {"group": pair.group, "layer": pair.layer, "metric": "rho", "unit": "correlation"}
        for (output, number), value in np.ndenumerate(network.rho(pair.name).detach().cpu().numpy()):
            yield {**key, "filter": number, "output": output, "value": float(value)}
