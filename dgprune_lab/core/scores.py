"""Scores: one number per filter, or per weight, higher = keep; and masks of single weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any

import pandas as pd
import torch
from torch import Tensor

from .border import public
from .errors import DgpruneError, unknown
from .frozen import Frozen
from .graph import FilterGraph
from .kinds import Columns, Share
from .provenance import Reads, check_reads, declared
from .tables import Scope


@public
@dataclass(frozen=True, eq=False)
class Scores:
    """One number per filter and group; higher = keep. Scores cannot be changed; reading them gives a copy.

    Attributes:
        scorer: name of the scorer that made the scores.
        values: group name -> (C,) float64, finite.
        graph: the filter groups of the network.
        options: the scorer's options, with the seed if it draws random numbers.
        reads: what the scorer read of each split, {"mnist/score": "labels"}; {} for nothing, None for unknown.
        network: a hash of the network for which a study computed the scores; studies of other networks refuse them.
            None for scores made in another way, which every study with the same layers takes.
    """

    scorer: str
    values: Mapping[str, Tensor]
    graph: FilterGraph = field(repr=False)
    _: KW_ONLY
    options: Mapping[str, Any] = field(default_factory=dict)
    reads: Reads = None
    network: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_reads(self.reads, what=f"the scores {self.scorer!r}")
        for name in self.values:
            if name not in self.graph.names:
                raise unknown("layer", name, self.graph.names)
        for group in self.graph.groups:
            if group.name not in self.values:
                raise DgpruneError(f"scores of {self.scorer!r} lack the layer {group.name!r}; every layer needs them.")
            values = self.values[group.name]
            if tuple(values.shape) != (group.filters,):
                raise DgpruneError(
                    f"scorer {self.scorer!r} must give one number per filter: layer {group.name!r} has "
                    f"{group.filters} filters, it gave shape {tuple(values.shape)}."
                )
            _check_numbers(values, f"scorer {self.scorer!r} gave", f"layer {group.name!r}, filters")
        raw = {"values": self.values, "options": self.options, **({} if self.reads is None else {"reads": self.reads})}
        self.__dict__.update({name: Frozen(value) for name, value in raw.items()})

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"Scores({self.scorer}{options}: {self.graph.free} filters in {len(self.graph.groups)} layers)"

    @classmethod
    def from_frame(
        cls,
        frame: Annotated[pd.DataFrame, Columns(("layer", "filter", "score"))],
        *,
        graph: FilterGraph,
        scorer: str = "from_frame",
        reads: Mapping[str, Any] | None = None,
    ) -> Scores:
        """Make scores from a table with the columns layer, filter and score, a row per filter.

        Args:
            frame: the table.
            graph: the filter groups of the network.
            scorer: name under which tables and charts show the scores.
            reads: what was read of each split to make the scores, "images" or "labels": {"mnist_m/score": "images"};
                {} for nothing. None is shown as unknown.

        Raises:
            DgpruneError: columns that are missing; rows of several scorers; layers or filters that do not exist, occur
                twice or have no finite score; a key of `reads` that names no split.
        """
        reads, values = declared(reads, what=f"the scores {scorer!r}"), {}
        _check_table(frame, graph)
        for group in graph.groups:
            rows = frame.loc[frame["layer"] == group.name, ["filter", "score"]].to_numpy(dtype=float)
            numbers = rows[:, 0]
            if not ((numbers >= 0) & (numbers < group.filters) & (numbers % 1 == 0)).all():
                raise DgpruneError(
                    f"layer {group.name!r} has filters 0 to {group.filters - 1}; the table names others."
                )
            if len(set(numbers.tolist())) < len(numbers):
                raise DgpruneError(f"the table has several rows for one filter of layer {group.name!r}; keep one each.")
            if missing := sorted(set(range(group.filters)) - set(numbers.astype(int).tolist())):
                raise DgpruneError(
                    f"the table has no row for the filters {missing[:8]} of layer {group.name!r}, which has "
                    f"{group.filters}; give a row for each."
                )
            column = values[group.name] = torch.full((group.filters,), torch.nan, dtype=torch.float64)
            column[torch.from_numpy(numbers).long()] = torch.from_numpy(rows[:, 1])
        return cls(scorer, values, graph, reads=reads)

    def to_frame(self) -> pd.DataFrame:
        """Return a row per filter: scorer, layer, filter, score."""
        rows = [
            (self.scorer, name, k, v) for name, column in self.values.items() for k, v in enumerate(column.tolist())
        ]
        return pd.DataFrame(rows, columns=["scorer", "layer", "filter", "score"])


def _check_table(frame: pd.DataFrame, graph: FilterGraph) -> None:
    """Refuse a table that does not hold the scores of exactly one scorer for the layers of the graph."""
    scorers = list(frame["scorer"].unique()) if "scorer" in frame.columns else []
    if len(scorers) > 1:
        raise DgpruneError(
            f"the table holds scores of several scorers ({', '.join(map(str, scorers))}); choose one: "
            f"frame[frame.scorer == {scorers[0]!r}]."
        )
    for name in frame["layer"].unique():
        if name not in graph.names:
            raise unknown("layer", name, graph.names)
    for name in ("filter", "score"):
        if not pd.api.types.is_numeric_dtype(frame[name]) or pd.api.types.is_bool_dtype(frame[name]):
            raise DgpruneError(f"column {name!r} of the table must hold numbers; it holds {frame[name].dtype}.")


def _check_numbers(values: Tensor, gave: str, where: str) -> None:
    """Refuse scores that are not real, finite numbers, because they cannot be ranked."""
    if values.is_meta or values.is_complex():
        kind = "tensors on the meta device, which hold no values," if values.is_meta else f"{values.dtype} numbers"
        raise DgpruneError(f"{gave} {kind} as scores in {where.rpartition(',')[0]}; scores must be real numbers.")
    if not torch.isfinite(values).all():
        bad = (~torch.isfinite(values)).flatten().nonzero().flatten().tolist()
        raise DgpruneError(f"{gave} NaN or infinite scores in {where} {bad[:8]}; scores must be finite.")


@public
@dataclass(frozen=True, eq=False)
class WeightScores:
    """One number per single weight: parameter name -> tensor of the parameter's shape; higher = keep."""

    scorer: str
    values: Mapping[str, Tensor]
    _: KW_ONLY
    options: Mapping[str, Any] = field(default_factory=dict)
    reads: Reads = None

    def __post_init__(self) -> None:
        check_reads(self.reads, what=f"the scores {self.scorer!r}")
        if not self.values:
            raise DgpruneError(f"values of the scores {self.scorer!r} name no parameter; give one tensor or more.")
        for name, values in self.values.items():
            _check_numbers(values, f"scorer {self.scorer!r} gave", f"parameter {name!r}, weights")

    def __repr__(self) -> str:
        weights = sum(value.numel() for value in self.values.values())
        return f"WeightScores({self.scorer}: {weights:,} weights in {len(self.values)} tensors)"


@public
@dataclass(frozen=True, eq=False)
class WeightMask:
    """Which single weights stay: parameter name -> bool of the parameter's shape. They can be masked, not removed."""

    keep: Mapping[str, Tensor]
    ratio_requested: Share
    _: KW_ONLY
    scope: Scope = "global"
    scorer: str = "by hand"
    reads: Reads = None

    def __post_init__(self) -> None:
        check_reads(self.reads, what=f"the mask {self.scorer!r}")
        for name, keep in self.keep.items():
            if keep.dtype != torch.bool:
                raise DgpruneError(f"a mask of single weights needs bool, True = keep; {name} has {keep.dtype}.")

    def __repr__(self) -> str:
        total, kept = (sum(int(k.numel() if all_ else k.sum()) for k in self.keep.values()) for all_ in (True, False))
        return (
            f"WeightMask({self.scorer}: {self.ratio_requested:.1%} of the weights requested, scope {self.scope}, "
            f"{self.ratio_achieved:.1%} zeroed; {kept:,} of {total:,} stay in {len(self.keep)} tensors)"
        )

    @property
    def ratio_achieved(self) -> float:
        """Share of the weights that the mask sets to zero; 0 for an empty mask."""
        total = sum(keep.numel() for keep in self.keep.values())
        return 1 - sum(int(keep.sum()) for keep in self.keep.values()) / total if total else 0.0
