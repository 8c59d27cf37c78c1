"""An experiment: a grid of settings as plain data, and the function that computes one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core import public
from .scratch import Scratch
from .settings import Plain, Settings, key_of

if TYPE_CHECKING:
    import pandas as pd

    from .claims import Claim


@public
@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one run.

    Attributes:
        rows: rows for `dg.tidy`, with further columns if the experiment declares them in `extra`.
        data: name of each domain -> hash of its images, labels and splits (`domain.key`).
        weights: hash of the network's weights at the end of the run (`models.network_key`).
    """

    rows: Sequence[Mapping[str, Any]]
    data: Mapping[str, str]
    weights: str | None = None


@public
@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A grid of runs as plain data.

    Attributes:
        name: name of the experiment, also that of its folder.
        question: the question it asks, in one sentence.
        run: function at the top level of a module, from (settings, scratch) to a `Finding`. The settings of a run are
            `protocol` and one entry of `grid` together; the function must depend on nothing else.
        grid: the settings in which the runs differ, one mapping per run, in the order in which they start. Names that
            are columns of a tidy table (scorer, ratio_requested, training_seed, ...) keep their meaning.
        protocol: the settings that all runs share.
        extra: columns of the rows beyond the shared ones and the settings.
        ready: function that raises a DgpruneError if data or packages that the runs need are missing; it is called
            before the first run on this machine, so that no run fails for this reason.
        claims: function from the table of all runs to the claims that it tests.
        cite: the papers and data sets behind it, for `dg.cite` of its table: "Sun 2023, arXiv:2306.13237".
        differences: what differs from the published protocol, a sentence each.
        tolerance: by how much an accuracy (a share) may differ when a run is repeated on another machine with the same
            kind of processor. Other kinds round sums differently, and training amplifies the difference.
    """

    name: str
    question: str
    run: Callable[[Settings, Scratch], Finding]
    grid: Sequence[Settings]
    protocol: Settings = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    ready: Callable[[], object] | None = None
    claims: Callable[[pd.DataFrame], Sequence[Claim]] | None = None
    cite: str = ""
    differences: tuple[str, ...] = ()
    tolerance: float = 0.0

    def settings(self, number: int) -> dict[str, Plain]:
        """Return all settings of the run at this index of the grid."""
        return {**self.protocol, **self.grid[number]}

    def key(self, number: int) -> str:
        """Return a hash of all settings of the run at this index of the grid."""
        return key_of({"experiment": self.name, **self.settings(number)})
