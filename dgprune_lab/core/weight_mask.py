"""Masks of single weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from .border import public
from .errors import DgpruneError
from .kinds import Share
from .provenance import Reads, check_reads
from .tables import Scope


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
        """Share of the weights that the mask sets to zero; 0 for a mask of no tensor."""
        total = sum(keep.numel() for keep in self.keep.values())
        return 1 - sum(int(keep.sum()) for keep in self.keep.values()) / total if total else 0.0
