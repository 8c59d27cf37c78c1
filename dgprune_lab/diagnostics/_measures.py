"""Tables of measures that are proposed to predict generalisation: a row per network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from ..core import DgpruneError, tidy
from ..study import Study, batchnorm_cell, labelled_studies, network_names, pooled
from ._contract import Row

Studies = Study | Sequence[Study]

EXTRA = ("network", "better_direction", "tolerance", "training_loss")


def of_weights(studies: Studies, metric: str, *, unit: str, value: Callable[[Study], float]) -> pd.DataFrame:
    """Return the table of a measure that depends on the weights alone."""
    networks = [studies] if isinstance(studies, Study) else list(studies)
    if not networks:
        raise DgpruneError(f"{metric} needs at least one study in studies; got none.")
    shared = {"metric": metric, "unit": unit, "better_direction": "lower"}
    pairs = zip(network_names(networks), networks, strict=True)
    return tidy([{**shared, **_cells(name, study), "value": value(study)} for name, study in pairs], extra=EXTRA)


def of_images(
    studies: Studies, shared: Row, *, row: Callable[[str, Study], Row], split: str, images: int | None
) -> pd.DataFrame:
    """Return the table of a measure on images; `row` returns the values for a network's name and study."""
    named = labelled_studies(studies, split, what=shared["metric"])
    cells = (
        {**_cells(name, study), **pooled(study, split, images=images), **row(name, study)} for name, study in named
    )
    return tidy(({**shared, **network_cells} for network_cells in cells), extra=EXTRA)


def _cells(name: str, study: Study) -> Row:
    return {"network": name, "training_seed": study.training_seed, "batchnorm": batchnorm_cell(study, "as_is")}
