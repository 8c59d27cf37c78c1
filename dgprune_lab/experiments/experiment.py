"""What an experiment is: a grid of settings as plain data, and the function that runs one of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

if TYPE_CHECKING:
    import pandas as pd

    from .claims import Claim

Plain = str | int | float | bool | None | tuple[Any, ...]
Settings = Mapping[str, Plain]


class Scratch(Protocol):
    """What a run is given besides its settings.

    Attributes:
        device: the device on which the run computes.
    """

    device: torch.device

    def network(
        self, key: Settings, make: Callable[[], nn.Module], *, fresh: Callable[[], nn.Module] | None = None
    ) -> nn.Module:
        """Return the network that `make` trains, made once per folder and read from it afterwards.

        Args:
            key: all that determines the network, as plain values.
            make: function that trains it.
            fresh: function that returns an untrained network of the same layers, for one that no builder of
                `dg.models` makes.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one run found.

    Attributes:
        rows: rows for `dg.tidy`, with further columns if the experiment declares them in `extra`.
        data: name of each domain -> hash of its images, labels and splits (`domain.key`).
        weights: hash of the network's weights at the end of the run (`models.network_key`).
    """

    rows: Sequence[Mapping[str, Any]]
    data: Mapping[str, str]
    weights: str | None = None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A grid of runs as plain data.

    Attributes:
        name: name of the experiment, also that of its folder.
        question: what it asks, in one sentence.
        run: function at the top level of a module, from (settings, scratch) to what it found. The settings of a run
            are `protocol` and one entry of `grid` together. It must depend on nothing else.
        grid: the settings in which the runs differ, one mapping per run, in the order in which they start. Names that
            are columns of a tidy table (scorer, ratio_requested, training_seed, ...) mean what they mean there.
        protocol: the settings that all runs share.
        extra: columns of the rows beyond the shared ones and the settings.
        claims: function from the table of all runs to what it says about published claims.
        differences: what differs from the published protocol, a sentence each.
        tolerance: by how much an accuracy (a share) may differ when a run is repeated on another machine.
    """

    name: str
    question: str
    run: Callable[[Settings, Scratch], Finding]
    grid: Sequence[Settings]
    protocol: Settings = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    claims: Callable[[pd.DataFrame], Sequence[Claim]] | None = None
    differences: tuple[str, ...] = ()
    tolerance: float = 0.0

    def settings(self, number: int) -> dict[str, Plain]:
        """Return all settings of a run, by its place in the grid."""
        return {**self.protocol, **self.grid[number]}

    def key(self, number: int) -> str:
        """Return a hash of all settings of a run."""
        return key_of({"experiment": self.name, **self.settings(number)})


def key_of(settings: Settings) -> str:
    """Return a hash of plain values, the same in every process and on every machine."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
